// Looks at the built site in Chromium, for tests/test_site.py, which judges what is found:
//   node browse.mjs SITE TASK
// runs in build/site-node.  TASK is a JSON file that says what to type, and the output is
// JSON.  Nothing here waits for a number of seconds: only for what should appear.
import { createRequire } from 'node:module'
import { readFileSync, readdirSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { serve } from './serve.mjs'

const require = createRequire(`${process.cwd()}/`)
const { chromium } = require('playwright-core')
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8')

const site = resolve(process.argv[2])
const task = JSON.parse(readFileSync(process.argv[3], 'utf8'))
const { server, address } = await serve(site)
const browser = await chromium.launch({
  executablePath: task.chromium,
  args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'],
  timeout: task.patience,
})
const report = { pages: {}, foreign: [], errors: [] }

function* files(folder) {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.name === 'slides') continue // they have tests of their own
    if (entry.isDirectory()) yield* files(path)
    else if (entry.name.endsWith('.html')) yield relative(site, path)
  }
}

async function look(width, theme, options = {}) {
  const context = await browser.newContext({
    viewport: { width, height: width < 600 ? 844 : 900 },
    colorScheme: theme,
    reducedMotion: 'reduce',
    ...options,
  })
  context.setDefaultTimeout(task.patience)
  context.on('request', (request) => {
    if (!request.url().startsWith(`${address}/`) && !/^(data|blob):/.test(request.url())) report.foreign.push(request.url())
  })
  const page = await context.newPage()
  const trouble = (text) => report.errors.push(`${width} ${page.url().replace(address, '')}: ${text}`)
  page.on('pageerror', (error) => trouble(error.message))
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && trouble(message.text()))
  page.on('requestfailed', (request) => {
    // A page that is left while it prefetches others gives that up.
    if (request.failure()?.errorText !== 'net::ERR_ABORTED') trouble(`${request.url()}: ${request.failure()?.errorText}`)
  })
  return page
}

// A page in the background draws no frames, so don't wait for one.
const until = (page, condition, argument) => page.waitForFunction(condition, argument, { polling: 50 })

// VitePress has taken over: it marks the page by the app that is mounted on it.
const alive = (page) => until(page, () => document.querySelector('#app')?.__vue_app__)
async function open(page, path) {
  if (process.env.VERBOSE) console.error(`${performance.now() | 0} ms: ${page.viewportSize().width} ${path}`)
  const response = await page.goto(`${address}/${path}`, { waitUntil: 'load' })
  await alive(page)
  return response.status()
}

// --- Every page, at one width and in one theme -----------------------------------------

async function walkPages(width, theme) {
  const page = await look(width, theme)
  for (const path of [...files(site)].sort()) {
    const status = await open(page, path)
    const found = await page.evaluate(() => ({
      title: document.title,
      dark: document.documentElement.classList.contains('dark'),
      heading: document.querySelector('h1')?.textContent ?? '',
      wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
      ids: [...document.querySelectorAll('[id]')].map((e) => e.id),
      links: [...document.querySelectorAll('a[href]')].map((e) => e.href),
      comments: document.body.innerHTML.includes('<!-- listing') || document.body.innerText.includes('<!--'),
    }))
    // The page with all chapters has nothing that the chapters have not.
    if (task.judge.some((pattern) => new RegExp(pattern).test(path))) {
      await page.evaluate(axe)
      found.violations = await page.evaluate(judge)
    }
    ;(report.pages[path] ??= {})[width] = { status, ...found }
  }
  await page.context().close()
}

