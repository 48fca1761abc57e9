#include "../../sbi.c"
#include "unit.h"

enum { CONSOLE_READ = 1 };

// The guest makes an ecall, and its pc moves on.
static struct sbiret sbi(uint64_t id, uint64_t function, uint64_t a0,
                         uint64_t a1, uint64_t a2) {
    uint64_t *a = &vcpus[0].regs[10];
    a[0] = a0, a[1] = a1, a[2] = a2, a[6] = function, a[7] = id;
    calls_made = 0;
    leave(CAUSE_VIRTUAL_SUPERVISOR_ECALL, 0, 0, 0);
    assert_int_equal(csrs.sepc, GUEST_RAM + PC + 4);
    return (struct sbiret){a[0], a[1]};
}

// The firmware was asked this one thing.
static void asked(uint64_t id, uint64_t function, uint64_t a0, uint64_t a1) {
    assert_int_equal(calls_made, 1);
    assert_int_equal(calls[0].id, id);
    assert_int_equal(calls[0].function, function);
    assert_int_equal(calls[0].a[0], a0);
    assert_int_equal(calls[0].a[1], a1);
}

static void fails(struct sbiret ret, long error) {
    assert_int_equal(ret.error, error);
    assert_int_equal(ret.value, 0);
    assert_int_equal(calls_made, 0);
}

static void what_is_not_there_is_not_supported(void **state) {
    static const uint64_t wrong[][2] = {
        {3, 0}, // SBI 0.1's calls for other harts
        {4, 0},
        {5, 0},
        {6, 0},
        {7, 0},
        {9, 0},
        {15, 0},
        {0x11, 0},
        {0x48534e, 0},
        {-1, 0},
        {1ul << 32, 0}, // not taken for legacy set_timer
        {SBI_EXT_BASE, 7},
        {SBI_EXT_BASE, -1},
        {SBI_EXT_TIME, 1},
        {SBI_EXT_IPI, 1},
        {SBI_EXT_RFENCE, 3},
        {SBI_EXT_RFENCE, 4},
        {SBI_EXT_HSM, 4},
        {SBI_EXT_SRST, 1},
        {SBI_EXT_DBCN, 3},
        {SBI_EXT_DBCN, 1ul << 32},
        {0x0a000000, 0}, // firmware specific
    };
    for (unsigned i = 0; i < LENGTH(wrong); i++) {
        struct sbiret ret = sbi(wrong[i][0], wrong[i][1], 1, 2, 3);
        assert_int_equal(ret.error, SBI_ERR_NOT_SUPPORTED);
        assert_int_equal(ret.value, wrong[i][0] <= LEGACY_SHUTDOWN ? 2 : 0);
        assert_int_equal(calls_made, 0);
    }
}

static void base_says_who_we_are(void **state) {
    assert_int_equal(sbi(SBI_EXT_BASE, 0, 0, 0, 0).value, 2 << 24);
    assert_int_equal(sbi(SBI_EXT_BASE, 1, 0, 0, 0).value, 0x6876);
    assert_int_equal(sbi(SBI_EXT_BASE, 2, 0, 0, 0).value, 1);
    static const struct {
        uint64_t id;
        bool there;
    } probes[] = {{0, 1},
                  {1, 1},
                  {2, 1},
                  {3, 0},
                  {4, 0},
                  {5, 0},
                  {6, 0},
                  {7, 0},
                  {8, 1},
                  {9, 0},
                  {SBI_EXT_DBCN, 1},
                  {SBI_EXT_HSM, 1},
                  {0x504d55, 0},
                  {-1, 0}};
    for (unsigned i = 0; i < LENGTH(probes); i++) {
        struct sbiret ret = sbi(SBI_EXT_BASE, 3, probes[i].id, 0, 0);
        assert_int_equal(ret.value, probes[i].there);
    }
    answer.value = 77;
    assert_int_equal(sbi(SBI_EXT_BASE, 4, 1, 2, 3).value, 77);
    asked(SBI_EXT_BASE, 4, 1, 2);
}

static void the_timer(void **state) {
    sbi(SBI_EXT_TIME, 0, 1234, 0, 0);
    assert_int_equal(csrs.vstimecmp, 1234);
    assert_int_equal(calls_made, 0);
    host.sstc = false;
    csrs.hvip = HVIP_VSTIP;
    sbi(SBI_EXT_TIME, 0, 5678, 0, 0);
    assert_int_equal(csrs.hvip, 0);
    assert_true(csrs.sie & SIP_STIP);
    asked(SBI_EXT_TIME, 0, 5678, 0);
    assert_int_equal(sbi(LEGACY_SET_TIMER, 9, 99, 4, 0).value, 4); // a1
    asked(SBI_EXT_TIME, 0, 99, 4);
}

