// This hart sleeps for one second, three times: while the other one is stopped;
// while it is stopped and the PLIC has an interrupt for it; while it runs.  It
// says when each second begins and ends.
#include "guest.h"

#define W(address) (*(volatile uint32_t *)(address))

static void nothing(struct hart *h) { h->out = 1; }

static void spin(struct hart *h) {
    while (h->in)
        ;
    h->out = 1;
}

static void second(const char *what) {
    say("begin %s\n", what);
    uint64_t end = now() + 1000 * MS;
    csr_write(sie, STIP);
    while (now() < end) {
        sbi(TIME, 0, end);
        wfi();
    }
    csr_write(sie, 0);
    say("end %s\n", what);
}

int main(uint64_t hart, const char *fdt) {
    (void)fdt;
    uint64_t other = 1 - hart, context = 2 * other + 1;
    check(run_on(other, nothing, 0), OK, "start the other one");
    join(other);
    second("stopped");
    W(0xc200000 + 0x1000 * context) = 0; // threshold
    W(0xc002000 + 0x80 * context) = 1 << 10;
    W(0xc000000 + 4 * 10) = 1;
    *(volatile uint8_t *)0x10000001 = 2; // IER: the transmitter is empty
    check(until(W(0xc001000) >> 10 & 1, PATIENCE), true, "it is pending");
    second("pending");
    check(W(0xc001000) >> 10 & 1, 1, "it is still pending");
    W(0xc002000 + 0x80 * context) = 0;
    check(run_on(other, spin, 1), OK, "start the other one");
    second("running");
    harts[other].in = 0;
    join(other);
    return 0;
}
