// Each hart begins here, in HS-mode and with paging off.  We never turn it on.
//
// The firmware sends the first hart here with its number in a0 and the address
// of the host's device tree in a1.  (SBI 2.0 does not define this; OpenSBI
// follows Linux's boot protocol.)  It sends the others here when main() asks
// for them (SBI 9.1), with their numbers in a0.

        .section .text.boot, "ax"
        .globl  boot
boot:
        csrci   sstatus, 2              // SIE = 0: no interrupts in HS-mode
        csrw    sscratch, zero          // 0: we are not in the guest (trap.S)
        la      t0, vm_exit             // where all traps go, exits and bugs
        csrw    stvec, t0
        la      sp, vcpus + 4096        // our stack grows down from the end of
        slli    t0, a0, 19              // our struct vcpu's first page; each
        add     sp, sp, t0              // struct has 1 << 19 bytes (hv.h)
        call    main                    // it does not return