static void masks_name_harts_that_there_are(void **state) {
    sbi(SBI_EXT_IPI, 0, 0xf, 0, 0);
    asked(SBI_EXT_IPI, 0, 0xf, 0);
    sbi(SBI_EXT_IPI, 0, 1, 3, 0);
    asked(SBI_EXT_IPI, 0, 1, 3);
    // Nobody is meant, wherever the mask begins.  The firmware hears only of
    // harts that exist.
    static const uint64_t bases[] = {4, 99, 1ul << 63, -2ul};
    for (unsigned i = 0; i < LENGTH(bases); i++) {
        fails(sbi(SBI_EXT_IPI, 0, 0, bases[i], 0), 0);
        for (unsigned function = 0; function < 3; function++)
            fails(sbi(SBI_EXT_RFENCE, function, 0, bases[i], 0), 0);
    }
    assert_int_equal(sbi(SBI_EXT_IPI, 0, 0, 3, 0).error, 0);
    asked(SBI_EXT_IPI, 0, 0, 3);
    sbi(SBI_EXT_IPI, 0, 0, -1, 0); // all, whatever the mask
    asked(SBI_EXT_IPI, 0, 0, -1);
    sbi(SBI_EXT_IPI, 0, 99, -1, 0); // everybody
    asked(SBI_EXT_IPI, 0, 99, -1);
    fails(sbi(SBI_EXT_IPI, 0, 0x10, 0, 0), SBI_ERR_INVALID_PARAM);
    fails(sbi(SBI_EXT_IPI, 0, 2, 3, 0), SBI_ERR_INVALID_PARAM);
    fails(sbi(SBI_EXT_IPI, 0, 1, 4, 0), SBI_ERR_INVALID_PARAM);
    fails(sbi(SBI_EXT_IPI, 0, 1, 64, 0), SBI_ERR_INVALID_PARAM);
    fails(sbi(SBI_EXT_IPI, 0, 1, -2, 0), SBI_ERR_INVALID_PARAM);
    fails(sbi(SBI_EXT_IPI, 0, 1ul << 63, 0, 0), SBI_ERR_INVALID_PARAM);
    sbi(SBI_EXT_RFENCE, 0, 3, 0, 0);
    asked(SBI_EXT_RFENCE, SBI_REMOTE_FENCE_I, 3, 0);
    sbi(SBI_EXT_RFENCE, 1, 3, 0, 0);
    asked(SBI_EXT_RFENCE, SBI_REMOTE_HFENCE_VVMA, 3, 0);
    sbi(SBI_EXT_RFENCE, 2, 3, 0, 0);
    asked(SBI_EXT_RFENCE, SBI_REMOTE_HFENCE_VVMA_ASID, 3, 0);
}

static void harts_start_in_ram(void **state) {
    const gpa_t pc = GUEST_RAM + 0x100;
    vcpus[1].state = vcpus[2].state = HART_STOPPED;
    assert_int_equal(sbi(SBI_EXT_HSM, HART_START, 2, pc, 77).error, 0);
    asked(SBI_EXT_IPI, 0, 1 << 2, 0);
    assert_int_equal(vcpus[2].start_pc, pc);
    assert_int_equal(vcpus[2].start_opaque, 77);
    assert_int_equal(sbi(SBI_EXT_HSM, HART_GET_STATUS, 2, 0, 0).value,
                     HART_START_PENDING);
    fails(sbi(SBI_EXT_HSM, HART_START, 2, pc + 4, 78),
          SBI_ERR_ALREADY_AVAILABLE);
    assert_int_equal(vcpus[2].start_pc, pc);
    fails(sbi(SBI_EXT_HSM, HART_START, 3, pc, 0), SBI_ERR_ALREADY_AVAILABLE);
    fails(sbi(SBI_EXT_HSM, HART_START, 4, pc, 0), SBI_ERR_INVALID_PARAM);
    fails(sbi(SBI_EXT_HSM, HART_START, -1, pc, 0), SBI_ERR_INVALID_PARAM);
    fails(sbi(SBI_EXT_HSM, HART_START, 1, 0, 0), SBI_ERR_INVALID_ADDRESS);
    fails(sbi(SBI_EXT_HSM, HART_START, 1, GUEST_RAM + GUEST_RAM_SIZE - 2, 0),
          SBI_ERR_INVALID_ADDRESS);
    assert_int_equal(vcpus[1].state, HART_STOPPED);
    fails(sbi(SBI_EXT_HSM, HART_GET_STATUS, 4, 0, 0), SBI_ERR_INVALID_PARAM);
    assert_int_equal(sbi(SBI_EXT_HSM, HART_GET_STATUS, 1, 0, 0).value,
                     HART_STOPPED);
    assert_int_equal(calls_made, 0);
}

