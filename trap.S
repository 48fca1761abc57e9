// The door between the guest and us.  A VM exit is an ordinary trap out of
// VS-mode or VU-mode: the hart has put the reason into scause, sepc, stval,
// htval and htinst, remembered in hstatus.SPV that it came from a virtual mode,
// and jumped to stvec with all 31 registers still the guest's.

        .option arch, +h                // for the assembler: hlvx.hu

// \op x1 ... x31 into, or out of, vcpu->regs at a0; not a0 itself
        .macro  each_register op
        .irp    n, 1,2,3,4,5,6,7,8,9,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
        \op     x\n, 8 * \n(a0)
        .endr
        .endm

        .text
        .balign 4                       // stvec's low two bits are its mode
        .globl  vm_exit
vm_exit:
        csrrw   a0, sscratch, a0        // a0 = struct vcpu, and save guest's a0
        beqz    a0, bug
        each_register sd
        csrrw   t0, sscratch, zero      // from here on a trap is our own
        sd      t0, 8 * 10(a0)
        lui     t0, 1                   // 4096: our stack is at the end of the
        add     sp, a0, t0              // page that begins with the registers
        mv      s0, a0                  // survives the call
        call    handle_exit
        mv      a0, s0

        .globl  enter_guest             // a0 = struct vcpu
enter_guest:
        csrw    sscratch, a0
        each_register ld
        ld      a0, 8 * 10(a0)
        sret                            // hstatus.SPV = 1: into the guest

// A trap while the hypervisor itself runs, when sscratch is 0.
bug:    csrw    sscratch, zero          // it may trap, too
        call    bug_found

// long hlvx_hu(gva_t a0, uint64_t a1): the two bytes of guest code at a0, read
// with the guest's translation and its permission to execute (Priv. "Hypervisor
// Virtual-Machine Load and Store Instructions"), or -1 if the guest itself could
// not fetch them.  A1 is 0 or SSTATUS_MXR: see fetch() in mem.c.
//
// The load may trap, right here in HS-mode: another hart of the guest may have
// unmapped the page a moment ago.  So for one instruction stvec points behind
// it.  Such a trap has overwritten what the exit had left in sepc, sstatus.SPP
// and hstatus.SPV, without which the next sret would not lead into the guest.
//
// On a hart with double traps switched on (Ssdbltrp) the exit has set
// sstatus.SDT, and while that is set a trap of our own would go to the firmware
// as an error.  Everywhere else the bit is always 0.
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
