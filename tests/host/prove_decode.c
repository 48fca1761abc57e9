// CBMC: decode() over all instructions, in the guest's code and in htinst.
#include "prove.h"
#include "../../mmio.c"

unsigned inject(struct vcpu *v, uint64_t cause, uint64_t tval) { return 0; }
long hlvx_hu(gva_t gva, uint64_t mxr) { return -1; }
bool plic_access(struct vcpu *v, struct access *a) { return true; }
bool virtio_access(struct vcpu *v, struct access *a) { return true; }
bool uart_access(struct vcpu *v, struct access *a) { return true; }
bool clint_access(struct vcpu *v, struct access *a) { return true; }

static bool valid(const struct access *a) {
    return (a->width == 1 || a->width == 2 || a->width == 4 || a->width == 8) &&
           a->reg < 32 && (a->length == 2 || a->length == 4);
}

void prove(void) {
    uint32_t inst = any32();
    bool transformed = any32() & 1;
    assume(!transformed || inst & 1); // see handle_mmio()
    struct access a = {.store = any32() & 1};
    bool done = decode(inst, transformed, &a);
    claim(!done || valid(&a), "an access has a width, a register, a length");
    claim(a.length == 2 || a.length == 4, "any instruction has a length");
    if (transformed) {
        claim(a.length == (inst & 2 ? 4 : 2), "htinst's bit 1 is the length");
        return;
    }
    claim(a.length == ((inst & 3) == 3 ? 4 : 2), "the length");
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
    // A compressed one and its long form, transformed, mean the same.
    if (!done || rvc == 3)
        return;
    unsigned size = __builtin_ctz(a.width);
    bool sign = a.sign_extend || a.width == 8;
    uint32_t htinst = a.store ? 0x21 | size << 12 | (uint32_t)a.reg << 20
                              : 0x01 | (size | !sign << 2) << 12 | a.reg << 7;
    struct access b = {0};
    claim(decode(htinst | (any32() & 31) << 15, true, &b), "transformed");
    claim(a.store == b.store && a.width == b.width && a.reg == b.reg &&
              a.length == b.length &&
              (a.store || a.width == 8 || a.sign_extend == b.sign_extend),
          "transformed or not, it is the same access");
}
