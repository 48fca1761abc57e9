// The platform-level interrupt controller (RISC-V PLIC specification 1.0.0).
//
// Devices are its sources, with numbers from 1 on and a priority each.  A
// context is one mode of one hart.  On this board context 2 * hart is its
// M-mode, and 2 * hart + 1 its S-mode.  Each context has enable bits, one for
// each source, and a threshold: sources with a higher priority than that
// interrupt it.  The hart then reads the claim register, which gives it the
// number of a source and takes the interrupt back.  When it has dealt with the
// device it writes the number to the same register, now called complete.
//
// The guest's PLIC is the host's.  We want no interrupts from devices
// ourselves, so the guest can have all of it that belongs to S-mode, with the
// same numbers of sources and harts.
//
// Priorities, pending bits and enables are mapped for the guest to read.  When
// it writes one, that is an exit, and we pass it on.  Threshold and
// claim/complete of a context are on a page of their own.  Most of the time a
// vcpu reads and writes its own page without an exit: see plic_show().

#include "hv.h"

// Offsets of what there is, and the sizes of one context's part in it
enum { PENDING = 0x1000, ENABLE = 0x2000, ENABLE_SIZE = 0x80 };
enum { CONTEXT = 0x200000, CONTEXT_SIZE = 0x1000 };
// The page of HART's S-mode
#define CONTEXT_OF(hart) (CONTEXT + CONTEXT_SIZE * (2 * (hart) + 1))

// Passes an access on if it is to a priority, or to a context of the guest's
// S-mode.  The contexts of M-mode are the firmware's: a load that comes here
// gives 0, and a store does nothing.  A guest with an M-mode uses the context
// of its S-mode for both.
bool plic_access(struct vcpu *v, struct access *a) {
    uint64_t offset = a->offset;
    if (v->mmode && offset >= ENABLE)
        offset |= offset < CONTEXT ? ENABLE_SIZE : CONTEXT_SIZE;
    // Below ENABLE this wraps to a number that no context has.
    uint64_t context = offset < CONTEXT ? (offset - ENABLE) / ENABLE_SIZE
                                        : (offset - CONTEXT) / CONTEXT_SIZE;
    if (offset < PENDING || (context < 2 * guest.harts && context % 2 == 1))
        access_memory(host.plic + offset, a);
    return true;
}

// Shows V an external interrupt (ON), or takes it back.
//
// V sees the interrupt in hvip until it has claimed it.  Meanwhile we mask our
// own in sie, or it would be an exit at once, again and again.  And meanwhile
// we unmap the page with the claim.  So the claim is an exit, and after it
// handle_interrupts() looks whether the interrupt is gone.  Otherwise V would
// go on seeing it.
//
// While it is mapped V may use the page as it likes, because all that it can
// change is whether this hart is interrupted.  So complete is not an exit, and
// neither is a second claim, which finds nothing.
//
// Unmapping needs a fence for this hart's TLB.  Mapping does not: if the hart
// still remembers that nothing was there, that is one more exit, and
// plic_access() does what V wanted.  Another hart may still reach the page and
// claim the interrupt, as it may on any machine.  Then V goes on seeing it
// until its next exit, at the latest its own claim, which finds nothing.
void plic_show(struct vcpu *v, bool on) {
    uint64_t page = CONTEXT_OF(v->hart);
    if (on) {
        csr_clear(sie, SIP_SEIP);
        csr_set(hvip, HVIP_VSEIP);
        map_guest(GUEST_PLIC + page, 0, PAGE, 0);
        hfence_gvma();
    } else {
        map_guest(GUEST_PLIC + page, host.plic + page, PAGE, PTE_R | PTE_W);
        csr_clear(hvip, HVIP_VSEIP);
        csr_set(sie, SIP_SEIP);
    }
}

// Sets up what V sees of the PLIC.  OpenSBI leaves the threshold at the highest
// priority, and a guest may expect 0.  For a guest with an M-mode the enables
// must trap, too, see plic_access().  The first hart to come here, before the
// guest runs, makes all the page tables that are needed, also by plic_show()
// later.
void plic_init(struct vcpu *v) {
    map_guest(GUEST_PLIC, host.plic, v->mmode ? ENABLE : CONTEXT, PTE_R);
    plic_show(v, false);
    *(volatile uint32_t *)(host.plic + CONTEXT_OF(v->hart)) = 0; // threshold
    fence(); // before anything tells others that this hart is ready
}
