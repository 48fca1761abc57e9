// What the guest may ask for: the Supervisor Binary Interface 2.0.  a7 names
// the extension, a6 the function, a0 to a5 are arguments; an error comes back
// in a0 and a value in a1.
//
// Vcpu n runs on hart n, so an IPI or a fence for the guest's harts is a call
// to the firmware about the host's, with the same numbers.

#include "hv.h"

enum { FUNCTION = 6, EXTENSION = 7, PROBE_EXTENSION = 3 };
enum { CONSOLE_WRITE, CONSOLE_READ, CONSOLE_WRITE_BYTE, CONSOLE_MOST = 256 };
enum { SBI_ERR_NOT_SUPPORTED = -2, SBI_ERR_INVALID_PARAM = -3 };
enum { SBI_ERR_INVALID_ADDRESS = -5, SBI_ERR_ALREADY_AVAILABLE = -6 };

static const struct extension *find(uint64_t id);

// The extensions.  A points to a0, so A[FUNCTION] is a6, a function that
// exists, and A[EXTENSION] is a7.

// What the firmware answers for us.
static struct sbiret firmware(struct vcpu *v, uint64_t *a) {
    return host_sbi(a[EXTENSION], a[FUNCTION], a);
}

static struct sbiret base(struct vcpu *v, uint64_t *a) {
    // The specification's version, 2.0; who we are, "hv", the registered ones
    // are far below; our own version.
    static const long ours[] = {2 << 24, 0x6876, 1};
    if (a[FUNCTION] < LENGTH(ours))
        return (struct sbiret){0, ours[a[FUNCTION]]};
    if (a[FUNCTION] == PROBE_EXTENSION)
        return (struct sbiret){0, find(a[0]) != NULL};
    // mvendorid, marchid, mimpid: it is the host's hart that the guest runs on
    return firmware(v, a);
}

// Raises the guest's timer interrupt when time reaches A[0], in ticks of the
// timebase, and takes a pending one back.  With Sstc the hart compares for
// itself; without it our own timer goes off, and handle_interrupts() passes it
// on.
static struct sbiret set_timer(struct vcpu *v, uint64_t *a) {
    if (host.sstc) {
        csr_write(vstimecmp, a[0]);
        return (struct sbiret){0};
    }
    csr_clear(hvip, HVIP_VSTIP);
    csr_set(sie, SIP_STIP);
    return host_sbi(SBI_EXT_TIME, 0, a);
}

// IPIs and fences, for the harts in a mask: bit n of A[0] is hart A[1] + n.  If
// A[1] is -1 all are meant.  An IPI is our own software interrupt there, which
// handle_interrupts() passes on.  The guest's sfence.vma is our hfence.vvma.
static struct sbiret to_harts(struct vcpu *v, uint64_t *a) {
    static const uint8_t fences[] = {SBI_REMOTE_FENCE_I, SBI_REMOTE_HFENCE_VVMA,
                                     SBI_REMOTE_HFENCE_VVMA_ASID};
    if (a[1] != -1ul && !a[0])
        return (struct sbiret){0}; // nobody, wherever the mask begins
    if (a[1] != -1ul &&
        (a[1] >= guest.harts || a[0] >= 1ul << (guest.harts - a[1])))
        return (struct sbiret){.error = SBI_ERR_INVALID_PARAM};
    return host_sbi(a[EXTENSION], fences[a[FUNCTION]], a);
}

// Lets HART begin at PC with OPAQUE, as hart_start wants it.  Only one of those
// who try that at a time gets it out of HART_STOPPED.  It goes when it sees pc.
struct sbiret start_hart(uint64_t hart, gpa_t pc, uint64_t opaque) {
    struct vcpu *v = &vcpus[hart];
    uint64_t stopped = HART_STOPPED;
    if (!atomic_compare_exchange_strong(&v->state, &stopped,
                                        HART_START_PENDING))
        return (struct sbiret){.error = SBI_ERR_ALREADY_AVAILABLE};
    v->start.opaque = opaque;
    v->start.pc = pc;
    fence(); // first that, then the IPI
    return host_sbi(SBI_EXT_IPI, 0, (uint64_t[5]){1ul << hart});
}

