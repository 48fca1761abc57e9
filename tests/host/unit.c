#include "unit.h"
#include <unistd.h>

int test_mmio(void), test_mem(void), test_devices(void), test_virtio(void);
int test_sbi(void), test_boot(void), test_hv(void), test_mmode(void);

// The compiler puts calls to the functions below before each load and store
// (-fsanitize-coverage=func,trace-loads,trace-stores).  They call this.
void (*at_access)(bool store, const volatile void *at, unsigned width);

#define UNTRACED __attribute__((no_sanitize("coverage")))
UNTRACED static void traced(bool store, const volatile void *at,
                            unsigned width) {
    static bool inside; // at_access()'s own accesses don't count
    if (!at_access || inside)
        return;
    inside = true;
    at_access(store, at, width);
    inside = false;
}
#define TRACED(n)                                                              \
    UNTRACED void __sanitizer_cov_load##n(void *at) { traced(false, at, n); }  \
    UNTRACED void __sanitizer_cov_store##n(void *at) { traced(true, at, n); }  \
    _Static_assert(n <= 16, "of what the compiler knows")
TRACED(1);
TRACED(2);
TRACED(4);
TRACED(8);
TRACED(16);

int main(void) {
    alarm(60); // an endless walk is a failure, too
    make_machine();
    return test_mmio() + test_mem() + test_devices() + test_virtio() +
           test_sbi() + test_boot() + test_hv() + test_mmode();
}
