// Where a hart arrives, in HS-mode and with paging off, which it stays.

        .section .text.boot, "ax"
        .globl  boot, boot_secondary

// The hart that the firmware hands over to: a0 = its number, a1 = the host's
// device tree (SBI 2.0 leaves it to the platform; OpenSBI follows the Linux
// boot protocol).
boot:
        la      t2, main
        j       1f

// The others, one by one as the guest starts them (SBI 9.1): a0 = its number,
// a1 = what start_hart() in sbi.c left for it.
boot_secondary:
        la      t2, main_secondary

1:      csrw    sie, zero               // nothing may interrupt us yet
        la      t0, bug                 // and a trap of our own is a bug
        csrw    stvec, t0
        la      sp, vcpus + 4096        // see struct vcpu
        slli    t0, a0, 12
        add     sp, sp, t0
        jalr    t2                      // does not return
