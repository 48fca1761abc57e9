// Kernels that bring no firmware begin in M-mode (Priv. chapter 3, "Machine-
// Level ISA"), set up the machine, and leave by mret.  Some come back for the
// timer.
//
// The guest's hart has no M-mode, so VS-mode plays it: with translation and
// interrupts off, as they are in M-mode, and with illegal instructions not
// delegated.  What VS-mode may not do then traps, and is done here.

#include "hv.h"

// CSRs, by the lower eight bits of their numbers 0x3.. and 0xf1.
enum { MSTATUS = 0x00, MIE = 0x04, MTVEC = 0x05, MHARTID = 0x14 };
enum { MEPC = 0x41, MCAUSE = 0x42, MIP = 0x44 };
enum { MSTATUS_MIE = 1 << 3, MSTATUS_MPIE = 1 << 7, MSTATUS_MPP_SHIFT = 11 };
enum { MSTATUS_M = MSTATUS_MIE | MSTATUS_MPIE | 3 << MSTATUS_MPP_SHIFT };
enum { MIP_SSIP = 1 << 1, MIP_STIP = 1 << 5, MIP_MTIP = 1 << 7 };
enum { MODE_U, MODE_S, MODE_M = 3, CSRRW = 1, CSRRS = 2 };
enum { CLINT_MTIMECMP = 0x4000, CLINT_MTIME = 0xbff8 };
#define INSTRUCTION_MRET 0x30200073

static struct mmode {
    bool on;           // the hart plays M-mode
    uint64_t mtimecmp; // ticks
    uint64_t vsatp;    // the guest's, while translation is off
    uint64_t csr[256]; // of mstatus: M-mode's fields, and SIE while that is off
} harts[MAX_HARTS];

// Lets V begin in M-mode.
void mmode_start(struct vcpu *v) {
    v->mmode = &harts[v->hart];
    *v->mmode = (struct mmode){.on = true, .mtimecmp = -1};
    v->mmode->csr[MHARTID] = v->hart;
    csr_clear(hedeleg, 1 << CAUSE_ILLEGAL_INSTRUCTION);
    host_sbi(SBI_EXT_TIME, 0, &v->mmode->mtimecmp);
    // On a board without firmware all harts begin at once.  The one that begins
    // here starts the others; they try to as well, and the firmware says no.
    for (uint64_t hart = 0; hart < guest.harts; hart++)
        start_hart(hart, (struct start){guest.entry, guest.dtb.gpa});
}

// At the end of each exit: takes the timer interrupt in M-mode (Priv. 3.1) if
// it is time.
void mmode_timer(struct vcpu *v) {
    struct mmode *m = v->mmode;
    uint64_t *csr = m->csr, mode = MODE_M;
    bool enabled = !m->on || csr[MSTATUS] & MSTATUS_MIE;
    if (!enabled || !csr[MIE] || csr_read(time) < m->mtimecmp)
        return;
    if (!m->on) {
        mode = csr_read(sstatus) & SSTATUS_SPP ? MODE_S : MODE_U;
        m->on = true;
        m->vsatp = csr_read(vsatp);
        csr_write(vsatp, 0);
        csr[MSTATUS] |= csr_read(vsstatus) & SSTATUS_SIE;
        csr_clear(vsstatus, SSTATUS_SIE);
        csr_clear(hedeleg, 1 << CAUSE_ILLEGAL_INSTRUCTION);
        csr_set(sstatus, SSTATUS_SPP);
    }
    uint64_t mpie = csr[MSTATUS] & MSTATUS_MIE ? MSTATUS_MPIE : 0;
    csr[MSTATUS] &= SSTATUS_SIE;
    csr[MSTATUS] |= mpie | mode << MSTATUS_MPP_SHIFT;
    csr[MEPC] = csr_read(sepc);
    csr[MCAUSE] = CAUSE_INTERRUPT | 7; // machine timer
    csr_write(sepc, (csr[MTVEC] & ~3ul) + (csr[MTVEC] & 1 ? 4 * 7 : 0));
}

