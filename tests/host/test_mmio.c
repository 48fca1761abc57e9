#include "../../mmio.c"
#include "unit.h"

// From the manual's tables.  test_decode.py compares decode() with binutils.
static const struct {
    uint32_t inst;
    bool transformed, done, store, sign_extend;
    uint8_t width, reg;
} instructions[] = {
    {0x0005a503, 0, 1, 0, 1, 4, 10}, // lw a0, 0(a1)
    {0x0005c503, 0, 1, 0, 0, 1, 10}, // lbu a0, 0(a1)
    {0x0005f503, 0, 0, 0, 0, 8, 10}, // ldu: there is none
    {0x00a5b023, 0, 1, 1, 0, 8, 10}, // sd a0, 0(a1)
    {0x00a5c023, 0, 0, 1, 0, 1, 10}, // sq of RV128
    {0x0005a507, 0, 0, 0, 0, 4, 0},  // flw
    {0x00a5a027, 0, 0, 0, 0, 4, 0},  // fsw
    {0x00b5252f, 0, 0, 1, 0, 4, 0},  // amoadd.w
    {0x1005252f, 0, 0, 0, 0, 4, 0},  // lr.w
    {0x18b5252f, 0, 0, 1, 0, 4, 0},  // sc.w
    {0x00000513, 0, 0, 0, 0, 1, 0},  // addi
    {0x4188, 0, 1, 0, 1, 4, 10},     // c.lw a0, 0(a1)
    {0x6188, 0, 1, 0, 0, 8, 10},     // c.ld
    {0xc188, 0, 1, 1, 1, 4, 10},     // c.sw
    {0xe188, 0, 1, 1, 0, 8, 10},     // c.sd
    {0x4582, 0, 1, 0, 1, 4, 11},     // c.lwsp a1
    {0xe02e, 0, 1, 1, 0, 8, 11},     // c.sdsp a1
    {0x2188, 0, 0, 0, 0, 8, 10},     // c.fld
    {0x4501, 0, 0, 0, 0, 4, 10},     // c.li, quadrant 1
    {0x81a8, 0, 1, 0, 0, 1, 10},     // c.lbu a0
    {0x85a8, 0, 1, 0, 0, 2, 10},     // c.lhu
    {0x85e8, 0, 1, 0, 1, 2, 10},     // c.lh
    {0x89a8, 0, 1, 1, 0, 1, 10},     // c.sb
    {0x8da8, 0, 1, 1, 0, 2, 10},     // c.sh
    {0x8de8, 0, 0, 1, 0, 2, 10},     // reserved
    {0x91a8, 0, 0, 0, 0, 1, 10},     // reserved
    {0x00002503, 1, 1, 0, 1, 4, 10}, // lw a0, transformed
    {0x00002501, 1, 1, 0, 1, 4, 10}, // the same, from a c.lw
    {0x00a03021, 1, 1, 1, 0, 8, 10}, // c.sd
};

static void instructions_are_decoded(void **state) {
    for (unsigned i = 0; i < LENGTH(instructions); i++) {
        struct access a = {0};
        assert_int_equal(
            decode(instructions[i].inst, instructions[i].transformed, &a),
            instructions[i].done);
        assert_int_equal(a.store, instructions[i].store);
        if (!instructions[i].done)
            continue;
        assert_int_equal(a.width, instructions[i].width);
        assert_int_equal(a.reg, instructions[i].reg);
        assert_int_equal(a.sign_extend && !a.store,
                         instructions[i].sign_extend && !a.store);
    }
}

enum { CLINT_MTIME = 0xbff8 };
#define UART_BYTE (*(volatile uint8_t *)(HOST_UART + 3))
#define PRIORITY (*(volatile uint32_t *)(HOST_PLIC + 40))
// A register whose read is an exit: hart 0's threshold.
#define THRESHOLD_AT 0x201000ul
#define THRESHOLD (*(volatile uint32_t *)(HOST_PLIC + THRESHOLD_AT))

