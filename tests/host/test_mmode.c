// A guest that begins in M-mode.
#include "../../mmode.c"
#include "unit.h"

enum { MSTATUS_AT = 0x300, MEDELEG_AT = 0x302, MIE_AT = 0x304, MTVEC_AT };
enum { MENVCFG_AT = 0x30a, MSCRATCH_AT = 0x340, MEPC_AT, MCAUSE_AT, MTVAL_AT };
enum { MIP_AT = 0x344, MHARTID_AT = 0xf14, VECTOR = 0x1000 };
enum { MSIP_AT = 0, MTIMECMP_AT = 0x4000, MTIME_AT = 0xbff8 };
enum { MPP_S = 1 << 11, MPP_M = 3 << 11, ALL = MIP_MSIP | MIP_MTIP | MIP_MEIP };

static int setup(void **state) {
    reset_machine();
    memset(harts, 0, sizeof harts);
    for (unsigned hart = 0; hart < MAX_HARTS; hart++)
        clint.msip[hart] = 0;
    mmode_init();
    csrs.time = 1000;
    csrs.vstvec = 0x2000;
    harts[0].csr[MTVEC] = VECTOR;
    for (unsigned hart = 0; hart < 4; hart++)
        clint.mtimecmp[hart] = -1; // no timer yet
    return 0;
}

static void execute(uint32_t inst) {
    memcpy(ram(GUEST_RAM + PC), &inst, sizeof inst);
    leave(CAUSE_ILLEGAL_INSTRUCTION, 0, 0, 0);
}

// FUNCT3 is 1, 2, 3 for csrrw, csrrs, csrrc.  With 4 more, RS1 is not a
// register but a number.
static void csr_op(unsigned funct3, unsigned csr, unsigned rs1, unsigned rd) {
    execute(csr << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | 0x73);
    assert_int_equal(csrs.sepc, GUEST_RAM + PC + 4);
}

static uint64_t read_csr(unsigned csr) {
    csr_op(2, csr, 0, 5);
    return vcpus[0].regs[5];
}

static void write_csr(unsigned csr, uint64_t value) {
    vcpus[0].regs[6] = value;
    csr_op(1, csr, 6, 0);
}

// M-mode sets MEDELEG and goes to MODE by an mret.
static void goes_to(unsigned mode, uint64_t medeleg) {
    write_csr(MEDELEG_AT, medeleg);
    write_csr(MEPC_AT, 0x3001);
    write_csr(MSTATUS_AT, MSTATUS_MPIE | mode << MSTATUS_MPP_SHIFT);
    execute(INSTRUCTION_MRET);
    assert_int_equal(csrs.sepc, 0x3000); // its bit 0 is always 0
    assert_int_equal(harts[0].on, mode == MODE_M);
    assert_int_equal(csrs.sstatus & SSTATUS_SPP, mode ? SSTATUS_SPP : 0);
}

// The trap was taken into M-mode, out of MODE with interrupts on.
static void taken(uint64_t cause, uint64_t tval, unsigned mode) {
    const uint64_t *csr = harts[0].csr;
    assert_true(harts[0].on);
    assert_int_equal(csr[MCAUSE], cause);
    assert_int_equal(csr[MTVAL], tval);
    assert_int_equal(csr[MEPC], GUEST_RAM + PC);
    assert_int_equal(csr[MSTATUS] & MSTATUS_M,
                     MSTATUS_MPIE | mode << MSTATUS_MPP_SHIFT);
    assert_int_equal(csrs.sepc, VECTOR);
    assert_int_equal(csrs.hedeleg, 0);
    assert_int_equal(csrs.vsatp, 0);
    assert_true(csrs.sstatus & SSTATUS_SPP);
}

