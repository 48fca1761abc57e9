// The runtime of the bare-metal guests.  Each guest is one C file that includes
// this, linked with start.S.  "Priv." and "SBI" are as in ../../hv.h.
#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include "../../csr.h"
#include "patience.h"

enum { SSIP = 1 << 1, STIP = 1 << 5, SEIP = 1 << 9, SSTATUS_SIE = 1 << 1 };
enum { SSTATUS_SPIE = 1 << 5, SSTATUS_SPP = 1 << 8, SSTATUS_VS = 3 << 9 };
enum { BASE = 0x10, TIME = 0x54494d45, IPI = 0x735049, RFENCE = 0x52464e43 };
enum { HSM = 0x48534d, SRST = 0x53525354, DBCN = 0x4442434e };
enum { HART_START, HART_STOP, HART_GET_STATUS, HART_SUSPEND };
enum { STARTED, STOPPED, START_PENDING, STOP_PENDING, SUSPENDED };
enum { OK, FAILED = -1, NOT_SUPPORTED = -2, INVALID_PARAM = -3 };
enum { INVALID_ADDRESS = -5, ALREADY_AVAILABLE = -6 };

#define RAM 0x80000000ul
#define RAM_END 0xc0000000ul // with run.sh's 1024 MiB
#define MS 10000ul           // in ticks of the timebase
#define PATIENCE 5000        // ms to wait for what should come: patience.h
#define MAX_HARTS 8
#define LENGTH(array) (sizeof(array) / sizeof *(array))

struct sbiret {
    long error, value;
};

struct trap { // Priv. "scause", "sepc", "stval", "sstatus"
    uint64_t cause, pc, tval, sstatus;
};

struct hart {
    uint64_t a0, a1, satp, sstatus; // as the hart entered; start.S writes them
    void (*run)(struct hart *h);    // what to do before it stops
    struct trap trap;               // the last one, until trapped() takes it
    volatile bool has_trapped;
    volatile uint64_t in, out; // for run() and whoever waits for it
} __attribute__((aligned(16384)));

struct hart harts[MAX_HARTS]; // each is followed by its stack: start.S
static int checks, failures, lock;

struct sbiret sbi_call(uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3,
                       uint64_t a4, uint64_t a5, uint64_t function,
                       uint64_t extension);
extern const char sbi_ecall[]; // the instruction in it
// Calls RUN(ARGUMENT) in U-mode and returns its result.  Translation has to be
// off, and interrupts as well.
uint64_t user_call(uint64_t (*run)(uint64_t), uint64_t argument);
extern const char user_ecall[], user_return[];
void entry(void);
int main(uint64_t hart, const char *fdt);

// sbi(extension, function, up to six arguments); the other argument registers
// hold patterns that are no valid arguments.
#define sbi(extension, function, ...)                                          \
    sbi_(extension, function, ##__VA_ARGS__, -0xa00f, -0xa10f, -0xa20f,        \
         -0xa30f, -0xa40f, -0xa50f, )
#define sbi_(extension, function, a0, a1, a2, a3, a4, a5, ...)                 \
    sbi_call((uint64_t)(a0), (uint64_t)(a1), (uint64_t)(a2), (uint64_t)(a3),   \
             (uint64_t)(a4), (uint64_t)(a5), function, extension)

// The same without the checks around it, for places where interrupts may come.
__attribute__((unused)) static struct sbiret
quick_sbi(uint64_t extension, uint64_t function, uint64_t a_0, uint64_t a_1) {
    register uint64_t a0 asm("a0") = a_0, a1 asm("a1") = a_1, a2 asm("a2") = 0,
                         a3 asm("a3") = 0, a4 asm("a4") = 0,
                         a6 asm("a6") = function, a7 asm("a7") = extension;
    asm volatile("ecall"
                 : "+r"(a0), "+r"(a1)
                 : "r"(a2), "r"(a3), "r"(a4), "r"(a6), "r"(a7)
                 : "memory");
    return (struct sbiret){a0, a1};
}

