// A kernel that brings its own firmware begins in M-mode (Priv. chapter 3,
// "Machine-Level ISA").  Most of them set up the machine and leave M-mode with
// an mret.  Some come back for their traps, and some never leave.
//
// The guest's hart has no M-mode, so we emulate it in VS-mode.  Translation and
// S-mode's interrupts are off, as they are in M-mode, and no exception is
// delegated.  What VS-mode may not do then traps, and we do it here.

#include "hv.h"

// CSRs.  Those with numbers 0x3xx and 0xf1x are known here by their lower eight
// bits, which are unique.  The last two are counters, with their whole numbers.
enum { MSTATUS = 0x00, MEDELEG = 0x02, MIE = 0x04, MTVEC = 0x05 };
enum { MENVCFG = 0x0a, MHARTID = 0x14, MEPC = 0x41, MCAUSE = 0x42 };
enum { MTVAL = 0x43, MIP = 0x44, MCYCLE = 0xb00, MINSTRET = 0xb02 };
enum { MSTATUS_MIE = 1 << 3, MSTATUS_MPIE = 1 << 7, MSTATUS_MPP_SHIFT = 11 };
enum { MSTATUS_M = MSTATUS_MIE | MSTATUS_MPIE | 3 << MSTATUS_MPP_SHIFT };
// In mstatus: S-mode's SPIE, SPP, VS, FS, SUM and MXR; and MPRV, TVM, TW, TSR
enum { MSTATUS_S = 0xc6720, MSTATUS_NOT_EMULATED = 0x720000 };
enum { MIP_MSIP = 1 << 3, MIP_MTIP = 1 << 7, MIP_MEIP = 1 << 11 };
enum { MODE_U = 0, MODE_S = 1, MODE_M = 3, CSRRW = 1, CSRRC = 3 };
#define INSTRUCTION_MRET 0x30200073

// SiFive's core-local interruptor, CLINT.  Each hart has a word, msip, which
// interrupts it while it is 1, and a doubleword, mtimecmp, the time at which it
// is interrupted.  mtime is the time.  Any hart may write those of any other.
static volatile struct {
    uint32_t msip[0x1000];
    uint64_t mtimecmp[0xfff], mtime; // at 0x4000 and 0xbff8
} clint;

static struct mmode {
    bool on;           // the hart is in its M-mode now
    uint64_t vsatp;    // S-mode's, while translation is off
    uint64_t csr[256]; // its CSRs; mstatus also has S-mode's SIE while on
} harts[MAX_HARTS];

// Makes all harts begin in M-mode.  Call it before any of them runs.
void mmode_init(void) {
    for (uint64_t hart = 0; hart < guest.harts; hart++) {
        vcpus[hart].mmode = &harts[hart];
        harts[hart].on = true;
        harts[hart].csr[MHARTID] = hart;
    }
}

// Takes a trap into M-mode (Priv. 3.1, "mtvec" and what follows).  Returns 0,
// for "do not move the pc": it is at M-mode's handler now.
static unsigned take(struct vcpu *v, uint64_t cause, uint64_t tval) {
    struct mmode *m = v->mmode;
    uint64_t *csr = m->csr, mode = MODE_M;
    if (!m->on) {
        mode = csr_read(sstatus) & SSTATUS_SPP ? MODE_S : MODE_U;
        m->on = true;
        m->vsatp = csr_read(vsatp);
        csr_write(vsatp, 0);
        csr[MSTATUS] |= csr_read(vsstatus) & SSTATUS_SIE;
        csr_clear(vsstatus, SSTATUS_SIE);
        csr_write(hedeleg, 0);
        csr_set(sstatus, SSTATUS_SPP);
    }
    uint64_t mpie = csr[MSTATUS] & MSTATUS_MIE ? MSTATUS_MPIE : 0;
    csr[MSTATUS] &= SSTATUS_SIE;
    csr[MSTATUS] |= mpie | mode << MSTATUS_MPP_SHIFT;
    gva_t vector = csr[MTVEC] & ~3ul;
    if (csr_read(sepc) == vector && !(cause & CAUSE_INTERRUPT))
        say_stuck(v, cause, csr[MCAUSE], csr[MEPC]);
    csr[MEPC] = csr_read(sepc);
    csr[MCAUSE] = cause;
    csr[MTVAL] = tval;
    if (cause & CAUSE_INTERRUPT && csr[MTVEC] & 1)
        vector += 4 * (cause & 63);
    csr_write(sepc, vector);
    return 0;
}