static void exceptions_go_by_medeleg(void **state) {
    const uint32_t nonsense = 0xffffffff;
    for (unsigned mode = MODE_U; mode <= MODE_S; mode++) {
        // To M-mode
        csrs.vscause = 0;
        goes_to(mode, 0);
        assert_int_equal(csrs.hedeleg, 0);
        execute(nonsense);
        taken(CAUSE_ILLEGAL_INSTRUCTION, nonsense, mode);
        goes_to(mode, 1ul << CAUSE_BREAKPOINT);
        leave(CAUSE_LOAD_PAGE, 0x123, 0, 0);
        taken(CAUSE_LOAD_PAGE, 0x123, mode);
        assert_int_equal(csrs.vscause, 0);
        // To S-mode: the hart does that itself, or else inject() does
        goes_to(mode, -1ul);
        assert_int_equal(csrs.hedeleg, HEDELEG);
        leave(CAUSE_VIRTUAL_INSTRUCTION, nonsense, 0, 0);
        assert_false(harts[0].on);
        assert_int_equal(csrs.vscause, CAUSE_ILLEGAL_INSTRUCTION);
        assert_int_equal(csrs.vstval, nonsense);
        assert_int_equal(csrs.vsepc, GUEST_RAM + PC);
        assert_int_equal(csrs.sepc, 0x2000);
        harts[0].on = true;
    }
}

static void ecalls_have_the_cause_of_their_mode(void **state) {
    goes_to(MODE_U, 0);
    leave(CAUSE_USER_ECALL, 0, 0, 0);
    taken(CAUSE_USER_ECALL, 0, MODE_U);
    goes_to(MODE_S, 0);
    leave(CAUSE_VIRTUAL_SUPERVISOR_ECALL, 0, 0, 0);
    taken(CAUSE_SUPERVISOR_ECALL, 0, MODE_S);
    goes_to(MODE_M, -1ul); // medeleg is not about M-mode
    leave(CAUSE_VIRTUAL_SUPERVISOR_ECALL, 0, 0, 0);
    taken(CAUSE_MACHINE_ECALL, 0, MODE_M);
    goes_to(MODE_S, -1ul);
    leave(CAUSE_VIRTUAL_SUPERVISOR_ECALL, 0, 0, 0);
    assert_int_equal(csrs.vscause, CAUSE_SUPERVISOR_ECALL);
    assert_int_equal(calls_made, 0); // there is no SBI
}

// In M-mode translation and interrupts are off.  After its mret they are as
// S-mode left them.
static void s_mode_finds_its_own_state_again(void **state) {
    goes_to(MODE_S, 0);
    csrs.vsatp = 0x1234;
    csrs.vsstatus = SSTATUS_SIE | SSTATUS_MXR;
    leave(CAUSE_LOAD_PAGE, 0, 0, 0);
    taken(CAUSE_LOAD_PAGE, 0, MODE_S);
    assert_int_equal(csrs.vsstatus, SSTATUS_MXR);
    assert_int_equal(read_csr(MSTATUS_AT),
                     SSTATUS_MXR | SSTATUS_SIE | MSTATUS_MPIE | MPP_S);
    execute(INSTRUCTION_MRET);
    assert_int_equal(csrs.sepc, GUEST_RAM + PC);
    assert_int_equal(csrs.vsatp, 0x1234);
    assert_int_equal(csrs.vsstatus, SSTATUS_SIE | SSTATUS_MXR);
    assert_int_equal(harts[0].csr[MSTATUS], MSTATUS_MPIE | MSTATUS_MIE);
    // M-mode may set another satp for S-mode.
    leave(CAUSE_LOAD_PAGE, 0, 0, 0);
    csrs.vsatp = 0x5678;
    execute(INSTRUCTION_MRET);
    assert_int_equal(csrs.vsatp, 0x5678);
}

static void who_is_stuck_in_m_mode_is_told_of(void **state) {
    harts[0].csr[MTVEC] = GUEST_RAM + PC;
    leave(CAUSE_LOAD_PAGE, 0, 0, 0);
    assert_int_equal(harts[0].csr[MEPC], GUEST_RAM + PC);
    assert_int_equal(csrs.sepc, GUEST_RAM + PC);
    // The message comes only once, and test_hv.c has seen it.
}

