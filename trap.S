// The door between the guest and us.  A VM exit is an ordinary trap out of
// VS-mode or VU-mode.  The hart puts the reason into scause, sepc, stval, htval
// and htinst, and remembers in hstatus.SPV that it was in a virtual mode.  Then
// it jumps to stvec, and all 31 registers are still the guest's.

        .option arch, +h                // for the assembler: hlvx.hu

// Does \op for x1 to x31, except a0, with their places in vcpu->regs, to which
// a0 points.
        .macro  each_register op
        .irp    n, 1,2,3,4,5,6,7,8,9,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
        \op     x\n, 8 * \n(a0)
        .endr
        .endm

        .text
        .balign 4                       // stvec's low two bits are its mode
        .globl  vm_exit
vm_exit:
        csrrw   a0, sscratch, a0        // a0 = struct vcpu; keep the guest's a0
        beqz    a0, bug
        each_register sd
        csrrw   t0, sscratch, zero      // from here on a trap is a bug of ours
        sd      t0, 8 * 10(a0)          // the guest's a0
        lui     t0, 1                   // 4096: our stack is at the end of the
        add     sp, a0, t0              // page that begins with the registers
        mv      s0, a0                  // this survives the call
        call    handle_exit             // (exit.c)
        mv      a0, s0

        .globl  enter_guest             // a0 = struct vcpu
enter_guest:
        csrw    sscratch, a0
        each_register ld
        ld      a0, 8 * 10(a0)
        sret                            // hstatus.SPV = 1: into the guest

// The hypervisor itself has trapped: sscratch was 0.
bug:    csrw    sscratch, zero          // bug_found() may trap, too
        call    bug_found

// long hlvx_hu(gva_t gva, uint64_t mxr): reads two bytes of the guest's code at
// GVA, with the guest's translation and its permission to execute (Priv.
// "Hypervisor Virtual-Machine Load and Store Instructions").  Returns -1 if the
// guest could not fetch them.  MXR is 0 or SSTATUS_MXR: see fetch() in mem.c.
//
// The load may trap, and that trap comes from HS-mode, from us.  Another hart
// of the guest's may have unmapped the page a moment ago, for example.  So for
// this one instruction stvec points past it.  Such a trap overwrites sepc,
// sstatus.SPP and hstatus.SPV.  The next sret needs them to get back into the
// guest, so we save and restore them.  Of the rest nobody needs the old values:
// handle_exit() has read them.
//
// A hart may have double traps switched on (Ssdbltrp).  Then the exit has set
// sstatus.SDT, and while that is set a trap of our own goes to the firmware, as
// an error.  So we clear it for the load.  On any other hart this bit is always
// 0.
#define SSTATUS_SDT (1 << 24)
        .globl  hlvx_hu
hlvx_hu:
        mv      t0, a0
        li      a0, -1
        csrr    t1, sepc
        csrrs   t2, sstatus, a1
        li      t6, SSTATUS_SDT
        csrc    sstatus, t6
        csrr    t3, hstatus
        la      t4, 1f
        csrrw   t5, stvec, t4
        hlvx.hu a0, (t0)
        .balign 4
1:      csrw    stvec, t5
        csrw    sepc, t1
        csrw    sstatus, t2
        csrw    hstatus, t3
        ret