// Harts are started, stopped and suspended by us, not by the firmware: see
// stop_hart().  We keep our state over a suspension in any case, so one that
// loses it is a sleep and a new start.
static struct sbiret hsm(struct vcpu *v, uint64_t *a) {
    uint64_t function = a[FUNCTION];
    uint32_t type = a[0]; // of suspension: retentive is 0, the other has bit 31
    if (function == HART_STOP)
        stop_hart(v);
    if (function == HART_SUSPEND ? type & INT32_MAX : a[0] >= guest.harts)
        return (struct sbiret){.error = SBI_ERR_INVALID_PARAM};
    if (function == HART_GET_STATUS)
        return (struct sbiret){0, vcpus[a[0]].state};
    if ((function == HART_START || type) && !guest_ptr(a[1], 4))
        return (struct sbiret){.error = SBI_ERR_INVALID_ADDRESS};
    if (function == HART_START)
        return start_hart(a[0], a[1], a[2]);
    v->state = HART_SUSPENDED;
    wfi();
    v->state = HART_STARTED;
    if (type)
        start_guest(v, a[1], a[2]);
    return (struct sbiret){0};
}

// Type 0 shuts down, 1 and 2 reboot, which starts us anew, too.
static struct sbiret reset(struct vcpu *v, uint64_t *a) {
    uint32_t type = a[0], reason = a[1];
    if (type > SBI_SRST_WARM_REBOOT || reason > SBI_SRST_FAILURE)
        return (struct sbiret){.error = SBI_ERR_INVALID_PARAM};
    stop_others(v);
    return host_sbi(SBI_EXT_SRST, 0, (uint64_t[5]){type, reason});
}

// The debug console.  The firmware's may be too old to have one, so each
// character is a legacy call to it.  It may do less than asked for.
static struct sbiret console(struct vcpu *v, uint64_t *a) {
    if (a[FUNCTION] == CONSOLE_WRITE_BYTE) {
        host_sbi(LEGACY_PUTCHAR, 0, (uint64_t[5]){(uint8_t)a[0]});
        return (struct sbiret){0};
    }
    uint64_t size = a[0], i = 0;
    uint8_t *buffer = a[2] ? NULL : guest_ptr(a[1], size); // a2: high half
    if (!buffer)
        return (struct sbiret){.error = SBI_ERR_INVALID_PARAM};
    for (; i < size && i < CONSOLE_MOST; i++) {
        bool read = a[FUNCTION] == CONSOLE_READ;
        uint64_t legacy = read ? LEGACY_GETCHAR : LEGACY_PUTCHAR;
        long c = host_sbi(legacy, 0, (uint64_t[5]){buffer[i]}).error;
        if (read && c < 0)
            break;
        if (read)
            buffer[i] = c;
    }
    return (struct sbiret){0, i};
}

static const struct extension {
    uint64_t first, last, last_function;
    struct sbiret (*call)(struct vcpu *v, uint64_t *a);
} extensions[] = {
    // SBI 0.1 (chapter 5): each function is an extension.  The ones for other
    // harts are not there: since SBI 0.2 there are IPI and RFENCE for that.
    {LEGACY_SET_TIMER, LEGACY_SET_TIMER, -1, set_timer},
    {LEGACY_PUTCHAR, LEGACY_GETCHAR, -1, firmware},
    {LEGACY_SHUTDOWN, LEGACY_SHUTDOWN, -1, firmware},
    {SBI_EXT_BASE, SBI_EXT_BASE, 6, base},
    {SBI_EXT_TIME, SBI_EXT_TIME, 0, set_timer},
    {SBI_EXT_IPI, SBI_EXT_IPI, 0, to_harts},
    {SBI_EXT_RFENCE, SBI_EXT_RFENCE, 2, to_harts}, // the others need H
    {SBI_EXT_HSM, SBI_EXT_HSM, 3, hsm},
    {SBI_EXT_SRST, SBI_EXT_SRST, 0, reset},
    {SBI_EXT_DBCN, SBI_EXT_DBCN, 2, console},
};

static const struct extension *find(uint64_t id) {
    for (unsigned i = 0; i < LENGTH(extensions); i++)
        if (id >= extensions[i].first && id <= extensions[i].last)
            return &extensions[i];
    return NULL;
}

// An ecall from VS-mode.  Returns how far to move the guest's pc.
unsigned handle_sbi(struct vcpu *v) {
    uint64_t *a = &v->regs[10];
    const struct extension *e = find(a[EXTENSION]);
    struct sbiret ret = {.error = SBI_ERR_NOT_SUPPORTED};
    if (e && a[FUNCTION] <= e->last_function)
        ret = e->call(v, a);
    a[0] = ret.error;
    if (a[EXTENSION] > LEGACY_SHUTDOWN) // whose answers are in a0 alone
        a[1] = ret.value;
    return 4;
}