// All three interrupts are pending, and mie lets MASK through.
static void takes_interrupt(unsigned number, unsigned mask, unsigned vectored) {
    setup(NULL);
    clint.msip[0] = 1;
    clint.mtimecmp[0] = 1000;
    csrs.sip = SIP_SEIP;
    csrs.hvip = HVIP_VSEIP;
    harts[0].csr[MTVEC] = VECTOR | vectored;
    harts[0].csr[MSTATUS] = MSTATUS_MIE;
    harts[0].csr[MIE] = mask;
    leave(CAUSE_INTERRUPT | 1, 0, 0, 0);
    assert_int_equal(harts[0].csr[MCAUSE], CAUSE_INTERRUPT | number);
    assert_int_equal(harts[0].csr[MEPC], GUEST_RAM + PC);
    assert_int_equal(csrs.sepc, VECTOR + (vectored ? 4 * number : 0));
    assert_int_equal(harts[0].csr[MSTATUS], MSTATUS_MPIE | MPP_M);
    // It is not taken again until interrupts are on.
    leave(CAUSE_INTERRUPT | 1, 0, 0, 0);
    assert_int_equal(csrs.sepc, GUEST_RAM + PC);
}

static void interrupts_have_their_priorities(void **state) {
    for (unsigned vectored = 0; vectored < 2; vectored++) {
        takes_interrupt(11, ALL, vectored);
        takes_interrupt(11, MIP_MEIP | MIP_MTIP, vectored);
        takes_interrupt(3, MIP_MSIP | MIP_MTIP, vectored);
        takes_interrupt(7, MIP_MTIP, vectored);
        assert_int_equal(read_csr(MIP_AT) & ALL, ALL);
    }
}

static void m_modes_interrupts_come_in_s_mode(void **state) {
    goes_to(MODE_S, 0);
    harts[0].csr[MSTATUS] = 0; // MIE does not matter
    harts[0].csr[MIE] = MIP_MSIP;
    clint.mtimecmp[0] = 0;
    leave(CAUSE_INTERRUPT | 1, 0, 0, 0);
    assert_false(harts[0].on);
    clint.msip[0] = 1;
    leave(CAUSE_INTERRUPT | 1, 0, 0, 0);
    assert_true(harts[0].on);
    assert_int_equal(harts[0].csr[MCAUSE], CAUSE_INTERRUPT | 3);
    assert_int_equal(harts[0].csr[MSTATUS] & MPP_M, MPP_S);
}

// M-mode waits at its own trap vector, and nothing is wrong with that.
static void an_interrupt_may_come_at_the_vector(void **state) {
    harts[0].csr[MTVEC] = GUEST_RAM + PC;
    harts[0].csr[MSTATUS] = MSTATUS_MIE;
    harts[0].csr[MIE] = MIP_MSIP;
    clint.msip[0] = 1;
    leave(CAUSE_INTERRUPT | 1, 0, 0, 0);
    assert_int_equal(harts[0].csr[MCAUSE], CAUSE_INTERRUPT | 3);
    assert_int_equal(csrs.sepc, GUEST_RAM + PC);
    // If interrupts were off before, mret leaves them off.
    harts[0].csr[MSTATUS] = MPP_M;
    execute(INSTRUCTION_MRET);
    assert_int_equal(harts[0].csr[MSTATUS], MSTATUS_MPIE);
}

static unsigned slept;
static void count_sleep(void) { slept++; }

