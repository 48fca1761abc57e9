// What the bare-metal guests of the tests can't say in C: how a hart enters,
// traps, and an SBI call that sees which registers it changes.

#define HART_SHIFT 14           // sizeof(struct hart), see guest.h
#define MAX_HARTS 8
#define SSTATUS_FS 0x6000

        .section .text.start, "ax"
        .globl  _start, entry, sbi_call, sbi_ecall
        .globl  user_call, user_ecall, user_return

// The boot hart: a0 = its number, a1 = the device tree.
_start: la      t0, bss_start
        la      t1, bss_end
1:      sd      zero, (t0)
        addi    t0, t0, 8
        bltu    t0, t1, 1b
        la      sp, boot_stack_end
        jal     set_up
        j       boot

// A hart that was started, or resumes after a non-retentive suspend: a0 = its
// number, a1 = opaque.  It notes its registers and calls harts[a0].run.
entry:  li      t0, MAX_HARTS
        bgeu    a0, t0, .               // no such hart: a check misses it
        csrr    t2, satp
        csrr    t3, sstatus
        jal     set_up
        sd      a0, 0(t0)
        sd      a1, 8(t0)
        sd      t2, 16(t0)
        sd      t3, 24(t0)
        li      sp, 1 << HART_SHIFT
        add     sp, sp, t0
        mv      a0, t0
        j       hart_main

// t0 = sscratch = &harts[a0]
set_up: la      t0, harts
        slli    t1, a0, HART_SHIFT
        add     t0, t0, t1
        csrw    sscratch, t0
        la      t1, trap_entry
        csrw    stvec, t1
        csrw    sie, zero
        li      t1, SSTATUS_FS
        csrs    sstatus, t1
        ret

        .macro  each_x op, base         // all but sp
        .irp    r, 1,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
        \op     x\r, \base + 8 * \r(sp)
        .endr
        .endm

// On a stack of its own, in the middle of the hart's structure, because a bad
// sp may be what made the hart trap.
        .balign 4
trap_entry:
        csrrw   sp, sscratch, sp
        addi    sp, sp, 2032
        addi    sp, sp, 2032
        each_x  sd, 0
        csrr    t0, sscratch
        sd      t0, 8 * 2(sp)
        addi    t0, sp, -2032
        addi    t0, t0, -2032
        csrw    sscratch, t0
        mv      a0, sp
        jal     trap
        each_x  ld, 0
        ld      sp, 8 * 2(sp)
        sret

// uint64_t user_call(a0 = function, a1 = its argument): calls it in U-mode on
// the same stack, and comes back by an ecall that trap() knows.
user_call:
        addi    sp, sp, -16
        sd      ra, (sp)
        csrw    sepc, a0
        li      t0, 0x100               // SPP
        csrc    sstatus, t0
        mv      a0, a1
        la      ra, user_ecall
        sret
user_ecall:
        ecall
user_return:
        ld      ra, (sp)
        addi    sp, sp, 16
        ret

// struct sbiret sbi_call(a0, a1, a2, a3, a4, a5, function, extension): the ABI
// of C puts everything where SBI wants it.  All other registers get patterns.
// check_call() compares them, and CSRs, before and after.
#define SNAPSHOT (72 * 8)
#define BEFORE 256
#define AFTER (BEFORE + SNAPSHOT)
#define FRAME (AFTER + SNAPSHOT)

        .macro  snapshot base           // check_call() knows the order
        each_x  sd, \base
        .irp    r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
        fsd     f\r, \base + 256 + 8 * \r(sp)
        .endr
        .set    at, \base + 512
        .irp    csr, stvec,sscratch,satp,sie,sstatus,sepc,scause,stval
        csrr    t0, \csr
        sd      t0, at(sp)
        .set    at, at + 8
        .endr
        ld      t0, \base + 8 * 5(sp)
        .endm

sbi_call:
        addi    sp, sp, -FRAME
        each_x  sd, 0
        li      t0, 0x43210             // nobody returns there
        csrw    sepc, t0
        csrw    stval, t0
        li      t0, 8
        csrw    scause, t0
        .irp    r, 1,3,4,5,6,7,8,9,18,19,20,21,22,23,24,25,26,28,29,30,31
        li      x\r, -0x5a5a5a00 - \r
        .endr
        mv      s11, sp
        .irp    r, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
        fmv.d.x f\r, x\r
        .endr
        snapshot BEFORE
sbi_ecall:
        ecall
        bne     sp, s11, lost_sp
        snapshot AFTER
        addi    a0, sp, BEFORE
        addi    a1, sp, AFTER
        jal     check_call
        ld      a0, AFTER + 8 * 10(sp)
        ld      a1, AFTER + 8 * 11(sp)
        .irp    r, 1,3,4,8,9,18,19,20,21,22,23,24,25,26,27
        ld      x\r, 8 * \r(sp)
        .endr
        addi    sp, sp, FRAME
        ret

lost_sp:
        la      sp, boot_stack_end
        la      a0, lost_sp_text
        j       die

lost_sp_text:
        .asciz  "sp or s11 is changed by an ecall"

        .bss
        .balign 16
        .skip   16384
boot_stack_end:
