// The hypervisor's own voice: printf and the end, on the firmware's console.

#include "hv.h"
#include <stdarg.h>

// A call to the firmware, the SBI implementation below us, with A[0] to A[4] in
// a0 to a4.
struct sbiret host_sbi(uint64_t id, uint64_t function, const uint64_t *a) {
    register uint64_t a0 asm("a0") = a[0], a1 asm("a1") = a[1],
                         a2 asm("a2") = a[2], a3 asm("a3") = a[3],
                         a4 asm("a4") = a[4], a6 asm("a6") = function,
                         a7 asm("a7") = id;
    asm volatile("ecall"
                 : "+r"(a0), "+r"(a1)
                 : "r"(a2), "r"(a3), "r"(a4), "r"(a6), "r"(a7)
                 : "memory");
    return (struct sbiret){a0, a1};
}

static void put_char(char c) { host_sbi(LEGACY_PUTCHAR, 0, (uint64_t[5]){c}); }

static void put_number(uint64_t n) {
    if (n >= 16)
        put_number(n / 16);
    put_char("0123456789abcdef"[n % 16]);
}

// Every %lx stands for an unsigned long, in hexadecimal; there is nothing else.
void printf(const char *format, ...) {
    va_list numbers;
    va_start(numbers, format);
    for (; *format; format++) {
        if (*format == '%')
            put_number(va_arg(numbers, uint64_t)), format += 2;
        else
            put_char(*format);
    }
    va_end(numbers);
}

// The end of the machine, HOW: see TEST_FAIL and so on.  The board's test
// device gives QEMU an exit status, the firmware can't.
_Noreturn void shut_down(uint32_t how) {
    if (host.test)
        *(volatile uint32_t *)host.test = how;
    else
        host_sbi(SBI_EXT_SRST, 0,
                 (uint64_t[5]){SBI_SRST_SHUTDOWN, SBI_SRST_FAILURE});
    for (;;)
        wfi();
}
