// gdb/hv.py's `hv walk` and `hv gwalk` on recorded page tables (site/record).  The test
// compares what both print.
const PTE = 'valid readable writable executable user global accessed dirty'.split(' ')
const MODES = { 8: ['Sv39', 3], 9: ['Sv48', 4], 10: ['Sv57', 5] }
const LEAVES = { 12: '4 KiB', 16: '64 KiB', 21: '2 MiB', 30: '1 GiB' }
const RAM = 0x80000000n
const CLOCK = 0x101000n
const PPN = (1n << 44n) - 1n

export const hex = (n) => `0x${n.toString(16)}`

export function walker(record) {
  const satp = BigInt(record.satp)
  const hgatp = BigInt(record.hgatp)

  function* levelsOf(atp, address, second) {
    const [scheme, levels] = MODES[Number(atp >> 60n)]
    const bits = BigInt(12 + 9 * levels)
    const wrong = second ? address >> (bits + 2n)
      : ((address + (1n << (bits - 1n))) >> bits) % (1n << (64n - bits))
    if (wrong) {
      yield { wrong: true, bad: true, text: `${hex(address)} is no address of ${scheme}${second ? 'x4' : ''}: page fault` }
      return null
    }
    let table = (atp & PPN) << 12n
    for (let level = levels - 1; level >= 0; level--) {
      const wide = second && level === levels - 1
      const index = Number((address >> BigInt(12 + 9 * level)) & (wide ? 2047n : 511n))
      const place = table + 8n * BigInt(index)
      const where = second ? null : secondStage(place)
      const hpa = second ? place : where.hpa
      const entries = (second ? record.second : record.first)[hex(table)]
      const pte = hpa === null ? 0n : BigInt(entries?.[index] ?? 0)
      const has = (mask) => (pte & BigInt(mask)) !== 0n
      const words = has(1) ? PTE.filter((_, i) => has(1 << i)) : ['not valid']
      const type = (pte >> 61n) & 3n
      if (type) words.push(`memory type ${type}`)
      let bad = !has(1) || (pte & 6n) === 4n || (second && has(10) && !has(16))
      table = ((pte >> 10n) & PPN) << 12n
      const shift = pte >> 63n ? 16n : BigInt(12 + 9 * level)
      const leaf = (table >> shift) << shift
      const misaligned = leaf !== table && !(pte >> 63n)
      bad ||= has(10) ? misaligned : level === 0
      const size = LEAVES[shift] ?? `2^${shift} bytes`
      const then = has(10) ? `a leaf of ${size} at ${hex(leaf)}` : `next table at ${hex(table)}`
      yield {
        level, index, place, pte, words, bad, where,
        space: second ? 'HPA' : 'GPA',
        then: bad ? 'page fault' : then,
        text: `level ${level}: PTE ${index} at ${second ? 'HPA' : 'GPA'} ${hex(place)} = ${hex(pte)}: ` +
          `${words.join(' ')}: ${bad ? 'page fault' : then}`,
      }
      if (bad) return null
      if (has(10)) return leaf | (address & ((1n << shift) - 1n))
    }
    return null
  }

  function collect(steps) {
    const found = []
    for (;;) {
      const { done, value } = steps.next()
      if (done) return { steps: found, address: value ?? null }
      found.push(value)
    }
  }

  function secondStage(gpa) {
    const { steps, address } = collect(levelsOf(hgatp, gpa, true))
    return { steps, hpa: address }
  }

  // A guest-virtual address through both stages.
  function walk(gva) {
    const { steps, address: gpa } = collect(levelsOf(satp, gva, false))
    const place = gpa === null ? null : placeName(gpa)
    const second = gpa === null ? null : secondStage(gpa)
    const said = []
    for (const step of steps) {
      said.push(step.text)
      for (const { text } of step.where?.steps ?? []) said.push(`    where that PTE is: ${text}`)
    }
    if (second) {
      said.push(`GPA ${hex(gpa)}: ${place}`)
      for (const { text } of second.steps) said.push(`    second stage: ${text}`)
      if (second.hpa !== null) said.push(`HPA ${hex(second.hpa)}`)
    }
    return { steps, gpa, place, second, said: said.join('\n') }
  }

  function gwalk(gpa) {
    const { steps, hpa } = secondStage(gpa)
    const end = hpa === null ? 'an access is an exit' : `HPA ${hex(hpa)}`
    return [`GPA ${hex(gpa)}: ${placeName(gpa)}`, ...steps.map(({ text }) => text), end].join('\n')
  }

  // --- Which register of which device is at GPA? ---

  function placeName(gpa) {
    const { ram, devices } = record.places
    if (gpa >= RAM && gpa - RAM < BigInt(ram)) return 'RAM'
    for (const [name, base, size] of devices)
      if (gpa >= BigInt(base) && gpa - BigInt(base) < BigInt(size)) return registerName(name, Number(gpa) - base)
    return gpa >= CLOCK && gpa - CLOCK < 4096n ? 'the clock' : 'nothing is there'
  }

  function registerName(device, offset) {
    const { virtio, uart } = record.places
    if (device === 'virtio') {
      const slot = offset >> 12
      offset &= 4095
      const other = offset >= 0x100 ? `configuration+0x${(offset - 0x100).toString(16)}` : `0x${offset.toString(16)}`
      return `virtio slot ${slot} ${virtio[offset] ?? other}`
    }
    if (device === 'uart') return `UART ${uart[offset]}`
    if (device === 'test') return 'test device'
    if (device === 'clint') {
      if (offset < 0x4000) return `CLINT msip ${offset >> 2}`
      return offset >= 0xbff8 ? 'CLINT mtime' : `CLINT mtimecmp ${(offset - 0x4000) >> 3}`
    }
    if (offset < 0x1000) return `PLIC priority of source ${offset >> 2}`
    if (offset < 0x2000) return 'PLIC pending'
    let context = (offset - 0x2000) >> 7
    let name = 'enable'
    if (offset >= 0x200000) {
      context = (offset - 0x200000) >> 12
      offset = (offset - 0x200000) & 0xfff
      name = { 0: 'threshold', 4: 'claim/complete' }[offset] ?? `0x${offset.toString(16)}`
    }
    return `PLIC ${name} of hart ${context >> 1}'s ${'MS'[context % 2]}-mode`
  }

  const [scheme, levels] = MODES[Number(satp >> 60n)]
  return { walk, gwalk, scheme, levels }
}
