// From the firmware's hand-over to the guest's entry, and the device trees.
#include "../../fdt.c"
#include "device.h"
#include "unit.h"

static uint64_t fdt_size(const uint32_t *fdt) { return be32(fdt[TOTALSIZE]); }

// The host's device tree, which a test may change before it boots, and the
// number of its harts.
static uint32_t tree[1024];
static uint64_t host_harts;

static int setup(void **state) {
    reset_machine();
    assert_true(fdt_size(host_fdt) <= sizeof tree);
    memcpy(tree, host_fdt, fdt_size(host_fdt));
    memset(ram(GUEST_RAM), 0, GUEST_RAM_SIZE);
    devices_reset();
    host_harts = 4;
    return 0;
}

// Replaces each FROM in the tree by TO, which has the same length.
static void edit(const char *from, const char *to) {
    size_t length = strlen(from), found = 0;
    char *at = (char *)tree, *behind = at + fdt_size(tree);
    assert_int_equal(length, strlen(to));
    for (; at + length <= behind; at++)
        if (!memcmp(at, from, length))
            memcpy(at, to, length), found++;
    assert_true(found);
}

// Puts VALUE into word N of a property.
static void set(const char *node, const char *name, unsigned n,
                uint32_t value) {
    uint32_t *words = (uint32_t *)fdt_find(tree, NULL, node, name) + 3;
    words[n] = be32(value);
}

// The firmware starts a hart, and it is in the waiting room at once.
static struct sbiret starts_harts(const struct call *call) {
    if (call->id == SBI_EXT_HSM) {
        uint64_t hart = call->a[0];
        assert_int_equal(call->function, HART_START);
        assert_int_equal(call->a[1], (hpa_t)boot);
        if (hart >= host_harts)
            return (struct sbiret){.error = -3};
        assert_int_not_equal(hart, this_hart);
        vcpus[hart].state = HART_STOPPED;
    }
    calls[calls_made++ % LENGTH(calls)] = *call;
    return (struct sbiret){0};
}

static enum how boots(void) {
    host.booted = 0;
    said[0] = 0;
    calls_made = 0;
    this_hart = 1;
    the_firmware = starts_harts;
    return how_ends(hv_main(1, tree));
}

static void dies_with(const char *line) {
    assert_int_equal(boots(), DIED);
    assert_int_equal(ended, 1 << 16 | TEST_FAIL);
    assert_string_equal(said, line);
}

// Returns a property of the guest's tree, from the last node that has it.
static const char *guests(const char *node, const char *name) {
    const uint32_t *fdt = ram(guest.dtb.gpa);
    fdt_prop p = NULL, last = NULL;
    while ((p = fdt_find(fdt, p, node, name)))
        last = p;
    assert_non_null(last);
    return (const char *)(last + 3);
}

static uint32_t guests_number(const char *node, const char *name, unsigned n) {
    return be32(((const uint32_t *)guests(node, name))[n]);
}

static void the_guest_is_entered(void **state) {
    assert_int_equal(boots(), ENTERED);
    assert_string_equal(said, "");
    assert_ptr_equal(entered, &vcpus[1]);
    for (unsigned hart = 0; hart < 4; hart++)
        assert_int_equal(vcpus[hart].state,
                         hart == 1 ? HART_STARTED : HART_STOPPED);
    assert_int_equal(entered->regs[10], 1);
    assert_int_equal(entered->regs[11], guest.dtb.gpa);
    assert_int_equal(csrs.sepc, guest.kernel.gpa);
    assert_true(csrs.hstatus & HSTATUS_SPV);
    assert_true(csrs.sstatus & SSTATUS_SPP);
    assert_true(host.sstc);
    assert_int_equal(csrs.hedeleg, HEDELEG);
    assert_int_equal(csrs.hcounteren, -1ul);
    assert_int_equal(csrs.hgatp, 8ul << 60 | (hpa_t)host.root >> 12);
    assert_int_equal(host.plic, HOST_PLIC);
    assert_int_equal(host.uart, HOST_UART);
    assert_int_equal(host.test, HOST_TEST);
    assert_string_equal(ram(guest.kernel.gpa), "kernel.");
    assert_string_equal(ram(guest.initrd.gpa), "initrd.");
    assert_int_equal(guests_number(NULL, "rng-seed", 0), 1);
    assert_int_equal(guests_number(NULL, "rng-seed", 5), 6);
    assert_int_equal(guests_number(NULL, "timebase-frequency", 0), 10000000);
    assert_int_equal(guests_number(NULL, "riscv,cbom-block-size", 0), 128);
    assert_int_equal(guests_number(NULL, "riscv,cboz-block-size", 0), 0);
    assert_string_equal(guests(NULL, "mmu-type"), "riscv,sv57");
    // A hart that comes later waits.
    assert_int_equal(how_ends(hv_main(1, NULL)), ASLEEP);
}

