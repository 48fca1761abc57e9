// Kernels that bring no firmware begin in M-mode (Priv. chapter 3, "Machine-
// Level ISA").  Most set up the machine and leave by mret; some come back for
// their traps, some never leave.
//
// The guest's hart has no M-mode, so VS-mode plays it: with translation and
// S-mode's interrupts off, as they are in M-mode, and with no exception
// delegated.  What VS-mode may not do then traps, and is done here.

#include "hv.h"

// CSRs, by the lower eight bits of their numbers 0x3.. and 0xf1., and two
// others.
enum { MSTATUS = 0x00, MEDELEG = 0x02, MIE = 0x04, MTVEC = 0x05 };
enum { MENVCFG = 0x0a, MHARTID = 0x14, MEPC = 0x41, MCAUSE = 0x42 };
enum { MTVAL = 0x43, MIP = 0x44, MCYCLE = 0xb00, MINSTRET = 0xb02 };
enum { MSTATUS_MIE = 1 << 3, MSTATUS_MPIE = 1 << 7, MSTATUS_MPP_SHIFT = 11 };
enum { MSTATUS_M = MSTATUS_MIE | MSTATUS_MPIE | 3 << MSTATUS_MPP_SHIFT };
enum { MSTATUS_S = 0xc6720 };           // SPIE, SPP, VS, FS, SUM, MXR: S-mode's
enum { MSTATUS_NOT_PLAYED = 0x720000 }; // MPRV, TVM, TW, TSR
enum { MIP_MSIP = 1 << 3, MIP_MTIP = 1 << 7, MIP_MEIP = 1 << 11 };
enum { MODE_U, MODE_S, MODE_M = 3, CSRRW = 1, CSRRC = 3 };
#define INSTRUCTION_MRET 0x30200073

// The CLINT (SiFive's core-local interruptor): for each hart a word msip and a
// doubleword mtimecmp, at which time it is interrupted; and mtime.  Any hart
// may write those of any other.
static volatile struct {
    uint32_t msip[0x1000];
    uint64_t mtimecmp[0xfff], mtime;
} clint;

static struct mmode {
    bool on;           // the hart plays M-mode
    uint64_t vsatp;    // the guest's, while translation is off
    uint64_t csr[256]; // of mstatus: M-mode's fields, and SIE while that is off
} harts[MAX_HARTS];

// Before any hart runs: they will all begin in M-mode.
void mmode_init(void) {
    for (uint64_t hart = 0; hart < guest.harts; hart++) {
        vcpus[hart].mmode = &harts[hart];
        harts[hart].on = true;
        harts[hart].csr[MHARTID] = hart;
    }
}

// Takes a trap into M-mode (Priv. 3.1, "mtvec" and what follows).
static void take(struct vcpu *v, uint64_t cause, uint64_t tval) {
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
}

// Takes exception CAUSE into M-mode; false if it is S-mode's, by medeleg.
bool mmode_exception(struct vcpu *v, uint64_t cause, uint64_t tval) {
    struct mmode *m = v->mmode;
    if (!m->on && cause < 64 && m->csr[MEDELEG] >> cause & 1)
        return false;
    bool ecall = m->on && cause == CAUSE_SUPERVISOR_ECALL;
    take(v, ecall ? CAUSE_MACHINE_ECALL : cause, tval);
    return true;
}

// M-mode's bits of mip.  Its external interrupt is the one that S-mode is
// shown.
static uint64_t mip(struct vcpu *v) {
    return (clint.msip[v->hart] ? MIP_MSIP : 0) |
           (csr_read(time) >= clint.mtimecmp[v->hart] ? MIP_MTIP : 0) |
           (csr_read(hvip) & HVIP_VSEIP ? MIP_MEIP : 0);
}

// Whether an interrupt of M-mode's is pending that mie lets through.
bool mmode_pending(struct vcpu *v) { return mip(v) & v->mmode->csr[MIE]; }