// Takes exception CAUSE into M-mode.  Returns false if medeleg gives it to
// S-mode.
bool mmode_exception(struct vcpu *v, uint64_t cause, uint64_t tval) {
    struct mmode *m = v->mmode;
    if (!m->on && cause < 64 && m->csr[MEDELEG] >> cause & 1)
        return false;
    bool ecall = m->on && cause == CAUSE_SUPERVISOR_ECALL;
    take(v, ecall ? CAUSE_MACHINE_ECALL : cause, tval);
    return true;
}

// Returns M-mode's bits of mip.  Its external interrupt is the same as
// S-mode's.
static uint64_t mip(struct vcpu *v) {
    return (clint.msip[v->hart] ? MIP_MSIP : 0) |
           (csr_read(time) >= clint.mtimecmp[v->hart] ? MIP_MTIP : 0) |
           (csr_read(hvip) & HVIP_VSEIP ? MIP_MEIP : 0);
}

// Tells whether an interrupt for M-mode is pending that mie lets through.
bool mmode_pending(struct vcpu *v) { return mip(v) & v->mmode->csr[MIE]; }

// Takes such an interrupt if M-mode's interrupts are on.  Every exit ends with
// this.
void mmode_interrupt(struct vcpu *v) {
    struct mmode *m = v->mmode;
    uint64_t pending = mip(v) & m->csr[MIE];
    // By their priority: external, software, timer
    uint64_t number = pending & MIP_MEIP ? 11 : pending & MIP_MSIP ? 3 : 7;
    if (pending && (!m->on || m->csr[MSTATUS] & MSTATUS_MIE))
        take(v, CAUSE_INTERRUPT | number, 0);
    // Our own timer brings us back here when it is time for the guest's.
    if (m->csr[MIE] & MIP_MTIP & ~pending) {
        csr_set(sie, SIP_STIP);
        host_sbi(SBI_EXT_TIME, 0, (uint64_t[5]){clint.mtimecmp[v->hart]});
    }
}

// Executes mret: returns to the mode in mstatus.MPP, and to mepc.
static unsigned mret(struct mmode *m) {
    uint64_t *status = &m->csr[MSTATUS], old = *status;
    uint64_t mode = old >> MSTATUS_MPP_SHIFT & 3;
    *status = (old & MSTATUS_MPIE ? MSTATUS_MIE : 0) | MSTATUS_MPIE;
    *status |= mode == MODE_M ? old & SSTATUS_SIE : 0;
    csr_write(sepc, m->csr[MEPC]);
    m->on = mode == MODE_M;
    if (m->on)
        return 0;
    if (!csr_read(vsatp)) // else M-mode has set it for S-mode
        csr_write(vsatp, m->vsatp);
    csr_set(vsstatus, old & SSTATUS_SIE);
    csr_write(hedeleg, m->csr[MEDELEG] & HEDELEG);
    if (mode == MODE_U)
        csr_clear(sstatus, SSTATUS_SPP);
    return 0;
}

