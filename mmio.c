// A load or store at an address that is not memory.  handle_mmio(), at the end,
// finds out what the guest's instruction asks for, finds the device and moves
// the value.  The functions before it are its steps, in this order: decode the
// instruction, find the device.

#include "hv.h"

// Where the devices are, and the widths of their registers in bytes
static const struct device devices[] = {
    {GUEST_PLIC, PLIC_SIZE, 4, plic_access},
    {GUEST_VIRTIO, VIRTIO_SLOTS *PAGE, 1 | 2 | 4, virtio_access},
    {GUEST_UART, 8, 1 | 2 | 4 | 8, uart_access},
    {GUEST_TEST, 4, 2 | 4, test_access},
    {GUEST_CLINT, 0xc000, 4 | 8, clint_access},
};

// Decodes a compressed load or store (ISA manual, "C" extension), of 16 bits.
// The lowest two bits are its quadrant.  In quadrant 0 it names two registers
// out of x8 to x15.  In quadrant 2 it uses the stack pointer and names any
// register.  Binary 100 in funct3, in quadrant 0, is the extension Zcb's.
// Offsets are multiples of the width, so a->low stays 0.  Returns false for any
// other instruction.
static bool decode_compressed(uint16_t inst, struct access *a) {
    unsigned quadrant = inst & 3, funct3 = inst >> 13;
    a->store = funct3 & 4;
    a->base = quadrant == 0 ? 8 + (inst >> 7 & 7) : 2;
    a->reg = inst >> (quadrant == 0 || a->store ? 2 : 7) & 31;
    if (quadrant == 0)
        a->reg = 8 + a->reg % 8;
    if (quadrant == 0 && funct3 == 4) {
        unsigned funct = inst >> 10 & 7; // 0 lbu, 1 lhu or lh, 2 sb, 3 sh
        a->store = funct & 2;
        a->width = funct & 1 ? 2 : 1;
        a->sign_extend = funct == 1 && inst & 1 << 6;
        return funct < 3 || (funct == 3 && !(inst & 1 << 6));
    }
    a->width = funct3 & 1 ? 8 : 4;
    a->sign_extend = a->width == 4;
    // funct3, binary: ?10 a word, ?11 a doubleword, ?01 floating point
    return quadrant != 1 && funct3 & 2;
}

// Decodes INST into A.  Returns false for anything but an integer load or
// store.
//
// INST is the guest's own instruction, or, if TRANSFORMED, what htinst says of
// it (Priv. "Transformed Instruction or Pseudoinstruction for mtinst or
// htinst").  That is the 32-bit form of the instruction, with two changes: bit
// 1 is clear if the original had two bytes, and in place of the base register
// it has the "Addr. Offset", see handle_mmio().
//
// A->store comes from the cause of the exit, unless the instruction tells.  No
// device takes an AMO, but the guest's fault must be that of a store, and for
// an AMO QEMU 7.2 reports a load.
static bool decode(uint32_t inst, bool transformed, struct access *a) {
    if (!transformed && (inst & 3) != 3)
        return decode_compressed(inst, a);
    unsigned opcode = inst >> 2 & 31, funct3 = inst >> 12 & 7;
    bool load = opcode == 0x00, store = opcode == 0x08, amo = opcode == 0x0b;
    a->width = 1 << (funct3 & 3);
    a->sign_extend = load && !(funct3 & 4);
    a->reg = inst >> (store ? 20 : 7) & 31;
    a->base = inst >> 15 & 31;
    a->low = inst >> (store ? 7 : 20) & 7;
    if (load || store || amo)
        a->store = store || (amo && inst >> 27 != 2); // 2 is LR
    return (load && funct3 != 7) || (store && funct3 < 4);
}

// Finds the device at GPA and lets it do what A says.  Returns false if there
// is no device, or if it has no register of this width there.
static bool access_device(struct vcpu *v, struct access *a, gpa_t gpa) {
    const struct device *d = devices;
    while (gpa - d->base >= d->size)
        if (++d == devices + LENGTH(devices))
            return false;
    a->offset = gpa - d->base;
    if (!(d->widths & a->width) || a->offset % a->width)
        return false;
    unsigned unused = 64 - 8 * a->width; // bits of the register
    if (a->store)
        a->value = v->regs[a->reg] << unused >> unused;
    if (!d->access(v, a))
        return false;
    uint64_t value = a->value << unused; // its sign is bit 63
    if (!a->store && a->reg)
        v->regs[a->reg] = a->sign_extend ? (uint64_t)((long)value >> unused)
                                         : value >> unused;
    return true;
}

// Handles a guest page fault.  Returns how far to move the guest's pc.
unsigned handle_mmio(struct vcpu *v) {
    struct exit *e = v->exit;
    if (e->cause == CAUSE_FETCH_GUEST_PAGE_FAULT)
        return inject(v, CAUSE_FETCH_ACCESS, e->tval);

    // htinst has the instruction, transformed, or 0 if the hart does not tell.
    // Any other even value, a pseudoinstruction, means that the hart itself
    // wanted this address, on its walk through the guest's page tables: one of
    // them is where there is no RAM.
    struct access a = {.store = e->cause == CAUSE_STORE_GUEST_PAGE_FAULT};
    bool transformed = e->inst & 1, walk = e->inst && !transformed;
    long inst = transformed ? (long)e->inst : fetch(e->pc, 0);
    // What we can't read, the guest can't fetch either, and takes that fault
    // when it tries again.  On a walk it would come here again, so it gets the
    // fault now.
    if (inst < 0)
        return walk ? inject(v, CAUSE_FETCH_ACCESS, e->tval) : 0;
    bool known = decode(inst, transformed, &a);
    // An access that is not aligned may begin in RAM and end in a device.  The
    // fault is then inside the access: stval is where the device's page begins.
    // htinst tells how far that is from the beginning, in the Addr. Offset
    // (a.base).  Without htinst compare the low bits of where the access begins
    // with those of stval: in stval they are 0, and in an access that crosses
    // into a page they are not.
    uint64_t begins = v->regs[a.base] + a.low;
    bool inside = transformed ? a.base : (begins - e->tval) & (a.width - 1);
    bool done = known && !walk && !inside && access_device(v, &a, e->gpa);
    e->inst = inst;
    e->value = a.value;
    if (done)
        return (inst & 3) == 3 ? 4 : 2;
    return inject(v, a.store ? CAUSE_STORE_ACCESS : CAUSE_LOAD_ACCESS, e->tval);
}
