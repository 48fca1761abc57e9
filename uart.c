// The guest's 16550A (16550 sections 8.1 to 8.11) in front of the host's.
//
// What the guest transmits goes straight into the host's transmitter, whose
// FIFO and whose "transmitter holding register empty" the guest uses as if they
// were its own.  What the host receives is moved into a FIFO here, so that the
// guest may switch FIFOs, loop back, or leave its input alone as it likes.

#include "hv.h"

// Registers.  Two share an offset, one to read and one to write; DLL and DLM
// stand at 0 and 1 for the guest, see select().
enum { UART_RX, UART_IER, UART_IIR, UART_LCR, UART_MCR, UART_LSR, UART_MSR };
enum { UART_TX = 0, UART_FCR = 2, UART_DLL = 8, UART_DLM = 9 };

enum {
    UART_IER_RDI = 1,
    UART_IER_THRI = 2
}; // data received; transmitter empty
enum { UART_IER_RLSI = 4, UART_IER_MSI = 8 }; // line status; modem status
enum { UART_IIR_MSI = 0, UART_IIR_NO_INT = 1, UART_IIR_THRI = 2 };
enum { UART_IIR_RDI = 4, UART_IIR_RLSI = 6, UART_IIR_RX_TIMEOUT = 12 };
enum { UART_IIR_FIFO = 0xc0 };
enum { UART_FCR_ENABLE_FIFO = 1, UART_FCR_CLEAR_RCVR = 2 };
enum { UART_LCR_WLEN8 = 3, UART_LCR_DLAB = 0x80, UART_MCR_LOOP = 0x10 };
enum { UART_LSR_DR = 1, UART_LSR_OE = 2, UART_LSR_EMPTY = 0x60 }; // THRE, TEMT
enum { UART_MSR_TERI = 4, UART_MSR_DCD_DSR_CTS = 0xb0 };

static uint8_t reg[10];      // what was last written at each offset
static uint8_t msr_delta;    // the modem lines that changed since MSR was read
static bool thr_filled;      // THRE's coming up is still to be seen
static bool thre_interrupt;  // THRE came up, and the guest has not been told
static bool overrun;         // a received character was lost
static uint8_t fifo[16];     // received characters
static unsigned head, count; // where the oldest stands, and how many there are
static uint8_t host_ier;     // what stands in the host's IER

// The divisor takes the place of two other registers while LCR.DLAB is set.
static uint64_t select(uint64_t offset) {
    bool dlab = reg[UART_LCR] & UART_LCR_DLAB;
    return dlab && offset < 2 ? UART_DLL + offset : offset;
}

static unsigned capacity(void) {
    return reg[UART_FCR] & UART_FCR_ENABLE_FIFO ? sizeof fifo : 1;
}

static bool looping(void) {
    return reg[UART_MCR] & UART_MCR_LOOP;
}

static void receive(uint8_t c) {
    if (count < capacity())
        fifo[(head + count++) % sizeof fifo] = c;
    else
        overrun = true;
}

// MSR's upper half.  The board's lines are always up: carrier, data set ready,
// clear to send.  In a loop they are MCR's outputs: DTR, RTS, OUT1, OUT2.
static uint8_t modem_lines(void) {
    uint8_t mcr = reg[UART_MCR];
    if (!looping())
        return UART_MSR_DCD_DSR_CTS;
    return (mcr & 1) << 5 | (mcr & 2) << 3 | (mcr & 0xc) << 4;
}

// IIR without the FIFO bits: the most urgent of what is pending and enabled.
// Fewer characters than the trigger level are to wait for the time of four more
// before they are reported as a time-out; here that time is zero.
static uint8_t pending(void) {
    static const uint8_t trigger[4] = {1, 4, 8, 14};
    uint8_t ier = reg[UART_IER];
    if (ier & UART_IER_RLSI && overrun)
        return UART_IIR_RLSI;
    if (ier & UART_IER_RDI && count)
        return capacity() > 1 && count < trigger[reg[UART_FCR] >> 6]
                   ? UART_IIR_RX_TIMEOUT
                   : UART_IIR_RDI;
    if (ier & UART_IER_THRI && thre_interrupt)
        return UART_IIR_THRI;
    if (ier & UART_IER_MSI && msr_delta)
        return UART_IIR_MSI;
    return UART_IIR_NO_INT;
}

