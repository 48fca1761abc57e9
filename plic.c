// The platform-level interrupt controller (RISC-V PLIC specification 1.0.0).
//
// The guest's is the host's: a device that interrupts the host interrupts
// nobody but the guest, with the same source number, and context 2 * hart + 1
// is the S-mode of the hart that the vcpu of this number runs on.  So
// priorities, enables, claims and levels are those of the real thing, on any
// number of harts.
//
// Priorities, pending bits and enables are mapped for the guest to read; its
// stores to them are exits, and passed on.  Each context has a page of its own
// with threshold, claim and complete.  For most of the time a vcpu's is the
// guest's, to read and to write, see plic_show().

#include "hv.h"

// Offsets; an enable and a context's registers are there for each context.
enum { PENDING = 0x1000, ENABLE = 0x2000, ENABLE_SIZE = 0x80 };
enum { CONTEXT = 0x200000, CONTEXT_SIZE = 0x1000 };
// The page of a hart's S-mode.
#define CONTEXT_OF(hart) (CONTEXT + CONTEXT_SIZE * (2 * (hart) + 1))

// Where the register at OFFSET is, if it is the guest's to change: a source's
// priority or something of a vcpu's context.  Else 0: the contexts between
// belong to the firmware, in M-mode.  A guest with an M-mode uses the context
// of its S-mode in both modes.
static hpa_t guests(uint64_t offset, bool mmode) {
    if (mmode && offset >= ENABLE)
        offset |= offset < CONTEXT ? ENABLE_SIZE : CONTEXT_SIZE;
    uint64_t context = offset < CONTEXT ? (offset - ENABLE) / ENABLE_SIZE
                                        : (offset - CONTEXT) / CONTEXT_SIZE;
    if (offset >= PENDING && (context >= 2 * guest.harts || context % 2 == 0))
        return 0;
    return host.plic + offset;
}

bool plic_access(struct vcpu *v, struct access *a) {
    hpa_t reg = guests(a->offset, v->mmode);
    if (reg) // else it reads as 0
        access_memory(reg, a);
    return true;
}

// Shows V an external interrupt, or takes it back.
//
// The interrupt stays until V claims it.  Until then ours is switched off, or
// it would bring us back at once.  And until then the claim must be an exit:
// only so does handle_interrupts() see that the interrupt is gone.  Without
// that V would be interrupted again and again.  So the page with the claim is
// taken away.  At all other times V may do there what it likes, as all that it
// can change is whether we are interrupted.  So its complete, and a next claim
// that finds nothing, are no exits.
//
// What is taken away must be gone from this hart's TLB, too.  What is given
// need not: a hart that still knows that there was nothing traps, and
// plic_access() does what it wanted.  Another hart may still reach the page,
// and claim an interrupt that V was shown, as it may on any machine.  Then V's
// own claim finds nothing.  V sees the interrupt until it makes that claim, or
// exits for another reason.
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

// What V sees of it to begin with.  The firmware has left the threshold at its
// highest, the guest expects 0.  With an M-mode in the guest the enables must
// trap, too: see guests().  The first time harts come here one after the other,
// before there is a guest, so later plic_show() never needs a new page table.
void plic_init(struct vcpu *v) {
    map_guest(GUEST_PLIC, host.plic, v->mmode ? ENABLE : CONTEXT, PTE_R);
    plic_show(v, false);
    *(volatile uint32_t *)(host.plic + CONTEXT_OF(v->hart)) = 0;
    fence(); // that, then whatever tells others that this hart is ready
}
