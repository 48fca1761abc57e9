// The older way to a timer in S-mode, xv6's of 2019 to 2023: the CLINT
// interrupts M-mode, whose handler passes the tick on as S-mode's software
// interrupt.
#include "mmode_super.h"

const uint64_t tick_cause = INTERRUPT | SSI;
const bool uart_reads_isr = false;

// For timervec: room for three registers, mtimecmp's address, the interval.
static uint64_t scratch[MAX_HARTS][5];

// Priv. 3.2.1: the interrupt is pending until mtimecmp is above mtime.
// Priv. 3.1.9: M-mode may set SSIP, which is pending until S-mode clears it.
asm(".text\n"
    ".balign 4\n"
    "timervec:\n"
    "    csrrw a0, mscratch, a0\n"
    "    sd a1, 0(a0)\n"
    "    sd a2, 8(a0)\n"
    "    sd a3, 16(a0)\n"
    "    ld a1, 24(a0)\n"
    "    ld a2, 32(a0)\n"
    "    ld a3, 0(a1)\n"
    "    add a3, a3, a2\n"
    "    sd a3, 0(a1)\n"
    "    li a1, 2\n"
    "    csrw sip, a1\n"
    "    ld a3, 16(a0)\n"
    "    ld a2, 8(a0)\n"
    "    ld a1, 0(a0)\n"
    "    csrrw a0, mscratch, a0\n"
    "    mret\n");
void timervec(void);

bool tick_acknowledge(void) {
    csr_clear(sip, SIP_SSIP);
    return true;
}

// A tick before mret would overwrite super_main in mepc, as it would in xv6.
// So the first interval is longer than the others.
#define FIRST_INTERVAL (30 * INTERVAL)

void start_timer(const void *dtb) {
    (void)dtb;
    csr_set(sie, SIP_SSIP);
    uint64_t id = csr_read(mhartid);
    uint64_t now = reg64(CLINT_MTIME);
    reg64(CLINT_MTIMECMP(id)) = first_tick[id] = now + FIRST_INTERVAL;
    scratch[id][3] = CLINT_MTIMECMP(id);
    scratch[id][4] = INTERVAL;
    csr_write(mscratch, scratch[id]);
    csr_write(mtvec, timervec);
    csr_set(mstatus, STATUS_MIE);
    csr_set(mie, MIP_MTIP);
}
