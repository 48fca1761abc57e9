// Prints the page with all chapters: node pdf.mjs SITE FILE.  It runs in build/site-node,
// where playwright-core is, and takes the system's Chromium.
import { createRequire } from 'node:module'
import { resolve } from 'node:path'
import { serve } from './serve.mjs'

const { chromium } = createRequire(`${process.cwd()}/`)('playwright-core')
const [site, file] = process.argv.slice(2).map((path) => resolve(path))
const { server, address } = await serve(site)
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'] })
const page = await browser.newPage({ colorScheme: 'light' })
await page.goto(`${address}/print.html`, { waitUntil: 'load' })
await page.evaluate(() => document.fonts.ready)
await page.pdf({
  path: file,
  preferCSSPageSize: true,
  printBackground: true,
  outline: true,
  tagged: true,
  displayHeaderFooter: true,
  headerTemplate: '<span></span>',
  footerTemplate: '<div style="width: 100%; text-align: center; font: 8pt sans-serif; color: #555"><span class="pageNumber"></span></div>',
})
await browser.close()
server.close()
