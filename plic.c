// The platform-level interrupt controller (RISC-V PLIC specification 1.0.0).
//
// The guest's has 31 sources and one context for the S-mode of each hart, at
// the places where the board has them: context 2 * hart + 1.
//
// When a device of the host's raises an interrupt, we claim it at the host's
// PLIC.  For a virtio device its file takes the reason away, the interrupt is
// complete for the host, and the guest's line tells the guest.  The UART's
// reason only the guest can take away, so that interrupt stays claimed, and
// therefore quiet, until the guest completes it.
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
static uint32_t claimed; // by the guest, and not yet completed
static uint32_t threshold[CONTEXTS];

// The context of HART's S-mode, the host's and the guest's.
static unsigned context_of(uint64_t hart) { return 2 * hart + 1; }

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

// The level of SOURCE's interrupt line.
void plic_set_line(unsigned source, bool level) {
    uint32_t others = regs.pending & ~(1u << source);
    regs.pending = others | (uint32_t)level << source;
    changed = true;
}

static volatile uint32_t *host_register(uint64_t offset) {
    return (volatile uint32_t *)(host.plic.base + offset);
}

static volatile uint32_t *host_claim(struct vcpu *v) {
    return host_register(PLIC_CLAIM(context_of(v->hart)));
}

// Lets SOURCE of the host's PLIC interrupt HART.
void plic_host_enable(uint64_t hart, unsigned source) {
    *host_register(4 * source) = 1;                     // its priority
    *host_register(PLIC_CONTEXT(context_of(hart))) = 0; // the threshold
    *host_register(PLIC_ENABLE(context_of(hart)) + source / 32 * 4) |=
        1u << source % 32;
}

// The host's external interrupt.
void plic_host_interrupt(struct vcpu *v) {
    for (uint32_t source; (source = *host_claim(v));) {
        if (source == host.uart.irq) {
            plic_set_line(GUEST_UART_SOURCE, true);
        } else {
            virtio_host_interrupt(source);
            *host_claim(v) = source;
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
    if (bit && source == GUEST_UART_SOURCE) {
        plic_set_line(source, false);
        *host_claim(v) = host.uart.irq;
    }
}

bool plic_read(struct vcpu *v, struct access *a) {
    uint64_t context = (a->offset - PLIC_CONTEXT(0)) / PLIC_CONTEXT_SIZE;
    a->value = 0;
    if (context < CONTEXTS && a->offset == PLIC_CONTEXT(context))
        a->value = threshold[context];
    else if (context < CONTEXTS && a->offset == PLIC_CLAIM(context))
        a->value = claim(context);
    return true;
}

bool plic_write(struct vcpu *v, const struct access *a) {
    uint64_t context = (a->offset - PLIC_CONTEXT(0)) / PLIC_CONTEXT_SIZE;
    uint64_t enable = (a->offset - PLIC_ENABLE(0)) / PLIC_ENABLE_SIZE;
    changed = true;
    if (context < CONTEXTS && a->offset == PLIC_CONTEXT(context))
        threshold[context] = a->value & PLIC_MAX_PRIORITY;
    else if (context < CONTEXTS && a->offset == PLIC_CLAIM(context))
        complete(v, a->value);
    else if (enable < CONTEXTS && a->offset == PLIC_ENABLE(enable))
        regs.enable[enable][0] = a->value & SOURCES;
    else if (a->offset > 0 && a->offset < 4 * 32)
        regs.priority[a->offset / 4] = a->value & PLIC_MAX_PRIORITY;
    return true; // all others are reserved or read-only
}

void plic_init(void) { map_guest(GUEST_PLIC, &regs, sizeof regs, PTE_R); }
