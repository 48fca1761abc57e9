// The platform-level interrupt controller (RISC-V PLIC specification 1.0.0).
//
// The guest's is the host's: a device that interrupts the host interrupts
// nobody but the guest, with the same source number, and context 2 * hart + 1
// is the S-mode of the hart that the vcpu of this number runs on.  So
// priorities, enables, claims and levels are those of the real thing, on any
// number of harts.
//
// Everything a driver may read without a side effect is mapped for it,
// read-only.  What traps is passed on: all stores, and the pages with threshold
// and claim.  A claim takes the interrupt away, and as it was an exit,
// handle_interrupts() sees that at once.

#include "hv.h"

// Offsets; an enable and a context's registers are there for each context.
enum { PENDING = 0x1000, ENABLE = 0x2000, ENABLE_SIZE = 0x80 };
enum { CONTEXT = 0x200000, CONTEXT_SIZE = 0x1000 };

// The register at OFFSET, if it is the guest's to change: a source's priority
// or something of a vcpu's context.  Else NULL: the contexts between belong to
// the firmware, in M-mode.  A guest that plays M-mode uses the context of its
// S-mode in both.
static volatile uint32_t *guests(uint64_t offset, bool mmode) {
    if (mmode && offset >= ENABLE)
        offset |= offset < CONTEXT ? ENABLE_SIZE : CONTEXT_SIZE;
    uint64_t context = offset < CONTEXT ? (offset - ENABLE) / ENABLE_SIZE
                                        : (offset - CONTEXT) / CONTEXT_SIZE;
    if (offset >= PENDING && (context >= 2 * guest.harts || context % 2 == 0))
        return NULL;
    return (volatile uint32_t *)(host.plic + offset);
}

bool plic_access(struct vcpu *v, struct access *a) {
    volatile uint32_t *reg = guests(a->offset, v->mmode);
    if (!a->store)
        a->value = reg ? *reg : 0;
    else if (reg)
        *reg = a->value;
    return true;
}

// With an M-mode in the guest the enables must trap, too: see guests().
void plic_init(void) {
    map_guest(GUEST_PLIC, host.plic, vcpus->mmode ? ENABLE : CONTEXT, PTE_R);
}

// The firmware has left HART's threshold at its highest, the guest expects 0.
void plic_init_hart(uint64_t hart) {
    *guests(CONTEXT + CONTEXT_SIZE * (2 * hart + 1), false) = 0;
}
