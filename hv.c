// From the firmware's hand-over to the guest's first instruction, and from each
// VM exit to the part that deals with it.
//
// Start reading here: main() at the end of this file.

#include "hv.h"

#define INSTRUCTION_WFI 0x10500073

struct host host;
struct vcpu vcpus[MAX_HARTS];

// V takes exception CAUSE at its own trap vector.  A guest in that state takes
// it again and again, for ever, and its user sees nothing.  So we say it, and
// name the exception before, WAS, and the PC that it came from.
void say_stuck(struct vcpu *v, uint64_t cause, uint64_t was, gva_t pc) {
    say_once("the guest's hart %lx can't go on: exception %lx at its trap "
             "vector, %lx, after exception %lx at %lx",
             v->hart, cause, v->exit->pc, was, pc);
}

// Makes the guest take exception CAUSE with TVAL in its stval, as if its own
// hart had raised it: Priv. "Trap Entry into VS-mode", in which the guest's
// registers are the ones with "vs" in their names.  Returns 0, because the trap
// has moved the pc already.
unsigned inject(struct vcpu *v, uint64_t cause, uint64_t tval) {
    if (v->mmode && mmode_exception(v, cause, tval))
        return 0;
    uint64_t sstatus = csr_read(sstatus), vsstatus = csr_read(vsstatus);
    uint64_t was_on = vsstatus & SSTATUS_SIE ? SSTATUS_SPIE : 0;
    gva_t vector = csr_read(vstvec) & ~3ul; // exceptions ignore its mode
    if (v->exit->pc == vector)
        say_stuck(v, cause, csr_read(vscause), csr_read(vsepc));
    vsstatus &= ~(SSTATUS_SPP | SSTATUS_SPIE | SSTATUS_SIE);
    csr_write(vsstatus, vsstatus | was_on | (sstatus & SSTATUS_SPP));
    csr_write(vscause, cause);
    csr_write(vsepc, v->exit->pc);
    csr_write(vstval, tval);
    csr_write(sepc, vector);
    csr_set(sstatus, SSTATUS_SPP); // go on in VS-mode
    return 0;
}

// Our own interrupts, polled at the end of each exit and not only at the exits
// that they cause: so one that arrives while we are here, or that ended a WFI,
// does not cost an exit of its own.
static void handle_interrupts(struct vcpu *v) {
    uint64_t pending = csr_read(sip), enabled = csr_read(sie);
    if (pending & SIP_SSIP) { // another hart of the guest's sent an IPI
        csr_clear(sip, SIP_SSIP);
        fence();       // first that, then a look at what it is about
        if (!v->mmode) // where it is about the CLINT
            csr_set(hvip, HVIP_VSSIP);
        if (host.resetting)
            stop_hart(v); // for stop_others()
    }
    if (pending & enabled & SIP_STIP) { // see set_timer() and mmode_interrupt()
        csr_clear(sie, SIP_STIP);       // until the guest sets its timer again
        if (!v->mmode)
            csr_set(hvip, HVIP_VSTIP);
    }
    // QEMU 7.2 may forget a timer interrupt when something else changes in hvip
    // or vsip at that moment; it looks again when it gets the time again.
    v->exit->end = csr_read(time); // nearly; one reading is enough
    if (host.sstc && v->exit->end >= csr_read(vstimecmp))
        csr_write(vstimecmp, csr_read(vstimecmp));
    // The guest sees an external interrupt until it has claimed it.
    if (pending & enabled & SIP_SEIP)
        plic_show(v, true);
    else if (!((pending | enabled) & SIP_SEIP))
        plic_show(v, false);
    if (v->mmode)
        mmode_interrupt(v);
}

// An instruction that VS-mode or VU-mode may not execute, but HS-mode could.
static unsigned handle_virtual_instruction(struct vcpu *v) {
    // A hart may leave 0 in stval instead of the instruction (Priv. "stval").
    // What we can't read then the guest can't fetch: the fault is its own.
    long inst = v->exit->tval ? (long)v->exit->tval : fetch(v->exit->pc, 0);
    if (inst < 0)
        return 0;
    // Others than WFI are the H extension's own, which the guest's hart lacks.
    if (inst != INSTRUCTION_WFI || !(csr_read(sstatus) & SSTATUS_SPP))
        return inject(v, CAUSE_ILLEGAL_INSTRUCTION, inst);
    // hstatus.VTW makes WFI an exit, so that we can sleep for the guest.  wfi
    // returns when an interrupt of ours or of the guest's is pending, whether
    // or not it is let through.  It is to be the same with M-mode's, which we
    // keep.
    if (!v->mmode || !mmode_pending(v))
        wfi();
    return 4;
}

// Every VM exit comes here, from trap.S.  The handlers return how far to move
// the guest's pc: the length of the instruction if it is done, 0 if it shall be
// executed again or if the guest's pc is elsewhere now.
void handle_exit(struct vcpu *v) {
    struct exit *e = v->exit = &v->log[v->exits++ % LENGTH(v->log)];
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
        // An interrupt of ours needs nothing here.  An exception that is not in
        // the list above and was not delegated either belongs to the guest.
        if (v->mmode && e->cause == CAUSE_ILLEGAL_INSTRUCTION)
            step = handle_illegal_instruction(v);
        else if (!(e->cause & CAUSE_INTERRUPT))
            step = inject(v, e->cause, e->tval);
    }
    if (step)
        csr_write(sepc, e->pc + step);
    handle_interrupts(v);
}

