// S-mode's traps, and the program for U-mode.
#include "mmode_super.h"

.macro registers op, base, skip=0
    .irp n, 1,3,4,5,6,7,8,9,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    \op x\n, 8*\n(\base)
    .endr
.endm

// A trap out of the kernel: the registers go onto its stack.
.text
.balign 4
.globl kernelvec
kernelvec:
    addi sp, sp, -256
    registers sd, sp
    sd a0, 80(sp)
    call kernel_trap
    registers ld, sp
    ld a0, 80(sp)
    addi sp, sp, 256
    sret

// A trap out of a program, and the way back.  Both change satp, so they are on
// a page that is at TRAMPOLINE in all page tables.  While the program runs,
// sscratch has the address of its struct trapframe.
.section .trampoline, "ax"
.globl trampoline, uservec, userret
trampoline:
.balign 4
uservec:
    csrrw a0, sscratch, a0
    registers sd, a0
    sd sp, 16(a0)
    csrr t0, sscratch
    sd t0, 80(a0)
    ld sp, FRAME_SP(a0)
    ld tp, FRAME_TP(a0)
    ld t0, FRAME_TRAP(a0)
    ld t1, FRAME_SATP(a0)
    sfence.vma
    csrw satp, t1
    sfence.vma
    jr t0

// userret(trapframe, satp)
userret:
    sfence.vma
    csrw satp, a1
    sfence.vma
    ld t0, 80(a0)
    csrw sscratch, t0
    registers ld, a0
    ld sp, 16(a0)
    csrrw a0, sscratch, a0
    sret

// The program.  Each hart has a copy of its page at address 0.  Behind that are
// a page of data (the stack, and at its beginning a count from the kernel), one
// that is read-only until it is written to, and one that is not there until it
// is used.  An ecall has one of SYS_... in a7; with SYS_CHECK the kernel
// compares a0 and a1.
#define DATA 0x1000
#define READ_ONLY 0x2000
#define LAZY 0x3000
#define NO_CODE 0x5000
.macro expect reg, value
    mv a0, \reg
    li a1, \value
    li a7, SYS_CHECK
    ecall
.endm

.section .user, "ax"
.globl user_begin, user_end
.balign 4096
user_begin:
    li sp, DATA + 4096
    la a0, greeting
    li a7, SYS_WRITE
    ecall

    // Calls with arguments and a result.
    li s0, 100
1:  mv a0, s0
    slli a1, s0, 2
    li a7, SYS_ADD
    ecall
    slli s1, s0, 2
    add s1, s1, s0
    sub a0, a0, s1
    beqz a0, 2f
    expect a0, 0
2:  addi s0, s0, -1
    bnez s0, 1b

    // All registers keep their values over at least five ticks.  ra counts.
    .irp n, 2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29
    li x\n, 0x1234567800000 + \n
    .endr
    li ra, 0
    li x30, DATA
3:  addi ra, ra, 1
    lw x31, 0(x30)
    addi x31, x31, -5
    bltz x31, 3b
    sltu ra, zero, ra
    .irp n, 2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29
    li x31, 0x1234567800000 + \n
    xor x31, x31, x\n
    or x30, x30, x31
    .endr
    li sp, DATA + 4096
    mv s2, x30
    expect s2, DATA
    expect ra, 1

    // Page faults.  The kernel puts each page's own address at its beginning.
    li s0, READ_ONLY
    ld s1, 0(s0)
    expect s1, READ_ONLY
    li s1, 0x1122334455667788
    sd s1, 8(s0)
    ld s2, 8(s0)
    expect s2, 0x1122334455667788
    li s0, LAZY
    c.ld s1, 0(s0)
    expect s1, LAZY
    li s0, LAZY + 4096
    li s1, 3
    amoadd.d s2, s1, (s0)
    ld s1, 0(s0)
    expect s1, LAZY + 4096 + 3
    li s0, NO_CODE
    jalr s0 // the kernel sends it back

    // What only other modes may do.
    csrr s1, sstatus
    csrr s1, mstatus
    csrw mscratch, s1
    csrr s1, mhartid
    sret
    mret
    sfence.vma
    ebreak

    la a0, farewell
    li a7, SYS_WRITE
    ecall
    li a7, SYS_EXIT
    ecall
greeting: .asciz "user: hello\n"
farewell: .asciz "user: bye\n"
user_end:
