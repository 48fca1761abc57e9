// What the guest may ask for: the Supervisor Binary Interface 2.0.  The guest
// puts the extension into a7, the function into a6 and arguments into a0 to a5.
// It gets an error back in a0, 0 for none, and a value in a1.
//
// The table at the end says which function answers for which extension.  Each
// gets a pointer to the guest's a0, A, so A[FUNCTION] is a6 and A[EXTENSION] is
// a7.
//
// Vcpu n runs on hart n.  So an IPI or a fence for the guest's harts goes to
// the firmware, with the same numbers of harts.

#include "hv.h"

enum { FUNCTION = 6, EXTENSION = 7 };
enum { SBI_ERR_NOT_SUPPORTED = -2, SBI_ERR_INVALID_PARAM = -3 };
enum { SBI_ERR_INVALID_ADDRESS = -5, SBI_ERR_ALREADY_AVAILABLE = -6 };
enum { PROBE_EXTENSION = 3, CONSOLE_WRITE = 0, CONSOLE_WRITE_BYTE = 2 };

static const struct extension *find_extension(uint64_t id);

// Lets the firmware answer.
static struct sbiret firmware(struct vcpu *v, uint64_t *a) {
    return host_sbi(a[EXTENSION], a[FUNCTION], a);
}

static struct sbiret base(struct vcpu *v, uint64_t *a) {
    // The version of the specification, 2.0; our number, "hv", which is far
    // above the registered ones; our own version.
    static const long about_us[] = {2 << 24, 0x6876, 1};
    if (a[FUNCTION] < LENGTH(about_us))
        return (struct sbiret){0, about_us[a[FUNCTION]]};
    if (a[FUNCTION] == PROBE_EXTENSION)
        return (struct sbiret){0, find_extension(a[0]) != NULL};
    // mvendorid, marchid, mimpid: the guest runs on the host's hart.
    return firmware(v, a);
}

// Raises the guest's timer interrupt when the time reaches A[0], in ticks of
// the timebase, and takes back one that is pending.  With Sstc the hart
// compares by itself.  Without it our own timer fires, and handle_interrupts()
// passes that on.
static struct sbiret set_timer(struct vcpu *v, uint64_t *a) {
    if (host.sstc) {
        csr_write(vstimecmp, a[0]);
        return (struct sbiret){0};
    }
    csr_clear(hvip, HVIP_VSTIP);
    csr_set(sie, SIP_STIP);
    return host_sbi(SBI_EXT_TIME, 0, a);
}

// Sends an IPI or a fence to the harts in a mask: bit n of A[0] is hart A[1] +
// n.  If A[1] is -1, all are meant.  An IPI arrives as our own software
// interrupt, and handle_interrupts() passes it on.  A fence for the guest's
// page tables, its sfence.vma, is our hfence.vvma, with or without an address
// space identifier (ASID).
static struct sbiret to_harts(struct vcpu *v, uint64_t *a) {
    // The firmware's function for each of the guest's.  IPI has only 0, which
    // stays.
    static const uint8_t fences[] = {SBI_REMOTE_FENCE_I, SBI_REMOTE_HFENCE_VVMA,
                                     SBI_REMOTE_HFENCE_VVMA_ASID};
    // To all harts, or to those in the mask, if all of these exist.
    if (a[1] == -1ul || (a[1] < guest.harts && !(a[0] >> (guest.harts - a[1]))))
        return host_sbi(a[EXTENSION], fences[a[FUNCTION]], a);
    // An empty mask means nobody, whatever A[1] is.
    return (struct sbiret){.error = a[0] ? SBI_ERR_INVALID_PARAM : 0};
}

// Suspends the hart until an interrupt is pending.  A retentive suspension,
// type 0, is only a sleep.  We also know the default non-retentive one, type
// 0x80000000: after that the hart begins at A[1] with A[2] in a1, as if it had
// been started.
static struct sbiret suspend(struct vcpu *v, uint64_t *a) {
    uint32_t type = a[0];
    if (type & INT32_MAX) // neither 0 nor 0x80000000
        return (struct sbiret){.error = SBI_ERR_INVALID_PARAM};
    if (type && !guest_ptr(a[1], 4))
        return (struct sbiret){.error = SBI_ERR_INVALID_ADDRESS};
    v->state = HART_SUSPENDED;
    wfi();
    v->state = HART_STARTED;
    if (type)
        start_guest(v, a[1], a[2]);
    return (struct sbiret){0};
}

