// No mathematics, because $ is in what gdb prints, and no emoji: both would load
// something from elsewhere.
export default {
  html: true,
  themeSet: ['theme.css'],
  options: { markdown: { breaks: false }, math: false, emoji: { shortcode: false, unicode: false } },
}
