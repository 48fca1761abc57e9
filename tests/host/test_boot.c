// From the firmware's hand-over to the guest's entry, and the device trees.
#include "../../fdt.c"
#include "unit.h"

static uint64_t states[4];

// Starts harts, each of which is on its way until asked for a second time.
static struct sbiret starts_harts(const struct call *call) {
    if (call->id != SBI_EXT_HSM)
        return (struct sbiret){0};
    uint64_t *its = &states[call->a[0]], was = *its;
    if (call->function == HART_START && was == HART_STOPPED) {
        assert_int_equal(call->a[1], (hpa_t)boot);
        *its = HART_START_PENDING;
    } else if (call->function == HART_GET_STATUS && was == HART_START_PENDING) {
        *its = HART_STARTED;
    }
    return (struct sbiret){0, was};
}

static void the_guest_is_entered(void **state) {
    host.running = 0;
    this_hart = 1;
    firmware = starts_harts;
    for (unsigned hart = 0; hart < 4; hart++)
        states[hart] = hart == this_hart ? HART_STARTED : HART_STOPPED;
    assert_int_equal(how_ends(hv_main(1, host_fdt)), ENTERED);
    for (unsigned hart = 0; hart < 4; hart++) {
        assert_int_equal(states[hart], HART_STARTED);
        assert_int_equal(vcpus[hart].state,
                         hart == 1 ? HART_STARTED : HART_STOPPED);
    }
    assert_ptr_equal(entered, &vcpus[1]);
    assert_int_equal(entered->regs[10], 1);
    assert_int_equal(entered->regs[11], guest.dtb.gpa);
    assert_int_equal(csrs.sepc, guest.entry);
    assert_true(csrs.hstatus & HSTATUS_SPV);
    assert_true(csrs.sstatus & SSTATUS_SPP);
    assert_true(host.sstc);
    assert_int_equal(csrs.hgatp, 8ul << 60 | (hpa_t)host.root >> 12);
    assert_int_equal(host.plic, HOST_PLIC);
    assert_int_equal(host.uart, HOST_UART);
    assert_string_equal(ram(GUEST_RAM), "kernel.");
    assert_string_equal(ram(GUEST_RAM + 0x1000), "initrd.");
    const uint32_t *fdt = ram(guest.dtb.gpa);
    assert_string_equal((char *)(fdt_find(fdt, NULL, "riscv,isa") + 3),
                        "rv64imafdc_zicsr_zba_sstc");
    fdt_prop seed = fdt_find(fdt, NULL, "rng-seed");
    assert_int_equal(be32(seed[3]), 1);
    assert_int_equal(be32(seed[8]), 6);
    assert_int_equal(be32(fdt_find(fdt, NULL, "timebase-frequency")[3]),
                     10000000);
    assert_int_equal(be32(fdt_find(fdt, NULL, "riscv,cbom-block-size")[3]),
                     128);
    assert_int_equal(be32(fdt_find(fdt, NULL, "riscv,cboz-block-size")[3]), 64);
}

static void a_wrong_hart_ends_it(void **state) {
    host.running = 0;
    assert_int_equal(how_ends(hv_main(4, host_fdt)), DIED);
    assert_non_null(strstr(said, "the guest has 4 harts, this is 4"));
}

// On a hart that another has started.
static void the_next_hart_begins_where_it_shall(void **state) {
    this_hart = 2;
    vcpus[2].state = HART_STOPPED;
    assert_int_equal(how_ends(hv_main(2, NULL)), ASLEEP);
    vcpus[2].start = (struct start){GUEST_RAM + 0x4000, 77};
    vcpus[2].state = HART_START_PENDING;
    assert_int_equal(how_ends(hv_main(2, host_fdt)), ENTERED);
    assert_ptr_equal(entered, &vcpus[2]);
    assert_int_equal(entered->regs[10], 2);
    assert_int_equal(entered->regs[11], 77);
    assert_int_equal(csrs.sepc, GUEST_RAM + 0x4000);
}

static void what_is_missing_ends_it(void **state) {
    assert_int_equal(how_ends(fdt_number(NULL, 0)), DIED);
    assert_null(fdt_find(host_fdt, NULL, "none"));
    assert_null(fdt_find_reg(NULL, "none"));
}

static void extensions_are_found(void **state) {
    const char *isa = "rv64imac_zicsr_zba";
    assert_true(isa_has(isa, "m") && isa_has(isa, "c"));
    assert_false(isa_has(isa, "h") || isa_has(isa, "z") || isa_has(isa, "b"));
    assert_true(isa_has(isa, "_zicsr") && isa_has(isa, "_zba"));
    assert_false(isa_has(isa, "_zb") || isa_has(isa, "_zbab"));
}

TESTS(test_boot, T(the_guest_is_entered), T(a_wrong_hart_ends_it),
      T(the_next_hart_begins_where_it_shall), T(what_is_missing_ends_it),
      T(extensions_are_found))
