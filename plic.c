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

#define PLIC_ENABLE 0x2000u
#define PLIC_ENABLE_STRIDE 0x80u // from context to context
#define PLIC_CONTEXT 0x200000u
#define PLIC_CONTEXT_STRIDE 0x1000u
#define PLIC_THRESHOLD 0u
#define PLIC_CLAIM 4u
#define CONTEXTS (2 * MAX_HARTS)
#define SOURCES 0xfffffffeu // there is no source 0

static struct {
    uint32_t priority[1024];
    uint32_t pending, pending_rest[1023];
    uint32_t enable[32][32];
} regs __attribute__((aligned(4096)));

static uint32_t claimed; // by the guest, and not yet completed
static uint32_t threshold[CONTEXTS];

// The sources that are claimed at the host until the guest completes them.
static uint32_t claimed_at_host;

static unsigned context_of(uint64_t hart) {
    return 2 * hart + 1;
}

static volatile uint32_t *host_register(uint32_t offset) {
    return &host.plic[offset / 4];
}

static volatile uint32_t *host_claim(uint64_t hart) {
    return host_register(PLIC_CONTEXT + PLIC_CONTEXT_STRIDE * context_of(hart) +
                         PLIC_CLAIM);
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
void plic_update(struct vcpu *v) {
    if (best(context_of(v->hart)))
        csr_set(hvip, HVIP_VSEIP);
    else
        csr_clear(hvip, HVIP_VSEIP);
}

// The level of an emulated device's interrupt line.
void plic_set_line(unsigned source, bool level) {
    if (level)
        regs.pending |= 1u << source;
    else
        regs.pending &= ~(1u << source);
}

// Lets SOURCE of the host's PLIC interrupt HART.
static void host_enable(uint64_t hart, unsigned source) {
    *host_register(4 * source) = 1; // priority
    volatile uint32_t *enable = host_register(
        PLIC_ENABLE + PLIC_ENABLE_STRIDE * context_of(hart) + source / 32 * 4);
    *enable |= 1u << source % 32;
}

// The host's external interrupt: see who it is, and pass it on.
void plic_host_interrupt(struct vcpu *v) {
    uint32_t source;
    while ((source = *host_claim(v->hart))) {
        if (source == host.uart_source) {
            uart_host_interrupt();
            *host_claim(v->hart) = source;
        } else {
            claimed_at_host |= 1u << source;
            plic_set_line(source, true);
        }
    }
}

static uint32_t claim(unsigned context) {
    unsigned source = best(context);
    if (source) {
        regs.pending &= ~(1u << source);
        claimed |= 1u << source;
    }
    return source;
}

// Completing what was never claimed, or is no source, does nothing.
static void complete(struct vcpu *v, uint32_t source) {
    if (source >= 32 || !(claimed & 1u << source))
        return;
    claimed &= ~(1u << source);
    if (claimed_at_host & 1u << source) {
        claimed_at_host &= ~(1u << source);
        *host_claim(v->hart) = source;
    }
}

bool plic_read(struct vcpu *v, uint64_t offset, unsigned width,
               uint64_t *value) {
    (void)v;
    unsigned context = (offset - PLIC_CONTEXT) / PLIC_CONTEXT_STRIDE;
    if (width != 4 || offset < PLIC_CONTEXT)
        return false;
    switch (offset % PLIC_CONTEXT_STRIDE) {
    case PLIC_THRESHOLD: *value = threshold[context]; break;
    case PLIC_CLAIM: *value = claim(context); break;
    default: *value = 0; break;
    }
    return true;
}

bool plic_write(struct vcpu *v, uint64_t offset, unsigned width,
                uint64_t value) {
    if (width != 4)
        return false;
    if (offset < sizeof regs.priority) {
        if (SOURCES >> offset / 4 & 1 && offset / 4 < 32)
            regs.priority[offset / 4] = value & 7;
    } else if (offset >= PLIC_CONTEXT) {
        unsigned context = (offset - PLIC_CONTEXT) / PLIC_CONTEXT_STRIDE;
        switch (offset % PLIC_CONTEXT_STRIDE) {
        case PLIC_THRESHOLD: threshold[context] = value & 7; break;
        case PLIC_CLAIM: complete(v, value); break;
        default: break;
        }
    } else if (offset >= PLIC_ENABLE && offset % PLIC_ENABLE_STRIDE == 0) {
        unsigned context = (offset - PLIC_ENABLE) / PLIC_ENABLE_STRIDE;
        if (context < CONTEXTS)
            regs.enable[context][0] = value & SOURCES;
    }
    return true;
}

void plic_init(uint64_t hart) {
    map_guest(GUEST_PLIC, &regs, sizeof regs, PTE_R);
    host_enable(hart, host.uart_source);
    *host_register(PLIC_CONTEXT + PLIC_CONTEXT_STRIDE * context_of(hart) +
                   PLIC_THRESHOLD) = 0;
}