static uint64_t now(void) {
    uint64_t t;
    asm volatile("fence; rdtime %0" : "=r"(t)::"memory");
    return t;
}

// Waits for CONDITION, but not forever.  Did it come true?
#define until(condition, ms)                                                   \
    ({                                                                         \
        struct patience patience_ = {(ms)*MS, now()};                          \
        bool true_;                                                            \
        while (!(true_ = (condition)) && patient(&patience_, now()))           \
            ;                                                                  \
        true_;                                                                 \
    })

static struct hart *this_hart(void) {
    return (struct hart *)csr_read(sscratch);
}

// --- Printing ----------------------------------------------------------------

static void put(char c) {
    volatile uint8_t *uart = (void *)0x10000000ul;
    while (!(uart[5] & 32)) // LSR: THR empty
        ;
    *uart = c;
}

static void vsay(const char *format, va_list args) {
    for (; *format; format++) {
        if (format[0] == '%' && format[1] == 's') {
            vsay(va_arg(args, const char *), args);
            format += 1;
        } else if (format[0] == '%') { // ld: small in decimal, large in hex
            long value = va_arg(args, long);
            bool small = -10000 < value && value < 10000;
            uint64_t rest = small && value < 0 ? -value : value;
            char digits[20], *p = digits;
            do
                *p++ = "0123456789abcdef"[rest % (small ? 10 : 16)];
            while (rest /= small ? 10 : 16);
            for (const char *s = !small ? "0x" : value < 0 ? "-" : ""; *s; s++)
                put(*s);
            while (p > digits)
                put(*--p);
            format += 2;
        } else {
            put(*format);
        }
    }
}

static __attribute__((format(printf, 1, 2))) void say(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsay(format, args);
    va_end(args);
}

// Ends the run after a failure.  Nothing later matters, so this has no checks.
__attribute__((noreturn, used)) void die(const char *why) {
    say("FAIL %s\n", why);
    for (;;)
        asm volatile("li a7, 8; ecall" ::: "a0", "a7"); // SBI: legacy shutdown
}

__attribute__((format(printf, 3, 4), unused)) static void
check_(long got, long expected, const char *format, ...) {
    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
        ;
    checks++;
    if (got != expected && failures++ < 200) {
        va_list args;
        va_start(args, format);
        say("FAIL ");
        vsay(format, args);
        say(": expected %ld got %ld\n", expected, got);
        va_end(args);
    }
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
}
// check(got, expected, what, ...): what is a format; its numbers are longs
#define check(got, expected, ...)                                              \
    check_((long)(got), (long)(expected), __VA_ARGS__)

// The end of a group of checks: one line for all.
__attribute__((unused)) static void done(const char *group) {
    static int checks_before, failures_before;
    int failed = failures - failures_before;
    say("%s %s: %ld checks", failed ? "FAIL" : "ok", group,
        (long)(checks - checks_before));
    if (failed)
        say(", %ld failed", (long)failed);
    say("\n");
    checks_before = checks;
    failures_before = failures;
}

// --- Traps -------------------------------------------------------------------

// Notes the trap in the hart's structure.  After an exception the hart goes on
// with the next instruction, or in the caller if the instruction could not be
// fetched.  An interrupt is disabled in sie.  trapped() has to be called before
// the next exception.
__attribute__((used)) void trap(uint64_t x[32]) {
    struct hart *h = this_hart();
    struct trap t = {csr_read(scause), csr_read(sepc), csr_read(stval),
                     csr_read(sstatus)};
    if (t.cause == 8 && t.pc == (uint64_t)user_ecall) {
        csr_write(sepc, user_return);
        csr_set(sstatus, SSTATUS_SPP);
        return;
    }
    if (t.cause >> 63) {
        csr_clear(sie, 1ul << (t.cause & 63));
    } else {
        if (h->has_trapped) {
            say("cause %ld pc %ld tval %ld, after cause %ld pc %ld\n", t.cause,
                t.pc, t.tval, h->trap.cause, h->trap.pc);
            die("an exception that nobody expected");
        }
        bool fetch = t.cause == 1 || t.cause == 12; // access or page fault
        if (fetch)
            csr_write(sepc, x[1]);
        else
            csr_write(sepc, t.pc + ((*(uint16_t *)t.pc & 3) == 3 ? 4 : 2));
    }
    h->trap = t;
    h->has_trapped = true;
}