static void wfi_does_not_wait_for_what_is_there(void **state) {
    slept = 0;
    at_wfi = count_sleep;
    harts[0].csr[MIE] = MIP_MSIP;
    leave(CAUSE_VIRTUAL_INSTRUCTION, 0x10500073, 0, 0);
    assert_int_equal(slept, 1);
    clint.msip[0] = 1;
    leave(CAUSE_VIRTUAL_INSTRUCTION, 0x10500073, 0, 0);
    assert_int_equal(slept, 1);
    assert_int_equal(csrs.sepc, GUEST_RAM + PC + 4);
}

// M-mode raises S-mode's interrupts.  With Sstc the hart raises the timer's.
static void mip_raises_s_modes_interrupts(void **state) {
    enum { SSIP = 2, STIP = 32 };
    host.sstc = true;
    vcpus[0].regs[7] = SSIP | STIP;
    csr_op(2, MIP_AT, 7, 0);
    assert_int_equal(csrs.hvip & ~HVIP_VSEIP, HVIP_VSSIP | HVIP_VSTIP);
    vcpus[0].regs[7] = STIP;
    csr_op(3, MIP_AT, 7, 0);
    assert_int_equal(csrs.hvip & ~HVIP_VSEIP, HVIP_VSSIP);
    write_csr(MIP_AT, STIP);
    assert_int_equal(csrs.hvip & ~HVIP_VSEIP, HVIP_VSTIP);
    write_csr(MIP_AT, 0);
    assert_int_equal(csrs.hvip & ~HVIP_VSEIP, 0);
    write_csr(MENVCFG_AT, HENVCFG_STCE);
    csr_op(2, MIP_AT, 7, 0);
    assert_int_equal(csrs.hvip & HVIP_VSTIP, 0);
    host.sstc = false; // the bit means nothing then
    csr_op(2, MIP_AT, 7, 0);
    assert_int_equal(csrs.hvip & HVIP_VSTIP, HVIP_VSTIP);
    // A read shows what the hart reports.
    csrs.hip = HVIP_VSSIP;
    assert_int_equal(read_csr(MIP_AT), SSIP);
}

// We can't rely on the hart to drop any bits of vsstatus.  QEMU keeps them all,
// and puts them into mstatus at the next VM entry, even MPRV.
static void mstatus_passes_on_s_modes_bits_alone(void **state) {
    const uint64_t s_modes = 1 << 5 | 1 << 8 | 3 << 9 | 3 << 13 | 3 << 18;
    for (unsigned bit = 0; bit < 64; bit++) {
        write_csr(MSTATUS_AT, 1ul << bit);
        assert_int_equal(csrs.vsstatus,
                         (1ul << bit & s_modes) | SSTATUS_UXL_64);
    }
    write_csr(MSTATUS_AT, -1ul);
    assert_int_equal(csrs.vsstatus, s_modes | SSTATUS_UXL_64);
}

static void csrs_are_remembered(void **state) {
    uint64_t *regs = vcpus[0].regs;
    write_csr(MSCRATCH_AT, 0x1234567890);
    assert_int_equal(read_csr(MSCRATCH_AT), 0x1234567890);
    regs[7] = 0xf0;
    csr_op(1, MSCRATCH_AT, 7, 7); // the old value into the same register
    assert_int_equal(regs[7], 0x1234567890);
    csr_op(6, MSCRATCH_AT, 5, 0);
    assert_int_equal(read_csr(MSCRATCH_AT), 0xf5);
    csr_op(7, MSCRATCH_AT, 4, 5);
    assert_int_equal(regs[5], 0xf5);
    assert_int_equal(read_csr(MSCRATCH_AT), 0xf1);
    csr_op(5, MSCRATCH_AT, 31, 0);
    assert_int_equal(read_csr(MSCRATCH_AT), 31);
    assert_int_equal(regs[0], 0);
    write_csr(MIE_AT, 0xaaa);
    assert_int_equal(csrs.vsie, 0xaaa);
    assert_int_equal(harts[0].csr[MIE], ALL);
    csrs.vsie = 0x22;
    assert_int_equal(read_csr(MIE_AT), ALL | 0x22);
    assert_int_equal(read_csr(MHARTID_AT), 0);
    assert_int_equal(harts[3].csr[MHARTID], 3);
    csrs.cycle = 123, csrs.instret = 456;
    assert_int_equal(read_csr(MCYCLE), 123);
    assert_int_equal(read_csr(MINSTRET), 456);
}

