// The instructions that C has no words for.  All that C files use are here, but
// for the ecall in print.c.  So the other C files can run on any machine: the
// tests put a csr.h of their own in this one's place (tests/host).  The tests'
// guests use this one, too.
//
// A CSR's name is part of the instruction, hence macros and not functions.

#define csr_read(csr)                                                          \
    ({                                                                         \
        uint64_t value_;                                                       \
        asm volatile("csrr %0, " #csr : "=r"(value_)::"memory");               \
        value_;                                                                \
    })
// "rK": a register, or a constant that fits into the instruction
#define csr_write(csr, v) csr_op_("csrw", csr, v)
#define csr_set(csr, v) csr_op_("csrs", csr, v)
#define csr_clear(csr, v) csr_op_("csrc", csr, v)
#define csr_op_(op, csr, v)                                                    \
    asm volatile(op " " #csr ", %0" ::"rK"((uint64_t)(v)) : "memory")

#define fence() asm volatile("fence" ::: "memory")
#define fence_i() asm volatile("fence.i" ::: "memory")
#define hfence_gvma() asm volatile(".option arch, +h; hfence.gvma" ::: "memory")
#define wfi() asm volatile("wfi" ::: "memory")
