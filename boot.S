// Where each hart arrives, in HS-mode and with paging off, which it stays: first
// the one that the firmware hands over to, with a0 = its number and a1 = the
// host's device tree (SBI 2.0 leaves it to the platform; OpenSBI follows the
// Linux boot protocol); then the others, as the guest starts them (SBI 9.1),
// with a0 = its number.

        .section .text.boot, "ax"
        .globl  boot
boot:
        csrw    sie, zero               // nothing may interrupt us yet
        csrw    sscratch, zero          // and a trap of our own is a bug
        la      t0, vm_exit             // (trap.S)
        csrw    stvec, t0
        la      sp, vcpus + 4096        // see struct vcpu
        slli    t0, a0, 19              // 512 KiB each
        add     sp, sp, t0
        call    main                    // does not return
