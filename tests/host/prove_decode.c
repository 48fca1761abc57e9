// CBMC: decode() over all instructions, in the guest's code and in htinst.
#include "prove.h"
#include "../../mmio.c"

unsigned inject(struct vcpu *v, uint64_t cause, uint64_t tval) { return 0; }
long hlvx_hu(gva_t gva, uint64_t mxr) { return -1; }
bool plic_access(struct vcpu *v, struct access *a) { return true; }
bool virtio_access(struct vcpu *v, struct access *a) { return true; }
bool uart_access(struct vcpu *v, struct access *a) { return true; }
bool test_access(struct vcpu *v, struct access *a) { return true; }
bool clint_access(struct vcpu *v, struct access *a) { return true; }

static bool valid(const struct access *a) {
    return (a->width == 1 || a->width == 2 || a->width == 4 || a->width == 8) &&
           a->reg < 32 && a->base < 32 && a->low < 8;
}

// Returns the offset in a load or store, of 32 bits or compressed.  The
// manual's tables show where its bits are.
static uint32_t offset_of(uint32_t inst, const struct access *a) {
    if ((inst & 3) == 3)
        return a->store ? (inst >> 25) << 5 | (inst >> 7 & 31) : inst >> 20;
    bool word = a->width == 4;
    if ((inst & 3) == 2 && a->store) // c.swsp, c.sdsp
        return word ? (inst >> 9 & 15) << 2 | (inst >> 7 & 3) << 6
                    : (inst >> 10 & 7) << 3 | (inst >> 7 & 7) << 6;
    if ((inst & 3) == 2) // c.lwsp, c.ldsp
        return (inst >> 12 & 1) << 5 |
               (word ? (inst >> 4 & 7) << 2 | (inst >> 2 & 3) << 6
                     : (inst >> 5 & 3) << 3 | (inst >> 2 & 7) << 6);
    if (a->width == 1) // c.lbu, c.sb
        return (inst >> 6 & 1) | (inst >> 5 & 1) << 1;
    if (a->width == 2) // c.lhu, c.lh, c.sh
        return (inst >> 5 & 1) << 1;
    return (inst >> 10 & 7) << 3 |
           (word ? (inst >> 6 & 1) << 2 | (inst >> 5 & 1) << 6
                 : (inst >> 5 & 3) << 6);
}

// Returns the register that the offset is added to.
static unsigned base_of(uint32_t inst) {
    return (inst & 3) == 3   ? inst >> 15 & 31
           : (inst & 3) == 2 ? 2
                             : 8 + (inst >> 7 & 7);
}

void prove(void) {
    uint32_t inst = any32();
    bool transformed = any32() & 1;
    assume(!transformed || inst & 1); // see handle_mmio()
    struct access a = {.store = any32() & 1};
    bool done = decode(inst, transformed, &a);
    claim(!done || valid(&a), "an access has a width and registers");
    if (transformed) {
        claim(a.base == (inst >> 15 & 31), "Addr. Offset");
        return;
    }
    // Only these are loads or stores.
    unsigned opcode = inst & 0x7f, funct3 = inst >> 12 & 7, rvc = inst & 3;
    unsigned high = inst >> 13 & 7;
    bool load = opcode == 0x03 && funct3 != 7;
    bool store = opcode == 0x23 && funct3 < 4;
    bool c_load = (rvc == 0 || rvc == 2) && (high == 2 || high == 3);
    bool c_store = (rvc == 0 || rvc == 2) && (high == 6 || high == 7);
    unsigned zcb = rvc == 0 && high == 4 ? inst >> 10 & 7 : 7;
    c_load |= zcb < 2;
    c_store |= zcb == 2 || (zcb == 3 && !(inst & 1 << 6));
    claim(done == (load || store || c_load || c_store), "what is an access");
    claim(!done || a.store == (store || c_store), "what is a store");
    // Where the access begins.  handle_mmio() only looks at the address modulo
    // the width.
    claim(!done || a.base == base_of(inst), "the base register");
    claim(!done || ((a.low ^ offset_of(inst, &a)) & (a.width - 1)) == 0,
          "the offset's lower bits");
    // A compressed instruction and its long form mean the same, transformed or
    // not.
    if (!done || rvc == 3)
        return;
    unsigned size = __builtin_ctz(a.width);
    bool sign = a.sign_extend || a.width == 8;
    uint32_t htinst = a.store ? 0x21 | size << 12 | (uint32_t)a.reg << 20
                              : 0x01 | (size | !sign << 2) << 12 | a.reg << 7;
    unsigned addr_offset = any32() & 31;
    struct access b = {0};
    claim(decode(htinst | addr_offset << 15, true, &b), "transformed");
    claim(b.base == addr_offset, "where Addr. Offset is");
    claim(a.store == b.store && a.width == b.width && a.reg == b.reg &&
              (a.store || a.width == 8 || a.sign_extend == b.sign_extend),
          "transformed or not, it is the same access");
    uint32_t offset = offset_of(inst, &a);
    uint32_t split =
        a.store ? (offset >> 5) << 25 | (offset & 31) << 7 : offset << 20;
    struct access c = {0};
    claim(decode((htinst | 2) | split | base_of(inst) << 15, false, &c),
          "its long form");
    claim(c.base == a.base && ((c.low ^ a.low) & (a.width - 1)) == 0 &&
              c.reg == a.reg && c.width == a.width && c.store == a.store,
          "is the same, from the same base");
}
