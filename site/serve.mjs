// Shows a built site: node serve.mjs FOLDER [PORT].  It prints the address, and runs until
// it is stopped.  It listens on this machine alone.
import { createServer } from 'node:http'
import { readFile, stat } from 'node:fs/promises'
import { extname, join, normalize, sep } from 'node:path'
import { pathToFileURL } from 'node:url'

const types = {
  '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml',
  '.json': 'application/json', '.woff2': 'font/woff2', '.png': 'image/png', '.wasm': 'application/wasm',
}

export function serve(folder, port = 0) {
  const server = createServer(async (request, response) => {
    try {
      let file = normalize(join(folder, decodeURIComponent(new URL(request.url, 'http://x').pathname)))
      if (!(file + sep).startsWith(normalize(folder + sep))) throw new Error('outside')
      if ((await stat(file)).isDirectory()) file = join(file, 'index.html')
      const body = await readFile(file)
      response.writeHead(200, { 'Content-Type': types[extname(file)] ?? 'application/octet-stream' }).end(body)
    } catch {
      const body = await readFile(join(folder, '404.html')).catch(() => 'not found')
      response.writeHead(404, { 'Content-Type': types['.html'] }).end(body)
    }
  })
  return new Promise((resolve, reject) => {
    server.on('error', reject)
    server.listen(port, '127.0.0.1', () => resolve({ server, address: `http://127.0.0.1:${server.address().port}` }))
  })
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { address } = await serve(process.argv[2], Number(process.argv[3] ?? 0))
  console.log(`the book: ${address}/ (Ctrl-C stops it)`)
}
