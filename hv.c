// From the firmware's hand-over to the guest's first instruction, and from each
// VM exit to the part that deals with it.
//
// Start reading here: main() at the end of this file.

#include "hv.h"

// The header of a RISC-V Linux Image (Linux: Documentation/riscv/boot-image-
// header.rst).
struct image_header {
    uint64_t code;
    uint64_t text_offset; // from the start of RAM, in bytes
    uint64_t image_size;  // with .bss, in bytes
    uint64_t others[4];
    uint32_t magic;
};
#define IMAGE_MAGIC 0x05435352 // "RSC\x05"

struct host host;
struct vcpu vcpus[1];

// Makes the guest take exception CAUSE with TVAL in its stval, as if its own
// hart had raised it: Priv. "Trap Entry into VS-mode", in which the guest's
// registers are the ones with "vs" in their names.  Returns 0, because the trap
// has moved the pc already.
unsigned inject(struct vcpu *v, uint64_t cause, uint64_t tval) {
    static uint64_t reported;
    if (!(reported & 1ul << (cause & 63))) {
        reported |= 1ul << (cause & 63);
        printf("hv: guest at pc %lx gets exception %ld (stval %lx, gpa %lx)\n",
               v->exit.pc, cause, tval, v->exit.gpa);
    }
    uint64_t sstatus = csr_read(sstatus), vsstatus = csr_read(vsstatus);
    uint64_t was_on = vsstatus & SSTATUS_SIE ? SSTATUS_SPIE : 0;
    vsstatus &= ~(SSTATUS_SPP | SSTATUS_SPIE | SSTATUS_SIE);
    csr_write(vsstatus, vsstatus | was_on | (sstatus & SSTATUS_SPP));
    csr_write(vscause, cause);
    csr_write(vsepc, v->exit.pc);
    csr_write(vstval, tval);
    csr_write(sepc, csr_read(vstvec) & ~3ul); // exceptions ignore the vector
    csr_set(sstatus, SSTATUS_SPP);            // go on in VS-mode
    return 0;
}

// Our own interrupts, polled at the end of each exit and not only at the exits
// that they cause: so one that arrives while we are here, or that ended a WFI,
// does not cost an exit of its own.
static void handle_interrupts(struct vcpu *v) {
    uint64_t pending = csr_read(sip) & csr_read(sie);
    if (pending & SIP_STIP) { // only without Sstc, see set_timer()
        csr_set(hvip, HVIP_VSTIP);
        csr_clear(sie, SIP_STIP); // until the guest sets its timer again
    }
    if (pending & SIP_SEIP)
        plic_host_interrupt(v);
    plic_update(v);
}

// An instruction that VS-mode or VU-mode may not execute, but HS-mode could.
static unsigned handle_virtual_instruction(struct vcpu *v) {
    // The one that we want to see: hstatus.VTW makes WFI an exit, so that we
    // can sleep for the guest.  wfi returns when an interrupt of ours or of the
    // guest's is pending, whether or not it is let through.
    bool from_vs = csr_read(sstatus) & SSTATUS_SPP;
    if (v->exit.tval == INSTRUCTION_WFI && from_vs) {
        asm volatile("wfi");
        return 4;
    }
    // The rest are the H extension's own, which this guest's hart lacks.
    return inject(v, CAUSE_ILLEGAL_INSTRUCTION, v->exit.tval);
}

// Every VM exit comes here, from trap.S.  The handlers return how far to move
// the guest's pc: the length of the instruction if it is done, 0 if it shall be
// executed again or if the guest's pc is elsewhere now.
void handle_exit(struct vcpu *v) {
    struct exit *e = &v->exit;
    e->cause = csr_read(scause);
    e->pc = csr_read(sepc);
    e->tval = csr_read(stval);
    e->gpa = csr_read(htval) << 2 | (e->tval & 3);
    e->htinst = csr_read(htinst);

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
        if (!(e->cause & CAUSE_INTERRUPT))
            step = inject(v, e->cause, e->tval);
    }
    if (step)
        csr_write(sepc, e->pc + step);
    handle_interrupts(v);
}

// A trap out of the hypervisor itself.
_Noreturn void panic_trap(uint64_t cause, uint64_t pc, uint64_t tval) {
    die("BUG: trap %lx in the hypervisor at pc %lx, stval %lx", cause, pc,
        tval);
}

