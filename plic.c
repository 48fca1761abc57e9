// The platform-level interrupt controller (RISC-V PLIC specification 1.0.0).
//
// The guest's has 31 sources and one context for the S-mode of each hart, at
// the places where the board has them: context 2 * hart + 1.
//
// Source n of the host is source n of the guest.  When a device raises it, we
// claim it at the host's PLIC, which keeps that source quiet from then on, and
// mark it pending in the guest's.  We complete it at the host when the guest
// completes it, so the host's PLIC looks at the device's line again at the very
// moment at which the guest's would.  The line needs no copy here, and a device
// that goes on raising it can't flood us.
//
// Everything a driver may read without a side effect is plain memory, laid out
// as in the register map; the guest has it mapped read-only.  So only stores
// there, and all accesses to threshold and claim, are VM exits.

#include "hv.h"

#define PLIC_ENABLE(context) (0x2000ul + PLIC_ENABLE_SIZE * (context))
#define PLIC_CONTEXT(context) (0x200000ul + PLIC_CONTEXT_SIZE * (context))
#define PLIC_CLAIM(context) (PLIC_CONTEXT(context) + 4)
enum { PLIC_ENABLE_SIZE = 0x80, PLIC_CONTEXT_SIZE = 0x1000 };
enum { PLIC_MAX_PRIORITY = 7, CONTEXTS = 2 * MAX_HARTS };
#define SOURCES 0xfffffffeu // there is no source 0

static struct {
    uint32_t priority[1024];
    uint32_t pending, pending_rest[1023];
    uint32_t enable[32][32];
} regs __attribute__((aligned(4096)));

static bool changed;     // since the last plic_update()
static uint32_t lines;   // the sources whose line is high
static uint32_t claimed; // by the guest, and not yet completed
static uint32_t threshold[CONTEXTS];

// The sources that are claimed at the host until the guest completes them.
static uint32_t claimed_at_host;

// The context of HART's S-mode, the host's and the guest's.
static unsigned context_of(uint64_t hart) {
    return 2 * hart + 1;
}

static volatile uint32_t *host_claim(uint64_t hart) {
    return &host.plic[PLIC_CLAIM(context_of(hart)) / 4];
}

// The source that CONTEXT would get if it claimed now, 0 if none: the highest
// priority above the threshold, among equals the lowest number.
static unsigned best(unsigned context) {
    uint32_t ready = regs.pending & ~claimed & regs.enable[context][0];
    unsigned found = 0;
    uint32_t priority = threshold[context];
    for (unsigned source = 1; ready && source < 32; source++) {
        if (ready >> source & 1 && regs.priority[source] > priority) {
            found = source;
            priority = regs.priority[source];
        }
    }
    return found;
}

// The one place where the guest's external interrupt is raised and taken back.
// It costs several pages of TLB, so it is left out when nothing has changed.
void plic_update(struct vcpu *v) {
    if (!changed)
        return;
    changed = false;
    if (best(context_of(v->hart)))
        csr_set(hvip, HVIP_VSEIP);
    else
        csr_clear(hvip, HVIP_VSEIP);
}

// The level of SOURCE's interrupt line.  As long as it stays low, nothing has
// changed; if it is high, it pends again when it was claimed in between.
void plic_set_line(unsigned source, bool level) {
    uint32_t bit = 1u << source;
    if (!level && !(lines & bit))
        return;
    lines = level ? lines | bit : lines & ~bit;
    regs.pending = level ? regs.pending | bit : regs.pending & ~bit;
    changed = true;
}

// Lets SOURCE of the host's PLIC interrupt HART.
static void host_enable(uint64_t hart, unsigned source) {
    host.plic[source] = 1; // its priority
    host.plic[(PLIC_ENABLE(context_of(hart))) / 4 + source / 32] |=
        1u << source % 32;
}

// The host's external interrupt: see who it is, and pass it on.
void plic_host_interrupt(struct vcpu *v) {
    uint32_t source;
    while ((source = *host_claim(v->hart))) {
        if (source == host.uart_source) {
            uart_poll_host();
            *host_claim(v->hart) = source;
        } else {
            claimed_at_host |= 1u << source;
            plic_set_line(source, true);
        }
    }
}

static uint32_t claim(unsigned context) {
    unsigned source = best(context);
    regs.pending &= ~(1u << source);
    claimed |= 1u << source;
    changed = true;
    return source;
}

// Completing what was never claimed, or is no source, does nothing.
static void complete(struct vcpu *v, uint64_t source) {
    uint32_t bit = source < 32 ? claimed & 1u << source : 0;
    claimed &= ~bit;
    if (claimed_at_host & bit) {
        claimed_at_host &= ~bit;
        *host_claim(v->hart) = source;
    }
}

bool plic_read(struct vcpu *v, uint64_t offset, unsigned width,
               uint64_t *value) {
    uint64_t context = (offset - PLIC_CONTEXT(0)) / PLIC_CONTEXT_SIZE;
    *value = 0;
    if (context < CONTEXTS && offset == PLIC_CONTEXT(context))
        *value = threshold[context];
    else if (context < CONTEXTS && offset == PLIC_CLAIM(context))
        *value = claim(context);
    return true;
}

bool plic_write(struct vcpu *v, uint64_t offset, unsigned width,
                uint64_t value) {
    uint64_t context = (offset - PLIC_CONTEXT(0)) / PLIC_CONTEXT_SIZE;
    uint64_t enable = (offset - PLIC_ENABLE(0)) / PLIC_ENABLE_SIZE;
    changed = true;
    if (context < CONTEXTS && offset == PLIC_CONTEXT(context))
        threshold[context] = value & PLIC_MAX_PRIORITY;
    else if (context < CONTEXTS && offset == PLIC_CLAIM(context))
        complete(v, value);
    else if (enable < CONTEXTS && offset == PLIC_ENABLE(enable))
        regs.enable[enable][0] = value & SOURCES;
    else if (offset > 0 && offset < 4 * 32)
        regs.priority[offset / 4] = value & PLIC_MAX_PRIORITY;
    return true; // all others are reserved or read-only
}

void plic_init(uint64_t hart) {
    map_guest(GUEST_PLIC, &regs, sizeof regs, PTE_R);
    host.plic[PLIC_CONTEXT(context_of(hart)) / 4] = 0; // its threshold
    host_enable(hart, host.uart_source);
}
