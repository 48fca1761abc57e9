#include "unit.h"
#include <unistd.h>

int test_mmio(void), test_mem(void), test_devices(void), test_virtio(void);
int test_sbi(void), test_boot(void);

int main(void) {
    alarm(60); // a walk without an end is a failure, too
    make_machine();
    return test_mmio() + test_mem() + test_devices() + test_virtio() +
           test_sbi() + test_boot();
}
