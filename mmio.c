// A load or store that hit no memory: find out what the guest's instruction
// asks for, find the device, move the value.

#include "hv.h"

static const struct device devices[] = {
    {GUEST_PLIC, PLIC_SIZE, 4, plic_access},
    {GUEST_VIRTIO, VIRTIO_SLOTS *PAGE, 7, virtio_access},
    {GUEST_UART, 8, 15, uart_access},
    {GUEST_TEST, 4, 6, test_access},
    {GUEST_CLINT, 0xc000, 12, clint_access},
};

// The compressed loads and stores.  Quadrant 0 names two of x8 to x15, quadrant
// 2 is relative to the stack pointer and names any register (ISA manual, "C"
// extension); funct3 100 in quadrant 0 is Zcb's.
static bool decode_compressed(uint16_t inst, struct access *a) {
    unsigned quadrant = inst & 3, funct3 = inst >> 13;
    a->length = 2;
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
    unsigned opcode = inst >> 2 & 31, funct3 = inst >> 12 & 7;
    bool load = opcode == 0x00, store = opcode == 0x08, amo = opcode == 0x0b;
    a->length = inst & 2 ? 4 : 2;
    a->width = 1 << (funct3 & 3);
    a->sign_extend = load && !(funct3 & 4);
    a->reg = inst >> (store ? 20 : 7) & 31;
    a->base = inst >> 15 & 31;
    a->low = inst >> (store ? 7 : 20) & 7;
    if (load || store || amo)
        a->store = store || (amo && inst >> 27 != 2); // 2 is LR
    return (load && funct3 != 7) || (store && funct3 < 4);
}

// Does what A says with what stands AT an address of the host's, a register or
// memory, in A's width.
void access_memory(hpa_t at, struct access *a) {
#define IN_WIDTH_OF(type)                                                      \
    if (a->width == sizeof(type) && a->store)                                  \
        *(volatile type *)at = a->value;                                       \
    else if (a->width == sizeof(type))                                         \
        a->value = *(volatile type *)at;
    IN_WIDTH_OF(uint8_t)
    IN_WIDTH_OF(uint16_t)
    IN_WIDTH_OF(uint32_t)
    IN_WIDTH_OF(uint64_t)
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
    if (!d->access(v, a))
        return false;
    uint64_t value = a->value << unused; // its sign is bit 63
    if (!a->store && a->reg)
        v->regs[a->reg] = a->sign_extend ? (uint64_t)((long)value >> unused)
                                         : value >> unused;
    return true;
}

// Whether A begins before the address that faulted.  An access that is not
// aligned may begin in RAM and end in a device, and then the hart reports the
// address where the device begins.  htinst says how far that is from the
// beginning, in its field "Addr. Offset", where other instructions have their
// base register.  Without htinst we compare the lower bits of both addresses:
// they differ, because an access that crosses a page is not aligned.
static bool begins_elsewhere(struct vcpu *v, struct access *a,
                             bool transformed) {
    return transformed
               ? a->base
               : (v->regs[a->base] + a->low - v->exit->tval) & (a->width - 1);
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
    bool done = decode(inst, transformed, &a) && !walk &&
                !begins_elsewhere(v, &a, transformed) &&
                access_device(v, &a, e->gpa);
    e->inst = inst;
    e->value = a.value;
    uint64_t fault = a.store ? CAUSE_STORE_ACCESS : CAUSE_LOAD_ACCESS;
    return done ? a.length : inject(v, fault, e->tval);
}
