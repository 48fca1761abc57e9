// The guest's 16550A (16550 sections 8.1 to 8.11) in front of the host's.
//
// What the guest transmits goes straight into the host's transmitter, whose
// FIFO and whose "transmitter holding register empty" the guest uses as if they
// were its own.  What the host receives is moved into a FIFO here, for then the
// guest may switch FIFOs, loop back or leave its input alone as it likes.

#include "hv.h"

// Registers.  Two share an offset: one to read, one to write; DLL and DLM stand
// at offsets 0 and 1 while LCR.DLAB is set.
#define UART_RX 0
#define UART_TX 0
#define UART_IER 1
#define UART_IIR 2
#define UART_FCR 2
#define UART_LCR 3
#define UART_MCR 4
#define UART_LSR 5
#define UART_MSR 6
#define UART_SCR 7

#define UART_IER_RDI 1u  // received data available
#define UART_IER_THRI 2u // transmitter holding register empty
#define UART_IER_RLSI 4u // receiver line status
#define UART_IER_MSI 8u  // modem status
#define UART_IIR_MSI 0u
#define UART_IIR_NO_INT 1u
#define UART_IIR_THRI 2u
#define UART_IIR_RDI 4u
#define UART_IIR_RLSI 6u
#define UART_IIR_RX_TIMEOUT 12u
#define UART_IIR_FIFO 0xc0u
#define UART_FCR_ENABLE_FIFO 1u
#define UART_FCR_CLEAR_RCVR 2u
#define UART_LCR_DLAB 0x80u
#define UART_MCR_LOOP 0x10u
#define UART_LSR_DR 1u
#define UART_LSR_OE 2u
#define UART_LSR_THRE 0x20u
#define UART_LSR_TEMT 0x40u
#define UART_MSR_TERI 4u

static uint8_t ier, fcr, lcr, mcr, scr, dll, dlm;
static uint8_t msr_delta; // the modem lines that changed since MSR was read
static bool thr_filled;   // THRE is down, or its coming up is still to be seen
static bool thre_interrupt;  // THRE came up, and the guest has not been told
static bool overrun;         // a character was lost
static uint8_t fifo[16];     // received characters
static unsigned head, count; // where the oldest stands, and how many there are
static uint8_t host_ier;     // what stands in the host's IER

static uint8_t host_lsr(void) {
    return host.uart[UART_LSR];
}

static unsigned capacity(void) {
    return fcr & UART_FCR_ENABLE_FIFO ? sizeof fifo : 1;
}

static void receive(uint8_t c) {
    if (count < capacity())
        fifo[(head + count++) % sizeof fifo] = c;
    else
        overrun = true;
}

// What stands in MSR's upper half.  The board's lines are always up: carrier,
// data set ready, clear to send.  In a loop they are MCR's own outputs.
static uint8_t modem_lines(void) {
    if (!(mcr & UART_MCR_LOOP))
        return 0xb0;
    return (mcr & 1) << 5 | (mcr & 2) << 3 | (mcr & 0xc) << 4;
}

// IIR without the FIFO bits: the most urgent of what is pending and enabled.
// The data sheet lets fewer characters than the trigger level wait for the time
// of four before it reports them as a time-out; here that time is zero.
static uint8_t pending(void) {
    static const uint8_t trigger[4] = {1, 4, 8, 14};
    bool full = capacity() == 1 || count >= trigger[fcr >> 6];
    if (ier & UART_IER_RLSI && overrun)
        return UART_IIR_RLSI;
    if (ier & UART_IER_RDI && count)
        return full ? UART_IIR_RDI : UART_IIR_RX_TIMEOUT;
    if (ier & UART_IER_THRI && thre_interrupt)
        return UART_IIR_THRI;
    if (ier & UART_IER_MSI && msr_delta)
        return UART_IIR_MSI;
    return UART_IIR_NO_INT;
}

// Moves what the host has received as far as there is room for it, sees whether
// the transmitter is empty again, and lets the host interrupt us for what we
// wait for now and for nothing else.
static void pump(void) {
    uint8_t lsr = host_lsr();
    for (; count < capacity() && lsr & UART_LSR_DR; lsr = host_lsr())
        receive(host.uart[UART_RX]);
    if (thr_filled && (mcr & UART_MCR_LOOP || lsr & UART_LSR_THRE)) {
        thr_filled = false;
        thre_interrupt = true;
    }
    uint8_t wanted = (count < capacity() ? UART_IER_RDI : 0) |
                     (thr_filled ? ier & UART_IER_THRI : 0);
    if (wanted != host_ier)
        host.uart[UART_IER] = host_ier = wanted;
}