// The firmware gets the IPI for hart 2, and our fence comes before that.
static const gpa_t start_pc = GUEST_RAM + 0x100;
static unsigned fences_then;
static void started_is_complete(void) {
    fences_then = calls_made ? fences_then : fences;
    assert_int_equal(vcpus[2].state, HART_START_PENDING);
    assert_int_equal(vcpus[2].start_opaque, 77);
    assert_int_equal(vcpus[2].start_pc, start_pc);
}
static struct sbiret pending(const struct call *call) {
    assert_int_equal(call->id, SBI_EXT_IPI);
    assert_int_equal(call->a[0], 1 << 2);
    assert_int_equal(call->a[1], 0);
    started_is_complete();
    assert_int_equal(fences, 1);
    calls_made++;
    return (struct sbiret){0};
}

static void a_start_is_complete_before_the_ipi(void **state) {
    vcpus[2].state = HART_STOPPED;
    at_fence = started_is_complete;
    the_firmware = pending;
    calls_made = 0;
    assert_true(start_hart(2, start_pc, 77));
    assert_int_equal(calls_made, 1);
    assert_int_equal(fences_then, 1);
    assert_int_equal(vcpus[2].state, HART_START_PENDING);
}

// An exit after which hart 0 is stopped.
#define stops(...)                                                             \
    do {                                                                       \
        assert_int_equal(how_ends(__VA_ARGS__), ASLEEP);                       \
        assert_int_equal(vcpus[0].state, HART_STOPPED);                        \
        assert_int_equal(calls_made, 0);                                       \
        vcpus[0].state = HART_STARTED;                                         \
    } while (0)

static void harts_stop(void **state) {
    csrs.vsie = csrs.hvip = -1;
    stops(sbi(SBI_EXT_HSM, HART_STOP, 9, 0, 0));
    assert_int_equal(csrs.vsie | csrs.hvip, 0);
}

static void suspended_harts_come_back(void **state) {
    const gpa_t pc = GUEST_RAM + 0x100;
    fails(sbi(SBI_EXT_HSM, HART_SUSPEND, 0, 1, 2), 0);
    uint64_t *a = &vcpus[0].regs[10], non_retentive = 0x80000000;
    a[0] = non_retentive, a[1] = pc, a[2] = 77, a[6] = HART_SUSPEND;
    a[7] = SBI_EXT_HSM;
    // An external interrupt was shown, and another hart may have claimed it.
    csrs.hvip = HVIP_VSEIP;
    csrs.sie = SIP_SSIP;
    assert_int_equal(how_ends(leave(CAUSE_VIRTUAL_SUPERVISOR_ECALL, 0, 0, 0)),
                     ENTERED);
    assert_int_equal(csrs.hvip, 0);
    assert_true(csrs.sie & SIP_SEIP);
    assert_int_equal(csrs.sepc, pc);
    assert_int_equal(a[0], 0); // the hart's number
    assert_int_equal(a[1], 77);
    assert_int_equal(vcpus[0].state, HART_STARTED);
    fails(sbi(SBI_EXT_HSM, HART_SUSPEND, 1, pc, 0), SBI_ERR_INVALID_PARAM);
    fails(sbi(SBI_EXT_HSM, HART_SUSPEND, non_retentive, 4, 0),
          SBI_ERR_INVALID_ADDRESS);
}

// Hart 1 is stopped, 2 stops at its second IPI, 3 at its first.
static struct sbiret stopping(const struct call *call) {
    static unsigned ipis[] = {1, 0, 2, 1}; // that each still needs
    calls[calls_made++ % LENGTH(calls)] = *call;
    if (call->id == SBI_EXT_IPI) {
        unsigned hart = __builtin_ctzl(call->a[0]);
        assert_int_equal(call->a[1], 0);
        if (!--ipis[hart])
            vcpus[hart].state = HART_STOPPED;
    }
    return (struct sbiret){0};
}

