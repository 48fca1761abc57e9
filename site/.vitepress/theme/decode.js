// decode() from mmio.c, compiled for wasm (site/wasm/decode.c).
import { base64 } from './decode-wasm.js'

const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))
const { decode_packed } = new WebAssembly.Instance(new WebAssembly.Module(bytes)).exports

export function decode(inst, transformed) {
  const packed = decode_packed(inst, transformed ? 1 : 0)
  return {
    known: !!(packed & 1),
    store: !!(packed & 2),
    sign_extend: !!(packed & 4),
    width: (packed >> 4) & 15,
    reg: (packed >> 8) & 31,
    base: (packed >> 13) & 31,
    low: (packed >> 18) & 7,
  }
}

// For the test, which calls it some hundred thousand times.
export { decode_packed }
