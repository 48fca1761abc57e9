// Storms on the registers of the UART and of the interrupt controller.  The
// guest must not lose either of them for good.
#include "guest.h"

#define W(address) (*(volatile uint32_t *)(address))
#define B(address) (*(volatile uint8_t *)(address))
#define PLIC 0xc000000ul
#define UART 0x10000000ul
enum { ENABLE = 0x2000, CONTEXT = 0x200000, CLAIM = 4 };

static uint64_t context; // the hart's own

static uint64_t reg(uint64_t offset, uint64_t size) {
    return PLIC + offset + context * size;
}

// Registers of contexts that do not exist, or are not the guest's, read as
// zero.
static void test_contexts(uint64_t harts_here) {
    for (uint64_t c = 0; c < 15872; c++) {
        bool ours = c % 2 && c / 2 < harts_here;
        uint64_t at = PLIC + CONTEXT + c * 0x1000;
        if (ours || at >= PLIC + 0x600000)
            continue;
        W(at) = 3;
        W(at + CLAIM) = c;
        check(W(at), 0, "threshold of context %ld", c);
        check(W(at + CLAIM), 0, "claim of context %ld", c);
        W(PLIC + ENABLE + c * 0x80) = -1;
        W(PLIC + ENABLE + c * 0x80 + 0x7c) = -1;
        if (c % 2 == 0 && c < 2 * harts_here) // M-mode's
            check(W(PLIC + ENABLE + c * 0x80), 0, "enables of context %ld", c);
    }
    check(trapped(), false, "any trap");
    done("contexts");
}

static void test_sources(void) {
    static const uint32_t sources[] = {0,  1,  8,   10,  11,   31,   32, 53,
                                       95, 96, 127, 128, 1023, 1024, -1};
    for (unsigned i = 0; i < LENGTH(sources); i++) {
        uint32_t s = sources[i];
        if (s < 1024) {
            W(PLIC + 4 * s) = -1;
            W(reg(ENABLE, 0x80) + s / 32 * 4) |= 1u << s % 32;
        }
        W(reg(CONTEXT + CLAIM, 0x1000)) = s; // was never claimed
    }
    for (uint64_t at = PLIC; at < PLIC + 0x2000; at += 4) // and pending bits
        W(at) = at < PLIC + 0x1000 ? 7 : -1;
    for (uint64_t i = 0; i < 20000; i++) {
        W(reg(CONTEXT + CLAIM, 0x1000)) = i % 1100;
        uint32_t claimed = W(reg(CONTEXT + CLAIM, 0x1000));
        check(claimed < 96, true, "claimed %ld", (long)claimed);
    }
    check(trapped(), false, "any trap");
    done("sources");
}

// Claims the UART's interrupt, deals with it and completes it.  Was there one?
static bool claim(void) {
    volatile uint32_t *claim = &W(reg(CONTEXT + CLAIM, 0x1000));
    if (*claim != 10)
        return false;
    (void)B(UART + 2); // reading IIR takes it back
    *claim = 10;
    return true;
}

// Claims the UART's interrupt, which its empty transmitter raises, N times.
static uint64_t take(uint64_t n) {
    uint64_t taken = 0;
    for (uint64_t i = 0; i < n; i++) {
        B(UART + 1) = 0, B(UART + 1) = 2; // IER: asks again
        taken += until(claim(), 100);
    }
    B(UART + 1) = 0;
    return taken;
}

static void quiet(void) { // only the UART's source
    for (uint64_t i = 0; i < 32; i++)
        W(reg(ENABLE, 0x80) + 4 * i) = 0;
    W(reg(CONTEXT, 0x1000)) = 0;
    for (uint32_t i = 0; i < 96; i++)
        W(reg(CONTEXT + CLAIM, 0x1000)) = i;
    W(PLIC + 4 * 10) = 1;
    W(reg(ENABLE, 0x80)) = 1 << 10;
}

static void test_uart(void) {
    uint64_t x = 88172645463325252;
    say("a storm on the UART\n");
    for (uint64_t i = 0; i < 20000; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        uint64_t r = x >> 20 & 7;
        if (r != 0 || B(UART + 3) & 0x80)        // print nothing
            B(UART + r) = r == 4 ? x & 0xef : x; // MCR: no loopback
        (void)B(UART + (x >> 24 & 7));
    }
    B(UART + 3) = 0x80, B(UART) = 3, B(UART + 1) = 0; // divisor
    B(UART + 3) = 3, B(UART + 4) = 0, B(UART + 2) = 7, B(UART + 1) = 0;
    check(trapped(), false, "any trap");
    done("uart");
}

// Nobody handles the interrupt, so it stays.  The guest must still get on.
static void test_storm(struct hart *h) {
    uint64_t n = 0;
    W(reg(CONTEXT, 0x1000)) = 0;
    B(UART + 1) = 0, B(UART + 1) = 2;
    csr_set(sstatus, SSTATUS_SIE);
    for (uint64_t end = now() + 200 * MS; now() < end; n++) {
        csr_set(sie, SEIP); // trap() has switched it off
        check(until(trapped(), 1000), true, "interrupt %ld", n);
        check(h->trap.cause, 1ul << 63 | 9, "its cause");
        if (n % 8 == 7) // claimed, but never completed until quiet()
            quiet(), B(UART + 1) = 0, B(UART + 1) = 2;
    }
    csr_clear(sstatus, SSTATUS_SIE);
    csr_write(sie, 0);
    done("storm");
}

// Another hart claims from our context, whenever it can.
static volatile bool enough;
static void steal(struct hart *h) {
    while (!enough)
        h->out += claim();
}

static uint64_t ours, in_vain; // claims of this hart, after an interrupt
static void claim_if_trapped(void) {
    if (!trapped())
        return;
    *(claim() ? &ours : &in_vain) += 1;
    csr_set(sie, SEIP); // trap() has switched it off
}

// So an interrupt may be gone when we come to claim it.  Then it must no longer
// be shown to us, and none may be lost.
static void test_thief(uint64_t other) {
    uint64_t rounds = 0;
    volatile uint64_t *theirs = &harts[other].out;
    take(1); // what may still be there
    run_on(other, steal, 0);
    csr_set(sstatus, SSTATUS_SIE);
    csr_set(sie, SEIP);
    for (; rounds < 3000; rounds++) {
        B(UART + 1) = 0, B(UART + 1) = 2;
        check(until((claim_if_trapped(), ours + *theirs > rounds), 1000), true,
              "interrupt %ld, with a thief", rounds);
    }
    csr_clear(sstatus, SSTATUS_SIE);
    csr_write(sie, 0);
    enough = true;
    join(other);
    B(UART + 1) = 0;
    check(ours + *theirs, rounds, "interrupts in all");
    check(in_vain <= *theirs, true, "in vain, of those that were stolen");
    say("of %ld interrupts %ld were stolen, %ld of them at the last moment\n",
        rounds, *theirs, in_vain);
    done("thief");
}

int main(uint64_t hart, const char *fdt) {
    uint64_t harts_here = argument(fdt, "harts=")[0] - '0';
    context = 2 * hart + 1;
    test_contexts(harts_here);
    quiet();
    check(take(20), 20, "interrupts of the UART before");
    test_sources();
    quiet();
    check(take(20), 20, "interrupts of the UART after a storm on the PLIC");
    test_uart();
    quiet();
    check(take(20), 20, "interrupts of the UART after its own storm");
    test_storm(this_hart());
    quiet();
    if (harts_here > 1)
        test_thief(1 - hart);
    quiet();
    check(take(20), 20, "interrupts of the UART at the end");
    return 0;
}
