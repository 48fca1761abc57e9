// The part of mmode_csr.c that has to know each register's contents.

.macro each op, base, offset=0
    .irp n, 3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30
    \op x\n, \offset+8*\n(\base)
    .endr
.endm

// run(area): load all registers from area[0] to area[31], execute the eight
// bytes of the hart's slot, store all registers from area[32] on.  Each hart
// has a routine of its own.  In each, the slot's second halfword is the last of
// a page, so an instruction there has its two halves in two pages.
.text
.option push
.option norvc
.balign 8192
.globl run_routines
run_routines:
.rept 8
1:  sd ra, 512(a0)
    sd sp, 520(a0)
    sd gp, 528(a0)
    sd tp, 536(a0)
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11
    sd s\n, 544+8*\n(a0)
    .endr
    csrw sscratch, a0
    mv x31, a0
    ld x1, 8(x31)
    ld x2, 16(x31)
    each ld, x31
    ld x31, 248(x31)
    j 2f
    .org 1b + 4092
2:  nop
    nop
    csrrw x31, sscratch, x31
    sd x1, 256+8(x31)
    sd x2, 256+16(x31)
    each sd, x31, 256
    csrr x1, sscratch
    sd x1, 256+248(x31)
    sd zero, 256(x31)
    mv a0, x31
    ld ra, 512(a0)
    ld sp, 520(a0)
    ld gp, 528(a0)
    ld tp, 536(a0)
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11
    ld s\n, 544+8*\n(a0)
    .endr
    ret
    .org 1b + 8192
.endr
.option pop

// The trap to M-mode.  mscratch points to the top of the hart's stack for it.
.balign 4
.globl mvec
mvec:
    csrrw sp, mscratch, sp
    addi sp, sp, -256
    sd x1, 8(sp)
    each sd, sp
    sd x31, 248(sp)
    csrr t0, mscratch
    sd t0, 16(sp)
    addi t0, sp, 256
    csrw mscratch, t0
    csrr tp, mhartid
    call m_trap
    ld x1, 8(sp)
    each ld, sp
    ld x31, 248(sp)
    ld sp, 16(sp)
    mret

// Traps to S-mode, from S-mode and from U-mode; the latter does not return.
.balign 4
.globl svec, svec_user
svec:
    addi sp, sp, -256
    sd x1, 8(sp)
    each sd, sp
    sd x31, 248(sp)
    call s_trap
    ld x1, 8(sp)
    each ld, sp
    ld x31, 248(sp)
    addi sp, sp, 256
    sret
.balign 4
svec_user:
    csrr sp, sscratch
    j s_from_user

// For U-mode: fills the registers with known values, and loops until a handler
// in M-mode skips the loop.  At the ecall a0 is 0 if none of them has changed.
.balign 4
.globl user_loop, user_ecall
user_code:
    .irp n, 1,2,3,5,6,7,8,9,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30
    li x\n, 0x7654321000000 + \n
    .endr
.option push
.option norvc
user_loop:
    j user_loop
.option pop
    li x10, 0
    .irp n, 1,2,3,5,6,7,8,9,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30
    li x31, 0x7654321000000 + \n
    xor x31, x31, x\n
    or x10, x10, x31
    .endr
user_ecall:
    ecall
.globl user_code
