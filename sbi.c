// What the guest may ask for: the Supervisor Binary Interface 2.0.  a7 names
// the extension, a6 the function, a0 to a5 are arguments; an error comes back
// in a0 and a value in a1.

#include "hv.h"

#define SBI_SPEC_2_0 (2u << 24)
#define SBI_IMPL_ID 0x6876 // "hv"; the registered ones are far below
#define SBI_IMPL_VERSION 1

enum { GET_SPEC_VERSION, GET_IMPL_ID, GET_IMPL_VERSION, PROBE_EXTENSION };
enum { GET_MVENDORID = 4, GET_MARCHID, GET_MIMPID };

static struct sbiret success(long value) {
    return (struct sbiret){SBI_SUCCESS, value};
}

static struct sbiret failure(long error) {
    return (struct sbiret){error, 0};
}

static bool has_extension(uint64_t extension) {
    switch (extension) {
    case SBI_LEGACY_SET_TIMER:
    case SBI_LEGACY_PUTCHAR:
    case SBI_LEGACY_GETCHAR:
    case SBI_LEGACY_SHUTDOWN:
    case SBI_EXT_BASE:
    case SBI_EXT_TIME:
    case SBI_EXT_SRST: return true;
    default: return false;
    }
}

static struct sbiret base(uint64_t function, uint64_t argument) {
    switch (function) {
    case GET_SPEC_VERSION: return success(SBI_SPEC_2_0);
    case GET_IMPL_ID: return success(SBI_IMPL_ID);
    case GET_IMPL_VERSION: return success(SBI_IMPL_VERSION);
    case PROBE_EXTENSION: return success(has_extension(argument));
    case GET_MVENDORID: // it is the host's hart that the guest runs on
    case GET_MARCHID:
    case GET_MIMPID: return host_sbi(SBI_EXT_BASE, function, 0, 0, 0);
    default: return failure(SBI_ERR_NOT_SUPPORTED);
    }
}

// Raises the guest's timer interrupt when time reaches WHEN, in ticks of the
// timebase, and takes a pending one back.  With Sstc the hart compares for
// itself; without it our own timer goes off, and handle_interrupts() passes it
// on.
static struct sbiret set_timer(uint64_t when) {
    if (host.sstc) {
        csr_write(vstimecmp, when);
    } else {
        csr_clear(hvip, HVIP_VSTIP);
        csr_set(sie, SIP_STIP);
        host_sbi(SBI_EXT_TIME, 0, when, 0, 0);
    }
    return success(0);
}

// The arguments mean to the host what they mean to us, and wrong ones are
// refused there: type 0 shuts down, 1 and 2 reboot, which starts us anew, too.
static struct sbiret system_reset(uint64_t type, uint64_t reason) {
    return host_sbi(SBI_EXT_SRST, 0, type, reason, 0);
}

// The calls of SBI 0.1 have no function number and answer in a0 alone.
static bool legacy(uint64_t extension, uint64_t *a0) {
    switch (extension) {
    case SBI_LEGACY_SET_TIMER: *a0 = set_timer(*a0).error; return true;
    case SBI_LEGACY_PUTCHAR:
        *a0 = host_sbi(SBI_LEGACY_PUTCHAR, 0, *a0 & 0xff, 0, 0).error;
        return true;
    case SBI_LEGACY_GETCHAR: *a0 = uart_get_char(); return true;
    case SBI_LEGACY_SHUTDOWN:
        *a0 = system_reset(SBI_SRST_SHUTDOWN, SBI_SRST_NO_REASON).error;
        return true;
    default: return false;
    }
}

// An ecall from VS-mode.  Returns how far to move the guest's pc.
unsigned handle_sbi(struct vcpu *v) {
    uint64_t *a = &v->regs[10], extension = a[7], function = a[6];
    if (legacy(extension, &a[0]))
        return 4;

    struct sbiret ret = failure(SBI_ERR_NOT_SUPPORTED);
    switch (extension) {
    case SBI_EXT_BASE: ret = base(function, a[0]); break;
    case SBI_EXT_TIME:
        if (function == 0)
            ret = set_timer(a[0]);
        break;
    case SBI_EXT_SRST:
        if (function == 0)
            ret = system_reset(a[0], a[1]);
        break;
    default: break;
    }
    a[0] = ret.error;
    a[1] = ret.value;
    return 4;
}
