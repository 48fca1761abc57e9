// Exceptions, interrupts and WFI, and the waiting room.
#include "unit.h"

enum { WFI = 0x10500073, HFENCE_GVMA = 0x62000073 };

static void set_code(uint32_t inst) {
    memcpy(ram(GUEST_RAM + PC), &inst, sizeof inst);
}

static unsigned slept;
static void count_sleep(void) { slept++; }

static int setup(void **state) {
    reset_machine();
    csrs.vstvec = 0x1000;
    slept = 0;
    at_wfi = count_sleep;
    return 0;
}

static void moves_on(unsigned step) {
    assert_int_equal(csrs.sepc, GUEST_RAM + PC + step);
}

static void faults(uint64_t cause, uint64_t tval) {
    assert_int_equal(csrs.vscause, cause);
    assert_int_equal(csrs.vstval, tval);
    assert_int_equal(csrs.vsepc, GUEST_RAM + PC);
    assert_int_equal(csrs.sepc, csrs.vstvec);
}

// stval may be the instruction.  If it is 0, we read the guest's code.
static void wfi_sleeps(void **state) {
    leave(CAUSE_VIRTUAL_INSTRUCTION, WFI, 0, 0);
    moves_on(4);
    assert_int_equal(slept, 1);
    set_code(WFI);
    leave(CAUSE_VIRTUAL_INSTRUCTION, 0, 0, 0);
    moves_on(4);
    assert_int_equal(slept, 2);
    assert_int_equal(csrs.vscause, 0);
    // From U-mode it is illegal.
    csrs.sstatus = 0;
    leave(CAUSE_VIRTUAL_INSTRUCTION, 0, 0, 0);
    faults(CAUSE_ILLEGAL_INSTRUCTION, WFI);
    assert_int_equal(slept, 2);
}

static void other_virtual_instructions_are_illegal(void **state) {
    leave(CAUSE_VIRTUAL_INSTRUCTION, HFENCE_GVMA, 0, 0);
    faults(CAUSE_ILLEGAL_INSTRUCTION, HFENCE_GVMA);
    csrs.vstval = 0;
    set_code(HFENCE_GVMA);
    leave(CAUSE_VIRTUAL_INSTRUCTION, 0, 0, 0);
    faults(CAUSE_ILLEGAL_INSTRUCTION, HFENCE_GVMA);
    // If we can't fetch the instruction, the guest fetches it again.
    csrs.vscause = 99;
    csrs.sepc = GUEST_RAM - 4;
    csrs.stval = 0;
    handle_exit(&vcpus[0]);
    assert_int_equal(csrs.sepc, GUEST_RAM - 4);
    assert_int_equal(csrs.vscause, 99);
    assert_int_equal(slept, 0);
}

// Exceptions that were not delegated, and that are not for us.
static void other_exceptions_are_the_guests(void **state) {
    csrs.vsstatus = SSTATUS_SIE;
    leave(24, 7, 0, 0);
    faults(24, 7);
    assert_int_equal(csrs.vsstatus, SSTATUS_SPIE | SSTATUS_SPP);
    csrs.sstatus = 0;
    leave(24, 7, 0, 0);
    assert_int_equal(csrs.vsstatus, 0);
    assert_true(csrs.sstatus & SSTATUS_SPP);
}

// An exception at the guest's own trap vector comes again and again.
static void who_is_stuck_is_told_of_once(void **state) {
    csrs.vstvec = GUEST_RAM + PC + 1; // vectored, which exceptions ignore
    csrs.vscause = 13;
    csrs.vsepc = 0x1234;
    leave(24, 7, 0, 0);
    assert_string_equal(said,
                        "hv: the guest's hart 0 can't go on: exception 18 at "
                        "its trap vector, 80008000, after exception d at "
                        "1234\r\n");
    said[0] = 0;
    leave(24, 7, 0, 0);
    assert_string_equal(said, "");
    assert_int_equal(csrs.sepc, GUEST_RAM + PC);
}

_Noreturn void bug_found(void); // trap.S calls it

// A trap in the hypervisor itself prints each hart's last four exits, and ends
// everything.
static void a_bug_shows_the_last_exits(void **state) {
    for (unsigned i = 1; i <= 6; i++)
        leave(24, 0, 0, 0);
    struct vcpu *v = &vcpus[2];
    v->log[v->exits++] =
        (struct exit){.cause = 1, .pc = 2, .gpa = 3, .call = 4};
    csrs.scause = 5, csrs.sepc = 0x40, csrs.stval = 7;
    said[0] = 0;
    assert_int_equal(how_ends(bug_found()), DIED);
    assert_int_equal(ended, 1 << 16 | TEST_FAIL);
    const char *exit = "hv: hart 0: cause 18, pc 80008000, gpa 0, call 0\r\n";
    char expected[1024];
    snprintf(expected, sizeof expected, "%s%s%s%s%s%s", exit, exit, exit, exit,
             "hv: hart 2: cause 1, pc 2, gpa 3, call 4\r\n",
             "hv: BUG: trap 5 at pc 40, stval 7\r\n");
    assert_string_equal(said, expected);
}

static void an_ipi_reaches_the_guest(void **state) {
    csrs.sip = SIP_SSIP;
    leave(CAUSE_INTERRUPT | 1, 0, 0, 0);
    assert_int_equal(csrs.sip, 0);
    assert_true(csrs.hvip & HVIP_VSSIP);
    moves_on(0);
}