static void what_is_not_emulated_is_told_of_once(void **state) {
    write_csr(MSTATUS_AT, 1 << 17);
    assert_string_equal(said, "hv: mstatus: MPRV, TVM, TW and TSR are not "
                              "emulated\r\n");
    said[0] = 0;
    write_csr(MSTATUS_AT, 1 << 20);
    assert_string_equal(said, "");
}

static void other_instructions_are_illegal(void **state) {
    static const uint32_t wrong[] = {0xf1401073,           // csrw mhartid, x0
                                     0xb0031073,           // csrw mcycle, x6
                                     0xb0202073 | 1 << 15, // csrs minstret, x1
                                     0xb0402073,           // csrr x0, 0xb04
                                     0x60002073,           // csrr x0, hstatus
                                     0x30000073,           // no such function
                                     0xffffffff,           0};
    for (unsigned i = 0; i < LENGTH(wrong); i++) {
        harts[0].csr[MSTATUS] = MSTATUS_MIE;
        execute(wrong[i]);
        taken(CAUSE_ILLEGAL_INSTRUCTION, i == 7 ? 0 : wrong[i], MODE_M);
    }
    // S-mode may do none of that.
    goes_to(MODE_S, 0);
    execute(INSTRUCTION_MRET);
    taken(CAUSE_ILLEGAL_INSTRUCTION, INSTRUCTION_MRET, MODE_S);
    goes_to(MODE_S, 0);
    execute(0x30002073); // csrr x0, mstatus
    taken(CAUSE_ILLEGAL_INSTRUCTION, 0x30002073, MODE_S);
    // If we can't fetch the instruction, the guest fetches it again.
    csrs.sepc = GUEST_RAM - 4;
    handle_exit(&vcpus[0]);
    assert_int_equal(csrs.sepc, GUEST_RAM - 4);
}

// --- The CLINT ---------------------------------------------------------------

static unsigned fences_before;
static struct sbiret tells_all(const struct call *call) {
    calls[calls_made++ % LENGTH(calls)] = *call;
    assert_int_equal(call->id, SBI_EXT_IPI);
    assert_int_equal(call->function, 0);
    assert_int_equal(call->a[0], 0);
    assert_int_equal(call->a[1], -1);
    assert_true(fences > fences_before);
    return (struct sbiret){0};
}

static void writes(unsigned width, unsigned offset, uint64_t value) {
    calls_made = 0;
    fences_before = fences;
    assert_true(store(width, GUEST_CLINT + offset, value));
    assert_int_equal(calls_made, 1);
}

static uint64_t reads(unsigned funct3, unsigned offset) {
    calls_made = 0;
    assert_true(load(funct3, GUEST_CLINT + offset));
    assert_int_equal(calls_made, 0);
    return vcpus[0].regs[5];
}

static void each_hart_has_a_timer(void **state) {
    the_firmware = tells_all;
    for (unsigned hart = 0; hart < 4; hart++) {
        unsigned at = MTIMECMP_AT + 8 * hart;
        assert_int_equal(reads(LD, at), -1);
        writes(8, at, 0x1111222233334444);
        writes(4, at, 0x55556666);
        assert_int_equal(reads(LD, at), 0x1111222255556666);
        writes(4, at + 4, 0x77778888);
        assert_int_equal(reads(LWU, at + 4), 0x77778888);
        assert_int_equal(clint.mtimecmp[hart], 0x7777888855556666);
    }
    assert_int_equal(mip(&vcpus[1]), 0);
    writes(8, MTIMECMP_AT + 8, 1000);
    assert_int_equal(mip(&vcpus[1]), MIP_MTIP);
    assert_int_equal(mip(&vcpus[0]), 0);
}