// Handles an illegal instruction.  M-mode may execute what VS-mode may not:
// mret, and instructions that read and write its CSRs.  Anything else becomes
// an exception in M-mode.  (What medeleg gives to S-mode goes there without an
// exit.)  Returns how far to move the guest's pc.
unsigned handle_illegal_instruction(struct vcpu *v) {
    struct mmode *m = v->mmode;
    // stval may be 0, and QEMU 10's is wrong for mret.
    long inst = fetch(v->exit->pc, 0);
    if (inst < 0) // the guest will fault when it fetches this again
        return 0;
    if (m->on && inst == INSTRUCTION_MRET)
        return mret(m);
    unsigned number = inst >> 20, rs1 = inst >> 15 & 31, op = inst >> 12 & 3;
    bool writes = op == CSRRW || rs1; // csrrs and csrrc with x0 only read
    bool counter = number == MCYCLE || number == MINSTRET;
    if (!m->on || (inst & 0x7f) != 0x73 || !op ||
        (number >> 8 != 3 && ((number >> 4 != 0xf1 && !counter) || writes)))
        return take(v, CAUSE_ILLEGAL_INSTRUCTION, inst);

    // Most of these CSRs only remember what is written.  Some show what S-mode
    // has of them, too.  hip has the bits of S-mode's sip one place higher.
    uint64_t *csr = &m->csr[number & 0xff], old = *csr, value;
    if (counter)
        old = number == MCYCLE ? csr_read(cycle) : csr_read(instret);
    else if (csr == &m->csr[MSTATUS])
        old |= csr_read(vsstatus);
    else if (csr == &m->csr[MIE])
        old |= csr_read(vsie);
    else if (csr == &m->csr[MIP])
        old = mip(v) | csr_read(hip) >> 1;
    uint64_t operand = inst & 1 << 14 ? rs1 : v->regs[rs1];
    uint64_t keep = op == CSRRW ? 0 : op == CSRRC ? ~operand : -1ul;
    uint64_t set = op == CSRRC ? 0 : operand;
    v->regs[inst >> 7 & 31] = old;
    v->regs[0] = 0;
    if (!writes)
        return 4;

    *csr = value = (old & keep) | set;
    if (csr == &m->csr[MSTATUS]) {
        // Only these bits: QEMU puts all of vsstatus into its own mstatus.
        csr_write(vsstatus, (value & MSTATUS_S) | SSTATUS_UXL_64);
        *csr &= MSTATUS_M | SSTATUS_SIE;
        if (value & MSTATUS_NOT_EMULATED)
            say_once("mstatus: MPRV, TVM, TW and TSR are not emulated");
    } else if (csr == &m->csr[MIE]) {
        csr_write(vsie, value);
        *csr &= MIP_MSIP | MIP_MTIP | MIP_MEIP;
    } else if (csr == &m->csr[MIP]) { // STIP: set by M-mode, or by stimecmp
        bool stce = host.sstc && m->csr[MENVCFG] & HENVCFG_STCE;
        uint64_t its = HVIP_VSSIP | (stce ? 0 : HVIP_VSTIP);
        csr_clear(hvip, ~keep << 1 & its);
        csr_set(hvip, set << 1 & its);
    } else if (csr == &m->csr[MEPC]) {
        *csr &= ~1ul;
    }
    return 4;
}

// A load or store in the CLINT.  Its registers are memory of ours; only mtime
// is read from the hart.  After a store an IPI makes each hart look at its own
// msip and mtimecmp.  Returns false if the guest has no CLINT.
bool clint_access(struct vcpu *v, struct access *a) {
    if (!v->mmode)
        return false;
    uint64_t time = csr_read(time); // a copy of our own: other harts use clint
    bool mtime = a->offset / 8 == offsetof(typeof(clint), mtime) / 8;
    if (a->offset < sizeof clint.msip)
        a->value &= 1; // it has one bit
    fence();           // what the guest did before must be seen before this
    access_memory(
        mtime ? (hpa_t)&time + a->offset % 8 : (hpa_t)&clint + a->offset, a);
    if (a->store && mtime)
        say_once("CLINT: mtime can't be set");
    fence(); // the IPI comes after that
    if (a->store)
        host_sbi(SBI_EXT_IPI, 0, (uint64_t[5]){0, -1});
    return true;
}
