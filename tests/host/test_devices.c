// PLIC, UART and test device.
#include "../../plic.c"
#include "../../uart.c"
#include "unit.h"

static volatile uint32_t *plic(uint64_t offset) {
    return (volatile uint32_t *)(HOST_PLIC + offset);
}

static void the_guests_registers_are_the_hosts(void **state) {
    static const uint32_t offsets[] = {
        0,        4,        95 * 4,   1023 * 4,          // priorities
        0x2080,   0x2180,   0x20fc,                      // enables
        0x201000, 0x201004, 0x203004, 0x207000, 0x207004 // threshold, claim
    };
    for (unsigned i = 0; i < LENGTH(offsets); i++) {
        *plic(offsets[i]) = 0;
        assert_true(store(4, GUEST_PLIC + offsets[i], 0x80000000 + i));
        assert_int_equal(*plic(offsets[i]), 0x80000000 + i);
        assert_true(load(LWU, GUEST_PLIC + offsets[i]));
        assert_int_equal(vcpus[0].regs[5], 0x80000000 + i);
    }
}

// Contexts of M-mode and of harts that the guest does not have, pending bits,
// and the holes between all these.
static void the_rest_of_the_plic_is_not_the_guests(void **state) {
    static const uint32_t offsets[] = {
        0x1000,   0x1ffc,   0x2000,        0x207c,   0x2100,   0x2800,
        0x2880,   0x1ffffc, 0x200000,      0x200004, 0x202000, 0x210000,
        0x211000, 0x211004, PLIC_SIZE - 4, 0x2400,   0x2480,   0x208000,
        0x209000, 0x209004, 0x20f000};
    for (unsigned i = 0; i < LENGTH(offsets); i++) {
        *plic(offsets[i]) = 0x55;
        assert_true(store(4, GUEST_PLIC + offsets[i], -1));
        assert_int_equal(*plic(offsets[i]), 0x55);
        assert_true(load(LWU, GUEST_PLIC + offsets[i]));
        assert_int_equal(vcpus[0].regs[5], 0);
        *plic(offsets[i]) = 0;
    }
}

static unsigned in_time; // fences after the threshold is 0, before STOPPED
static void is_set(void) {
    in_time += *plic(0x201000 + 0x2000 * this_hart) == 0 &&
               vcpus[this_hart].state != HART_STOPPED;
}

// The firmware has left all thresholds at their highest.  Each hart sets its
// own before others can see that it waits.
static void each_hart_sets_its_threshold_to_0(void **state) {
    for (unsigned hart = 0; hart < MAX_HARTS; hart++)
        *plic(0x201000 + 0x2000 * hart) = *plic(0x200000 + 0x2000 * hart) = 7;
    for (this_hart = 0; this_hart < 4; this_hart++) {
        for (unsigned hart = 0; hart < MAX_HARTS; hart++) {
            assert_int_equal(*plic(0x201000 + 0x2000 * hart),
                             hart < this_hart ? 0 : 7);
            assert_int_equal(*plic(0x200000 + 0x2000 * hart), 7);
        }
        at_fence = is_set;
        in_time = 0;
        assert_int_equal(how_ends(stop_hart(&vcpus[this_hart])), ASLEEP);
        assert_int_equal(in_time, 1);
    }
}

#define LEAF (PTE_V | PTE_U | PTE_A | PTE_D)
static const gpa_t own_page = GUEST_PLIC + 0x201000;

// Returns what the hart finds for the page with hart 0's claim.
static uint64_t own_pte(void) {
    uint64_t size, pte = walk(own_page, &size);
    assert_true(!pte || size == PAGE);
    return pte;
}

static unsigned hfences;
static void gone_by_then(void) {
    hfences++;
    assert_int_equal(own_pte(), 0);
    assert_int_equal(csrs.sie & SIP_SEIP, 0);
}

