// The beginning.  The first hart to arrive sets the machine up: it finds out
// what the host has, puts the guest's files where they belong, and fetches the
// other harts.  Then every hart waits to be started (hart.c), the first one by
// us and the others by the guest.

#include "hv.h"

struct host host;

static void boot_machine(struct vcpu *v, const uint32_t *fdt);
static void load(const struct file *f);

// Each hart comes here from boot.S with its number, HART.  The firmware chooses
// which one is the first, and gives it the host's device tree, FDT.
_Noreturn void main(uint64_t hart, const uint32_t *fdt) {
    if (guest.harts > MAX_HARTS || hart >= guest.harts)
        die("the guest has %lx harts, this is %lx", guest.harts, hart);
    struct vcpu *v = &vcpus[hart];
    v->hart = hart;
    if (!atomic_exchange(&host.booted, true))
        boot_machine(v, fdt);
    stop_hart(v); // into the waiting room, until somebody starts it
}

// Does all that is done once, on the first hart, V.
static void boot_machine(struct vcpu *v, const uint32_t *fdt) {
    find_host(fdt);
    // On a board the firmware is at the beginning of the RAM.  A kernel that
    // wants to be there expects M-mode, which mmode.c emulates.  All that asks
    // for v->mmode is for such a guest, and you may skip it.
    if (guest.kernel.gpa == GUEST_RAM)
        mmode_init();
    map_guest(GUEST_UART, host.uart, PAGE, PTE_R);
    map_guest(GUEST_RTC, host.rtc, PAGE, host.rtc ? PTE_R | PTE_W : 0);
    virtio_init();
    load(&guest.kernel);
    load(&guest.initrd);
    load(&guest.dtb);
    finish_guest_fdt(guest_ptr(guest.dtb.gpa, 0));

    // Ask the firmware for the other harts, and wait until each is in our
    // waiting room, where it says HART_STOPPED.  Until then the firmware is
    // still at work on that hart: it may refuse or drop an IPI for it, and it
    // may still set its threshold in the PLIC.  (At first state is 0, which is
    // HART_STARTED.)  This hart says HART_STOPPED now, so that start_hart()
    // takes it, too; it goes to the waiting room right after that.
    v->state = HART_STOPPED;
    fence(); // the others must see all of the above
    for (uint64_t i = 0; i < guest.harts; i++) {
        const uint64_t args[5] = {i, (hpa_t)boot};
        if (i != v->hart && host_sbi(SBI_EXT_HSM, HART_START, args).error)
            die("the guest has %lx harts, the host has no %lx", guest.harts, i);
        while (vcpus[i].state != HART_STOPPED)
            ;
    }
    // A guest that knows SBI gets one hart and starts the others itself.  A
    // guest that begins in M-mode expects that all harts run.
    for (uint64_t i = 0; i < guest.harts; i++)
        if (i == v->hart || v->mmode)
            start_hart(i, guest.kernel.gpa, guest.dtb.gpa);
}

// Copies a file to where it belongs in the guest's RAM, eight bytes at a time,
// which guest.S makes possible by aligning it.
static void load(const struct file *f) {
    uint64_t words = (f->end - f->start + 7) / 8;
    uint64_t *to = guest_ptr(f->gpa, 8 * words);
    if (!to)
        die("the guest has no RAM for %lx bytes at %lx", 8 * words, f->gpa);
    for (uint64_t i = 0; i < words; i++)
        to[i] = ((const uint64_t *)f->start)[i];
}
