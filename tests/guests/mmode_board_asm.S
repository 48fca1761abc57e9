// Trap handlers for mmode_board.c, one for M-mode and one for S-mode.  They
// note the trap in the record at mscratch or sscratch.  After an exception they
// go on with the next instruction, or in the caller if the instruction could
// not be fetched.  After an interrupt they disable all interrupts, and go on at
// the record's context if it has one.
.option norvc
.text

.macro handler name, p
    .balign 4
\name:
    csrrw t0, \p\()scratch, t0
    sd t1, 0(t0)
    sd t2, 8(t0)
    csrr t1, \p\()cause
    sd t1, 16(t0)
    csrr t2, \p\()epc
    sd t2, 24(t0)
    csrr t2, \p\()tval
    sd t2, 32(t0)
    csrr t2, \p\()status
    sd t2, 40(t0)
    ld t2, 48(t0)
    addi t2, t2, 1
    sd t2, 48(t0)
    bltz t1, 3f
    addi t1, t1, -1             // 1: fetch access fault
    mv t2, ra
    beqz t1, 2f
    csrr t2, \p\()epc
    lhu t1, (t2)
    addi t2, t2, 2
    andi t1, t1, 3
    addi t1, t1, -3
    bnez t1, 2f
    addi t2, t2, 2
2:  csrw \p\()epc, t2
    j 4f
3:  csrw \p\()ie, zero
    ld t1, 56(t0)
    beqz t1, 4f
    sd zero, 56(t0)
    ld t2, 8(t0)
    csrrw t0, \p\()scratch, t0
    mv a0, t1
    j resume
4:  ld t1, 0(t0)
    ld t2, 8(t0)
    csrrw t0, \p\()scratch, t0
    \p\()ret
.endm

    handler board_m, m
    handler board_s, s

// The same for M-mode with mtvec's mode 1: each interrupt comes to an entry of
// its own, which notes its number.
.macro entry n
    .balign 4
    j vectored_\n
.endm
.macro vectored n
vectored_\n:
    csrrw t0, mscratch, t0
    sd t1, 0(t0)
    li t1, \n
    sd t1, 64(t0)
    ld t1, 0(t0)
    csrrw t0, mscratch, t0
    j board_m
.endm
    .balign 256
board_vectors:
    j board_m
    .irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    entry \n
    .endr
    .irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    vectored \n
    .endr

// One instruction each, with an address in a0.
.macro probe name, instruction:vararg
    .balign 4
probe_\name:
    \instruction
    ret
    .globl probe_\name
.endm
    probe ecall, ecall
    probe ebreak, ebreak
    probe csr, csrr a0, 0x7c0
    probe read_only, csrw mhartid, a0
    probe zero, .4byte 0
    probe load, ld a0, (a0)
    probe store, sd a0, (a0)
    probe amo, amoadd.w a0, a0, (a0)
    probe fetch, jr a0
.globl board_m, board_s, board_vectors
