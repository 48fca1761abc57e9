import { defineConfig } from 'vitepress'
import { book, data, shiki } from './book.mjs'

const link = (page) => `/${page.replace(/\.md$/, '.html')}`
const teachers = data.documents.find(({ page }) => page === 'teachers.md')
const more = data.documents.filter((document) => document !== teachers)

const chapters = {
  text: 'The book',
  items: data.chapters.map(({ page, title }) => ({ text: title, link: link(page) })),
}
const play = {
  text: 'Try it',
  items: Object.entries(data.play).map(([name, text]) => ({ text, link: `/play/${name}.html` })),
}
const code = {
  text: 'The finished code',
  items: data.sources.map(({ file, page }) => ({ text: file, link: link(page) })),
}
const around = {
  text: 'More',
  items: [
    ...(teachers ? [{ text: teachers.words, link: link(teachers.page) }] : []),
    ...more.map(({ page, words }) => ({ text: words, link: link(page) })),
    { text: 'The book on one page', link: '/print.html' },
  ],
}
const sidebar = { '/code/': [code], '/': [chapters, play, around] }

export default defineConfig({
  base: process.env.SITE_BASE ?? '/',
  outDir: process.env.SITE_OUT,
  lang: 'en-GB',
  title: 'A hypervisor from an empty folder',
  description: 'A book about a RISC-V hypervisor of a thousand lines: each line after the failure that asks for it.',
  head: [
    ['link', { rel: 'icon', type: 'image/svg+xml', href: `${process.env.SITE_BASE ?? '/'}icon.svg` }],
    ['meta', { name: 'theme-color', content: '#0f6a5f' }],
  ],
  lastUpdated: false,
  ignoreDeadLinks: [/^\/slides\//],
  srcExclude: ['node_modules/**', 'slides/**'],
  markdown: {
    theme: { light: 'github-light-default', dark: 'github-dark-default' },
    config: book,
    codeTransformers: [shiki],
    // Level 1, too: the search takes a section's chapter from it, and what stands before the
    // first section.
    anchor: { level: [1, 2, 3] },
    headers: { level: [2, 3] },
  },
  vue: { template: { compilerOptions: { comments: false } } },
  vite: { build: { chunkSizeWarningLimit: 3000 }, logLevel: 'warn' },
  themeConfig: {
    siteTitle: 'Hypervisor book',
    logo: '/icon.svg',
    nav: [
      { text: 'Read', link: link(data.chapters[0].page), activeMatch: '^/chapters/' },
      { text: 'Try it', link: '/play/instruction.html', activeMatch: '^/play/' },
      { text: 'Code', link: link(data.sources[0].page), activeMatch: '^/code/' },
      ...(teachers ? [{ text: teachers.words, link: link(teachers.page) }] : []),
      ...(data.slides ? [{ text: 'Slides', link: '/slides/index.html', target: '_self' }] : []),
    ],
    sidebar,
    outline: { level: [2, 3], label: 'On this page' },
    docFooter: { prev: 'Before', next: 'Next' },
    notFound: {
      title: 'There is no such page',
      quote: 'Perhaps it has moved. The search above finds words in all chapters.',
      linkLabel: 'to the first page',
      linkText: 'To the first page',
    },
    search: {
      provider: 'local',
      options: {
        detailedView: 'auto',
        translations: {
          modal: {
            noResultsText: 'In no chapter and no document:',
            displayDetails: 'Show or hide the text around it',
          },
        },
        miniSearch: {
          // All of the words, or all parts of a name such as plic_show.
          searchOptions: { combineWith: 'AND', fuzzy: 0.15, prefix: true, boost: { title: 4, titles: 1, text: 2 } },
        },
      },
    },
  },
})
