// Where the firmware hands over, in HS-mode: a0 = hart, a1 = the host's device
// tree (SBI 2.0 leaves it to the platform; OpenSBI follows the Linux boot
// protocol).  Paging is off and stays off.

        .section .text.boot, "ax"
        .globl  boot
boot:
        csrw    sie, zero               // nothing may interrupt us yet
        la      t0, bug                 // and a trap of our own is a bug
        csrw    stvec, t0

        la      t0, bss_start           // C expects its variables to be zero.
        la      t1, hv_end              // The linker script aligns both to 8
1:      sd      zero, (t0)
        addi    t0, t0, 8
        bltu    t0, t1, 1b

        la      sp, vcpus + 4096        // see struct vcpu
        call    main                    // does not return
