// A VM exit, from the hart's report to the guest's next instruction.  trap.S
// calls handle_exit() and then enters the guest again.

#include "hv.h"

#define INSTRUCTION_WFI 0x10500073

static unsigned handle_virtual_instruction(struct vcpu *v);
static void handle_interrupts(struct vcpu *v);

// Handles an exit of V.  Each handler returns how far to move the guest's pc:
// by the length of the instruction if that is done, by 0 if the guest is to
// execute it again or if the pc has been moved elsewhere.
void handle_exit(struct vcpu *v) {
    struct exit *e = v->exit = &v->log[v->exits++ % LOG_LENGTH];
    e->time = csr_read(time);
    e->cause = csr_read(scause);
    e->pc = csr_read(sepc);
    e->tval = csr_read(stval);
    e->gpa = csr_read(htval) << 2 | (e->tval & 3);
    e->inst = csr_read(htinst);
    e->call = v->regs[17] << 32 | (uint32_t)v->regs[16];

    unsigned step = 0;
    switch (e->cause) {
    case CAUSE_VIRTUAL_SUPERVISOR_ECALL:
        step = v->mmode ? inject(v, CAUSE_SUPERVISOR_ECALL, 0) : handle_sbi(v);
        break;
    case CAUSE_FETCH_GUEST_PAGE_FAULT:
    case CAUSE_LOAD_GUEST_PAGE_FAULT:
    case CAUSE_STORE_GUEST_PAGE_FAULT: step = handle_mmio(v); break;
    case CAUSE_VIRTUAL_INSTRUCTION: step = handle_virtual_instruction(v); break;
    default:
        // For an interrupt see handle_interrupts() below.  Any other exception
        // that was not delegated is the guest's to take.
        if (v->mmode && e->cause == CAUSE_ILLEGAL_INSTRUCTION)
            step = handle_illegal_instruction(v);
        else if (!(e->cause & CAUSE_INTERRUPT))
            step = inject(v, e->cause, e->tval);
    }
    if (step)
        csr_write(sepc, e->pc + step);
    handle_interrupts(v);
    e->end = csr_read(time);
    // QEMU 7.2 may lose a timer interrupt when something else changes in hvip
    // or vsip at that moment.  It looks again when vstimecmp is written.
    if (host.sstc && e->end >= csr_read(vstimecmp))
        csr_write(vstimecmp, csr_read(vstimecmp));
}

// Handles a virtual instruction exception: an instruction that HS-mode may
// execute, and the guest may not.  Returns how far to move the guest's pc.
static unsigned handle_virtual_instruction(struct vcpu *v) {
    // stval has the instruction, or 0 if the hart does not tell (Priv.
    // "stval").  If we can't read it either, the guest will fault when it
    // fetches it again.
    long inst = v->exit->tval ? (long)v->exit->tval : fetch(v->exit->pc, 0);
    if (inst < 0)
        return 0;
    // All but the kernel's WFI are illegal for the guest: instructions of H, as
    // its hart has no H, or of S-mode, used in its U-mode.
    if (inst != INSTRUCTION_WFI || !(csr_read(sstatus) & SSTATUS_SPP))
        return inject(v, CAUSE_ILLEGAL_INSTRUCTION, inst);
    // With hstatus.VTW a WFI that would wait is an exit, and we wait for the
    // guest.  Our wfi ends when an interrupt that sie or vsie enables is
    // pending.  Those of an emulated M-mode are not in the hart, so look at
    // them first.
    if (!v->mmode || !mmode_pending(v))
        wfi();
    return 4;
}

// Passes our own interrupts on to the guest, at the end of each exit.  So an
// interrupt that came during the exit, or that ended a WFI, needs no exit of
// its own.
static void handle_interrupts(struct vcpu *v) {
    uint64_t pending = csr_read(sip), enabled = csr_read(sie);
    if (pending & SIP_SSIP) { // an IPI: from the guest, or stop_others()
        csr_clear(sip, SIP_SSIP);
        fence();       // clear the IPI first, then see what it is for
        if (!v->mmode) // with an M-mode it tells of a store to the CLINT
            csr_set(hvip, HVIP_VSSIP);
        if (host.resetting) // see stop_others()
            stop_hart(v);
    }
    if (pending & enabled & SIP_STIP) { // see set_timer() and mmode_interrupt()
        csr_clear(sie, SIP_STIP);       // until the guest sets its timer again
        if (!v->mmode)
            csr_set(hvip, HVIP_VSTIP);
    }
    // An external interrupt of ours is pending in sip.SEIP.  We show it to the
    // guest and clear sie.SEIP meanwhile, see plic_show().  So if sie.SEIP is
    // clear and sip.SEIP still set, the guest has not claimed it yet, and all
    // stays as it is.  If both are clear, it has.
    if (pending & enabled & SIP_SEIP)
        plic_show(v, true);
    else if (!((pending | enabled) & SIP_SEIP))
        plic_show(v, false);
    if (v->mmode)
        mmode_interrupt(v);
}

// The hypervisor itself has trapped; trap.S comes here.  There is no way back.
// The last exits of each hart may tell why.
_Noreturn void bug_found(void) {
    for (struct vcpu *v = vcpus; v < vcpus + guest.harts; v++)
        for (uint64_t n = v->exits < 4 ? 0 : v->exits - 4; n < v->exits; n++) {
            struct exit *e = &v->log[n % LOG_LENGTH];
            say("hart %lx: cause %lx, pc %lx, gpa %lx, call %lx", v->hart,
                e->cause, e->pc, e->gpa, e->call);
        }
    die("BUG: trap %lx at pc %lx, stval %lx", csr_read(scause), csr_read(sepc),
        csr_read(stval));
}
