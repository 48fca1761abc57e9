// How the book's Markdown becomes pages: rules for markdown-it, and one for Shiki.
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { posix } from 'node:path'

const root = fileURLToPath(new URL('../../..', import.meta.url)) // this is in build/site-node
export const data = JSON.parse(readFileSync(new URL('./data.json', import.meta.url), 'utf8'))
const fileOf = Object.fromEntries(Object.entries(data.pages).map(([file, page]) => [page, file]))

// --- Listings ----------------------------------------------------------------------

const languages = { c: 'c', h: 'c', S: 'riscv', s: 'riscv', ld: 'c', dts: 'c', py: 'python', sh: 'bash' }
const languageOf = (file) =>
  posix.basename(file) === 'Makefile' ? 'make' : languages[posix.extname(file).slice(1)] ?? 'txt'

// The lines of the listing that Shiki is at: '+', '-' or ' ' for each, or the name of what
// is shown.  highlight() is called for one block at a time.
let signs = null
let terminal = false

const text = (node) => (node.type === 'text' ? node.value : (node.children ?? []).map(text).join(''))
const span = (name, value) => ({
  type: 'element', tagName: 'span', properties: { class: name }, children: [{ type: 'text', value }],
})

// What is typed on a console: at the guest's prompts, gdb's and our shell's.
const PROMPT = /^(guest:[~/]\S*# ?|\(gdb\) ?|=> |\$ )(.*)$/

// Some of the theme's colours, darker or lighter: comments are a good part of this book, and
// all have to be read on a new line's green, too.
const COLOURS = {
  '#6E7781': '#57606A', '#CF222E': '#B81C27', '#8250DF': '#713FCC', '#8B949E': '#9DA7B1',
}

export const shiki = {
  name: 'book',
  pre(node) {
    if (signs) this.addClassToHast(node, 'has-diff')
  },
  span(node) {
    if (typeof node.properties.style === 'string')
      node.properties.style = node.properties.style.replace(/#\w{6}/g, (color) => COLOURS[color.toUpperCase()] ?? color)
  },
  line(node, number) {
    const sign = signs?.[number - 1]
    if (sign === '+') this.addClassToHast(node, 'diff add')
    if (sign === '-') this.addClassToHast(node, 'diff remove')
    if (!terminal) return
    const line = text(node)
    const typed = PROMPT.exec(line)
    if (typed) node.children = [span('prompt', typed[1]), span('typed', typed[2])]
    else if (/^\[\.\.\.\]$/.test(line)) node.children = [span('cut', line)]
    else if (/^hv: /.test(line)) node.children = [span('ours', line)]
  },
}

function listings(md) {
  // A paragraph such as *mmio.c, in `decode()`:* says where the listing after it goes.
  md.core.ruler.push('listings', (state) => {
    const tokens = state.tokens
    for (let i = 0; i + 3 < tokens.length; i++) {
      if (tokens[i].type !== 'paragraph_open' || tokens[i + 3].type !== 'fence') continue
      const where = /^\*([\w./-]+)\b.*:\*$/.exec(tokens[i + 1].content)
      if (!where) continue
      tokens[i].attrJoin('class', 'where')
      tokens[i + 3].meta = { ...tokens[i + 3].meta, file: where[1] }
      // The file's name leads to the finished file.
      const page = data.pages[where[1]]
      const inner = tokens[i + 1].children
      const at = inner.findIndex((token) => token.type === 'text' && token.content.startsWith(where[1]))
      if (at < 0) continue
      const tag = page?.startsWith('code/') ? 'a' : 'strong'
      const kind = tag === 'a' ? 'link' : 'strong'
      const open = new state.Token(`${kind}_open`, tag, 1)
      if (tag === 'a') open.attrs = [['href', `/${page.replace(/md$/, 'html')}`], ['title', `${where[1]}, as it is in the end`]]
      const name = new state.Token('text', '', 0)
      name.content = where[1]
      inner[at].content = inner[at].content.slice(where[1].length)
      inner.splice(at, 0, open, name, new state.Token(`${kind}_close`, tag, -1))
    }
  })
  const fence = md.renderer.rules.fence
  md.renderer.rules.fence = (tokens, i, options, env, self) => {
    const token = tokens[i]
    const file = token.meta?.file
    const info = token.info.trim()
    let kind = ''
    if (info === 'console') {
      token.info = 'txt'
      terminal = true
      kind = token.content.trim() ? 'terminal' : 'terminal silent'
    } else if (info === 'diff' && file) {
      const lines = token.content.replace(/\n$/, '').split('\n')
      signs = lines.map((line) => line[0] ?? ' ')
      token.content = lines.map((line) => line.slice(1)).join('\n') + '\n'
      token.info = languageOf(file)
      kind = 'listing'
    } else {
      if (file) kind = 'listing'
      const alias = { asm: 'riscv', dts: 'c', ld: 'c' }[info]
      if (alias) token.info = alias
      else if (!info) kind = 'plain'
    }
    const html = fence(tokens, i, options, env, self)
    signs = null
    terminal = false
    return kind ? `<div class="${kind}">${html}</div>\n` : html
  }
}

// --- Words in code: an option is not broken behind its "-", and a last "." is not left alone --

function words(md) {
  const code = md.renderer.rules.code_inline
  md.renderer.rules.code_inline = (tokens, i, options, env, self) =>
    code(tokens, i, options, env, self)
      .replace(/([>\s(])(--?\w[\w-]{0,30})(?=[\s<),.:;=]|&)/g, '$1<span class="keep">$2</span>')
      .replace(/([^\s<>]+ \.)<\/code>$/, '<span class="keep">$1</span></code>')
}

// --- Comments: directives don't show, some stand for a component ---------------------

const components = { 'play instruction': '<PlayInstruction />', 'play walk': '<PlayWalk />' }

function comments(md) {
  for (const rule of ['html_block', 'html_inline']) {
    const before = md.renderer.rules[rule] ?? ((tokens, i) => tokens[i].content)
    md.renderer.rules[rule] = (tokens, i, options, env, self) => {
      const token = tokens[i]
      token.content = token.content.replace(/<!--\s*([^]*?)\s*-->/g, (_, words) =>
        env.relativePath === 'print.md' ? '' : components[words] ?? '')
      return token.content.trim() ? before(tokens, i, options, env, self) : ''
    }
  }
}

// --- Links: what leads to another file of the repository leads to its page here -------

// The repository's file that the page came from.
function origin(env) {
  return env.origin ?? fileOf[env.relativePath]
}

function links(md) {
  const inherited = md.renderer.rules.link_open
  md.renderer.rules.link_open = (tokens, i, options, env, self) => {
    const token = tokens[i]
    const href = token.attrGet('href') ?? ''
    const from = origin(env)
    if (from && !/^(\w+:|#|\/)/.test(href)) {
      const [, path, hash] = /^([^#]*)(#.*)?$/.exec(href)
      const file = posix.normalize(posix.join(posix.dirname(from), decodeURI(path)))
      const page = data.pages[file]
      if (!page) throw new Error(`${from}: no page for ${href}`)
      // On the page with all chapters a chapter is a place on it.
      const place = env.relativePath === 'print.md' && page.startsWith('chapters/')
      token.attrSet('href', place ? `#chapter-${posix.basename(page).slice(0, 2)}` : `/${page.replace(/md$/, 'html')}${hash ?? ''}`)
    }
    return inherited(tokens, i, options, env, self)
  }
}

// --- Figures: an SVG becomes a part of the page, so that it follows the page's colours ----

function figures(md) {
  const image = md.renderer.rules.image
  md.renderer.rules.image = (tokens, i, options, env, self) => {
    const token = tokens[i]
    const src = token.attrGet('src') ?? ''
    const from = origin(env)
    if (!from || /^(\w+:|\/)/.test(src)) return image(tokens, i, options, env, self)
    const file = posix.normalize(posix.join(posix.dirname(from), src))
    if (!file.startsWith('book/figures/')) {
      token.attrSet('src', `/${file}`)
      return image(tokens, i, options, env, self)
    }
    // "inlined": the page's own switch says what is dark, not the system's (book/figures).
    const svg = readFileSync(root + file, 'utf8')
      .replace(/<\?xml[^]*?\?>|<!DOCTYPE[^>]*>|<!--[^]*?-->/g, '')
      .replace(/<svg([^>]*?) class="/, '<svg$1 class="inlined ')
      .trim()
    const value = md.utils.escapeHtml(JSON.stringify(svg))
    return `<span class="figure" role="group" aria-label="Figure" tabindex="0" v-html="${value}"></span>`
  }
}

// --- The page with all chapters --------------------------------------------------------

function print(md) {
  md.core.ruler.before('normalize', 'print', (state) => {
    state.env.origin = state.env.relativePath === 'print.md' ? 'book/chapters/00.md' : undefined
  })
  md.core.ruler.before('anchor', 'print-chapters', (state) => {
    if (state.env.relativePath !== 'print.md') return
    let next = null
    for (const token of state.tokens) {
      const chapter = token.type === 'html_block' && /<!-- chapter (\d+)/.exec(token.content)
      if (chapter) next = chapter[1]
      if (token.type === 'heading_open' && token.tag === 'h1' && next) {
        token.attrSet('id', `chapter-${next}`)
        next = null
      }
    }
  })
}

export function book(md) {
  listings(md)
  words(md)
  comments(md)
  links(md)
  figures(md)
  print(md)
}
