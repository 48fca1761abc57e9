// The hypervisor's own voice: printf and panic, on the firmware's console.

#include "hv.h"
#include <stdarg.h>

// A call to the firmware, the SBI implementation below us.
struct sbiret host_sbi(uint64_t extension, uint64_t function, uint64_t arg0,
                       uint64_t arg1, uint64_t arg2) {
    register uint64_t a0 asm("a0") = arg0, a1 asm("a1") = arg1,
                         a2 asm("a2") = arg2, a6 asm("a6") = function,
                         a7 asm("a7") = extension;
    asm volatile("ecall"
                 : "+r"(a0), "+r"(a1)
                 : "r"(a2), "r"(a6), "r"(a7)
                 : "memory");
    return (struct sbiret){a0, a1};
}

static void put_char(char c) {
    if (c == '\n')
        host_sbi(SBI_LEGACY_PUTCHAR, 0, '\r', 0, 0);
    host_sbi(SBI_LEGACY_PUTCHAR, 0, c, 0, 0);
}

static void put_number(uint64_t n, unsigned base) {
    if (n >= base)
        put_number(n / base, base);
    put_char("0123456789abcdef"[n % base]);
}

// %s is a string, %ld an unsigned long, %lx one in hexadecimal.
static void print(const char *format, va_list args) {
    for (; *format; format++) {
        if (*format != '%') {
            put_char(*format);
        } else if (*++format == 's') {
            for (const char *s = va_arg(args, const char *); *s; s++)
                put_char(*s);
        } else {
            put_number(va_arg(args, uint64_t), *++format == 'x' ? 16 : 10);
        }
    }
}

// The firmware prints on the UART that the guest owns, which may be looping its
// output back, or have the divisor in the place of the transmitter.
void printf(const char *format, ...) {
    static uint8_t none[8]; // as long as we do not know where the UART is
    volatile uint8_t *uart = host.uart.base ? (void *)host.uart.base : none;
    uint8_t lcr = uart[UART_LCR], mcr = uart[UART_MCR];
    uart[UART_LCR] = lcr & ~UART_LCR_DLAB;
    uart[UART_MCR] = mcr & ~UART_MCR_LOOP;
    va_list args;
    va_start(args, format);
    print(format, args);
    va_end(args);
    uart[UART_LCR] = lcr;
    uart[UART_MCR] = mcr;
}

// The end, because the machine or the guest's files are not as they must be, or
// because of a bug of ours.  Never for anything that a running guest does.
_Noreturn void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    printf("hv: ");
    print(format, args);
    printf("\n");
    host_sbi(SBI_EXT_SRST, 0, SBI_SRST_SHUTDOWN, SBI_SRST_SYSTEM_FAILURE, 0);
    for (;;)
        asm volatile("wfi");
}
