// Devices that the guest has from the host as they are.  They behave like the
// real thing because they are, and no copy of their state is kept here that
// could differ from it.  The clock needs nothing: the guest has its page.

#include "hv.h"

// The console, a 16550A.  Its registers have a byte each; QEMU's board takes
// the lowest one of a wider store.  The guest reads them without our help:
// their page is mapped for it, read-only.  A store traps, and is passed on.
bool uart_access(struct vcpu *v, struct access *a) {
    if (a->store)
        *(volatile uint8_t *)(host.uart + a->offset) = a->value;
    return a->store;
}

// SiFive's test device: see TEST_FAIL and so on.  The hart that ends the
// machine by it must be out of the guest, too, so it does not go back.
bool test_access(struct vcpu *v, struct access *a) {
    uint16_t what = a->value;
    if (a->store && host.test && !a->offset &&
        (what == TEST_FAIL || what == TEST_PASS || what == TEST_RESET)) {
        stop_others(v);
        shut_down(a->value);
    }
    return host.test;
}
