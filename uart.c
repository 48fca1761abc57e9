// Devices that the guest gets from the host as they are.  So we keep no copy of
// their state that could be wrong.  For the clock (RTC) there is nothing to do
// here: the guest reads and writes its page.

#include "hv.h"

// The console, a 16550A with eight registers of one byte.  The guest reads them
// without our help, because their page is mapped for it, read-only.  A store
// traps, and we pass it on.  Of a wider store QEMU's board takes the lowest
// byte, and so do we.
bool uart_access(struct vcpu *v, struct access *a) {
    if (a->store)
        *(volatile uint8_t *)(host.uart + a->offset) = a->value;
    return a->store; // loads don't get here
}

// SiFive's test device, by which a guest ends or restarts the machine
// (TEST_FAIL and so on).  Before that all other harts must be out of the guest,
// see stop_others().  V is out of it, too, as shut_down() does not return.
bool test_access(struct vcpu *v, struct access *a) {
    uint16_t what = a->value;
    if (a->store && host.test && !a->offset &&
        (what == TEST_FAIL || what == TEST_PASS || what == TEST_RESET)) {
        stop_others(v);
        shut_down(a->value);
    }
    return host.test;
}
