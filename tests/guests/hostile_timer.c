// The timer at its edges: in the past, never, just now, very often.  And WFI:
// with nothing pending it sleeps until a later timer, whether or not the guest
// takes interrupts; with an interrupt already pending it does not sleep.
#include "guest.h"

static const uint64_t past[] = {0, 1, 1000};
static const uint64_t never[] = {-1ul, -2ul, 1ul << 63, (1ul << 63) - 1};

static void set(uint64_t when) {
    check(sbi(TIME, 0, when).error, OK, "set_timer %ld", when);
}

static void test_sleep(bool taken) {
    for (uint64_t i = 0; i < 200; i++) {
        uint64_t when = now() + i * 100;
        set(when);
        csr_write(sie, STIP);
        do {
            wfi(); // may end early; then it is done again
            if (taken)
                csr_set(sstatus, SSTATUS_SIE);
            csr_clear(sstatus, SSTATUS_SIE);
        } while (!*&this_hart()->has_trapped && now() < when);
        check(now() >= when, true, "slept %ld ticks", i * 100);
        trapped();
        csr_write(sie, 0);
    }
    for (unsigned i = 0; i < LENGTH(past); i++) { // pending: no sleep
        set(past[i]);
        csr_write(sie, STIP);
        wfi();
        check(timer_pending(), true, "pending after WFI and set_timer %ld",
              past[i]);
    }
    set(-1);
}

static void test_storm(void) {
    csr_set(sstatus, SSTATUS_SIE);
    uint64_t taken = 0;
    for (uint64_t i = 0; i < 20000; i++) {
        csr_write(sie, STIP | SSIP); // trap() switches off what it has taken
        quick_sbi(TIME, 0, i % 3 == 0 ? 0 : now() + i % 3 * 2, 0);
        quick_sbi(IPI, 0, 0, -1); // to all
        taken += trapped();
        csr_clear(sip, SSIP);
    }
    check(taken > 10000, true, "%ld timer interrupts and IPIs of 20000", taken);
    csr_clear(sstatus, SSTATUS_SIE);
    csr_write(sie, 0);
}

int main(uint64_t hart, const char *fdt) {
    (void)hart, (void)fdt;
    for (unsigned i = 0; i < LENGTH(never); i++) {
        set(0);
        check(until(timer_pending(), PATIENCE), true, "STIP");
        set(never[i]);
        check(timer_pending(), false, "STIP after set_timer %ld", never[i]);
    }
    done("edges");
    test_sleep(false);
    test_sleep(true);
    done("sleep");
    test_storm();
    done("storm");
    // This machine has no CLINT: a store to its timer's address sets no timer.
    set(-1);
    uint64_t *mtimecmp = (uint64_t *)(0x2004000 + 8 * hart);
    trapped();
    *mtimecmp = 0;
    check(trapped() ? this_hart()->trap.cause : 0, 7, "a store to mtimecmp");
    until(false, 5);
    check(timer_pending(), false, "STIP after it");
    uint64_t when = now() + 20 * MS;
    set(when);
    *mtimecmp = now() + 1;
    check(trapped() ? this_hart()->trap.cause : 0, 7, "a store to mtimecmp");
    check(until(timer_pending(), PATIENCE), true, "STIP at its time");
    check(now() >= when, true, "no STIP before its time");
    set(-1);
    check(timer_pending(), false, "STIP after set_timer -1");
    done("clint");
    return 0;
}
