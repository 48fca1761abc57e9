// From the firmware's hand-over to the guest's first instruction, and from each
// VM exit to the part that deals with it.
//
// Start reading here: main() at the end of this file.

#include "hv.h"

#define INSTRUCTION_WFI 0x10500073

struct host host;
struct vcpu vcpus[MAX_HARTS];

// Makes the guest take exception CAUSE with TVAL in its stval, as if its own
// hart had raised it: Priv. "Trap Entry into VS-mode", in which the guest's
// registers are the ones with "vs" in their names.  Returns 0, because the trap
// has moved the pc already.
unsigned inject(struct vcpu *v, uint64_t cause, uint64_t tval) {
    uint64_t sstatus = csr_read(sstatus), vsstatus = csr_read(vsstatus);
    uint64_t was_on = vsstatus & SSTATUS_SIE ? SSTATUS_SPIE : 0;
    vsstatus &= ~(SSTATUS_SPP | SSTATUS_SPIE | SSTATUS_SIE);
    csr_write(vsstatus, vsstatus | was_on | (sstatus & SSTATUS_SPP));
    csr_write(vscause, cause);
    csr_write(vsepc, v->exit->pc);
    csr_write(vstval, tval);
    csr_write(sepc, csr_read(vstvec) & ~3ul); // exceptions ignore the vector
    csr_set(sstatus, SSTATUS_SPP);            // go on in VS-mode
    return 0;
}

// Our own interrupts, polled at the end of each exit and not only at the exits
// that they cause: so one that arrives while we are here, or that ended a WFI,
// does not cost an exit of its own.
static void handle_interrupts(struct vcpu *v) {
    uint64_t pending = csr_read(sip), enabled = csr_read(sie);
    if (pending & SIP_SSIP) { // another hart of the guest's sent an IPI
        csr_clear(sip, SIP_SSIP);
        csr_set(hvip, HVIP_VSSIP);
        if (host.resetting) // or waits for this one to stop
            stop_hart(v);
    }
    if (pending & enabled & SIP_STIP) { // see set_timer() and clint_access()
        csr_set(hvip, v->mmode ? 0 : HVIP_VSTIP);
        csr_clear(sie, SIP_STIP); // until the guest sets its timer again
    }
    if (v->mmode)
        mmode_timer(v);
    // QEMU 7.2 may forget a timer interrupt when something else changes in hvip
    // or vsip at that moment; it looks again when it gets the time again.
    uint64_t when = host.sstc ? csr_read(vstimecmp) : -1ul;
    v->exit->end = csr_read(time); // nearly; one reading is enough
    if (v->exit->end >= when)
        csr_write(vstimecmp, when);
    // The external interrupt stays until the guest claims it, so for that time
    // it is switched off for us and shown to the guest.
    if (pending & enabled & SIP_SEIP) {
        csr_set(hvip, HVIP_VSEIP);
        csr_clear(sie, SIP_SEIP);
    } else if (!((pending | enabled) & SIP_SEIP)) {
        csr_clear(hvip, HVIP_VSEIP);
        csr_set(sie, SIP_SEIP);
    }
}

// An instruction that VS-mode or VU-mode may not execute, but HS-mode could.
static unsigned handle_virtual_instruction(struct vcpu *v) {
    // The one that we want to see: hstatus.VTW makes WFI an exit, so that we
    // can sleep for the guest.  wfi returns when an interrupt of ours or of the
    // guest's is pending, whether or not it is let through; with M-mode's timer
    // interrupt, which is ours, it is to be the same.
    if (v->exit->tval == INSTRUCTION_WFI && csr_read(sstatus) & SSTATUS_SPP) {
        csr_set(sie, v->mmode ? SIP_STIP : 0);
        wfi();
        return 4;
    }
    // The rest are the H extension's own, which this guest's hart lacks.
    return inject(v, CAUSE_ILLEGAL_INSTRUCTION, v->exit->tval);
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
    case CAUSE_VIRTUAL_SUPERVISOR_ECALL: step = handle_sbi(v); break;
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
            printf("hv: hart %lx: cause %lx, pc %lx, gpa %lx, call %lx\r\n",
                   v->hart, e->cause, e->pc, e->gpa, e->call);
        }
    die("BUG: trap %lx at pc %lx, stval %lx", csr_read(scause), csr_read(sepc),
        csr_read(stval));
}

