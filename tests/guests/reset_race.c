// One hart resets the machine while another one starts a third, over and over.
// If the third was started before the reset, it has to be stopped, too; if it
// was not, it must not start any more.  While it runs it types Q.
#include "guest.h"

static volatile bool go;
static uint64_t me;

static uint64_t hart_after(uint64_t n) { return (me + n) % 4; }

static void type(struct hart *h) {
    h->out = 1;
    for (;;)
        put('Q');
}

static void spin(struct hart *h) {
    h->out = 1;
    for (;;)
        ;
}

static void start(struct hart *h) {
    harts[hart_after(1)].run = type;
    h->out = 1;
    while (!go)
        ;
    for (;;)
        quick_sbi(HSM, HART_START, hart_after(1), (uint64_t)entry);
}

int main(uint64_t hart, const char *fdt) {
    (void)fdt;
    me = hart;
    check(run_on(hart_after(2), spin, 0), OK, "start a hart");
    check(run_on(hart_after(3), start, 0), OK, "start a hart");
    check(until(harts[hart_after(2)].out && harts[hart_after(3)].out, PATIENCE),
          true, "two harts run");
    say("reset\n");
    go = true;
    asm volatile("fence");
    sbi(SRST, 0, 1, 0);
    die("the reset returned");
}