// load() has written the guest's code, on this hart or another.
static void code_is_fetched_anew(void **state) {
    assert_int_equal(how_ends(start_guest(&vcpus[0], GUEST_RAM, 0)), ENTERED);
    assert_int_equal(fences_i, 1);
}

// The guest's kernel is where a board's firmware would be.
static void all_harts_begin_in_m_mode(void **state) {
    built->kernel.gpa = GUEST_RAM;
    assert_int_equal(boots(), ENTERED);
    assert_ptr_equal(entered, &vcpus[1]);
    assert_int_equal(csrs.sepc, GUEST_RAM);
    assert_int_equal(csrs.hedeleg, 0);
    for (unsigned hart = 0; hart < 4; hart++) {
        assert_non_null(vcpus[hart].mmode);
        assert_int_equal(vcpus[hart].state,
                         hart == 1 ? HART_STARTED : HART_START_PENDING);
        assert_int_equal(vcpus[hart].start_pc, hart == 1 ? 0 : GUEST_RAM);
        assert_int_equal(vcpus[hart].start_opaque, guest.dtb.gpa);
    }
}

static void a_wrong_hart_ends_it(void **state) {
    host.booted = 0;
    assert_int_equal(how_ends(hv_main(4, host_fdt)), DIED);
    assert_string_equal(said, "hv: the guest has 4 harts, this is 4\r\n");
    built->harts = 9;
    dies_with("hv: the guest has 9 harts, this is 1\r\n");
}

static void fewer_harts_end_it(void **state) {
    host_harts = 3;
    dies_with("hv: the guest has 4 harts, the host has no 3\r\n");
}

static void a_part_outside_ram_ends_it(void **state) {
    built->initrd.gpa = GUEST_RAM + GUEST_RAM_SIZE;
    dies_with("hv: the guest has no RAM for 8 bytes at 80010000\r\n");
}

static void two_plics_end_it(void **state) {
    edit("xiscv,ndev", "riscv,ndev");
    dies_with("hv: the host has two PLICs, as with two sockets; the guest has "
              "one\r\n");
}

static void what_is_missing_is_a_0(void **state) {
    edit("ns16550a", "xs16550a");
    dies_with("hv: the host has RAM at 40000000, ns16550a at 0, "
              "PLIC at 20000000 (0: none)\r\n");
    setup(NULL);
    edit("sifive,plic-1.0.0", "xifive,plic-1.0.0");
    edit("riscv,plic0", "yiscv,plic0");
    dies_with("hv: the host has RAM at 40000000, ns16550a at 30000000, "
              "PLIC at 0 (0: none)\r\n");
    setup(NULL);
    edit("memory", "xemory");
    dies_with("hv: the host has RAM at 0, ns16550a at 30000000, "
              "PLIC at 20000000 (0: none)\r\n");
}

static void a_hart_without_h_ends_it(void **state) {
    const char *line = "hv: this hart has no H extension: start QEMU with -cpu "
                       "rv64,h=true\r\n";
    edit("rv64imafdch_", "rv64imafdcb_");
    dies_with(line);
    setup(NULL);
    edit("riscv,isa", "xiscv,isa");
    dies_with(line);
}

// Without translation the guest would own the machine, and without htval no
// device of the guest's could be found.
static void a_hart_must_translate_and_tell(void **state) {
    lacks_sv39x4 = true;
    dies_with("hv: hart 1 lacks Sv39x4, or leaves htval 0\r\n");
    setup(NULL);
    leaves_htval = true;
    dies_with("hv: hart 1 lacks Sv39x4, or leaves htval 0\r\n");
    // Another hart may be of another kind.
    setup(NULL);
    lacks_sv39x4 = true;
    assert_int_equal(how_ends(hv_main(2, NULL)), DIED);
    assert_string_equal(said, "hv: hart 2 lacks Sv39x4, or leaves htval 0\r\n");
}

// The guest may learn of an extension from two properties.  Both must say the
// same.
static void has_extensions(const char *isa, const char *list, unsigned size) {
    assert_int_equal(boots(), ENTERED);
    const uint32_t *fdt = ram(guest.dtb.gpa);
    fdt_prop p = NULL, all = NULL;
    unsigned cpus = 0;
    for (; (p = fdt_find(fdt, p, NULL, "riscv,isa")); cpus++) {
        all = fdt_find(fdt, all, NULL, "riscv,isa-extensions");
        assert_string_equal(p + 3, isa);
        assert_memory_equal(all + 3, list, size);
        const char *behind = (const char *)(all + 3) + be32(all[1]);
        for (const char *c = (const char *)(all + 3) + size; c < behind; c++)
            assert_int_equal(*c, 0);
    }
    assert_int_equal(cpus, 2);
}
#define HAS(isa, list) has_extensions(isa, list, sizeof list)