// A trap out of the hypervisor itself, from trap.S.  There is nothing to go
// back to.  Each hart's last exits may tell how it came to that.
_Noreturn void bug_found(void) {
    for (struct vcpu *v = vcpus; v < vcpus + guest.harts; v++)
        for (uint64_t n = v->exits < 4 ? 0 : v->exits - 4; n < v->exits; n++) {
            struct exit *e = &v->log[n % LENGTH(v->log)];
            say("hart %lx: cause %lx, pc %lx, gpa %lx, call %lx", v->hart,
                e->cause, e->pc, e->gpa, e->call);
        }
    die("BUG: trap %lx at pc %lx, stval %lx", csr_read(scause), csr_read(sepc),
        csr_read(stval));
}

// Where the host has a device that is compatible with NAME; 0 if it has none.
static hpa_t find(const char *name) {
    fdt_prop reg = fdt_find(host.fdt, NULL, name, "reg");
    return reg ? fdt_number(reg, 0) : 0;
}

// Reads what the host has out of its device tree: nothing is assumed, and
// nothing is probed for, because an address that is not listed may fault.
static void find_host(const uint32_t *fdt) {
    host.fdt = fdt;
    host.test = find("sifive,test1");
    host.uart = find("ns16550a");
    const char *name =
        find("riscv,plic0") ? "riscv,plic0" : "sifive,plic-1.0.0";
    host.plic = find(name);
    fdt_prop ram = fdt_find(fdt, NULL, "memory", "reg");
    if (!ram || !host.uart || !host.plic)
        die("the host has RAM at %lx, ns16550a at %lx, PLIC at %lx (0: none)",
            find("memory"), host.uart, host.plic);
    if (fdt_find(fdt, fdt_find(fdt, NULL, name, "reg"), name, "reg"))
        die("the host has two PLICs, as with two sockets; the guest has one");
    init_memory(fdt_number(ram, 0) + fdt_number(ram, 1), guest.ram_size);
    // The firmware's copy may lie in what is the guest's RAM now.
    host.fdt = memcpy(alloc(fdt_size(fdt), 8), fdt, fdt_size(fdt));
    fdt_prop isa = fdt_find(host.fdt, NULL, NULL, "riscv,isa");
    host.isa = isa ? (const char *)(isa + 3) : "rv64";
    if (!isa_has("h"))
        die("this hart has no H extension: start QEMU with -cpu rv64,h=true");
    // Of these a hart keeps the bits that it has, and that the firmware has
    // left on: cbo.* instructions, page-based memory types, setting A and D by
    // itself, and Sstc's comparison of time with vstimecmp.  An inval of the
    // guest's must be a flush, or it would bring back what load() wrote over.
    csr_write(henvcfg, HENVCFG_STCE | HENVCFG_PBMTE | HENVCFG_ADUE |
                           HENVCFG_CBZE | HENVCFG_CBCFE | HENVCFG_CBIE_FLUSH);
    host.henvcfg = csr_read(henvcfg);
    // QEMU 7.2 keeps STCE without having Sstc: both must say so.
    host.sstc = host.henvcfg & HENVCFG_STCE && isa_has("sstc");
}

// Copies a part of the guest to where it belongs in the guest's RAM, by eight
// bytes: guest.S aligns them.
static void load(const struct part *p) {
    uint64_t words = (p->end - p->start + 7) / 8;
    uint64_t *to = guest_ptr(p->gpa, 8 * words);
    if (!to)
        die("no RAM of the guest's for %lx bytes at %lx", 8 * words, p->gpa);
    for (uint64_t i = 0; i < words; i++)
        to[i] = ((const uint64_t *)p->start)[i];
}

// What a hart needs to be set to before it enters the guest, and while it waits
// for that.
static void init_hart(struct vcpu *v) {
    csr_write(hedeleg, v->mmode ? 0 : HEDELEG);
    csr_write(hideleg, HVIP_VSSIP | HVIP_VSTIP | HVIP_VSEIP);
    csr_write(hvip, 0);
    csr_write(hcounteren, -1); // else rdtime, with which Linux tells the time,
                               // would trap
    csr_write(htimedelta, 0);  // the guest's time is the host's
    csr_write(vsie, 0);
    csr_write(henvcfg, host.henvcfg);
    if (host.sstc)
        csr_write(vstimecmp, -1);
    if (isa_has("smstateen") || isa_has("ssstateen"))
        csr_write(hstateen0, HSTATEEN0_ENVCFG); // else senvcfg would trap
    csr_write(vsatp, 0);
    csr_write(hgatp, HGATP_MODE_SV39X4 | (hpa_t)host.root / PAGE);
    hfence_gvma();
    // A hart that lacks this mode ignores it, and a guest without translation
    // would own the machine.  A hart may also leave htval 0, and we could find
    // no device.  So try an address of the guest's where there is nothing.
    const gpa_t nothing = GUEST_RAM - PAGE;
    if (hlvx_hu(nothing, 0) >= 0 || csr_read(htval) != nothing >> 2)
        die("hart %lx lacks Sv39x4, or leaves htval 0", v->hart);
    plic_init(v);
    // While it waits, an IPI shall wake it, and nothing else.
    csr_write(sie, SIP_SSIP);
}