static void the_timer_reaches_the_guest(void **state) {
    csrs.sip = csrs.sie = SIP_STIP;
    leave(CAUSE_INTERRUPT | 5, 0, 0, 0);
    assert_true(csrs.hvip & HVIP_VSTIP);
    assert_false(csrs.sie & SIP_STIP);
}

static void an_external_interrupt_is_shown_until_it_is_claimed(void **state) {
    csrs.sip = csrs.sie = SIP_SEIP;
    leave(CAUSE_INTERRUPT | 9, 0, 0, 0);
    assert_true(csrs.hvip & HVIP_VSEIP);
    assert_false(csrs.sie & SIP_SEIP);
    leave(CAUSE_INTERRUPT | 1, 0, 0, 0);
    assert_true(csrs.hvip & HVIP_VSEIP);
    csrs.sip = 0;
    leave(CAUSE_INTERRUPT | 1, 0, 0, 0);
    assert_false(csrs.hvip & HVIP_VSEIP);
    assert_true(csrs.sie & SIP_SEIP);
}

// --- The waiting room --------------------------------------------------------

static void the_next_hart_begins_where_it_shall(void **state) {
    at_wfi = NULL;
    this_hart = 2;
    csrs.vsie = csrs.hvip = -1;
    assert_int_equal(how_ends(hv_main(2, NULL)), ASLEEP);
    assert_int_equal(vcpus[2].state, HART_STOPPED);
    assert_int_equal(csrs.vsie | csrs.hvip, 0);
    assert_int_equal(csrs.sie, SIP_SSIP);
    vcpus[2].start_pc = GUEST_RAM + 0x4000;
    vcpus[2].start_opaque = 77;
    vcpus[2].state = HART_START_PENDING;
    assert_int_equal(how_ends(hv_main(2, NULL)), ENTERED);
    assert_ptr_equal(entered, &vcpus[2]);
    assert_int_equal(vcpus[2].state, HART_STARTED);
    assert_int_equal(entered->regs[10], 2);
    assert_int_equal(entered->regs[11], 77);
    assert_int_equal(csrs.sepc, GUEST_RAM + 0x4000);
}

// The hart wakes up for nothing first, and then because it is to start.
static void wakes_twice(void) {
    assert_int_equal(vcpus[2].state, HART_STOPPED);
    csrs.sip = SIP_SSIP;
    if (slept++) {
        vcpus[2].state = HART_START_PENDING;
        vcpus[2].start_pc = GUEST_RAM + 0x4000;
        vcpus[2].start_opaque = 78;
    }
}

// The IPI is taken back before the hart looks.
static void ipi_is_gone(void) { assert_false(csrs.sip & SIP_SSIP); }

static void an_ipi_alone_starts_no_hart(void **state) {
    at_wfi = wakes_twice;
    at_fence = ipi_is_gone;
    assert_int_equal(how_ends(stop_hart(&vcpus[2])), ENTERED);
    assert_int_equal(slept, 2);
    assert_true(fences >= 2);
    assert_int_equal(entered->regs[11], 78);
}

// The hart is started while another one resets the machine.
static void starts_too_late(void) {
    struct vcpu *v = &vcpus[2];
    assert_int_equal(v->state, HART_STOPPED);
    if (slept++)
        longjmp(end, ASLEEP);
    v->state = HART_START_PENDING;
    v->start_pc = GUEST_RAM;
    host.resetting = 1;
}

static void no_hart_starts_while_the_machine_is_reset(void **state) {
    at_wfi = starts_too_late;
    assert_int_equal(how_ends(stop_hart(&vcpus[2])), ASLEEP);
    assert_int_equal(slept, 2);
    assert_int_equal(vcpus[2].start_pc, 0);
    assert_null(entered);
}

// Each of the others is asked until it has stopped, whatever it was doing.
static unsigned ipis[4];
static struct sbiret stops_at_the_third(const struct call *call) {
    unsigned hart = __builtin_ctzl(call->a[0]);
    assert_int_equal(call->id, SBI_EXT_IPI);
    assert_int_equal(call->a[0], 1ul << hart);
    assert_int_equal(call->a[1], 0);
    assert_true(host.resetting);
    if (++ipis[hart] == 3)
        vcpus[hart].state = HART_STOPPED;
    return (struct sbiret){0};
}

static void all_others_are_waited_for(void **state) {
    memset(ipis, 0, sizeof ipis);
    the_firmware = stops_at_the_third;
    vcpus[0].state = HART_SUSPENDED;
    vcpus[1].state = HART_START_PENDING;
    vcpus[3].state = HART_STOPPED;
    assert_int_equal(how_ends(stop_others(&vcpus[2])), RETURNED);
    assert_int_equal(ipis[0], 3);
    assert_int_equal(ipis[1], 3);
    assert_int_equal(ipis[2], 0);
    assert_int_equal(ipis[3], 0);
    assert_int_equal(vcpus[2].state, HART_STARTED);
}

#define H(function) cmocka_unit_test_setup(function, setup)
TESTS(test_hv, H(wfi_sleeps), H(other_virtual_instructions_are_illegal),
      H(other_exceptions_are_the_guests), H(who_is_stuck_is_told_of_once),
      H(a_bug_shows_the_last_exits), H(an_ipi_reaches_the_guest),
      H(the_timer_reaches_the_guest),
      H(an_external_interrupt_is_shown_until_it_is_claimed),
      H(the_next_hart_begins_where_it_shall), H(an_ipi_alone_starts_no_hart),
      H(no_hart_starts_while_the_machine_is_reset),
      H(all_others_are_waited_for))
