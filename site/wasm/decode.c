// decode() from mmio.c for the page "Type an instruction"
// (site/.vitepress/theme), compiled for wasm by site/build, and for this
// machine by tests/test_site.py.
#include "../../mmio.c"

// What mmio.c calls and decode() does not.
unsigned inject(struct vcpu *v, uint64_t cause, uint64_t tval) { return 0; }
long fetch(gva_t pc, uint64_t mxr) { return -1; }
bool plic_access(struct vcpu *v, struct access *a) { return false; }
bool virtio_access(struct vcpu *v, struct access *a) { return false; }
bool uart_access(struct vcpu *v, struct access *a) { return false; }
bool test_access(struct vcpu *v, struct access *a) { return false; }
bool clint_access(struct vcpu *v, struct access *a) { return false; }

// Decodes INST, which is TRANSFORMED or not.  Returns whether decode() knows it
// (bit 0), and struct access: store in bit 1, sign_extend in bit 2, width from
// bit 4 on, reg from bit 8 on, base from bit 13 on and low from bit 18 on.
uint32_t decode_packed(uint32_t inst, uint32_t transformed) {
    struct access a = {0};
    bool known = decode(inst, transformed, &a);
    return known | a.store << 1 | a.sign_extend << 2 | a.width << 4 |
           a.reg << 8 | a.base << 13 | a.low << 18;
}
