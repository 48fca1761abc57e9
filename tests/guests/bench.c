// What one VM exit costs: each loop repeats one kind of access.  Prints lines
// "bench NAME: NANOSECONDS"; each figure is the least of five runs, because the
// machine has other things to do.  Without the hypervisor none of these
// accesses is an exit.
#include "guest.h"

enum { ROUNDS = 10000, NS = 100 }; // ns in a tick of the timebase

#define figure(name, ...)                                                      \
    ({                                                                         \
        uint64_t least = -1;                                                   \
        for (unsigned times = 0; times < 5; times++) {                         \
            uint64_t start = now();                                            \
            for (unsigned i = 0; i < ROUNDS; i++)                              \
                __VA_ARGS__;                                                   \
            uint64_t took = now() - start;                                     \
            least = took < least ? took : least;                               \
        }                                                                      \
        say("bench " name ": %ld\n", least *NS / ROUNDS);                      \
    })

int main(uint64_t hart, const char *fdt) {
    volatile uint8_t *uart = (void *)0x10000000ul;
    volatile uint32_t *plic = (void *)0x0c000000ul;
    figure("exit: SBI call, base extension", quick_sbi(BASE, 0, 0, 0));
    figure("exit: UART, a store", uart[7] = i); // the scratch register
    figure("exit: PLIC, a load",
           (void)plic[0x200000 / 4]);            // M-mode's threshold
    figure("exit: PLIC, a store", plic[63] = 0); // a priority
    say("bench done\n");
    return 0;
}
