import DefaultTheme from 'vitepress/theme'
import HomePage from './HomePage.vue'
import PlayInstruction from './PlayInstruction.vue'
import PlayWalk from './PlayWalk.vue'
import PrintCover from './PrintCover.vue'
import './style.css'
import './print.css'

export default {
  extends: DefaultTheme,
  enhanceApp({ app }) {
    Object.entries({ HomePage, PlayInstruction, PlayWalk, PrintCover }).forEach(([name, component]) =>
      app.component(name, component))
    if (typeof window === 'undefined') return
    // Paper is white, also for those who read in the dark.
    let dark = false
    const { classList } = document.documentElement
    addEventListener('beforeprint', () => { dark = classList.contains('dark'); classList.remove('dark') })
    addEventListener('afterprint', () => classList.toggle('dark', dark))
  },
}
