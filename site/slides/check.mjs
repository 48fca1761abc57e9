// node check.mjs FOLDER [PNGS]: does every slide in FOLDER's decks fit, and does no page ask
// for anything outside its own file?  Prints JSON: {deck: {slides, troubles}}.  With PNGS,
// a folder, it puts pictures of the slides there.  CHROMIUM is the browser's command.
import { readdirSync, mkdirSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import puppeteer from 'puppeteer-core'

const [folder, pngs] = process.argv.slice(2)
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking'],
  protocolTimeout: 600_000,
})
const report = {}
if (pngs) mkdirSync(pngs, { recursive: true })
for (const name of readdirSync(folder).filter((n) => n.endsWith('.html')).sort()) {
  const page = await browser.newPage()
  await page.setViewport({ width: 1280, height: 720 })
  const url = pathToFileURL(resolve(folder, name)).href
  const troubles = []
  page.on('request', (r) => {
    if (r.url() !== url && !r.url().startsWith('data:') && !r.url().startsWith('blob:')) troubles.push(`asks for ${r.url()}`)
  })
  page.on('pageerror', (e) => troubles.push(`script: ${e.message}`))
  await page.goto(url, { waitUntil: 'load', timeout: 0 })
  await page.evaluate(() => document.fonts.ready)
  const found = await page.evaluate(() => {
    const wrong = []
    const slides = [...document.querySelectorAll('section')]
    for (const [i, s] of slides.entries()) {
      const say = (what) => wrong.push(`slide ${i + 1} (${s.querySelector('h1, h2')?.textContent}): ${what}`)
      // Lay all of them out, also those that are not shown.
      const svg = s.closest('svg')
      svg.style.cssText += ';display:block!important;content-visibility:visible!important'
      const box = s.getBoundingClientRect()
      const scale = box.height / 720
      if (!scale) { say('is not laid out'); continue }
      if (s.scrollHeight > s.clientHeight + 1) say(`is ${s.scrollHeight - s.clientHeight} too high`)
      if (s.scrollWidth > s.clientWidth + 1) say(`is ${s.scrollWidth - s.clientWidth} too wide`)
      for (const e of s.querySelectorAll('*')) {
        if (e.tagName === 'FOOTER' || e.closest('footer')) continue
        const r = e.getBoundingClientRect()
        if (!r.width || !r.height) continue
        const name = `${e.tagName.toLowerCase()} "${e.textContent.slice(0, 30)}"`
        if ((r.bottom - box.top) / scale > 672) { say(`${name} reaches the footer, ${Math.round((r.bottom - box.top) / scale)}`); break }
        if ((r.right - box.left) / scale > 1225) { say(`${name} leaves at the right`); break }
        if (['PRE', 'DIV', 'TABLE', 'TD'].includes(e.tagName) && e.scrollWidth > e.clientWidth + 1) { say(`${name} is cut at the right`); break }
      }
      for (const img of s.querySelectorAll('img')) if (!img.naturalWidth) say('an image is broken')
    }
    return { slides: slides.length, wrong }
  })
  report[name] = { slides: found.slides, troubles: [...troubles, ...found.wrong] }
  if (pngs)
    for (let i = 1; i <= found.slides; i++) {
      if (i === 1) await page.goto(url, { waitUntil: 'load' })
      await page.evaluate((n) => { location.hash = `#${n}` }, i)
      await new Promise((done) => setTimeout(done, 60))
      await page.screenshot({ path: `${pngs}/${name.slice(0, 2)}-${String(i).padStart(2, '0')}.png` })
    }
  await page.close()
}
await browser.close()
console.log(JSON.stringify(report, null, 1))
