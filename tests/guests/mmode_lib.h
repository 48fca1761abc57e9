// What the kernels that start in M-mode share: names, the console, checks.
//
// "Priv." is the RISC-V Privileged Architecture 1.12, "16550" the data sheet of
// National's PC16550D, "virtio" Virtual I/O Device 1.2.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "patience.h"

#define MAX_HARTS 8
#define PAGE 4096ul
#define INTERVAL 100000ul // between timer ticks: 10 ms at QEMU's 10 MHz

// --- CSRs: a name is part of the instruction, hence macros -------------------

#define csr_read(csr)                                                          \
    ({                                                                         \
        uint64_t value_;                                                       \
        asm volatile("csrr %0, " #csr : "=r"(value_)::"memory");               \
        value_;                                                                \
    })
#define csr_write(csr, v)                                                      \
    asm volatile("csrw " #csr ", %0" ::"r"((uint64_t)(v)) : "memory")
// In three instructions, as teaching kernels do; csrrs and csrrc have their own
// tests in mmode_csr.c.
#define csr_set(csr, v) csr_write(csr, csr_read(csr) | (v))
#define csr_clear(csr, v) csr_write(csr, csr_read(csr) & ~(uint64_t)(v))

#define INTERRUPT (1ul << 63) // in mcause and scause
enum { SSI = 1, STI = 5, MTI = 7, SEI = 9, MEI = 11 };
enum { SIP_SSIP = 1 << SSI, SIP_STIP = 1 << STI, SIP_SEIP = 1 << SEI };
enum { MIP_MTIP = 1 << MTI };
enum { CAUSE_ILLEGAL = 2, CAUSE_BREAK, CAUSE_U_ECALL = 8, CAUSE_S_ECALL };
enum { CAUSE_FETCH_PAGE = 12, CAUSE_LOAD_PAGE, CAUSE_STORE_PAGE = 15 };
enum { STATUS_SIE = 1 << 1, STATUS_MIE = 1 << 3, STATUS_SPIE = 1 << 5 };
enum { STATUS_MPIE = 1 << 7, STATUS_SPP = 1 << 8, STATUS_MPP = 3 << 11 };
enum { STATUS_MPP_S = 1 << 11, STATUS_FS = 3 << 13, STATUS_SUM = 1 << 18 };
enum { STATUS_MXR = 1 << 19 };
#define MENVCFG_STCE (1ul << 63)
enum { COUNTEREN_TM = 2 };
// Older assemblers don't know these by name.
#define MENVCFG 0x30a
#define STIMECMP 0x14d
#define csr_read_(number) csr_read(number)
#define csr_write_(number, v) csr_write(number, v)

// --- The machine: QEMU's virt ------------------------------------------------

#define CLINT 0x02000000ul
#define CLINT_MTIMECMP(hart) (CLINT + 0x4000 + 8 * (hart))
#define CLINT_MTIME (CLINT + 0xbff8)
#define PLIC 0x0c000000ul
#define UART 0x10000000ul
#define UART_IRQ 10
#define VIRTIO 0x10001000ul
#define VIRTIO_IRQ 1
#define RAM 0x80000000ul

#define reg8(address) (*(volatile uint8_t *)(address))
#define reg32(address) (*(volatile uint32_t *)(address))
#define reg64(address) (*(volatile uint64_t *)(address))

enum { UART_RHR = 0, UART_THR = 0, UART_IER, UART_FCR, UART_LCR };
enum { UART_ISR = 2, UART_LSR = 5 };
enum { LSR_RX_READY = 1, LSR_TX_IDLE = 1 << 5 };

// --- mmode_entry.S -----------------------------------------------------------

// Like setjmp and longjmp, which would need floating point.
typedef uint64_t context_t[14];
int save(context_t c) __attribute__((returns_twice));
_Noreturn void resume(context_t c);

// --- mmode_lib.c -------------------------------------------------------------

struct lock {
    volatile int taken;
};
// The owner takes no interrupts in S-mode; M-mode's handlers need no lock.
uint64_t acquire(struct lock *l);
void release(struct lock *l, uint64_t before);

// The number of this hart: in tp from start() on.
static inline unsigned hart(void) {
    uint64_t tp;
    asm volatile("mv %0, tp" : "=r"(tp));
    return tp;
}

// Prints %s, %d (long), %u (unsigned long) and %x (the same, with 0x).
void print(const char *format, ...);
void uart_put(char c);

// One line for a check that fails, none for one that does not.
#define CHECK(what, got, want)                                                 \
    check(__FILE_NAME__, __LINE__, what, (uint64_t)(got), (uint64_t)(want))
bool check(const char *file, int line, const char *what, uint64_t got,
           uint64_t want);

extern unsigned harts; // how many, once hart 0 has read the device tree
unsigned dtb_harts(const void *dtb);
bool dtb_has_sstc(const void *dtb);
void barrier(void); // waits until all harts are here

// Prints the last line of a group of checks.  Only "done" has to pass in all
// tests.
void summary(const char *group);
_Noreturn void park(void);
_Noreturn void stop(void); // after a FAIL, if nothing can go on

uint64_t *root_table(void);
void map(uint64_t *root, uint64_t va, uint64_t pa, uint64_t size,
         uint64_t perm);
uint64_t *walk(uint64_t *root, uint64_t va); // the leaf's entry, or 0
enum { PTE_V = 1, PTE_R = 2, PTE_W = 4, PTE_X = 8, PTE_U = 16 };
// Priv. 4.3.1: an access through an entry with A or D clear either sets them or
// is a page fault.  -DNO_AD makes kernels that leave this to the hart (Svadu),
// as xv6 does.
#ifdef NO_AD
enum { PTE_A = 64, PTE_D = 128, PTE_AD = 0 };
#else
enum { PTE_A = 64, PTE_D = 128, PTE_AD = PTE_A | PTE_D };
#endif
void *alloc_page(void); // zeroed
void *memset(void *to, int c, size_t n);
void *memcpy(void *to, const void *from, size_t n);
extern char text_end[], image_end[];