// The claim is an exit while an interrupt is shown, and at no other time.
static void the_page_with_the_claim_is_lent(void **state) {
    const uint64_t lent = (HOST_PLIC + 0x201000) >> 2 | LEAF | PTE_R | PTE_W;
    at_hfence = gone_by_then;
    hfences = 0;
    plic_init(&vcpus[0]);
    assert_int_equal(own_pte(), lent);
    csrs.sie = SIP_SEIP | SIP_SSIP;
    for (unsigned times = 0; times < 3; times++) {
        csrs.sip = SIP_SEIP;
        leave(CAUSE_INTERRUPT | 9, 0, 0, 0);
        assert_int_equal(hfences, times + 1);
        assert_int_equal(own_pte(), 0);
        assert_int_equal(csrs.hvip, HVIP_VSEIP);
        assert_true(load(LWU, own_page)); // the threshold
        assert_int_equal(own_pte(), 0);
        csrs.sip = 0; // now it has been claimed
        assert_true(load(LWU, own_page + 4));
        assert_int_equal(own_pte(), lent);
        assert_int_equal(csrs.hvip, 0);
        assert_int_equal(csrs.sie, SIP_SEIP | SIP_SSIP);
        // The hart may still take the page for unmapped.  Then its store is an
        // exit, and is done all the same.
        assert_true(store(4, own_page + 4, 10));
        assert_int_equal(*plic(0x201004), 10);
        assert_int_equal(hfences, times + 1);
    }
}

// Each hart has a page of its own, and no hart has one of the firmware's.
static void each_hart_is_lent_its_own(void **state) {
    uint64_t size;
    for (unsigned hart = 0; hart < 4; hart++)
        plic_init(&vcpus[hart]);
    for (unsigned context = 0; context < 2 * MAX_HARTS; context++) {
        gpa_t gpa = GUEST_PLIC + CONTEXT + 0x1000 * context;
        uint64_t at = HOST_PLIC + CONTEXT + 0x1000 * context;
        assert_int_equal(walk(gpa, &size), context % 2 && context < 8
                                               ? at >> 2 | LEAF | PTE_R | PTE_W
                                               : 0);
    }
    plic_show(&vcpus[2], true);
    assert_int_equal(walk(GUEST_PLIC + 0x205000, &size), 0);
    assert_int_not_equal(walk(GUEST_PLIC + 0x203000, &size), 0);
    assert_int_not_equal(walk(GUEST_PLIC + 0x207000, &size), 0);
    // The rest may be read, except for the enables if the guest has an M-mode.
    uint64_t enables = GUEST_PLIC + ENABLE, priorities = GUEST_PLIC;
    assert_int_equal(walk(enables, &size) & 0x3ff, LEAF | PTE_R);
    assert_int_equal(walk(priorities, &size) & 0x3ff, LEAF | PTE_R);
}

static void an_m_mode_guest_may_not_read_enables(void **state) {
    uint64_t size;
    mmode_init();
    plic_init(&vcpus[0]);
    assert_int_equal(walk(GUEST_PLIC + ENABLE, &size), 0);
    assert_int_equal(walk(GUEST_PLIC, &size) & 0x3ff, LEAF | PTE_R);
    assert_int_equal(own_pte() & 0x3ff, LEAF | PTE_R | PTE_W);
}

// A guest that has an M-mode sees a context for it, which is really that of
// S-mode.
static void m_mode_has_the_context_of_s_mode(void **state) {
    static const uint32_t aliases[][2] = {
        {0x2000, 0x2080},     {0x2004, 0x2084},     {0x2100, 0x2180},
        {0x2080, 0x2080},     {0x200000, 0x201000}, {0x200004, 0x201004},
        {0x206000, 0x207000}, {0x203004, 0x203004}, {28, 28}};
    mmode_init();
    for (unsigned i = 0; i < LENGTH(aliases); i++) {
        uint32_t m = aliases[i][0], s = aliases[i][1];
        *plic(m) = *plic(s) = 0;
        assert_true(store(4, GUEST_PLIC + m, 3 + i));
        assert_int_equal(*plic(s), 3 + i);
        assert_int_equal(*plic(m), m == s ? 3 + i : 0);
        assert_true(load(LWU, GUEST_PLIC + m));
        assert_int_equal(vcpus[0].regs[5], 3 + i);
        *plic(s) = 0;
    }
    // Beyond the guest's harts there is nothing, at either of the two places.
    static const uint32_t not_its[] = {0x2400, 0x2480, 0x208000, 0x209004};
    for (unsigned i = 0; i < LENGTH(not_its); i++) {
        uint32_t m = not_its[i],
                 s = m | (m < CONTEXT ? ENABLE_SIZE : CONTEXT_SIZE);
        *plic(m) = *plic(s) = 0x55;
        assert_true(store(4, GUEST_PLIC + m, -1));
        assert_int_equal(*plic(m), 0x55);
        assert_int_equal(*plic(s), 0x55);
        assert_true(load(LWU, GUEST_PLIC + m));
        assert_int_equal(vcpus[0].regs[5], 0);
        *plic(m) = *plic(s) = 0;
    }
}