// Enters the guest at PC with OPAQUE in a1, in the state in which SBI's HSM
// starts a hart: VS-mode, no translation of its own, no interrupts.
_Noreturn void start_guest(struct vcpu *v, gpa_t pc, uint64_t opaque) {
    csr_write(hstatus,
              HSTATUS_SPV | HSTATUS_SPVP | HSTATUS_VTW | HSTATUS_VSXL_64);
    csr_write(vsstatus, SSTATUS_UXL_64);
    csr_write(vsatp, 0);
    csr_write(vstvec, 0);
    // The guest may use FP and vector registers.  We are compiled without, so
    // they stay in the hart and are never saved.
    csr_set(sstatus, SSTATUS_SPP | SSTATUS_FS | SSTATUS_VS);
    plic_show(v, false); // handle_interrupts() will see anew
    csr_write(sepc, pc);
    v->regs[10] = v->hart;
    v->regs[11] = opaque;
    fence_i(); // load() wrote what comes now
    enter_guest(v);
}

// The waiting room: where V is when it does not run, from the beginning until
// start_hart() has something for it, which an IPI tells, and again after
// hart_stop.
//
// So a hart that stops does so here and not in the firmware, where it would be
// deaf: a fence for it that another hart asks for meanwhile would never end
// (OpenSBI 1.1 to 1.9), and a hart that is reset while it is in the guest
// begins anew as if it were still in there (QEMU, up to 11.1 at least).
_Noreturn void stop_hart(struct vcpu *v) {
    init_hart(v);
    gpa_t pc;
    do {
        v->state = HART_STOPPED;
        do {
            wfi();
            csr_clear(sip, SIP_SSIP);
            fence(); // first that, then a look at what it is about
        } while (!(pc = atomic_exchange(&v->start.pc, 0)));
        // We write state, then read resetting.  stop_others() writes resetting,
        // then reads state.  So at least one of us sees what the other wrote.
        v->state = HART_STARTED;
    } while (host.resetting);
    start_guest(v, pc, v->start.opaque);
}

// Before the machine is reset or ends all other harts must be out of the guest,
// see stop_hart(), and must stay out.  V does not come back from this if
// another hart is at it already.
void stop_others(struct vcpu *v) {
    if (atomic_exchange(&host.resetting, true))
        stop_hart(v);
    for (struct vcpu *other = vcpus; other < vcpus + guest.harts; other++)
        while (other != v && other->state != HART_STOPPED)
            host_sbi(SBI_EXT_IPI, 0, (uint64_t[5]){1ul << other->hart});
}

// Each hart comes here from boot.S.  The first to come, which HART may be any,
// whichever the firmware chose, gets the host's device tree, FDT; the firmware
// starts the others when all is ready.
_Noreturn void main(uint64_t hart, const uint32_t *fdt) {
    if (guest.harts > MAX_HARTS || hart >= guest.harts)
        die("the guest has %lx harts, this is %lx", guest.harts, hart);
    struct vcpu *v = &vcpus[hart];
    v->hart = hart;
    if (atomic_exchange(&host.running, true))
        stop_hart(v);
    find_host(fdt);
    if (guest.kernel.gpa == GUEST_RAM) // where the board's firmware would be
        mmode_init();
    map_guest(GUEST_UART, host.uart, PAGE, PTE_R);
    if (find("google,goldfish-rtc"))
        map_guest(GUEST_RTC, find("google,goldfish-rtc"), PAGE, PTE_R | PTE_W);
    virtio_init();
    load(&guest.kernel);
    load(&guest.initrd);
    load(&guest.dtb);
    finish_guest_fdt(guest_ptr(guest.dtb.gpa, 0));
    // When they are in the waiting room the firmware has nothing more to do for
    // them: it would refuse an IPI for a hart that is on its way, and set
    // thresholds of the PLIC.
    v->state = HART_STOPPED;
    fence(); // all of the above, then the IPIs
    for (uint64_t i = 0; i < guest.harts; i++) {
        const uint64_t args[5] = {i, (hpa_t)boot};
        if (i != hart && host_sbi(SBI_EXT_HSM, HART_START, args).error)
            die("the guest has %lx harts, the host has no %lx", guest.harts, i);
        while (vcpus[i].state != HART_STOPPED)
            ;
    }
    for (uint64_t i = 0; i < guest.harts; i++)
        if (i == hart || v->mmode) // there is no firmware that holds them back
            start_hart(i, guest.kernel.gpa, guest.dtb.gpa);
    stop_hart(v); // and on, to where it shall start
}
