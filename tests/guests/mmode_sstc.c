// The newer way to a timer in S-mode, xv6's since 2024: M-mode allows it the
// use of stimecmp (extension Sstc) and is never entered again.
#include "mmode_super.h"

const uint64_t tick_cause = INTERRUPT | STI;
const bool uart_reads_isr = true;
uint64_t first_tick[MAX_HARTS];

void tick_acknowledge(void) { csr_write_(STIMECMP, csr_read(time) + INTERVAL); }

static void start_timer(void) {
    csr_set(mie, SIP_STIP);
    csr_write_(MENVCFG, csr_read_(MENVCFG) | MENVCFG_STCE);
    csr_write(mcounteren, csr_read(mcounteren) | COUNTEREN_TM);
    first_tick[csr_read(mhartid)] = csr_read(time) + INTERVAL;
    csr_write_(STIMECMP, csr_read(time) + INTERVAL);
}

_Noreturn void start(const void *dtb) {
    uint64_t mstatus = csr_read(mstatus) & ~(uint64_t)STATUS_MPP;
    csr_write(mstatus, mstatus | STATUS_MPP_S);
    csr_write(mepc, super_main);
    csr_write(satp, 0);
    csr_write(medeleg, 0xffff);
    csr_write(mideleg, 0xffff);
    csr_set(sie, SIP_SEIP | SIP_STIP);
    csr_write(pmpaddr0, 0x3fffffffffffff);
    csr_write(pmpcfg0, 0xf);
    uint64_t id = csr_read(mhartid);
    asm volatile("mv tp, %0" ::"r"(id));
    if (id == 0)
        harts = dtb_harts(dtb);
    // Each hart asks for itself: hart 0 may not have been here yet.
    if (!dtb_has_sstc(dtb)) {
        if (id == 0)
            print("skipped: no Sstc\n");
        park();
    }
    start_timer();
    asm volatile("mret");
    __builtin_unreachable();
}