// Takes it, at the end of each exit, if interrupts are on.
void mmode_interrupt(struct vcpu *v) {
    struct mmode *m = v->mmode;
    uint64_t pending = mip(v) & m->csr[MIE];
    uint64_t number = pending & MIP_MEIP ? 11 : pending & MIP_MSIP ? 3 : 7;
    if (pending && (!m->on || m->csr[MSTATUS] & MSTATUS_MIE))
        take(v, CAUSE_INTERRUPT | number, 0);
    // Our own timer brings us back when it is time for the guest's.
    if (m->csr[MIE] & MIP_MTIP & ~pending) {
        csr_set(sie, SIP_STIP);
        host_sbi(SBI_EXT_TIME, 0, (uint64_t[5]){clint.mtimecmp[v->hart]});
    }
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
    csr_write(hedeleg, m->csr[MEDELEG] & HEDELEG);
    if (mode == MODE_U)
        csr_clear(sstatus, SSTATUS_SPP);
    return 0;
}

// An instruction that M-mode may execute, and VS-mode may not: mret, or one of
// those that read and write a CSR.  Returns how far to move the guest's pc.
unsigned handle_illegal_instruction(struct vcpu *v) {
    struct mmode *m = v->mmode;
    // stval may be 0, and of QEMU 10 is wrong for mret.
    long inst = fetch(v->exit->pc, 0);
    if (inst < 0) // what we can't read the guest can't fetch
        return 0;
    if (m->on && inst == INSTRUCTION_MRET)
        return mret(m);
    unsigned number = inst >> 20, rs1 = inst >> 15 & 31, op = inst >> 12 & 3;
    bool writes = op == CSRRW || rs1; // csrrs and csrrc with x0 only read
    bool counter = number == MCYCLE || number == MINSTRET;
    if (!m->on || (inst & 0x7f) != 0x73 || !op ||
        (number >> 8 != 3 && ((number >> 4 != 0xf1 && !counter) || writes)))
        return inject(v, CAUSE_ILLEGAL_INSTRUCTION, inst);

    // Most are only remembered.  These show what S-mode has of them, too.
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
        // No other bit: QEMU lets all of vsstatus through into its own mstatus.
        csr_write(vsstatus, (value & MSTATUS_S) | SSTATUS_UXL_64);
        *csr &= MSTATUS_M | SSTATUS_SIE;
        if (value & MSTATUS_NOT_PLAYED)
            say_once("mstatus: MPRV, TVM, TW and TSR are not played");
    } else if (csr == &m->csr[MIE]) {
        csr_write(vsie, value);
        *csr &= MIP_MSIP | MIP_MTIP | MIP_MEIP;
    } else if (csr == &m->csr[MIP]) { // STIP: M-mode's, or stimecmp's (Sstc)
        bool stce = host.sstc && m->csr[MENVCFG] & HENVCFG_STCE;
        uint64_t its = HVIP_VSSIP | (stce ? 0 : HVIP_VSTIP);
        csr_clear(hvip, ~keep << 1 & its);
        csr_set(hvip, set << 1 & its);
    } else if (csr == &m->csr[MEPC]) {
        *csr &= ~1ul;
    }
    return 4;
}

// The registers of the CLINT are memory of ours, and mtime is read anew.  A
// hart that writes one tells all by an IPI, and each has a look at its own.
bool clint_access(struct vcpu *v, struct access *a) {
    if (!v->mmode)
        return false;
    uint64_t time = csr_read(time); // not in clint: other harts read it, too
    bool mtime = a->offset / 8 == offsetof(typeof(clint), mtime) / 8;
    if (a->offset < sizeof clint.msip)
        a->value &= 1; // it has one bit
    fence();           // what the guest did before, then what it tells by this
    access_memory(
        mtime ? (hpa_t)&time + a->offset % 8 : (hpa_t)&clint + a->offset, a);
    if (a->store && mtime)
        say_once("CLINT: mtime can't be set");
    fence(); // first that, then the IPI
    if (a->store)
        host_sbi(SBI_EXT_IPI, 0, (uint64_t[5]){0, -1});
    return true;
}