// The interrupt line follows IIR, but we look only at the moments at which a
// 16550's line can change.  Reading LSR is not one of them: a driver that polls
// THRE with its interrupt enabled would be told of each character twice.
static void update_line(void) {
    plic_set_line(GUEST_UART_SOURCE, pending() != UART_IIR_NO_INT);
}

void uart_host_interrupt(void) {
    pump();
    update_line();
}

// The next received character, or -1.
int uart_get_char(void) {
    if (!count)
        return -1;
    uint8_t c = fifo[head];
    head = (head + 1) % sizeof fifo;
    count--;
    uart_host_interrupt(); // there is room for another one
    return c;
}

static void transmit(uint8_t c) {
    thre_interrupt = false;
    thr_filled = true;
    if (mcr & UART_MCR_LOOP)
        receive(c);
    else
        host.uart[UART_TX] = c;
}

static void write_fcr(uint8_t value) {
    bool toggled = (fcr ^ value) & UART_FCR_ENABLE_FIFO;
    fcr = value & UART_FCR_ENABLE_FIFO ? value & 0xc1 : 0;
    if (toggled || value & UART_FCR_CLEAR_RCVR)
        count = 0;
}

static void write_mcr(uint8_t value) {
    uint8_t before = modem_lines();
    mcr = value & 0x1f;
    uint8_t changed = (before ^ modem_lines()) >> 4;
    // The ring indicator counts only when it ends: TERI, the trailing edge.
    if (modem_lines() >> 4 & UART_MSR_TERI)
        changed &= ~UART_MSR_TERI;
    msr_delta |= changed;
}

bool uart_read(struct vcpu *v, uint64_t offset, unsigned width,
               uint64_t *value) {
    (void)v;
    if (width != 1)
        return false;
    bool dlab = lcr & UART_LCR_DLAB;
    switch (offset) {
    case UART_RX: *value = dlab ? dll : count ? uart_get_char() : 0; break;
    case UART_IER: *value = dlab ? dlm : ier; break;
    case UART_IIR:
        *value = pending();
        if (*value == UART_IIR_THRI)
            thre_interrupt = false;
        if (fcr & UART_FCR_ENABLE_FIFO)
            *value |= UART_IIR_FIFO;
        update_line();
        break;
    case UART_LCR: *value = lcr; break;
    case UART_MCR: *value = mcr; break;
    case UART_LSR:
        *value = (mcr & UART_MCR_LOOP
                      ? UART_LSR_THRE | UART_LSR_TEMT
                      : host_lsr() & (UART_LSR_THRE | UART_LSR_TEMT)) |
                 (count ? UART_LSR_DR : 0) | (overrun ? UART_LSR_OE : 0);
        if (overrun) {
            overrun = false;
            update_line();
        }
        break;
    case UART_MSR:
        *value = modem_lines() | msr_delta;
        msr_delta = 0;
        update_line();
        break;
    case UART_SCR: *value = scr; break;
    default: return false;
    }
    return true;
}

bool uart_write(struct vcpu *v, uint64_t offset, unsigned width,
                uint64_t value) {
    (void)v;
    if (width != 1)
        return false;
    bool dlab = lcr & UART_LCR_DLAB;
    switch (offset) {
    case UART_TX:
        if (dlab)
            dll = value;
        else
            transmit(value);
        break;
    case UART_IER:
        if (dlab) {
            dlm = value;
        } else {
            thr_filled |= value & ~ier & UART_IER_THRI;
            ier = value & 0xf;
        }
        break;
    case UART_FCR: write_fcr(value); break;
    case UART_LCR: lcr = value; break;
    case UART_MCR: write_mcr(value); break;
    case UART_LSR: break; // read-only
    case UART_MSR: break;
    case UART_SCR: scr = value; break;
    default: return false;
    }
    if (ier & UART_IER_THRI || !(host_ier & UART_IER_RDI))
        pump();
    update_line();
    return true;
}

void uart_init(void) {
    host.uart[UART_LCR] = 3; // eight bits, no parity; and DLAB off
    host.uart[UART_FCR] = UART_FCR_ENABLE_FIFO;
    pump();
}