static uint8_t lsr(void) {
    uint8_t transmitter = looping() ? UART_LSR_EMPTY : host.uart[UART_LSR];
    return (transmitter & UART_LSR_EMPTY) | (count ? UART_LSR_DR : 0) |
           (overrun ? UART_LSR_OE : 0);
}

// The interrupt line follows IIR, but only at the moments at which this is
// called: when the guest writes a register, reads one that takes an interrupt
// back, or a character arrives.  Reading LSR is none of them: a driver that
// polls it with its interrupt enabled would hear of each character twice.
static void update_line(void) {
    plic_set_line(GUEST_UART_SOURCE, pending() != UART_IIR_NO_INT);
}

// Moves what the host has received as far as there is room for it, sees whether
// the transmitter is empty again, and lets the host interrupt us for what we
// now wait for and for nothing else.
void uart_poll_host(void) {
    while (count < capacity() && host.uart[UART_LSR] & UART_LSR_DR)
        receive(host.uart[UART_RX]);
    if (thr_filled && lsr() & UART_LSR_EMPTY) {
        thr_filled = false;
        thre_interrupt = true;
    }
    uint8_t wanted = (count < capacity() ? UART_IER_RDI : 0) |
                     (thr_filled ? reg[UART_IER] & UART_IER_THRI : 0);
    if (wanted != host_ier)
        host.uart[UART_IER] = host_ier = wanted;
    update_line();
}

// The next received character, or -1.
int uart_get_char(void) {
    if (!count)
        return -1;
    uint8_t c = fifo[head++ % sizeof fifo];
    count--;
    uart_poll_host(); // now there is room for another one
    return c;
}

bool uart_read(struct vcpu *v, uint64_t offset, unsigned width,
               uint64_t *value) {
    offset = select(offset);
    *value = reg[offset];
    switch (offset) {
    case UART_RX: *value = count ? uart_get_char() : 0; break;
    case UART_IIR:
        *value = pending() | (capacity() > 1 ? UART_IIR_FIFO : 0);
        if (pending() == UART_IIR_THRI)
            thre_interrupt = false;
        break;
    case UART_LSR:
        *value = lsr();
        overrun = false;
        return true;
    case UART_MSR:
        *value = modem_lines() | msr_delta;
        msr_delta = 0;
        break;
    default: break;
    }
    update_line();
    return true;
}

bool uart_write(struct vcpu *v, uint64_t offset, unsigned width,
                uint64_t value) {
    static const uint8_t writable[] = {0, 0xf, 0xc1, 0xff, 0x1f,
                                       0, 0,   0xff, 0xff, 0xff};
    offset = select(offset);
    uint8_t lines = modem_lines(), before = reg[offset];
    reg[offset] = value & writable[offset];
    switch (offset) {
    case UART_TX:
        thre_interrupt = false;
        thr_filled = true;
        if (looping())
            receive(value);
        else
            host.uart[UART_TX] = value;
        break;
    case UART_IER: // enabling THRI while THRE is up counts as its coming up
        thr_filled |= value & ~before & UART_IER_THRI;
        break;
    case UART_FCR:
        if ((value ^ before) & UART_FCR_ENABLE_FIFO ||
            value & UART_FCR_CLEAR_RCVR)
            count = 0;
        break;
    case UART_MCR: // the ring indicator counts only when it ends: TERI
        msr_delta |= (lines ^ modem_lines()) >> 4 &
                     ~(modem_lines() >> 4 & UART_MSR_TERI);
        break;
    default: break;
    }
    // Printing with interrupts off, as a console does, needs no look at the
    // host.
    if (offset != UART_TX || reg[UART_IER] & UART_IER_THRI)
        uart_poll_host();
    update_line();
    return true;
}

void uart_init(void) {
    host.uart[UART_LCR] = UART_LCR_WLEN8; // and no DLAB
    host.uart[UART_FCR] = UART_FCR_ENABLE_FIFO;
    uart_poll_host();
}