static void a_load_fills_the_register(void **state) {
    THRESHOLD = 0x80000001;
    assert_true(load(LW, GUEST_PLIC + THRESHOLD_AT));
    assert_int_equal(vcpus[0].regs[5], 0xffffffff80000001);
    assert_true(load(LWU, GUEST_PLIC + THRESHOLD_AT));
    assert_int_equal(vcpus[0].regs[5], 0x80000001);
    mmode_init(); // now the hart has a CLINT
    csrs.time = 0xfedcba9876543210;
    assert_true(load(LD, GUEST_CLINT + CLINT_MTIME));
    assert_int_equal(vcpus[0].regs[5], csrs.time);
    assert_true(load(LW, GUEST_CLINT + CLINT_MTIME + 4));
    assert_int_equal(vcpus[0].regs[5], 0xfffffffffedcba98);
    assert_true(load(LWU, GUEST_CLINT + CLINT_MTIME + 4));
    assert_int_equal(vcpus[0].regs[5], 0xfedcba98);
}

static void x0_stays_0(void **state) {
    THRESHOLD = 7;
    leave(CAUSE_LOAD_GUEST_PAGE_FAULT, 0, GUEST_PLIC + THRESHOLD_AT, 0x2003);
    assert_int_equal(csrs.sepc, GUEST_RAM + PC + 4);
    assert_int_equal(vcpus[0].regs[0], 0);
}

static void a_store_is_cut_to_its_width(void **state) {
    assert_true(store(1, GUEST_UART + 3, 0x1122334455667788));
    assert_int_equal(UART_BYTE, 0x88);
    assert_int_equal(*(volatile uint8_t *)(HOST_UART + 4), 0);
    assert_true(store(4, GUEST_PLIC + 40, 0x1122334455667788));
    assert_int_equal(PRIORITY, 0x55667788);
    struct access a = {.store = true, .width = 4, .reg = 5};
    assert_true(access_device(&vcpus[0], &a, GUEST_PLIC + 40));
    assert_int_equal(a.value, 0x55667788);
}

// The exception, its tval and its pc.
static void faults(uint64_t cause, uint64_t tval) {
    assert_int_equal(csrs.vscause, cause);
    assert_int_equal(csrs.vstval, tval);
    assert_int_equal(csrs.vsepc, GUEST_RAM + PC);
    assert_int_equal(csrs.sepc, csrs.vstvec & -4);
}

static void what_no_device_takes_faults(void **state) {
    csrs.vstvec = 0x1235;
    static const struct {
        gpa_t gpa;
        unsigned width;
    } wrong[] = {
        {0, 4},
        {GUEST_PLIC - 4, 4},
        {GUEST_PLIC + PLIC_SIZE, 4},
        {GUEST_PLIC, 1},
        {GUEST_PLIC, 2},
        {GUEST_PLIC, 8},
        {GUEST_PLIC + 2, 4},
        {GUEST_UART - 1, 1},
        {GUEST_UART + 8, 1},
        {GUEST_UART + 7, 2},
        {GUEST_VIRTIO - 4, 4},
        {GUEST_VIRTIO + VIRTIO_SLOTS * PAGE, 4},
        {GUEST_VIRTIO + 0x101, 2},
        {GUEST_TEST, 4}, // the host has none
        {GUEST_CLINT + 0x4000, 4},
        {GUEST_CLINT + 0x4000, 8}, // the guest has no M-mode
        {GUEST_CLINT + 0xc000, 8},
        {GUEST_RAM + GUEST_RAM_SIZE, 8},
        {-8, 8},
    };
    for (unsigned i = 0; i < LENGTH(wrong); i++) {
        gpa_t gpa = wrong[i].gpa & ~(3ul << 62); // htval has no more bits
        assert_false(store(wrong[i].width, gpa, 1));
        faults(CAUSE_STORE_ACCESS, gpa);
        assert_false(load(__builtin_ctz(wrong[i].width), gpa));
        faults(CAUSE_LOAD_ACCESS, gpa);
    }
    assert_false(load(LBU, GUEST_UART)); // mapped: never an exit
}