static void the_uart_takes_bytes(void **state) {
    volatile uint8_t *uart = (volatile uint8_t *)HOST_UART;
    for (unsigned i = 0; i < 8; i++) {
        assert_true(store(1, GUEST_UART + i, 0x180 + i));
        assert_int_equal(uart[i], 0x80 + i);
    }
    // A wider store writes its lowest byte, and no other.
    for (unsigned width = 2; width <= 8; width *= 2) {
        for (unsigned i = 0; i < 8; i++)
            uart[i] = 0xee;
        unsigned at = 8 - width;
        assert_true(store(width, GUEST_UART + at, 0x1122334455667700 + width));
        for (unsigned i = 0; i < 8; i++)
            assert_int_equal(uart[i], i == at ? width : 0xee);
    }
}

// Another hart stops when it gets its IPI.
static struct sbiret stops_at_its_ipi(const struct call *call) {
    calls[calls_made++ % LENGTH(calls)] = *call;
    assert_int_equal(call->id, SBI_EXT_IPI);
    assert_int_equal(ended, 0);
    vcpus[__builtin_ctzl(call->a[0])].state = HART_STOPPED;
    return (struct sbiret){0};
}

static void the_test_device_ends_it(void **state) {
    static const uint32_t ends[] = {0x5555,  0x7777,   0x3333,
                                    0x13333, 0xff3333, 0x15555};
    host.test = HOST_TEST;
    for (unsigned i = 0; i < LENGTH(ends); i++) {
        reset_harts();
        the_firmware = stops_at_its_ipi;
        vcpus[2].state = HART_STOPPED;
        assert_int_equal(how_ends(store(4, GUEST_TEST, ends[i])), DIED);
        assert_int_equal(ended, ends[i]);
        assert_int_equal(calls_made, 2);
        assert_int_equal(calls[0].a[0], 1 << 1);
        assert_int_equal(calls[1].a[0], 1 << 3);
        assert_true(host.resetting);
    }
    reset_harts();
    the_firmware = stops_at_its_ipi;
    assert_int_equal(how_ends(store(2, GUEST_TEST, 0x5555)), DIED);
    assert_int_equal(ended, 0x5555);
    // If another hart is doing that already, this one waits for the end.
    reset_harts();
    host.resetting = 1;
    assert_int_equal(how_ends(store(4, GUEST_TEST, 0x5555)), ASLEEP);
    assert_int_equal(ended, 0);
}

static void the_test_device_ignores_the_rest(void **state) {
    static const uint32_t others[] = {0, 1, 0x5554, 0x55550000, 0x33330000};
    host.test = HOST_TEST;
    for (unsigned i = 0; i < LENGTH(others); i++)
        assert_true(store(4, GUEST_TEST, others[i]));
    assert_true(store(2, GUEST_TEST + 2, 0x5555)); // the exit status alone
    assert_true(load(LW, GUEST_TEST));
    assert_int_equal(vcpus[0].regs[5], 0);
    assert_false(store(1, GUEST_TEST, 0x55));
    assert_false(store(8, GUEST_TEST, 0x5555));
    assert_false(store(4, GUEST_TEST + 4, 0x5555));
    // The host has none.
    host.test = 0;
    assert_false(store(4, GUEST_TEST, 0x5555));
    assert_false(load(LW, GUEST_TEST));
    assert_int_equal(calls_made, 0);
    assert_false(host.resetting);
}

TESTS(test_devices, T(the_guests_registers_are_the_hosts),
      T(the_rest_of_the_plic_is_not_the_guests),
      T(each_hart_sets_its_threshold_to_0), T(the_page_with_the_claim_is_lent),
      T(each_hart_is_lent_its_own), T(an_m_mode_guest_may_not_read_enables),
      T(m_mode_has_the_context_of_s_mode), T(the_uart_takes_bytes),
      T(the_test_device_ends_it), T(the_test_device_ignores_the_rest))
