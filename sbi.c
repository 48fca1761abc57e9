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

static struct sbiret not_supported(void) {
    return (struct sbiret){SBI_ERR_NOT_SUPPORTED, 0};
}

// Raises the guest's timer interrupt when time reaches WHEN, in ticks of the
// timebase, and takes a pending one back.  With Sstc the hart compares for
// itself; without it our own timer goes off, and handle_interrupts() passes it
// on.
static struct sbiret set_timer(uint64_t when) {
    if (host.sstc) {
        csr_write(vstimecmp, when);
        return success(0);
    }
    csr_clear(hvip, HVIP_VSTIP);
    csr_set(sie, SIP_STIP);
    return host_sbi(SBI_EXT_TIME, 0, when, 0, 0);
}

static bool has_extension(uint64_t extension);

// The calls.  EXTENSION is a7, FUNCTION a6, and A points to a0.
static struct sbiret base(uint64_t extension, uint64_t function, uint64_t *a) {
    switch (function) {
    case GET_SPEC_VERSION: return success(SBI_SPEC_2_0);
    case GET_IMPL_ID: return success(SBI_IMPL_ID);
    case GET_IMPL_VERSION: return success(SBI_IMPL_VERSION);
    case PROBE_EXTENSION: return success(has_extension(a[0]));
    case GET_MVENDORID: // it is the host's hart that the guest runs on
    case GET_MARCHID:
    case GET_MIMPID: return host_sbi(extension, function, 0, 0, 0);
    default: return not_supported();
    }
}

static struct sbiret timer(uint64_t extension, uint64_t function, uint64_t *a) {
    return function == 0 ? set_timer(a[0]) : not_supported();
}

// Resets mean to the host what they mean to us, and wrong ones are refused
// there: type 0 shuts down, 1 and 2 reboot, which starts us anew, too.
static struct sbiret reset(uint64_t extension, uint64_t function, uint64_t *a) {
    return function == 0 ? host_sbi(extension, 0, a[0], a[1], 0)
                         : not_supported();
}

// SBI 0.1: an extension is a function, and the answer is in a0 alone.
static struct sbiret legacy(uint64_t extension, uint64_t function,
                            uint64_t *a) {
    struct sbiret ret;
    if (extension == SBI_LEGACY_SET_TIMER)
        ret = set_timer(a[0]);
    else // console and shutdown
        ret = host_sbi(extension, 0, a[0], 0, 0);
    return (struct sbiret){ret.error, a[1]};
}

static const struct {
    uint64_t extension;
    struct sbiret (*call)(uint64_t extension, uint64_t function, uint64_t *a);
} extensions[] = {
    {SBI_LEGACY_SET_TIMER, legacy}, {SBI_LEGACY_PUTCHAR, legacy},
    {SBI_LEGACY_GETCHAR, legacy},   {SBI_LEGACY_SHUTDOWN, legacy},
    {SBI_EXT_BASE, base},           {SBI_EXT_TIME, timer},
    {SBI_EXT_SRST, reset},
};

static bool has_extension(uint64_t extension) {
    for (unsigned i = 0; i < LENGTH(extensions); i++)
        if (extensions[i].extension == extension)
            return true;
    return false;
}

// An ecall from VS-mode.  Returns how far to move the guest's pc.
unsigned handle_sbi(struct vcpu *v) {
    uint64_t *a = &v->regs[10];
    struct sbiret ret = not_supported();
    for (unsigned i = 0; i < LENGTH(extensions); i++)
        if (extensions[i].extension == a[7])
            ret = extensions[i].call(a[7], a[6], a);
    a[0] = ret.error;
    a[1] = ret.value;
    return 4;
}