static void set_code(const char *bytes, unsigned n, unsigned offset) {
    memcpy((char *)ram(GUEST_RAM) + offset, bytes, n);
}

static void without_htinst_the_code_is_read(void **state) {
    THRESHOLD = 3;
    gpa_t gpa = GUEST_PLIC + THRESHOLD_AT;
    set_code("\x03\xa5\x05\x00", 4, PC); // lw a0, 0(a1)
    leave(CAUSE_LOAD_GUEST_PAGE_FAULT, gpa, gpa, 0);
    assert_int_equal(vcpus[0].regs[10], 3);
    assert_int_equal(csrs.sepc, GUEST_RAM + PC + 4);
    set_code("\x88\xc1\xff\xff", 4, PC); // c.sw a0, 0(a1)
    vcpus[0].regs[10] = 4;
    leave(CAUSE_STORE_GUEST_PAGE_FAULT, gpa, gpa, 0);
    assert_int_equal(THRESHOLD, 4);
    assert_int_equal(csrs.sepc, GUEST_RAM + PC + 2);
}

static void exits_are_recorded(void **state) {
    struct vcpu *v = &vcpus[0];
    gpa_t gpa = GUEST_PLIC + THRESHOLD_AT;
    v->exits = LENGTH(v->log) - 1;
    v->regs[16] = 7, v->regs[17] = SBI_EXT_BASE;
    csrs.time = 100;
    set_code("\x88\xc1\xff\xff", 4, PC); // c.sw a0, 0(a1)
    v->regs[10] = 5;
    leave(CAUSE_STORE_GUEST_PAGE_FAULT, gpa, gpa, 0);
    THRESHOLD = 6;
    leave(CAUSE_LOAD_GUEST_PAGE_FAULT, gpa, gpa, 0x03 | 5 << 7 | LW << 12);
    assert_int_equal(v->exits, LENGTH(v->log) + 1);
    const struct exit *store = &v->log[LENGTH(v->log) - 1], *load = v->log;
    assert_ptr_equal(v->exit, load);
    assert_int_equal(store->cause, CAUSE_STORE_GUEST_PAGE_FAULT);
    assert_int_equal(store->pc, GUEST_RAM + PC);
    assert_int_equal(store->gpa, gpa);
    assert_int_equal((uint16_t)store->inst, 0xc188);
    assert_int_equal(store->value, 5);
    assert_int_equal(store->call, (uint64_t)SBI_EXT_BASE << 32 | 7);
    assert_int_equal(store->time, 100);
    assert_int_equal(store->end, 100);
    assert_int_equal(load->value, 6);
}

// The pc stays where it is: the guest's own fetch brings the right fault.
static void code_that_is_gone_is_fetched_again(void **state) {
    gpa_t gpa = GUEST_PLIC, behind = GUEST_RAM + GUEST_RAM_SIZE;
    csrs.htval = gpa >> 2;
    csrs.scause = CAUSE_LOAD_GUEST_PAGE_FAULT;
    csrs.vscause = 99;
    csrs.sepc = behind;
    handle_exit(&vcpus[0]);
    assert_int_equal(csrs.sepc, behind);
    set_code("\x03\xa5", 2, GUEST_RAM_SIZE - 2); // one half of lw
    csrs.sepc = behind - 2;
    handle_exit(&vcpus[0]);
    assert_int_equal(csrs.sepc, behind - 2);
    assert_int_equal(csrs.vscause, 99);
}

static void a_fetch_faults_as_one(void **state) {
    leave(CAUSE_FETCH_GUEST_PAGE_FAULT, 0x123, GUEST_UART, 0);
    faults(CAUSE_FETCH_ACCESS, 0x123);
}

