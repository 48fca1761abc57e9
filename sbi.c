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

static struct sbiret base(struct vcpu *v, uint64_t *a) {
    // The specification's version, 2.0; who we are, "hv", the registered ones
    // are far below; our own version.
    static const long ours[] = {2 << 24, 0x6876, 1};
    if (a[FUNCTION] < LENGTH(ours))
        return (struct sbiret){0, ours[a[FUNCTION]]};
    if (a[FUNCTION] == PROBE_EXTENSION)
        return (struct sbiret){0, find(a[0]) != NULL};
    // mvendorid, marchid, mimpid: it is the host's hart that the guest runs on
    return host_sbi(SBI_EXT_BASE, a[FUNCTION], a);
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
    if (a[1] != -1ul && a[0] &&
        (a[1] >= guest.harts || a[0] >= 1ul << (guest.harts - a[1])))
        return (struct sbiret){.error = SBI_ERR_INVALID_PARAM};
    return host_sbi(a[EXTENSION], fences[a[FUNCTION]], a);
}

// Lets HART begin where START says, as hart_start wants it.  Only one of those
// who try that at a time gets it out of HART_STOPPED.
struct sbiret start_hart(uint64_t hart, struct start start) {
    struct vcpu *v = &vcpus[hart];
    if (!__sync_bool_compare_and_swap(&v->state, HART_STOPPED, HART_STARTED))
        return (struct sbiret){.error = SBI_ERR_ALREADY_AVAILABLE};
    v->start = start;
    __atomic_store_n(&v->state, HART_START_PENDING, __ATOMIC_RELEASE);
    return host_sbi(SBI_EXT_IPI, 0, (uint64_t[5]){1ul << hart});
}

// Harts are started, stopped and suspended by us, not by the firmware: see
// main().  We keep our state over a suspension in any case, so one that loses
// it is a sleep and a new start.
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
        return start_hart(a[0], (struct start){a[1], a[2]});
    v->state = HART_SUSPENDED;
    wfi();
    v->state = HART_STARTED;
    v->start = (struct start){a[1], a[2]};
    if (type)
        start_guest(v);
    return (struct sbiret){0};
}

// Type 0 shuts down, 1 and 2 reboot, which starts us anew, too, and before
// which all other harts must be out of the guest: see main().
static struct sbiret reset(struct vcpu *v, uint64_t *a) {
    uint32_t type = a[0], reason = a[1];
    if (type > SBI_SRST_WARM_REBOOT || reason > SBI_SRST_FAILURE)
        return (struct sbiret){.error = SBI_ERR_INVALID_PARAM};
    if (__atomic_exchange_n(&host.resetting, 1, __ATOMIC_RELAXED))
        stop_hart(v); // another one does it
    for (uint64_t hart = 0; hart < guest.harts; hart++)
        while (hart != v->hart && vcpus[hart].state != HART_STOPPED)
            host_sbi(SBI_EXT_IPI, 0, (uint64_t[5]){1ul << hart});
    return host_sbi(SBI_EXT_SRST, 0, (uint64_t[5]){type, reason});
}

// The debug console.  The firmware's may be too old to have one, so each
// character is a legacy call to it.  It may do less than asked for.
static struct sbiret console(struct vcpu *v, uint64_t *a) {
    uint8_t byte = a[0], *buffer = &byte;
    uint64_t size = 1, i = 0;
    bool read = a[FUNCTION] == CONSOLE_READ;
    if (a[FUNCTION] != CONSOLE_WRITE_BYTE) {
        size = a[0];
        buffer = a[2] ? NULL : guest_ptr(a[1], size); // a2: high half
    }
    if (!buffer)
        return (struct sbiret){.error = SBI_ERR_INVALID_PARAM};
    for (; i < size && i < CONSOLE_MOST; i++) {
        uint64_t legacy = read ? LEGACY_GETCHAR : LEGACY_PUTCHAR;
        long c = host_sbi(legacy, 0, (uint64_t[5]){buffer[i]}).error;
        if (read && c < 0)
            break;
        if (read)
            buffer[i] = c;
    }
    return (struct sbiret){0, a[FUNCTION] == CONSOLE_WRITE_BYTE ? 0 : i};
}

// SBI 0.1 (chapter 5): each function is an extension, and the answer is in a0
// alone.  Where it is about other harts, a0 is the guest-virtual address of a
// mask, and all are meant if there is none.
static struct sbiret legacy(struct vcpu *v, uint64_t *a) {
    uint64_t id = a[EXTENSION];
    bool ipi = id == LEGACY_SEND_IPI;
    bool masked = id >= LEGACY_SEND_IPI && id < LEGACY_SHUTDOWN;
    long all = (1 << guest.harts) - 1;
    long mask = masked && a[0] ? hlv_bu(a[0], 0) : all;
    uint64_t args[8] = {mask & all, 0, a[1], a[2], a[3]};
    args[FUNCTION] = ipi ? 0 : id - LEGACY_REMOTE_FENCE_I;
    args[EXTENSION] = ipi ? SBI_EXT_IPI : SBI_EXT_RFENCE;
    struct sbiret ret = {.error = (csr_read(hvip) & HVIP_VSSIP) != 0};
    // The guest's page tables have nothing for the mask, which QEMU 7.2 calls
    // an access fault, or they point to no RAM.
    bool no_ram = csr_read(scause) == CAUSE_LOAD_GUEST_PAGE_FAULT;
    if (mask < 0)
        inject(v, no_ram ? CAUSE_LOAD_ACCESS : CAUSE_LOAD_PAGE, a[0]);
    else if (masked)
        ret = to_harts(v, args);
    else if (id == LEGACY_CLEAR_IPI) // returns whether there was one
        csr_clear(hvip, HVIP_VSSIP);
    else if (id == LEGACY_SET_TIMER)
        ret = set_timer(v, a);
    else // console and shutdown
        ret = host_sbi(id, 0, a);
    return (struct sbiret){ret.error, a[1]};
}

static const struct extension {
    uint64_t first, last, last_function;
    struct sbiret (*call)(struct vcpu *v, uint64_t *a);
} extensions[] = {
    {0, LEGACY_SHUTDOWN, -1, legacy},
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
    if (csr_read(sepc) != v->exit->pc)
        return 0; // it got an exception instead
    a[0] = ret.error;
    a[1] = ret.value;
    return 4;
}
