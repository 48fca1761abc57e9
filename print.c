// Calls to the firmware, and what we do with them ourselves: say something on
// its console, and end the machine.

#include "hv.h"
#include <stdarg.h>

// Calls the firmware, the SBI implementation below us, with A[0] to A[4] in a0
// to a4.  Returns what it left in a0 and a1.
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

// Prints FORMAT.  Every %lx stands for an unsigned long, in hexadecimal.  It
// knows nothing else.
void printf(const char *format, ...) {
    va_list numbers;
    va_start(numbers, format);
    for (; *format; format += *format == '%' ? sizeof "%lx" - 1 : 1)
        if (*format == '%')
            put_number(va_arg(numbers, uint64_t));
        else
            put_char(*format);
    va_end(numbers);
}

// V takes exception CAUSE at its own trap vector.  A guest in that state takes
// it again and again, for ever, and its user sees nothing.  So we say it, with
// the exception before that, WAS, and the PC that it came from.
void say_stuck(struct vcpu *v, uint64_t cause, uint64_t was, gva_t pc) {
    say_once("the guest's hart %lx can't go on: exception %lx at its trap "
             "vector, %lx, after exception %lx at %lx",
             v->hart, cause, v->exit->pc, was, pc);
}

// Ends or restarts the machine.  HOW is TEST_FAIL, TEST_PASS or TEST_RESET,
// with an exit status for QEMU in the upper 16 bits.  The board's test device
// passes that status on.  A board without one is shut down by the firmware.
_Noreturn void shut_down(uint32_t how) {
    if (host.test)
        *(volatile uint32_t *)host.test = how;
    else
        host_sbi(SBI_EXT_SRST, 0,
                 (uint64_t[5]){SBI_SRST_SHUTDOWN, SBI_SRST_FAILURE});
    for (;;)
        wfi();
}