// Was there a trap since the last call?  If so, this_hart()->trap describes it.
__attribute__((unused)) static bool trapped(void) {
    struct hart *h = this_hart();
    bool yes = h->has_trapped;
    h->has_trapped = false;
    return yes;
}

// QEMU 7.2 does not show STIP in VS-mode's sip, so this takes the interrupt.
__attribute__((unused)) static bool timer_pending(void) {
    trapped();
    csr_write(sie, STIP);
    csr_set(sstatus, SSTATUS_SIE);
    csr_clear(sstatus, SSTATUS_SIE);
    csr_write(sie, 0);
    return trapped();
}

// Compares two snapshots of sbi_call().  SBI "Binary Encoding": all registers
// but a0 and a1 are preserved; "Legacy Extensions": all but a0.
__attribute__((used)) void check_call(uint64_t *before, uint64_t *after) {
    enum { A0 = 10, A1 = 11, A6 = 16, A7 = 17, F = 32, CSR = 64, SSTATUS = 68 };
    bool legacy = before[A7] <= 8;
    // A fault in the call goes to the caller and changes the last four CSRs.
    unsigned n = this_hart()->has_trapped ? SSTATUS : SSTATUS + 4;
    for (unsigned i = 0; i < n; i++)
        if (i != 0 && i != 2 && i != A0 && (i != A1 || legacy) &&
            before[i] != after[i])
            check(after[i], before[i], "ecall %ld, %ld changes %s%ld",
                  before[A7], before[A6],
                  i < F     ? "x"
                  : i < CSR ? "f"
                            : "CSR ",
                  (long)i % 32);
}

// --- Harts -------------------------------------------------------------------

// Where start.S goes on a hart that was started or resumed.
__attribute__((used)) void hart_main(struct hart *h) {
    h->run(h);
    sbi(HSM, HART_STOP);
    die("hart_stop returned");
}

__attribute__((unused)) static bool has_state(uint64_t hart, long state) {
    return sbi(HSM, HART_GET_STATUS, hart).value == state;
}

// Runs RUN on a stopped hart; join() waits until it stops again.
__attribute__((unused)) static long
run_on(uint64_t hart, void (*run)(struct hart *h), uint64_t in) {
    harts[hart].run = run;
    harts[hart].out = 0;
    harts[hart].in = in;
    return sbi(HSM, HART_START, hart, (uint64_t)entry, in).error;
}

__attribute__((unused)) static void join(uint64_t hart) {
    check(until(has_state(hart, STOPPED), PATIENCE), true,
          "hart %ld stops in time", hart);
}

// --- Begin and end -----------------------------------------------------------

// What follows NAME, like "harts=", in the device tree's boot arguments (or
// anywhere else in it); null if it isn't there.
__attribute__((unused)) static const char *argument(const char *fdt,
                                                    const char *name) {
    const uint8_t *size = (void *)(fdt + 4); // big-endian
    const char *end = fdt + (size[1] << 16 | size[2] << 8 | size[3]);
    for (const char *p = fdt; p < end; p++) {
        unsigned i = 0;
        while (name[i] && p[i] == name[i])
            i++;
        if (!name[i])
            return p + i;
    }
    return 0;
}

__attribute__((used)) void boot(uint64_t hart, const char *fdt) {
    say("here I am\n");
    main(hart, fdt);
    say("%ld checks, %ld failed\n", (long)checks, (long)failures);
    sbi(SRST, 0, 0, 0);
    die("shutdown returned");
}
