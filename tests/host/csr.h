// Replaces ../../csr.h when the hypervisor's files are compiled for the machine
// that runs the tests.  A CSR is a variable here.  Whatever else needs a real
// hart does nothing, or ends the call.  At each fence a test can look at what
// has been written so far.
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern struct csrs {
    uint64_t scause, sepc, stval, sie, sip, sstatus, time;
    uint64_t hedeleg, hideleg, hcounteren, hgatp, hie, hip, hstatus, htimedelta;
    uint64_t htinst, htval, henvcfg, hvip, hstateen0, cycle, instret;
    uint64_t vsatp, vscause, vsepc, vsie, vsstatus, vstimecmp, vstval, vstvec;
} csrs;

#define csr_read(csr) (csrs.csr)
#define csr_write(csr, v) ((void)(csrs.csr = (v), keep_()))
#define csr_set(csr, v) ((void)(csrs.csr |= (uint64_t)(v)))
#define csr_clear(csr, v) ((void)(csrs.csr &= ~(uint64_t)(v)))

#define fence() fence_()
#define fence_i() ((void)fences_i++)
#define hfence_gvma() hfence_()
#define wfi() sleep_()
extern unsigned fences_i;
void sleep_(void), fence_(void), hfence_(void), keep_(void);

// The hypervisor has its own functions of these names.
#define main hv_main
#define memcpy hv_memcpy
#define memset hv_memset
#define printf(...) hv_printf(__VA_ARGS__)