// What axe-core finds.  It would take half a minute for the thousands of words in a long
// chapter's listings, so their contrast is computed here, once for each pair of colours.
async function judge() {
  const { violations } = await axe.run({ exclude: [['pre code']] }, {
    runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'],
    resultTypes: ['violations'],
  })
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 5).map(({ html, any }) =>
    `${html.slice(0, 120)} ${any[0]?.message ?? ''}`).join(' | ')}`)

  const numbers = (color) => color.match(/[\d.]+/g).map(Number)
  const over = ([r, g, b, a = 1], under) => [r, g, b].map((c, i) => c * a + under[i] * (1 - a))
  const background = (element) => {
    if (!element) return [255, 255, 255]
    const color = numbers(getComputedStyle(element).backgroundColor)
    return color[3] === undefined ? color : over(color, background(element.parentElement))
  }
  const luminance = (color) => {
    const [r, g, b] = color.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const seen = new Set()
  for (const line of document.querySelectorAll('pre code .line')) {
    const under = background(line)
    for (const word of line.querySelectorAll('span')) {
      if (!word.textContent.trim() || word.children.length) continue
      const color = getComputedStyle(word).color
      if (seen.has(`${color} ${under}`)) continue
      seen.add(`${color} ${under}`)
      const [light, dark] = [luminance(over(numbers(color), under)), luminance(under)].sort((x, y) => y - x)
      const ratio = (light + 0.05) / (dark + 0.05)
      if (ratio < 4.5) found.push(`contrast ${ratio.toFixed(2)}: ${color} on ${under.map(Math.round)}: ${word.textContent}`)
    }
  }
  return found
}

// --- Search ------------------------------------------------------------------------------

async function search(width) {
  const page = await look(width, 'light')
  await open(page, 'index.html')
  if (width > 600) await page.keyboard.press('Control+k')
  else await page.click('.VPNavBarSearch button')
  const hits = {}
  for (const words of task.search) {
    const results = (some) => until(page, (some) => !!document.querySelector('.VPLocalSearchBox .result') === some, some)
    await page.fill('.VPLocalSearchBox input', '')
    await results(false)
    await page.fill('.VPLocalSearchBox input', words)
    await results(true)
    hits[words] = await page.$$eval('.VPLocalSearchBox .result', (all) => all.map((a) => a.getAttribute('href')))
  }
  await page.keyboard.press('Enter')
  await until(page, () => location.pathname !== '/' && location.pathname !== '/index.html')
  const left = page.url().replace(address, '')
  await page.context().close()
  return { hits, left }
}

// --- The two fields ------------------------------------------------------------------------

const rows = (page) => page.$$eval('.instruction table.access tr', (all) =>
  Object.fromEntries(all.map((tr) => [tr.dataset.field, tr.querySelector('.value').textContent])))

async function instruction() {
  const page = await look(1280, 'light')
  await open(page, 'play/instruction.html')
  const answers = []
  for (const [digits, transformed] of task.instructions) {
    await page.setChecked('input[name=transformed]', transformed)
    await page.fill('input[name=instruction]', digits)
    answers.push({ ...(await rows(page)), sentence: await page.textContent('.instruction .answer') })
  }
  const examples = []
  for (const button of await page.$$('.instruction .examples button')) {
    await button.click()
    examples.push([await button.textContent(), await page.inputValue('input[name=instruction]'),
      await page.isChecked('input[name=transformed]'), await rows(page)])
  }
  await page.fill('input[name=instruction]', 'xyz')
  const refused = await page.textContent('.instruction .answer')
  const bulk = await page.evaluate((pairs) => pairs.map(([inst, how]) => window.decode_packed(inst, how)), task.pairs)
  await page.context().close()
  return { answers, examples, refused, bulk }
}

async function walk() {
  const page = await look(1280, 'light')
  await open(page, 'play/walk.html')
  const said = []
  for (const at of task.walks) {
    await page.fill('input[name=address]', at)
    said.push(await page.textContent('.walk .said pre'))
  }
  const bulk = await page.evaluate((all) => all.map((at) => window.hv_walk(at)), task.walks)
  const gwalks = await page.evaluate((all) => all.map((at) => window.hv_gwalk(at)), task.gwalks)
  await page.fill('input[name=address]', 'nonsense')
  const refused = await page.textContent('.walk .answer')
  await page.context().close()
  return { said, bulk, gwalks, refused }
}

// Both are in their chapters, too.
async function embedded() {
  const page = await look(390, 'dark')
  const found = {}
  for (const [path, selector] of Object.entries(task.embedded)) {
    await open(page, path)
    found[path] = await page.locator(selector).count()
  }
  await page.context().close()
  return found
}

// --- Without a mouse ---------------------------------------------------------------------------

// Presses Tab until an element is reached that fits, and tells what was passed, and whether
// it was to be seen that the focus was there.
async function tabTo(page, selector) {
  const passed = []
  for (let i = 0; i < 120; i++) {
    await page.keyboard.press('Tab')
    const stop = await page.evaluate((selector) => {
      const element = document.activeElement
      const shows = (e) => e && getComputedStyle(e).outlineStyle !== 'none' && parseFloat(getComputedStyle(e).outlineWidth) > 0
      const box = element.getBoundingClientRect()
      return {
        name: `${element.tagName} ${(element.textContent || element.getAttribute('aria-label') || element.name || '').trim().slice(0, 30)}`,
        shows: shows(element) || shows(element.closest('.input')),
        seen: box.width > 0 && box.height > 0,
        there: element.matches(selector),
      }
    }, selector)
    passed.push(stop)
    if (stop.there) return passed
  }
  throw new Error(`Tab never comes to ${selector}`)
}

async function keyboard() {
  const page = await look(1280, 'light')
  const result = {}
  await open(page, 'play/instruction.html')
  const skip = await tabTo(page, '.VPSkipLink')
  await page.keyboard.press('Enter')
  result.skip = { stops: skip.length, focus: await page.evaluate(() => document.activeElement.id) }
  result.stops = [...skip, ...(await tabTo(page, 'input[name=instruction]'))]
  await page.keyboard.press('Control+a')
  await page.keyboard.type('0044a503')
  await page.keyboard.press('Enter')
  result.instruction = await rows(page)
  result.stops.push(...(await tabTo(page, 'input[name=transformed]')))
  await page.keyboard.press('Space')
  result.checked = await page.isChecked('input[name=transformed]')
  await open(page, 'play/walk.html')
  result.stops.push(...(await tabTo(page, 'input[name=address]')))
  await page.keyboard.press('Control+a')
  await page.keyboard.type(task.walks[1])
  result.walk = await page.textContent('.walk .said pre')
  await tabTo(page, '.said summary')
  await page.keyboard.press('Enter')
  result.opened = await page.isVisible('.walk .said pre')
  await open(page, 'index.html')
  result.stops.push(...(await tabTo(page, '.home .actions a')))
  await page.keyboard.press('Enter')
  await until(page, () => location.pathname.startsWith('/chapters/'))
  result.began = page.url().replace(address, '')
  await page.context().close()
  return result
}

// --- Dark and light, and what the copy button copies ----------------------------------------------

async function switches() {
  const page = await look(1280, 'light', { permissions: ['clipboard-read', 'clipboard-write'] })
  await open(page, task.copy)
  const dark = () => page.evaluate(() => document.documentElement.classList.contains('dark'))
  const before = await dark()
  await page.click('.VPNavBarAppearance button')
  const after = await dark()
  await page.reload({ waitUntil: 'load' })
  await alive(page)
  const kept = await dark()
  const block = page.locator('.vp-doc .listing div:has(> pre.has-diff)').first()
  await block.hover()
  await block.locator('button.copy').click()
  const copied = await page.evaluate(() => navigator.clipboard.readText())
  await page.context().close()
  return { before, after, kept, copied }
}

async function all() {
  if (!process.env.ONLY) await Promise.all([walkPages(1280, 'light'), walkPages(390, 'dark')])
  report.search = await search(1280)
  report.searchOnPhone = await search(390)
  report.instruction = await instruction()
  report.walk = await walk()
  report.embedded = await embedded()
  report.keyboard = await keyboard()
  report.switches = await switches()
}

try {
  await all()
} finally {
  await browser.close()
  server.close()
}
report.address = address
process.stdout.write(JSON.stringify(report))
