// Makes the pages that VitePress renders, in the folder given: the chapters as they are in
// book/chapters, the repository's documents, a page for each source file that one of them
// links to, one page with all chapters for printing, and data for the home page.
//
//   node prepare.mjs FOLDER
//
// All of it follows from the files that are there: a new chapter needs nothing here.
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join, posix } from 'node:path'
import { fileURLToPath } from 'node:url'

const site = dirname(fileURLToPath(import.meta.url))
const root = dirname(site)
const out = process.argv[2]
const read = (file) => readFileSync(join(root, file), 'utf8')
const has = (file) => existsSync(join(root, file))
const list = (folder, ending) =>
  has(folder) ? readdirSync(join(root, folder)).filter((name) => name.endsWith(ending)).sort() : []

function write(file, text) {
  mkdirSync(dirname(join(out, file)), { recursive: true })
  writeFileSync(join(out, file), text)
}

const title = (text) => text.match(/^# (.*)$/m)[1]
// A page's front matter; JSON is YAML, too.
const front = (values) =>
  `---\n${Object.entries(values).map(([k, v]) => `${k}: ${JSON.stringify(v)}`).join('\n')}\n---\n\n`

// --- What there is ---------------------------------------------------------------

for (const folder of ['chapters', 'code', 'docs', 'play', 'public', 'slides'])
  rmSync(join(out, folder), { recursive: true, force: true })

const chapters = list('book/chapters', '.md').map((name) => {
  const file = `book/chapters/${name}`
  const text = read(file)
  return {
    file,
    page: `chapters/${name}`,
    title: title(text),
    number: Number(name.slice(0, 2)),
    minutes: Number(text.match(/^\*About (\d+) minutes/m)?.[1] ?? 0),
    text,
  }
})

// The repository's other documents, if they are there: file, page, the sidebar's words.
const documents = [
  ['book/teachers.md', 'teachers.md', 'For teachers'],
  ['README.md', 'docs/readme.md', 'The repository'],
  ['docs/gdb.md', 'docs/gdb.md', 'Looking inside with gdb'],
  ['docs/stats.md', 'docs/stats.md', 'Counting exits'],
  ['docs/bench.md', 'docs/bench.md', 'How fast it is'],
  ['docs/security.md', 'docs/security.md', 'What a guest can’t do'],
  ['CONTRIBUTING.md', 'docs/contributing.md', 'Contributing'],
  ['site/README.md', 'docs/site.md', 'This site'],
]
  .filter(([file]) => has(file))
  .map(([file, page, words]) => ({ file, page, words, text: read(file) }))

// --- The code: every file that a page names ---------------------------------------

// In the order of the README's table.
const sources = [...read('README.md').matchAll(/^\| \[([\w.]+)\]\(\1\) \|/gm)].map((m) => m[1])
for (const more of ['hv.ld', 'Makefile', 'run.sh', 'gdb/hv.py']) if (has(more)) sources.push(more)
const pages = new Map([...chapters, ...documents].map(({ file, page }) => [file, page]))
for (const { file, text } of [...chapters, ...documents])
  for (const [, target] of text.matchAll(/\]\(([^)\s#]+)(?:#[^)]*)?\)/g)) {
    if (/^\w+:/.test(target) || target.endsWith('.svg')) continue
    const path = posix.normalize(posix.join(posix.dirname(file), target))
    if (path.startsWith('..') || !has(path)) throw new Error(`${file}: no ${target}`)
    if (!pages.has(path) && !sources.includes(path)) sources.push(path)
  }

const languages = { c: 'c', h: 'c', S: 'riscv', ld: 'c', dts: 'c', py: 'python', sh: 'bash', json: 'json', toml: 'toml', md: 'md' }
const language = (file, text) =>
  posix.basename(file) === 'Makefile' ? 'make'
    : languages[posix.extname(file).slice(1)] ?? (/^#!.*python/.test(text) ? 'python' : /^#!.*sh/.test(text) ? 'bash' : 'txt')

for (const file of sources) {
  const page = `code/${file}.md`
  pages.set(file, page)
  const folder = statSync(join(root, file)).isDirectory()
  const text = folder ? readdirSync(join(root, file)).sort().join('\n') : read(file)
  const fence = '`'.repeat(Math.max(3, ...[...text.matchAll(/`{3,}/g)].map((m) => m[0].length + 1)))
  const readme = read('README.md').match(new RegExp(`^\\| \\[${file}\\]\\(.*?\\) \\| \\d+ \\| (.*) \\|$`, 'm'))
  write(
    page,
    front({ title: file, search: false, outline: false, pageClass: 'code', prev: false, next: false }) +
      `# ${file}\n\n${readme ? `${readme[1][0].toUpperCase()}${readme[1].slice(1)}.\n\n` : ''}` +
      `${fence}${folder ? 'txt' : `${language(file, text)}:line-numbers`}\n${text.trimEnd()}\n${fence}\n`,
  )
}

// --- The chapters and documents ------------------------------------------------------

// After the last chapter the book ends, and the documents are in no order.
for (const { page, text } of chapters) write(page, (page === chapters.at(-1).page ? front({ next: false }) : '') + text)
for (const { page, text } of documents) write(page, front({ prev: false, next: false }) + text)

// One page with everything, to print.  Its headings are links into themselves.
write(
  'print.md',
  front({ title: 'The book on one page', search: false, layout: 'page', sidebar: false, pageClass: 'print' }) +
    `<PrintCover />\n\n<div class="vp-doc">\n\n` +
    chapters
      .map(({ text, file }) => `<!-- chapter ${posix.basename(file)} -->\n\n${text.trim()}\n`)
      .join('\n') +
    '\n</div>\n',
)

const play = {
  instruction: ['Type an instruction', 'PlayInstruction', 'Type a RISC-V instruction, and decode() answers.'],
  walk: ['Walk an address', 'PlayWalk', 'Take a guest-virtual address through both stages of translation.'],
}
for (const [name, [words, component, description]] of Object.entries(play))
  write(
    `play/${name}.md`,
    front({ title: words, description, outline: false, aside: false, pageClass: 'play', prev: false, next: false }) +
      `# ${words}\n\n<${component} page />\n`,
  )

// --- The home page --------------------------------------------------------------------

// [run.NAME] in book.toml: does it end in silence?
const runs = Object.fromEntries(
  read('book/book.toml')
    .split(/^\[/m)
    .filter((part) => part.startsWith('run.'))
    .map((part) => [part.match(/^run\.([^\]]+)/)[1], /^ends = "silence"/m.test(part)]),
)

const untimed = (line) => line.replace(/^\[ *\d+\.\d+\] /, '')
const prompt = /^[\w-]+:[~/]\S*# ?/

// What a run is remembered for: the last command before poweroff with what it said, or else
// the last line.
function gist(name) {
  if (!has(`book/runs/${name}.txt`)) return null
  let lines = read(`book/runs/${name}.txt`).split('\n').map((line) => line.trimEnd()).filter(Boolean)
  const off = lines.findIndex((line) => prompt.test(line) && /\bpoweroff$/.test(line))
  if (off > 0) lines = lines.slice(0, off)
  const typed = lines.map((line) => prompt.test(line + ' ') && line.replace(prompt, '') !== '').lastIndexOf(true)
  const end = lines.length && prompt.test(lines.at(-1) + ' ') && !lines.at(-1).replace(prompt, '')
  const kept = typed >= 0 ? lines.slice(typed, end ? -1 : undefined).slice(0, 2) : lines.slice(-1)
  return { lines: kept.map(untimed), silence: (runs[name] ?? false) && !end } // it waits at its prompt
}

// What a chapter is about, for those who do not read consoles yet.
const ABOUT = {
  1: 'The machine starts our code, and it says hello.',
  2: 'A mistake of ours says what it was, and where.',
  3: 'How much memory is there, and which devices? We ask.',
  4: 'A guest runs, and comes back to us when it asks for something.',
  5: 'The guest gets memory of its own, and can’t touch ours.',
  6: 'The guest asks for things, and we answer.',
  7: 'Linux starts, and comes as far as its first device.',
  8: 'A load or a store becomes a device.',
  9: 'Keys reach the guest, and Linux has a shell.',
  10: 'A clock for the guest, so that it can sleep.',
  11: 'A program’s mistake kills the program, and no longer the machine.',
  12: 'A disk: its addresses are the guest’s, and have to be translated.',
  13: 'The disk’s interrupts arrive, and files are kept.',
  14: 'Four harts at once.',
  15: 'Kernels that want a machine to themselves: M-mode for a guest.',
}

const chain = chapters.filter(({ number }) => number > 0).map(({ page, title, number, minutes, text }) => {
  const shown = [...text.matchAll(/^<!-- run (\S+)/gm)].map((m) => m[1])
  const nn = String(number).padStart(2, '0')
  const end = shown.filter((name) => name.startsWith(`${nn}-end`))[0] ?? shown.filter((name) => !name.endsWith('-gdb')).at(-1)
  return { page, title, number, minutes, about: ABOUT[number] ?? '', opens: shown.length ? gist(shown[0]) : null, ends: end && end !== shown[0] ? gist(end) : null }
}).filter(({ ends }) => ends) // not the epilogue

// The console of the latest chapter that ends at a prompt.
const shell = chain.map(({ number }) => `${String(number).padStart(2, '0')}-end`).reverse()
  .find((name) => has(`book/runs/${name}.txt`) && prompt.test(read(`book/runs/${name}.txt`).match(/^guest:.*$/m)?.[0] ?? ''))
const session = shell ? read(`book/runs/${shell}.txt`).trim().split('\n') : []
const from = session.findIndex((line) => /Run \/init/.test(line))
const statistics = sources.slice(0, 18).filter(has).map((file) => ({ file, page: `code/${file}.md` }))

write(
  '.vitepress/data.json',
  JSON.stringify({
    chapters: chapters.map(({ file, page, title, number, minutes }) => ({ file, page, title, number, minutes })),
    documents: documents.map(({ page, words }) => ({ page, words })),
    sources: statistics,
    pages: Object.fromEntries(pages),
    play: Object.fromEntries(Object.entries(play).map(([name, [words]]) => [name, words])),
    chain,
    shell: shell && { chapter: Number(shell.slice(0, 2)), lines: session.slice(Math.max(0, from - 4)) },
    slides: has('build/slides/index.html'), // make slides
  }),
)
write('index.md', front({ layout: 'page', sidebar: false, title: 'A hypervisor from an empty folder', titleTemplate: false, pageClass: 'home' }) + '<HomePage />\n')
write('404.md', front({ title: 'No such page', search: false }) + '# No such page\n\nThe [book](/) begins here.\n')

// --- What VitePress takes as it is -------------------------------------------------------

cpSync(join(site, '.vitepress'), join(out, '.vitepress'), { recursive: true })
const { vectors, gwalks, ...tables } = JSON.parse(read('site/tables.json')) // those two are for the test
tables.examples = tables.examples.map(([at, words]) => [at, words])
write('.vitepress/theme/tables.json', JSON.stringify(tables))
write('.vitepress/theme/decode-wasm.js', `export const base64 = '${readFileSync(join(out, 'decode.wasm'), 'base64')}'\n`)
if (has('build/slides/index.html'))
  for (const name of list('build/slides', '.html')) {
    const deck = read(`build/slides/${name}`)
    write(`public/slides/${name}`, name === 'index.html' ? deck.replace('<h1>', '<p><a href="../index.html">To the book</a></p>\n<h1>') : deck)
  }
for (const name of list('docs', '.svg')) write(`public/docs/${name}`, read(`docs/${name}`))
if (has('site/public')) cpSync(join(root, 'site/public'), join(out, 'public'), { recursive: true })
