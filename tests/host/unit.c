#include "unit.h"

int test_mmio(void), test_mem(void), test_devices(void), test_virtio(void);
int test_sbi(void), test_boot(void);

int main(void) {
    make_machine();
    return test_mmio() + test_mem() + test_devices() + test_virtio() +
           test_sbi() + test_boot();
}