// Harts are started, stopped and suspended by us, not by the firmware: see
// stop_hart().
static struct sbiret hsm(struct vcpu *v, uint64_t *a) {
    switch (a[FUNCTION]) {
    case HART_STOP: stop_hart(v); // does not return
    case HART_SUSPEND: return suspend(v, a);
    }
    // The other two functions are about hart A[0].
    if (a[0] >= guest.harts)
        return (struct sbiret){.error = SBI_ERR_INVALID_PARAM};
    if (a[FUNCTION] == HART_GET_STATUS)
        return (struct sbiret){0, vcpus[a[0]].state};
    if (!guest_ptr(a[1], 4))
        return (struct sbiret){.error = SBI_ERR_INVALID_ADDRESS};
    bool started = start_hart(a[0], a[1], a[2]);
    return (struct sbiret){.error = started ? 0 : SBI_ERR_ALREADY_AVAILABLE};
}

// Shuts down (type 0) or reboots (types 1 and 2), which restarts us, too.
// OpenSBI does not refuse that; if it did, the other harts would stay stopped.
static struct sbiret reset(struct vcpu *v, uint64_t *a) {
    uint32_t type = a[0], reason = a[1];
    if (type > SBI_SRST_WARM_REBOOT || reason > SBI_SRST_FAILURE)
        return (struct sbiret){.error = SBI_ERR_INVALID_PARAM};
    stop_others(v);
    return host_sbi(SBI_EXT_SRST, 0, (uint64_t[5]){type, reason});
}

// The debug console: writes or reads A[0] bytes at GPA A[1].  The firmware may
// be too old to have one, so each character is a legacy call to it.  SBI lets
// us do fewer bytes than were asked for, and we do 256 at most.
static struct sbiret console(struct vcpu *v, uint64_t *a) {
    if (a[FUNCTION] == CONSOLE_WRITE_BYTE)
        return host_sbi(LEGACY_PUTCHAR, 0, (uint64_t[5]){(uint8_t)a[0]});
    uint64_t most = a[0] < 256 ? a[0] : 256, i = 0;
    uint8_t *buffer = a[2] ? NULL : guest_ptr(a[1], a[0]); // a2: for RV32
    if (!buffer)
        return (struct sbiret){.error = SBI_ERR_INVALID_PARAM};
    long c; // what was typed, or -1 for nothing; a legacy call returns it in a0
    if (a[FUNCTION] == CONSOLE_WRITE)
        for (; i < most; i++)
            host_sbi(LEGACY_PUTCHAR, 0, (uint64_t[5]){buffer[i]});
    else
        while (i < most && (c = host_sbi(LEGACY_GETCHAR, 0, a).error) >= 0)
            buffer[i++] = c;
    return (struct sbiret){0, i};
}

static const struct extension {
    uint64_t first, last, last_function; // a7: from, to; a6: from 0 to
    struct sbiret (*answer)(struct vcpu *v, uint64_t *a);
} extensions[] = {
    // SBI 0.1 (chapter 5): each function is an extension of its own, whatever
    // a6 says.  Those with numbers 3 to 7 are missing: since SBI 0.2 sip.SSIP,
    // IPI and RFENCE take their place.
    {LEGACY_SET_TIMER, LEGACY_SET_TIMER, -1, set_timer},
    {LEGACY_PUTCHAR, LEGACY_GETCHAR, -1, firmware},
    {LEGACY_SHUTDOWN, LEGACY_SHUTDOWN, -1, firmware},
    {SBI_EXT_BASE, SBI_EXT_BASE, 6, base},
    {SBI_EXT_TIME, SBI_EXT_TIME, 0, set_timer},
    {SBI_EXT_IPI, SBI_EXT_IPI, 0, to_harts},
    {SBI_EXT_RFENCE, SBI_EXT_RFENCE, 2, to_harts}, // 3 and up need H
    {SBI_EXT_HSM, SBI_EXT_HSM, 3, hsm},
    {SBI_EXT_SRST, SBI_EXT_SRST, 0, reset},
    {SBI_EXT_DBCN, SBI_EXT_DBCN, 2, console},
};

static const struct extension *find_extension(uint64_t id) {
    for (unsigned i = 0; i < LENGTH(extensions); i++)
        if (id >= extensions[i].first && id <= extensions[i].last)
            return &extensions[i];
    return NULL;
}

// Handles an ecall from VS-mode.  Returns how far to move the guest's pc.
unsigned handle_sbi(struct vcpu *v) {
    uint64_t *a = &v->regs[10];
    const struct extension *e = find_extension(a[EXTENSION]);
    struct sbiret ret = {.error = SBI_ERR_NOT_SUPPORTED};
    if (e && a[FUNCTION] <= e->last_function)
        ret = e->answer(v, a);
    a[0] = ret.error;
    if (a[EXTENSION] > LEGACY_SHUTDOWN) // a legacy call answers in a0 alone
        a[1] = ret.value;
    return 4;
}