// Back to the mode in mstatus.MPP, and to mepc.
static unsigned mret(struct mmode *m) {
    uint64_t *status = &m->csr[MSTATUS], old = *status;
    uint64_t mode = old >> MSTATUS_MPP_SHIFT & 3;
    *status = (old & MSTATUS_MPIE ? MSTATUS_MIE : 0) | MSTATUS_MPIE;
    *status |= mode == MODE_M ? old & SSTATUS_SIE : 0;
    csr_write(sepc, m->csr[MEPC]);
    m->on = mode == MODE_M;
    if (m->on)
        return 0;
    if (!csr_read(vsatp)) // else M-mode has set it for what comes now
        csr_write(vsatp, m->vsatp);
    csr_set(vsstatus, old & SSTATUS_SIE);
    csr_set(hedeleg, 1 << CAUSE_ILLEGAL_INSTRUCTION);
    if (mode == MODE_U)
        csr_clear(sstatus, SSTATUS_SPP);
    return 0;
}

// An instruction that M-mode may execute, and VS-mode may not: mret, or one of
// those that read and write a CSR.  Returns how far to move the guest's pc.
unsigned handle_illegal_instruction(struct vcpu *v) {
    struct mmode *m = v->mmode;
    // stval may be 0, and of QEMU 10 is wrong for mret.
    uint32_t inst = fetch(v->exit->pc, 0);
    unsigned number = inst >> 20, rs1 = inst >> 15 & 31, op = inst >> 12 & 3;
    bool writes = op == CSRRW || rs1; // csrrs and csrrc with x0 only read
    if (m->on && inst == INSTRUCTION_MRET)
        return mret(m);
    if (!m->on || (inst & 0x7f) != 0x73 || !op ||
        (number >> 8 != 3 && (number >> 4 != 0xf1 || writes)))
        return inject(v, CAUSE_ILLEGAL_INSTRUCTION, inst);

    // Most are only remembered.  These show what S-mode has of them, too.
    uint64_t *csr = &m->csr[number & 0xff];
    uint64_t old = *csr, operand = inst & 1 << 14 ? rs1 : v->regs[rs1];
    if (csr == &m->csr[MSTATUS])
        old |= csr_read(vsstatus);
    else if (csr == &m->csr[MIE])
        old |= csr_read(vsie);
    else if (csr == &m->csr[MIP])
        old = csr_read(hip) >> 1 | (csr_read(time) >= m->mtimecmp) * MIP_MTIP;
    v->regs[inst >> 7 & 31] = old;
    v->regs[0] = 0;
    if (!writes)
        return 4;

    *csr = op == CSRRW ? operand : op == CSRRS ? old | operand : old & ~operand;
    if (csr == &m->csr[MSTATUS]) {
        csr_write(vsstatus, *csr & ~(MSTATUS_M | (uint64_t)SSTATUS_SIE));
        *csr &= MSTATUS_M | SSTATUS_SIE;
    } else if (csr == &m->csr[MIE]) {
        csr_write(vsie, *csr);
        *csr &= MIP_MTIP;
    } else if (csr == &m->csr[MIP]) { // for S-mode, M-mode raises the timer's
        csr_clear(hvip, HVIP_VSSIP | HVIP_VSTIP);
        csr_set(hvip, (*csr & (MIP_SSIP | MIP_STIP)) << 1);
    } else if (csr == &m->csr[MEPC]) {
        *csr &= ~1ul;
    }
    return 4;
}

// The CLINT (SiFive's core-local interruptor), of which such kernels use the
// timer: mtime, and the hart's mtimecmp.
bool clint_access(struct vcpu *v, struct access *a) {
    struct mmode *m = &harts[v->hart];
    bool mtimecmp = v->mmode && a->offset == CLINT_MTIMECMP + 8 * v->hart;
    if (!a->store && a->offset == CLINT_MTIME)
        a->value = csr_read(time);
    else if (!a->store)
        a->value = mtimecmp ? m->mtimecmp : 0;
    else if (mtimecmp) {
        m->mtimecmp = a->value;
        csr_set(sie, SIP_STIP); // so that we come to mmode_timer() then
        host_sbi(SBI_EXT_TIME, 0, &m->mtimecmp);
    }
    return v->mmode;
}