static void the_time_is_read_alone(void **state) {
    the_firmware = tells_all;
    csrs.time = 0x123456789abcdef0;
    assert_int_equal(reads(LD, MTIME_AT), csrs.time);
    assert_int_equal(reads(LWU, MTIME_AT), 0x9abcdef0);
    assert_int_equal(reads(LWU, MTIME_AT + 4), 0x12345678);
    writes(8, MTIME_AT, 1);
    assert_string_equal(said, "hv: CLINT: mtime can't be set\r\n");
    said[0] = 0;
    writes(4, MTIME_AT + 4, 1);
    assert_int_equal(reads(LD, MTIME_AT), csrs.time);
    assert_string_equal(said, "");
}

static void a_hart_interrupts_another(void **state) {
    the_firmware = tells_all;
    writes(4, MSIP_AT + 4 * 2, 1);
    assert_int_equal(mip(&vcpus[2]), MIP_MSIP);
    assert_int_equal(mip(&vcpus[0]), 0);
    assert_int_equal(reads(LW, MSIP_AT + 4 * 2), 1);
    writes(4, MSIP_AT + 4 * 2, 0);
    assert_int_equal(mip(&vcpus[2]), 0);
    // The IPI that announces it is not S-mode's interrupt.
    writes(4, MSIP_AT, 1);
    harts[0].csr[MIE] = MIP_MSIP;
    harts[0].csr[MSTATUS] = MSTATUS_MIE;
    csrs.sip = SIP_SSIP;
    leave(CAUSE_INTERRUPT | 1, 0, 0, 0);
    assert_int_equal(csrs.sip, 0);
    assert_int_equal(csrs.hvip & HVIP_VSSIP, 0);
    assert_int_equal(harts[0].csr[MCAUSE], CAUSE_INTERRUPT | 3);
}

// Our own timer is set like the guest's, if the guest waits for that.
static void the_timer_brings_us_back(void **state) {
    clint.mtimecmp[0] = 5678;
    leave(CAUSE_INTERRUPT | 1, 0, 0, 0);
    assert_int_equal(calls_made, 0);
    harts[0].csr[MIE] = MIP_MTIP;
    csrs.sip = csrs.sie = SIP_STIP; // an old one
    leave(CAUSE_INTERRUPT | 5, 0, 0, 0);
    assert_int_equal(calls_made, 1);
    assert_int_equal(calls[0].id, SBI_EXT_TIME);
    assert_int_equal(calls[0].a[0], 5678);
    assert_true(csrs.sie & SIP_STIP);
    assert_int_equal(csrs.hvip & HVIP_VSTIP, 0);
    csrs.time = 5678;
    leave(CAUSE_INTERRUPT | 5, 0, 0, 0);
    assert_int_equal(calls_made, 1);
    assert_false(csrs.sie & SIP_STIP); // it would come again at once
}

#define M(function) cmocka_unit_test_setup(function, setup)
TESTS(test_mmode, M(exceptions_go_by_medeleg),
      M(ecalls_have_the_cause_of_their_mode),
      M(s_mode_finds_its_own_state_again), M(who_is_stuck_in_m_mode_is_told_of),
      M(interrupts_have_their_priorities), M(m_modes_interrupts_come_in_s_mode),
      M(an_interrupt_may_come_at_the_vector),
      M(wfi_does_not_wait_for_what_is_there), M(mip_raises_s_modes_interrupts),
      M(csrs_are_remembered), M(what_is_not_emulated_is_told_of_once),
      M(mstatus_passes_on_s_modes_bits_alone),
      M(other_instructions_are_illegal), M(each_hart_has_a_timer),
      M(the_time_is_read_alone), M(a_hart_interrupts_another),
      M(the_timer_brings_us_back))
