// The life of one of the guest's harts: it waits, is started, enters the guest,
// and stops.  At the end of this file it takes an exception.

#include "hv.h"

struct vcpu vcpus[MAX_HARTS];

// Sets what a hart needs before it enters the guest, and while it waits to do
// so.
static void init_hart(struct vcpu *v) {
    csr_write(hedeleg, v->mmode ? 0 : HEDELEG);
    csr_write(hideleg, HVIP_VSSIP | HVIP_VSTIP | HVIP_VSEIP);
    csr_write(hvip, 0);
    csr_write(hcounteren, -1); // or rdtime, Linux's clock, would trap
    csr_write(htimedelta, 0);  // the guest's time is the host's
    csr_write(vsie, 0);
    csr_write(henvcfg, host.henvcfg);
    if (host.sstc)
        csr_write(vstimecmp, -1);
    if (isa_has("smstateen") || isa_has("ssstateen"))
        csr_write(hstateen0, HSTATEEN0_ENVCFG); // or senvcfg would trap
    // Turn the second stage of translation on, with the guest's own off, and
    // make the TLB forget what it knew of it (hfence.gvma).
    csr_write(vsatp, 0);
    csr_write(hgatp, HGATP_MODE_SV39X4 | (hpa_t)host.root / PAGE);
    hfence_gvma();
    // A hart without Sv39x4 takes another mode (the field is WARL), and with
    // Bare the guest would own the machine.  A hart may also leave htval 0, and
    // then we could not tell which device the guest wants.  So try an address
    // where the guest has nothing: that must fault, and htval must say where.
    const gpa_t nothing = GUEST_RAM - PAGE;
    if (hlvx_hu(nothing, 0) >= 0 || csr_read(htval) != nothing >> 2)
        die("hart %lx lacks Sv39x4, or leaves htval 0", v->hart);
    plic_init(v);
    // While V waits, only an IPI is to end its wfi.
    csr_write(sie, SIP_SSIP);
}

// The waiting room.  V is here from the beginning until start_hart() says where
// it is to begin, and again after the guest's hart_stop.
//
// Why not stop in the firmware?  Because there a hart is deaf.  A remote fence
// from another hart would wait for ever for one that stops just then (seen with
// OpenSBI 1.1 to 1.9).
//
// V may come here out of an exit.  Then its stack is dropped as it is: each
// exit begins at the same place again.
_Noreturn void stop_hart(struct vcpu *v) {
    init_hart(v);
    gpa_t pc;
    do {
        v->state = HART_STOPPED;
        do {
            wfi(); // until start_hart() sends an IPI
            csr_clear(sip, SIP_SSIP);
            fence(); // clear the IPI first, then see what it is for
        } while (!(pc = atomic_exchange(&v->start_pc, 0)));
        // We write state, then read resetting.  stop_others() writes resetting,
        // then reads state.  So at least one of us sees what the other wrote.
        v->state = HART_STARTED;
    } while (host.resetting);
    start_guest(v, pc, v->start_opaque);
}

// Enters the guest at PC, with OPAQUE in a1, in the state in which SBI's HSM
// starts a hart: in VS-mode, without translation of its own or interrupts.
_Noreturn void start_guest(struct vcpu *v, gpa_t pc, uint64_t opaque) {
    csr_write(hstatus,
              HSTATUS_SPV | HSTATUS_SPVP | HSTATUS_VTW | HSTATUS_VSXL_64);
    csr_write(vsstatus, SSTATUS_UXL_64);
    csr_write(vsatp, 0);
    csr_write(vstvec, 0);
    // The guest may use floating-point and vector registers.  Our own code does
    // not, so they stay in the hart, and nobody saves them.
    csr_set(sstatus, SSTATUS_SPP | SSTATUS_FS | SSTATUS_VS);
    plic_show(v, false); // handle_interrupts() will look again
    csr_write(sepc, pc);
    v->regs[10] = v->hart;
    v->regs[11] = opaque;
    fence_i(); // load() or another hart may just have written this code
    enter_guest(v);
}

// Starts HART at PC with OPAQUE in its a1.  Returns false if it is not stopped.
// If several harts try this at once, one of them succeeds.
bool start_hart(uint64_t hart, gpa_t pc, uint64_t opaque) {
    struct vcpu *v = &vcpus[hart];
    uint64_t from = HART_STOPPED, to = HART_START_PENDING;
    if (!atomic_compare_exchange_strong(&v->state, &from, to))
        return false;
    v->start_opaque = opaque;
    v->start_pc = pc; // the hart begins as soon as it sees this
    fence();          // the IPI comes after that
    host_sbi(SBI_EXT_IPI, 0, (uint64_t[5]){1ul << hart});
    return true;
}

// Gets all harts but V out of the guest and into the waiting room, and keeps
// them there.  This is for a reset of the machine.  QEMU (11.1 and before)
// keeps a hart's virtual mode over a reset, so one that is in the guest would
// begin again there.  If another hart is resetting already, V waits like the
// others, and this does not return.
void stop_others(struct vcpu *v) {
    if (atomic_exchange(&host.resetting, true))
        stop_hart(v);
    for (struct vcpu *other = vcpus; other < vcpus + guest.harts; other++)
        while (other != v && other->state != HART_STOPPED)
            host_sbi(SBI_EXT_IPI, 0, (uint64_t[5]){1ul << other->hart});
}

// Makes the guest take exception CAUSE, with TVAL in its stval, as if its own
// hart had raised it (Priv. "Trap Entry", into VS-mode).  The guest's CSRs are
// those that begin with "vs".  Returns 0, for "do not move the pc": it is at
// the guest's handler now.
unsigned inject(struct vcpu *v, uint64_t cause, uint64_t tval) {
    if (v->mmode && mmode_exception(v, cause, tval))
        return 0;
    uint64_t sstatus = csr_read(sstatus), vsstatus = csr_read(vsstatus);
    uint64_t spie = vsstatus & SSTATUS_SIE ? SSTATUS_SPIE : 0;
    gva_t vector = csr_read(vstvec) & ~3ul; // without its mode
    if (v->exit->pc == vector)
        say_stuck(v, cause, csr_read(vscause), csr_read(vsepc));
    vsstatus &= ~(SSTATUS_SPP | SSTATUS_SPIE | SSTATUS_SIE);
    csr_write(vsstatus, vsstatus | spie | (sstatus & SSTATUS_SPP));
    csr_write(vscause, cause);
    csr_write(vsepc, v->exit->pc);
    csr_write(vstval, tval);
    csr_write(sepc, vector);
    csr_set(sstatus, SSTATUS_SPP); // it goes on in VS-mode
    return 0;
}
