// A load or store that hit no memory: find out what the guest's instruction
// asks for, find the device, move the value.

#include "hv.h"

static const struct device devices[] = {
    {GUEST_PLIC, PLIC_SIZE, 4, plic_access},
    {GUEST_VIRTIO, VIRTIO_SLOTS *PAGE, 15, virtio_access},
    {GUEST_UART, 8, 1, uart_access},
    {GUEST_CLINT, 0x10000, 8, clint_access},
};

// The compressed loads and stores.  Quadrant 0 names one of x8 to x15, quadrant
// 2 is relative to the stack pointer and names any register (ISA manual, "C"
// extension); funct3 100 in quadrant 0 is Zcb's.
static bool decode_compressed(uint16_t inst, struct access *a) {
    unsigned quadrant = inst & 3, funct3 = inst >> 13;
    a->length = 2;
    a->store = funct3 & 4;
    a->reg = quadrant == 0 ? 8 + (inst >> 2 & 7)
             : a->store    ? inst >> 2 & 31
                           : inst >> 7 & 31;
    if (quadrant == 0 && funct3 == 4) {
        unsigned funct = inst >> 10 & 7; // 0 lbu, 1 lhu or lh, 2 sb, 3 sh
        a->store = funct & 2;
        a->width = funct & 1 ? 2 : 1;
        a->sign_extend = funct == 1 && inst & 1 << 6;
        return funct < 3 || (funct == 3 && !(inst & 1 << 6));
    }
    a->width = funct3 & 1 ? 8 : 4;
    a->sign_extend = a->width == 4;
    // funct3: x10 a word, x11 a doubleword, x01 floating point
    return quadrant != 1 && funct3 & 2;
}

// Decodes INST, which may be a 32-bit instruction, a compressed one, or
// htinst's transformed one: that is the 32-bit form with other operands in
// place of address and offset, and with bit 1 clear if the original had two
// bytes (Priv. "Transformed Instruction or Pseudoinstruction for mtinst or
// htinst"). False for anything but an integer load or store.  A->store is what
// the hart says, which of an AMO may be wrong.
static bool decode(uint32_t inst, bool transformed, struct access *a) {
    if (!transformed && (inst & 3) != 3)
        return decode_compressed(inst, a);
    a->length = inst & 2 ? 4 : 2;
    unsigned opcode = inst >> 2 & 31, funct3 = inst >> 12 & 7;
    a->width = 1 << (funct3 & 3);
    switch (opcode) {
    case 0x00: // LOAD
        a->store = false;
        a->reg = inst >> 7 & 31;
        a->sign_extend = !(funct3 & 4);
        return funct3 != 7;
    case 0x08: // STORE
        a->store = true;
        a->reg = inst >> 20 & 31;
        return funct3 < 4;
    case 0x0b: a->store = inst >> 27 != 2; return false; // AMO; 2 is LR
    default: return false;
    }
}

// Finds the device at GPA and lets it do what A says.  False if there is none,
// or if it has no register of this width there.
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
    bool done = d->access(v, a);
    if (!done || a->store)
        return done;
    long value = a->value << unused; // its sign is bit 63
    v->regs[a->reg] = a->sign_extend ? value >> unused : (long)a->value;
    v->regs[0] = 0;
    return true;
}

// A guest page fault.  Returns how far to move the guest's pc.
unsigned handle_mmio(struct vcpu *v) {
    struct exit *e = v->exit;
    if (e->cause == CAUSE_FETCH_GUEST_PAGE_FAULT)
        return inject(v, CAUSE_FETCH_ACCESS, e->tval);

    // htinst is the instruction, transformed, or 0 from a hart that does not
    // tell.  An even value that is not 0 means that no instruction of the guest
    // asked for this address but the hart's own walk of the guest's page
    // tables: they point outside RAM.
    struct access a = {.store = e->cause == CAUSE_STORE_GUEST_PAGE_FAULT};
    bool transformed = e->inst & 1;
    bool walk = e->inst && !transformed;
    long inst = transformed ? (long)e->inst : fetch(e->pc, 0);
    // What we can't read the guest can't fetch: it gets the fault as its own.
    if (inst < 0)
        return walk ? inject(v, CAUSE_FETCH_ACCESS, e->tval) : 0;
    static int busy; // one hart at a time, and none while it sleeps
    bool done = decode(inst, transformed, &a) && !walk;
    while (__atomic_exchange_n(&busy, 1, __ATOMIC_ACQUIRE))
        ;
    done = done && access_device(v, &a, e->gpa);
    __atomic_store_n(&busy, 0, __ATOMIC_RELEASE);
    e->inst = inst;
    e->value = a.value;
    uint64_t fault = a.store ? CAUSE_STORE_ACCESS : CAUSE_LOAD_ACCESS;
    return done ? a.length : inject(v, fault, e->tval);
}