// htinst 0x3000: the guest's page tables are not in RAM.  The code tells which
// access that was for.  If the code can't be read, it was the fetch itself.
static void a_walk_outside_ram_faults(void **state) {
    set_code("\x23\xa0\xa5\x00", 4, PC); // sw a0, 0(a1)
    leave(CAUSE_LOAD_GUEST_PAGE_FAULT, 0x123, GUEST_UART, 0x3000);
    faults(CAUSE_STORE_ACCESS, 0x123);
    set_code("\x03\xa5\x05\x00", 4, PC); // lw a0, 0(a1)
    leave(CAUSE_LOAD_GUEST_PAGE_FAULT, 0x123, GUEST_PLIC, 0x3000);
    faults(CAUSE_LOAD_ACCESS, 0x123);
    csrs.sepc = 0x1000;
    csrs.scause = CAUSE_LOAD_GUEST_PAGE_FAULT;
    csrs.htinst = 0x3000;
    handle_exit(&vcpus[0]);
    assert_int_equal(csrs.vscause, CAUSE_FETCH_ACCESS);
}

// QEMU 7.2 calls it a load.
static void an_amo_faults_as_a_store(void **state) {
    set_code("\x2f\x25\xb5\x00", 4, PC); // amoadd.w
    leave(CAUSE_LOAD_GUEST_PAGE_FAULT, 0x123, GUEST_PLIC, 0);
    faults(CAUSE_STORE_ACCESS, 0x123);
}

// For an instruction that decode() doesn't know, the hart tells whether it was
// a load or a store.
static void other_instructions_fault(void **state) {
    set_code("\x07\xa5\x05\x00", 4, PC); // flw
    leave(CAUSE_LOAD_GUEST_PAGE_FAULT, 0x123, GUEST_PLIC, 0);
    faults(CAUSE_LOAD_ACCESS, 0x123);
    set_code("\x27\xa0\xa5\x00", 4, PC); // fsw
    leave(CAUSE_STORE_GUEST_PAGE_FAULT, 0x123, GUEST_PLIC, 0);
    faults(CAUSE_STORE_ACCESS, 0x123);
}

// "Addr. Offset" in htinst tells how many bytes before the part that faulted
// the access began.  That part alone is not what the guest asked for.
static void a_part_of_an_access_faults(void **state) {
    csrs.vstvec = 0x1000;
    const gpa_t gpa = GUEST_PLIC + THRESHOLD_AT;
    const uint32_t lw = 0x03 | 5 << 7 | LW << 12,
                   sw = 0x23 | 5 << 20 | LW << 12;
    vcpus[0].regs[5] = 4;
    THRESHOLD = 3;
    for (uint32_t offset = 1; offset < 32; offset++) {
        leave(CAUSE_LOAD_GUEST_PAGE_FAULT, gpa, gpa, lw | offset << 15);
        faults(CAUSE_LOAD_ACCESS, gpa);
        leave(CAUSE_STORE_GUEST_PAGE_FAULT, gpa, gpa, sw | offset << 15);
        faults(CAUSE_STORE_ACCESS, gpa);
    }
    assert_int_equal(THRESHOLD, 3);
    assert_int_equal(vcpus[0].regs[5], 4);
}