// Reads what the host has out of its device tree: nothing is assumed, and
// nothing is probed for, because an address that is not listed may fault.
static void find_host(const uint32_t *fdt) {
    host.fdt = fdt;
    fdt_prop ram = fdt_find_reg(NULL, "memory");
    init_memory(fdt_number(ram, 0) + fdt_number(ram, 1), guest.ram_size);
    // The firmware's copy may lie in what is the guest's RAM now.
    host.fdt = memcpy(alloc(fdt_size(fdt), 8), fdt, fdt_size(fdt));
    fdt_prop isa = fdt_find(host.fdt, NULL, "riscv,isa");
    host.isa = isa ? (const char *)(isa + 3) : "rv64";
    if (!isa_has(host.isa, "h"))
        die("this hart has no H extension: start QEMU with -cpu rv64,h=true");
    // QEMU 7.2 keeps STCE without having Sstc, firmware may leave Sstc switched
    // off: both must say so.
    csr_write(henvcfg, HENVCFG_STCE);
    host.sstc = csr_read(henvcfg) & HENVCFG_STCE && isa_has(host.isa, "_sstc");
    host.plic = fdt_number(fdt_find_reg(NULL, "sifive,plic-1.0.0"), 0);
    host.uart = fdt_number(fdt_find_reg(NULL, "ns16550a"), 0);
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
static void init_csrs(void) {
    // Exceptions that the guest can deal with go straight to it: all that an
    // S-mode kernel is used to see.  Not delegated: ecall out of VS-mode, guest
    // page faults, virtual instructions.
    csr_write(hedeleg, 0xb1ff);
    csr_write(hideleg, HVIP_VSSIP | HVIP_VSTIP | HVIP_VSEIP);
    csr_write(hvip, 0);
    csr_write(hcounteren, -1); // else rdtime, with which Linux tells the time,
                               // would trap
    csr_write(htimedelta, 0);  // the guest's time is the host's
    csr_write(vsie, 0);

    // Of these a hart keeps the bits that it has: cbo.* instructions,
    // page-based memory types, setting A and D by itself, and Sstc's comparison
    // of time with vstimecmp.
    csr_write(henvcfg, HENVCFG_STCE | HENVCFG_PBMTE | HENVCFG_ADUE |
                           HENVCFG_CBZE | HENVCFG_CBCFE | HENVCFG_CBIE);
    if (host.sstc)
        csr_write(vstimecmp, -1);
    csr_write(hgatp, HGATP_MODE_SV39X4 | (hpa_t)host.root / PAGE);
    hfence_gvma();
    csr_write(sie, SIP_SSIP | SIP_SEIP);
}

// Enters the guest where V->start says, in the state in which SBI's HSM starts
// a hart: VS-mode, no translation of its own, no interrupts.
_Noreturn void start_guest(struct vcpu *v) {
    csr_write(hstatus,
              HSTATUS_SPV | HSTATUS_SPVP | HSTATUS_VTW | HSTATUS_VSXL_64);
    csr_write(vsstatus, SSTATUS_UXL_64);
    csr_write(vsatp, 0);
    // The guest may use FP and vector registers.  We are compiled without, so
    // they stay in the hart and are never saved.
    csr_set(sstatus, SSTATUS_SPP | SSTATUS_FS | SSTATUS_VS);
    csr_write(sepc, v->start.pc);
    v->regs[10] = v->hart;
    v->regs[11] = v->start.opaque;
    if (guest.entry == GUEST_RAM) // where the board's firmware would be
        mmode_start(v);
    enter_guest(v);
}

// Each hart comes here: from boot.S, and again when it has stopped.  The first
// to come, which HART may be any, whichever the firmware chose, gets the host's
// device tree, FDT; the firmware starts the others when all is ready.  Each
// sleeps until start_hart() has something for it, which an IPI tells.
//
// So a hart that stops does so here and not in the firmware, where it would be
// deaf: a fence for it that another hart asks for meanwhile would never end
// (OpenSBI 1.1 to 1.9), and a hart that is reset while it is in the guest
// begins anew as if it were still in there (QEMU, up to 11.1 at least).
_Noreturn void main(uint64_t hart, const uint32_t *fdt) {
    struct vcpu *v = &vcpus[hart];
    if (!__atomic_exchange_n(&host.running, 1, __ATOMIC_RELAXED)) {
        find_host(fdt);
        if (guest.harts > MAX_HARTS || hart >= guest.harts)
            die("the guest has %lx harts, this is %lx", guest.harts, hart);
        plic_init();
        map_guest(GUEST_UART, (void *)host.uart, PAGE, PTE_R);
        virtio_init();
        load(&guest.kernel);
        load(&guest.initrd);
        load(&guest.dtb);
        finish_guest_fdt(guest_ptr(guest.dtb.gpa, 0));
        for (uint64_t i = 0; i < guest.harts; i++) {
            vcpus[i].hart = i;
            vcpus[i].state = HART_STOPPED;
            // Until the firmware says that it has started (SBI 9.3, value 0),
            // because an IPI to a hart that is on its way may be an error.
            const uint64_t args[5] = {i, (hpa_t)boot};
            while (host_sbi(SBI_EXT_HSM, HART_GET_STATUS, args).value)
                host_sbi(SBI_EXT_HSM, HART_START, args);
        }
        start_hart(hart, (struct start){guest.entry, guest.dtb.gpa});
    }
    init_csrs();
    do { // the guest may send any hart an IPI
        wfi();
        csr_clear(sip, SIP_SSIP);
    } while (!__sync_bool_compare_and_swap(&v->state, HART_START_PENDING,
                                           HART_STARTED));
    start_guest(v);
}

// Lets V wait until it is started again.
_Noreturn void stop_hart(struct vcpu *v) {
    __atomic_store_n(&v->state, HART_STOPPED, __ATOMIC_RELEASE);
    main(v->hart, NULL);
}
