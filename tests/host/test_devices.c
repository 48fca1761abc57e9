// PLIC, UART and CLINT.
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
        0x201000, 0x201004, 0x203004, 0x20f000, 0x20f004 // threshold, claim
    };
    for (unsigned i = 0; i < LENGTH(offsets); i++) {
        *plic(offsets[i]) = 0;
        assert_true(store(4, GUEST_PLIC + offsets[i], 0x80000000 + i));
        assert_int_equal(*plic(offsets[i]), 0x80000000 + i);
        assert_true(load(LWU, GUEST_PLIC + offsets[i]));
        assert_int_equal(vcpus[0].regs[5], 0x80000000 + i);
    }
}

// Contexts of M-mode, of harts that can't be, pending bits, holes between.
static void the_rest_of_the_plic_is_not_the_guests(void **state) {
    static const uint32_t offsets[] = {
        0x1000,   0x1ffc,   0x2000,   0x207c,   0x2100,
        0x2800,   0x2880,   0x1ffffc, 0x200000, 0x200004,
        0x202000, 0x210000, 0x211000, 0x211004, PLIC_SIZE - 4};
    for (unsigned i = 0; i < LENGTH(offsets); i++) {
        *plic(offsets[i]) = 0x55;
        assert_true(store(4, GUEST_PLIC + offsets[i], -1));
        assert_int_equal(*plic(offsets[i]), 0x55);
        assert_true(load(LWU, GUEST_PLIC + offsets[i]));
        assert_int_equal(vcpus[0].regs[5], 0);
        *plic(offsets[i]) = 0;
    }
}

static void the_plic_begins_with_thresholds_0(void **state) {
    for (unsigned hart = 0; hart < MAX_HARTS; hart++)
        *plic(0x201000 + 0x2000 * hart) = *plic(0x200000 + 0x2000 * hart) = 7;
    plic_init();
    for (unsigned hart = 0; hart < MAX_HARTS; hart++) {
        assert_int_equal(*plic(0x201000 + 0x2000 * hart), hart < 4 ? 0 : 7);
        assert_int_equal(*plic(0x200000 + 0x2000 * hart), 7);
    }
}

static void the_uart_takes_bytes(void **state) {
    for (unsigned i = 0; i < 8; i++) {
        assert_true(store(1, GUEST_UART + i, 0x180 + i));
        assert_int_equal(*(volatile uint8_t *)(HOST_UART + i), 0x80 + i);
    }
}

static void the_clint_has_a_timer_in_m_mode(void **state) {
    enum { MTIMECMP = 0x4000, MTIME = 0xbff8 };
    struct vcpu *v = &vcpus[0];
    mmode_start(v);
    csrs.time = 1234;
    assert_true(load(LD, GUEST_CLINT + MTIME));
    assert_int_equal(v->regs[5], 1234);
    assert_true(load(LD, GUEST_CLINT + MTIMECMP));
    assert_int_equal(v->regs[5], -1);
    calls_made = 0;
    assert_true(store(8, GUEST_CLINT + MTIMECMP, 5678));
    assert_int_equal(calls_made, 1);
    assert_int_equal(calls[0].id, SBI_EXT_TIME);
    assert_int_equal(calls[0].a[0], 5678);
    assert_true(csrs.sie & SIP_STIP);
    assert_true(load(LD, GUEST_CLINT + MTIMECMP));
    assert_int_equal(v->regs[5], 5678);
    // another hart's, and none
    assert_true(store(8, GUEST_CLINT + MTIMECMP + 8, 1));
    assert_true(store(8, GUEST_CLINT + MTIME, 1));
    assert_int_equal(calls_made, 1);
    assert_true(load(LD, GUEST_CLINT + MTIMECMP + 8));
    assert_int_equal(v->regs[5], 0);
}

TESTS(test_devices, T(the_guests_registers_are_the_hosts),
      T(the_rest_of_the_plic_is_not_the_guests),
      T(the_plic_begins_with_thresholds_0), T(the_uart_takes_bytes),
      T(the_clint_has_a_timer_in_m_mode))
