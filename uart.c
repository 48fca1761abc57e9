// The console.  The guest's 16550A is the host's: its FIFOs, its interrupt
// priorities, its modem lines are those of the real thing, and no copy of its
// state is kept here that could differ from it.
//
// The guest reads the registers without our help: their page is mapped for it,
// read-only.  A store traps, and is passed on.  The interrupt stays claimed at
// the host until the guest has dealt with it (plic.c).

#include "hv.h"

bool uart_write(struct vcpu *v, const struct access *a) {
    *(volatile uint8_t *)(host.uart.base + a->offset) = a->value;
    return true;
}

void uart_init(uint64_t hart) {
    map_guest(GUEST_UART, (void *)host.uart.base, PAGE, PTE_R);
    plic_host_enable(hart, host.uart.irq);
}