// Reads what the host has out of its device tree: nothing is assumed, and
// nothing is probed for, because an address that is not listed may fault.
static void find_host(const void *fdt) {
    uint32_t length;
    struct region memory =
        fdt_region(fdt, fdt_find(fdt, NULL, "device_type", "memory"));
    init_heap(memory.base + memory.size);
    // The firmware's copy may lie where the guest's RAM will be.
    fdt = host.fdt = memcpy(alloc(fdt_size(fdt), 8), fdt, fdt_size(fdt));
    host.isa = fdt_value(fdt, "riscv,isa", &length);
    if (!host.isa || !isa_has(host.isa, "h"))
        die("this hart has no H extension: start QEMU with -cpu rv64,h=true");
    host.plic =
        fdt_region(fdt, fdt_find(fdt, NULL, "compatible", "sifive,plic-1.0.0"));
    host.uart = fdt_region(fdt, fdt_find(fdt, NULL, "compatible", "ns16550a"));
}

// Copies kernel, initramfs and device tree into the guest's RAM.  Returns the
// kernel's first instruction, and in DTB where the device tree is.
//
// The kernel goes where its header asks for.  The others lie in the upper half
// of RAM, far behind it: some kernels move them, to just behind their end.
static gpa_t load_guest(uint64_t ram_size, gpa_t *dtb) {
    const struct image_header *header = (const void *)guest_kernel;
    uint64_t kernel_size = guest_kernel_end - guest_kernel;
    uint64_t initrd_size = guest_initrd_end - guest_initrd;
    gpa_t middle = GUEST_RAM + ram_size / 2;
    if (header->magic != IMAGE_MAGIC)
        die("the kernel is no RISC-V Linux Image");
    gpa_t entry = GUEST_RAM + header->text_offset;
    if (header->image_size < kernel_size ||
        !guest_ptr(entry, header->image_size) ||
        entry + header->image_size > middle)
        die("the kernel needs %ld KiB, half of the guest's RAM is %ld KiB",
            header->image_size / 1024, ram_size / 2048);
    memcpy(guest_ptr(entry, kernel_size), guest_kernel, kernel_size);

    *dtb = middle + ((initrd_size + PAGE - 1) & -PAGE);
    if (!guest_ptr(*dtb, 2 * fdt_size(guest_dtb) + fdt_size(host.fdt)))
        die("the initramfs has %ld KiB, half of the guest's RAM is %ld KiB",
            initrd_size / 1024, ram_size / 2048);
    memcpy(guest_ptr(middle, initrd_size), guest_initrd, initrd_size);
    make_guest_fdt(guest_ptr(*dtb, 0), middle, middle + initrd_size);
    return entry;
}

// The state in which the guest finds its hart.
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
    csr_write(hstatus,
              HSTATUS_SPV | HSTATUS_SPVP | HSTATUS_VTW | HSTATUS_VSXL_64);
    csr_write(vsstatus, SSTATUS_UXL_64);
    csr_write(vsie, 0);
    csr_write(vsatp, 0);
    // The guest may use FP and vector registers.  We are compiled without, so
    // they stay in the hart and are never saved.
    csr_set(sstatus, SSTATUS_SPP | SSTATUS_FS | SSTATUS_VS);

    // Of these a hart keeps the bits that it has: cbo.* instructions,
    // page-based memory types, setting A and D by itself, and Sstc's comparison
    // of time with vstimecmp.
    csr_write(henvcfg, HENVCFG_STCE | HENVCFG_PBMTE | HENVCFG_ADUE |
                           HENVCFG_CBZE | HENVCFG_CBCFE | HENVCFG_CBIE);
    // QEMU 7.2 keeps STCE without having Sstc, firmware may leave Sstc switched
    // off: both must say so.
    host.sstc = csr_read(henvcfg) & HENVCFG_STCE && isa_has(host.isa, "_sstc");
    if (host.sstc)
        csr_write(vstimecmp, -1);

    csr_write(sie, SIP_SEIP); // nobody sends us an IPI yet
}

// The boot hart, from boot.S: HART is its number, FDT the host's device tree.
_Noreturn void main(uint64_t hart, const void *fdt) {
    find_host(fdt);
    init_csrs();
    uint64_t ram_size = fdt_region(guest_dtb, fdt_find(guest_dtb, NULL,
                                                       "device_type", "memory"))
                            .size;
    init_guest_ram(ram_size);
    plic_init();
    uart_init(hart);
    virtio_init(hart);

    gpa_t dtb;
    csr_write(sepc, load_guest(ram_size, &dtb));
    vcpus->hart = hart;
    vcpus->regs[10] = hart;
    vcpus->regs[11] = dtb;
    enter_guest(vcpus);
}