static void extensions_are_the_hosts(void **state) {
    HAS("rv64imafdc_zicsr_zba_svpbmt_sstc",
        "i\0m\0a\0f\0d\0c\0zicsr\0zba\0svpbmt\0sstc");
    setup(NULL);
    henvcfg_has = ~HENVCFG_PBMTE;
    HAS("rv64imafdc_zicsr_zba_sstc", "i\0m\0a\0f\0d\0c\0zicsr\0zba\0sstc");
    assert_true(host.sstc);
    setup(NULL);
    henvcfg_has = ~HENVCFG_STCE;
    HAS("rv64imafdc_zicsr_zba_svpbmt", "i\0m\0a\0f\0d\0c\0zicsr\0zba\0svpbmt");
    assert_false(host.sstc);
    // QEMU 7.2 keeps STCE even if it has no Sstc.
    setup(NULL);
    edit("_sstc", "_xstc");
    HAS("rv64imafdc_zicsr_zba_svpbmt", "i\0m\0a\0f\0d\0c\0zicsr\0zba\0svpbmt");
    assert_false(host.sstc);
}

static void a_hart_with_stateen_lets_senvcfg_through(void **state) {
    assert_int_equal(boots(), ENTERED);
    assert_int_equal(csrs.hstateen0, 0); // a write would be illegal
    edit("zba_svpbmt", "_smstateen");
    assert_int_equal(boots(), ENTERED);
    assert_int_equal(csrs.hstateen0, HSTATEEN0_ENVCFG);
    csrs.hstateen0 = 0;
    edit("_smstateen", "_ssstateen");
    assert_int_equal(boots(), ENTERED);
    assert_int_equal(csrs.hstateen0, HSTATEEN0_ENVCFG);
}

static bool in_guests_tree(const char *string) {
    const char *at = ram(guest.dtb.gpa), *end = at + fdt_size((void *)at);
    while (at < end && memcmp(at, string, strlen(string)))
        at++;
    return at < end;
}

// A board with fewer devices, and with those at other places.
static void another_board_is_found(void **state) {
    edit("sifive,plic-1.0.0", "xifive,plic-1.0.0"); // leaves riscv,plic0
    set("ns16550a", "reg", 1, 0x38000000);
    set("ns16550a", "interrupts", 0, 33);
    edit("google,goldfish-rtc", "xoogle,goldfish-rtc");
    edit("sifive,test1", "xifive,test1");
    assert_int_equal(boots(), ENTERED);
    assert_int_equal(host.plic, HOST_PLIC);
    assert_int_equal(host.uart, 0x38000000);
    assert_int_equal(host.test, 0);
    assert_int_equal(guests_number("ns16550a", "interrupts", 0), 33);
    assert_int_equal(guests_number(NULL, "riscv,ndev", 0), 33);
    assert_false(in_guests_tree("goldfish"));
    assert_false(in_guests_tree("sifive,test"));
}

static void the_board_s_own_numbers_reach_the_guest(void **state) {
    assert_int_equal(boots(), ENTERED);
    assert_int_equal(guests_number("ns16550a", "interrupts", 0), 5);
    assert_int_equal(guests_number(NULL, "riscv,ndev", 0), 11);
    assert_true(in_guests_tree("google,goldfish-rtc"));
    assert_true(in_guests_tree("sifive,test1"));
}

static void the_tree_is_searched(void **state) {
    assert_null(fdt_find(host_fdt, NULL, NULL, "none"));
    assert_null(fdt_find(host_fdt, NULL, "none", "reg"));
    // The string may be listed in the property that is asked for, or in one
    // behind it.
    assert_non_null(fdt_find(host_fdt, NULL, "sifive,test1", "compatible"));
    assert_int_equal(fdt_number(fdt_find(host_fdt, NULL, "syscon", "reg"), 0),
                     HOST_TEST);
    assert_int_equal(fdt_number(fdt_find(host_fdt, NULL, "ns16550a", "reg"), 1),
                     0x100);
    assert_null(fdt_find(host_fdt, NULL, "sifive,test", "reg"));
}

static void extensions_are_found(void **state) {
    host.isa = "rv64imac_zicsr_zba";
    assert_true(isa_has("m") && isa_has("c"));
    assert_false(isa_has("h") || isa_has("z") || isa_has("b"));
    assert_true(isa_has("zicsr") && isa_has("zba"));
    assert_false(isa_has("zb") || isa_has("zbab") || isa_has("ba"));
    host.isa = "rv64";
    assert_false(isa_has("i") || isa_has("zba"));
}

#define B(function) cmocka_unit_test_setup(function, setup)
TESTS(test_boot, B(the_guest_is_entered), B(code_is_fetched_anew),
      B(all_harts_begin_in_m_mode), B(a_wrong_hart_ends_it),
      B(fewer_harts_end_it), B(a_part_outside_ram_ends_it), B(two_plics_end_it),
      B(what_is_missing_is_a_0), B(a_hart_without_h_ends_it),
      B(a_hart_must_translate_and_tell), B(extensions_are_the_hosts),
      B(a_hart_with_stateen_lets_senvcfg_through), B(another_board_is_found),
      B(the_board_s_own_numbers_reach_the_guest), B(the_tree_is_searched),
      B(extensions_are_found))
