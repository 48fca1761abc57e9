// The console.  The guest's 16550A is the host's: its FIFOs, its interrupt
// priorities, its modem lines are those of the real thing, and no copy of its
// state is kept here that could differ from it.
//
// The guest reads the registers without our help: their page is mapped for it,
// read-only.  A store traps, and is passed on.

#include "hv.h"

bool uart_access(struct vcpu *v, struct access *a) {
    if (a->store)
        *(volatile uint8_t *)(host.uart + a->offset) = a->value;
    return a->store;
}