// Without htinst the code tells where the access began.
static const struct {
    uint32_t inst;
    bool store;
    uint8_t width, base, reg;
    int16_t offset;
} parts[] = {
    {0x0005a503, 0, 4, 11, 10, 0},  // lw a0, 0(a1)
    {0xffe5a503, 0, 4, 11, 10, -2}, // lw a0, -2(a1)
    {0x0055a503, 0, 4, 11, 10, 5},  // lw a0, 5(a1)
    {0x00a5a023, 1, 4, 11, 10, 0},  // sw a0, 0(a1)
    {0xfea5afa3, 1, 4, 11, 10, -1}, // sw a0, -1(a1)
    {0x00a5a1a3, 1, 4, 11, 10, 3},  // sw a0, 3(a1)
    {0x00a5b223, 1, 8, 11, 10, 4},  // sd a0, 4(a1)
    {0x0065b503, 0, 8, 11, 10, 6},  // ld a0, 6(a1)
    {0x4188, 0, 4, 11, 10, 0},      // c.lw a0, 0(a1)
    {0x41c8, 0, 4, 11, 10, 4},      // c.lw a0, 4(a1)
    {0x6188, 0, 8, 11, 10, 0},      // c.ld a0, 0(a1)
    {0x6588, 0, 8, 11, 10, 8},      // c.ld a0, 8(a1)
    {0xc188, 1, 4, 11, 10, 0},      // c.sw a0, 0(a1)
    {0xe188, 1, 8, 11, 10, 0},      // c.sd a0, 0(a1)
    {0x4582, 0, 4, 2, 11, 0},       // c.lwsp a1, 0(sp)
    {0x65a2, 0, 8, 2, 11, 8},       // c.ldsp a1, 8(sp)
    {0xc02e, 1, 4, 2, 11, 0},       // c.swsp a1, 0(sp)
    {0xe42e, 1, 8, 2, 11, 8},       // c.sdsp a1, 8(sp)
};

static void only_what_begins_in_a_device_is_its(void **state) {
    static const gpa_t clint = GUEST_CLINT + 0x4000;
    uint64_t *regs = vcpus[0].regs;
    mmode_init();
    for (unsigned i = 0; i < LENGTH(parts); i++) {
        bool is_store = parts[i].store;
        unsigned cause = is_store ? CAUSE_STORE_GUEST_PAGE_FAULT
                                  : CAUSE_LOAD_GUEST_PAGE_FAULT;
        set_code((const char *)&parts[i].inst, 4, PC);
        // An access that begins in the device is done.
        struct access a = {.store = true, .width = 8, .reg = 5};
        regs[5] = 0x1122334455667788;
        assert_true(access_device(&vcpus[0], &a, clint));
        regs[parts[i].reg] = 0x6655443322110099;
        regs[parts[i].base] = clint - parts[i].offset;
        leave(cause, clint, clint, 0);
        assert_int_equal(csrs.sepc,
                         GUEST_RAM + PC + ((parts[i].inst & 3) == 3 ? 4 : 2));
        a.store = false;
        assert_true(access_device(&vcpus[0], &a, clint));
        uint64_t mask = -1ul >> (64 - 8 * parts[i].width);
        uint64_t of_memory = is_store ? regs[5] : regs[parts[i].reg];
        assert_int_equal(of_memory & mask,
                         (is_store ? 0x6655443322110099 : 0x1122334455667788) &
                             mask);
        // One that begins before it, on another page, and ends in it is not.
        for (unsigned before = 1; before < parts[i].width; before++) {
            regs[parts[i].reg] = 0x77;
            regs[parts[i].base] = GUEST_CLINT - before - parts[i].offset;
            leave(cause, GUEST_CLINT, GUEST_CLINT, 0);
            assert_int_equal(csrs.sepc, 0); // M-mode's trap vector
            a.value = 1;
            assert_true(access_device(&vcpus[0], &a, GUEST_CLINT));
            assert_int_equal(a.value, 0);
            if (!is_store)
                assert_int_equal(regs[parts[i].reg], 0x77);
        }
    }
}

TESTS(test_mmio, T(instructions_are_decoded), T(a_load_fills_the_register),
      T(x0_stays_0), T(a_store_is_cut_to_its_width),
      T(what_no_device_takes_faults), T(without_htinst_the_code_is_read),
      T(exits_are_recorded), T(code_that_is_gone_is_fetched_again),
      T(a_fetch_faults_as_one), T(a_walk_outside_ram_faults),
      T(an_amo_faults_as_a_store), T(other_instructions_fault),
      T(a_part_of_an_access_faults), T(only_what_begins_in_a_device_is_its))