static void resets(void **state) {
    the_firmware = stopping;
    vcpus[1].state = HART_STOPPED;
    for (uint64_t type = 0; type < 3; type++) {
        host.resetting = 0;
        sbi(SBI_EXT_SRST, 0, type | 1ul << 32, 1, 0);
        assert_int_equal(calls_made, type ? 1 : 4); // three IPIs
        struct call *last = &calls[calls_made - 1];
        assert_int_equal(last->id, SBI_EXT_SRST);
        assert_int_equal(last->function, 0);
        assert_int_equal(last->a[0], type);
        assert_int_equal(last->a[1], 1);
    }
    fails(sbi(SBI_EXT_SRST, 0, 3, 0, 0), SBI_ERR_INVALID_PARAM);
    fails(sbi(SBI_EXT_SRST, 0, -1, 0, 0), SBI_ERR_INVALID_PARAM);
    fails(sbi(SBI_EXT_SRST, 0, 0, 2, 0), SBI_ERR_INVALID_PARAM);
}

// While another hart resets the machine, a hart stops at an IPI, and at a reset
// of its own.
static void who_is_to_stop_stops(void **state) {
    host.resetting = 1;
    stops(sbi(SBI_EXT_SRST, 0, 1, 0, 0));
    csrs.sip = SIP_SSIP;
    stops(leave(CAUSE_INTERRUPT | 1, 0, 0, 0));
}

static struct sbiret no_key(const struct call *call) {
    calls_made++;
    return (struct sbiret){.error =
                               calls_made > 3 ? -1 : 'a' + (int)calls_made};
}

static void the_console_reads_and_writes_ram(void **state) {
    const gpa_t last = GUEST_RAM + GUEST_RAM_SIZE - 5;
    char *text = ram(last);
    memcpy(text, "text!", 5);
    assert_int_equal(sbi(SBI_EXT_DBCN, CONSOLE_WRITE, 5, last, 0).value, 5);
    assert_int_equal(calls_made, 5);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(calls[i].id, LEGACY_PUTCHAR);
        assert_int_equal(calls[i].a[0], text[i]);
    }
    sbi(SBI_EXT_DBCN, CONSOLE_WRITE, 1000, GUEST_RAM, 0);
    assert_int_equal(calls_made, 256);
    assert_int_equal(sbi(SBI_EXT_DBCN, CONSOLE_WRITE_BYTE, 0x141, 7, 7).value,
                     0);
    asked(LEGACY_PUTCHAR, 0, 0x41, 0);
    for (unsigned write = 0; write < 2; write++) {
        unsigned f = write ? CONSOLE_WRITE : CONSOLE_READ;
        fails(sbi(SBI_EXT_DBCN, f, 6, last, 0), SBI_ERR_INVALID_PARAM);
        fails(sbi(SBI_EXT_DBCN, f, 5, last, 1), SBI_ERR_INVALID_PARAM);
        fails(sbi(SBI_EXT_DBCN, f, -1, last, 0), SBI_ERR_INVALID_PARAM);
        fails(sbi(SBI_EXT_DBCN, f, 1, HOST_RAM, 0), SBI_ERR_INVALID_PARAM);
        fails(sbi(SBI_EXT_DBCN, f, 0, last, 0), 0);
    }
    the_firmware = no_key;
    assert_int_equal(sbi(SBI_EXT_DBCN, CONSOLE_READ, 5, last, 0).value, 3);
    assert_memory_equal(text, "bcdt!", 5);
}

// The legacy calls answer in a0 alone.
static void the_old_calls(void **state) {
    answer = (struct sbiret){65, 66};
    static const uint64_t passed_on[] = {LEGACY_PUTCHAR, LEGACY_GETCHAR,
                                         LEGACY_SHUTDOWN};
    for (unsigned i = 0; i < LENGTH(passed_on); i++) {
        struct sbiret ret = sbi(passed_on[i], 0, 'x', 4, 0);
        asked(passed_on[i], 0, 'x', 4);
        assert_int_equal(ret.error, 65);
        assert_int_equal(ret.value, 4);
    }
    struct sbiret ret = sbi(LEGACY_SET_TIMER, 9, 1234, 4, 0);
    assert_int_equal(csrs.vstimecmp, 1234);
    assert_int_equal(ret.error, 0);
    assert_int_equal(ret.value, 4);
}

TESTS(test_sbi, T(what_is_not_there_is_not_supported), T(base_says_who_we_are),
      T(the_timer), T(masks_name_harts_that_there_are), T(harts_start_in_ram),
      T(a_start_is_complete_before_the_ipi), T(harts_stop),
      T(suspended_harts_come_back), T(resets), T(who_is_to_stop_stops),
      T(the_console_reads_and_writes_ram), T(the_old_calls))
