// The first instructions: in M-mode, on all harts at once, a0 = mhartid and
// a1 = device tree, as QEMU's reset vector leaves them.  The hart's number is
// read from mhartid all the same, because teaching kernels do.
.section .text.entry
.globl _entry
_entry:
    la sp, stacks
    li t0, STACK
    csrr t1, mhartid
    addi t1, t1, 1
    mul t0, t0, t1
    add sp, sp, t0
    mv a0, a1
    call start
1:  j 1b

// save() and resume(): setjmp and longjmp, without floating point.
.text
.macro context op
    \op ra, 0(a0)
    \op sp, 8(a0)
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11
    \op s\n, 16+8*\n(a0)
    .endr
.endm
.globl save, resume
save:
    context sd
    li a0, 0
    ret
resume:
    context ld
    li a0, 1
    ret
