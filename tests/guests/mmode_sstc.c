// The newer way to a timer in S-mode, xv6's since 2024: M-mode lets it use
// stimecmp (extension Sstc) and is never entered again.
#include "mmode_super.h"

const uint64_t tick_cause = INTERRUPT | STI;
const bool uart_reads_isr = true;

// A timer interrupt may come once more after stimecmp was written, because STIP
// need not fall at once (Sstc).  That one is no tick.
bool tick_acknowledge(void) {
    bool due = csr_read(time) >= csr_read_(STIMECMP);
    if (due)
        csr_write_(STIMECMP, csr_read(time) + INTERVAL);
    return due;
}

void start_timer(const void *dtb) {
    // Each hart asks for itself: hart 0 may not have been here yet.
    if (!dtb_has_sstc(dtb)) {
        if (hart() == 0)
            print("skipped: no Sstc\n");
        park();
    }
    csr_set(mie, SIP_STIP);
    csr_write_(MENVCFG, csr_read_(MENVCFG) | MENVCFG_STCE);
    csr_write(mcounteren, csr_read(mcounteren) | COUNTEREN_TM);
    first_tick[csr_read(mhartid)] = csr_read(time) + INTERVAL;
    csr_write_(STIMECMP, csr_read(time) + INTERVAL);
}
