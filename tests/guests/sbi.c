// Is the SBI below us really 2.0?  Written from the specification, whose
// chapters are named.  Boot arguments:
//
//   harts=N      there are harts 0 to N-1
//   srst=T,R     instead of the checks: a system reset of type T for reason R
//   all=1        the same by all harts but the one that booted, at once
//   high=1       the same with bits set above the 32 of type and reason
//   forgets=1    don't count on the timer interrupts of QEMU 7.2, see forgets()
//   legacy=8     instead of the checks: a legacy shutdown
//   gentle       no addresses outside of RAM, which OpenSBI hangs on
//
// When it says so, type something that ends with "!".
#include "guest.h"

static uint64_t harts_here; // how many
static uint64_t me;         // the hart that runs main(), which can be any
static const char *arguments;

static const uint64_t STOP = -1; // in struct hart's in: run() has to return

// Legacy calls have no function, and the answer is in a0 alone.
#define legacy(extension, ...) (sbi(extension, 0x1e6ac4, ##__VA_ARGS__).error)

static uint64_t number(const char *name) {
    const char *p = argument(arguments, name);
    uint64_t n = 0, base = 10;
    if (p && p[0] == '0' && p[1] == 'x')
        p += 2, base = 16;
    for (; p && ((*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'f')); p++)
        n = n * base + (*p <= '9' ? *p - '0' : *p - 'a' + 10);
    return n;
}

// --- "Base Extension" --------------------------------------------------------

static void test_base(void) {
    static const long here[] = {0,   1,      2,   8,    BASE, TIME,
                                IPI, RFENCE, HSM, SRST, DBCN};
    static const long not_here[] = {
        // the legacy ones for other harts, which IPI and RFENCE replace
        3, 4, 5, 6, 7,
        // PMU, SUSP, CPPC, NACL, STA, SSE, FWFT, ...
        0x504d55, 0x53555350, 0x43505043, 0x4e41434c, 0x535441, 0x535345,
        0x46574654, 0x44425452, 0x4d505859, 0x08000000, 0x08ffffff, 0x09000000,
        0x0901e6ac, 0x09ffffff, 0x0a000000, 0x0affffff, 0x12345678, 0x7fffffff,
        0x9, 0xa, 0xf, -0x80000000l, 0x11, -1};
    check(sbi(BASE, 0).error, OK, "get_spec_version");
    check(sbi(BASE, 0).value, 2 << 24, "the version");
    for (long i = 1; i < 7; i++)
        if (i != 3)
            check(sbi(BASE, i).error, OK, "base function %ld", i);
    for (unsigned i = 0; i < LENGTH(here); i++) {
        struct sbiret ret = sbi(BASE, 3, here[i]);
        check(ret.error, OK, "probe_extension %ld", here[i]);
        check(ret.value != 0, true, "extension %ld is there", here[i]);
    }
    for (unsigned i = 0; i < LENGTH(not_here); i++) {
        struct sbiret ret = sbi(BASE, 3, not_here[i]);
        check(ret.error, OK, "probe_extension %ld", not_here[i]);
        check(ret.value, 0, "extension %ld is there", not_here[i]);
        // "Binary Encoding"
        for (long function = -1; function < 2; function++)
            check(sbi(not_here[i], function).error, NOT_SUPPORTED,
                  "extension %ld function %ld", not_here[i], function);
    }
    for (unsigned i = 4; i < LENGTH(here); i++) { // the first are legacy
        static const long no_functions[] = {7, 8, 0xff, 0x7fffffff, -1};
        for (unsigned j = 0; j < LENGTH(no_functions); j++)
            check(sbi(here[i], no_functions[j]).error, NOT_SUPPORTED,
                  "extension %ld function %ld", here[i], no_functions[j]);
    }
    done("base");
}

// --- "Timer Extension" -------------------------------------------------------

// Does QEMU 7.2 run several harts?  Then an old timer's interrupt may still
// come after the timer was set anew, or be lost until the next VM exit.
static bool forgets(void) { return argument(arguments, "forgets=1"); }

// Makes a VM exit, by a call whose answer does not matter.
static void remind(void) {
    register uint64_t a7 asm("a7") = BASE, a6 asm("a6") = 0;
    if (forgets())
        asm volatile("ecall" ::"r"(a7), "r"(a6) : "a0", "a1", "memory");
}

static bool timer_came(void) {
    remind();
    return timer_pending();
}

static bool ipi_pending(void) { return csr_read(sip) & SSIP; }

static void set_timer(bool old, uint64_t when) {
    long error = old ? legacy(0, when) : sbi(TIME, 0, when).error;
    check(error, OK, "set_timer");
}

// Always looks first whether it is pending, and then at the time.
static void test_timer(struct hart *h) {
    static const uint64_t never[] = {-1ul, -2ul, 1ul << 63, (1ul << 63) - 1};
    for (int old = 0; old < 2; old++) {
        for (unsigned i = 0; i < LENGTH(never); i++) {
            set_timer(old, 0);
            check(until(timer_came(), PATIENCE), true, "past: STIP");
            set_timer(old, never[i]);
            check(timer_came() && !forgets(), false, "STIP after set_timer %ld",
                  never[i]);
        }
        for (unsigned i = 0; i < 5; i++) {
            uint64_t when = now() + (2 << i) * MS / 2;
            set_timer(old, when);
            bool came = until(timer_came(), PATIENCE);
            check(came, true, "future: STIP");
            check(now() >= when, true, "no STIP before the time");
            set_timer(old, now() + 60000 * MS);
            check(timer_came() && !forgets(), false,
                  "STIP after set_timer far away");
            set_timer(old, now());
            check(until(timer_came(), PATIENCE), true, "now: STIP");
        }

        // as an interrupt
        set_timer(old, -1);
        trapped();
        csr_write(sie, STIP);
        uint64_t when = now() + 2 * MS;
        set_timer(old, when);
        csr_set(sstatus, SSTATUS_SIE);
        bool came = until((remind(), *&h->has_trapped), PATIENCE);
        csr_clear(sstatus, SSTATUS_SIE);
        check(came, true, "timer interrupt");
        check(now() >= when, true, "no timer interrupt before the time");
        check(trapped() ? h->trap.cause : 0, 1l << 63 | 5, "its cause");
        csr_write(sie, 0);
        set_timer(old, -1);
    }
    h->out = 1;
}

static void test_time(void) {
    test_timer(this_hart());
    for (uint64_t i = 0; i < harts_here; i++)
        if (i != me) {
            set_timer(false, -1);
            check(run_on(i, test_timer, 0), OK, "start hart %ld", i);
            join(i);
            check(harts[i].out, 1, "the timer's checks on hart %ld", i);
            check(timer_came(), false, "STIP of the wrong hart");
        }
    done("time");
}

// --- "IPI Extension" ---------------------------------------------------------

static volatile uint64_t ipis[MAX_HARTS];
static uint64_t ipis_before[MAX_HARTS];

// Takes IPIs.  If h->in is 1, waits for them in WFI, which they must end.
static void take_ipis(struct hart *h) {
    csr_write(sie, SSIP);
    h->out = 1;
    while (h->in != STOP) {
        if (h->in == 1)
            wfi();
        if (ipi_pending()) {
            csr_clear(sip, SSIP);
            ipis[h->a0]++;
        }
    }
    csr_clear(sip, SSIP);
}

static void start_others(void (*run)(struct hart *h), uint64_t in) {
    for (uint64_t i = 0; i < harts_here; i++)
        if (i != me) {
            check(run_on(i, run, in), OK, "start hart %ld", i);
            check(until(harts[i].out, PATIENCE), true, "hart %ld runs", i);
        }
}

static void stop_others(void) {
    for (uint64_t i = 0; i < harts_here; i++)
        if (i != me) {
            harts[i].in = STOP;
            sbi(IPI, 0, 1ul << i, 0);
            join(i);
            ipis_before[i] = ipis[i];
        }
}

static uint64_t ipis_of(uint64_t hart) {
    if (hart == me && ipi_pending()) {
        csr_clear(sip, SSIP);
        check(ipi_pending(), false, "SSIP after it was cleared");
        ipis[me]++;
    }
    return ipis[hart];
}

// An IPI reaches the harts in SET, once each, and no others.
static void check_ipis(uint64_t set, const char *how, long mask, long base) {
    for (uint64_t i = 0; i < harts_here; i++)
        if (set >> i & 1)
            check(until(ipis_of(i) != ipis_before[i], PATIENCE), true,
                  "%s mask %ld base %ld: it reaches hart %ld", how, mask, base,
                  i);
    until(false, 1);
    for (uint64_t i = 0; i < harts_here; i++) {
        check(ipis_of(i) - ipis_before[i], set >> i & 1,
              "%s mask %ld base %ld: IPIs on hart %ld", how, mask, base, i);
        ipis_before[i] = ipis[i];
    }
}

static void send_ipi(uint64_t mask, uint64_t base, uint64_t set) {
    check(sbi(IPI, 0, mask, base).error, OK, "send_ipi mask %ld base %ld", mask,
          base);
    check_ipis(set, "send_ipi", mask, base);
}

// Hart masks that name a hart that isn't there: "Hart list parameter".
static const struct {
    uint64_t mask, base;
    bool from_end; // shift both by the number of harts
} bad_masks[] = {
    {1, 0, true},          {3, -1, true},           {1ul << 63, 0, false},
    {-1, 0, false},        {1, 64, false},          {1, 1000, false},
    {1, 1ul << 32, false}, {1, 1ul << 63, false},   {1, -2, false},
    {4, -2, false},        {1ul << 63, -63, false}, {1, 1ul << 58, false},
};

static void check_bad_masks(uint64_t extension, long function) {
    for (unsigned i = 0; i < LENGTH(bad_masks); i++) {
        uint64_t mask = bad_masks[i].mask, base = bad_masks[i].base;
        if (bad_masks[i].from_end)
            base += harts_here;
        check(sbi(extension, function, mask, base, 0, 0, 0).error,
              INVALID_PARAM, "%ld function %ld mask %ld base %ld", extension,
              function, mask, base);
    }
}

static void test_ipi(void) {
    uint64_t all = (1 << harts_here) - 1;
    csr_clear(sip, SSIP);
    for (uint64_t wfi = 0; wfi < 2; wfi++) {
        start_others(take_ipis, wfi);
        for (uint64_t mask = 0; mask <= all; mask++)
            send_ipi(mask, 0, mask);
        for (uint64_t i = 0; i < harts_here; i++) {
            send_ipi(1, i, 1 << i);
            send_ipi(all >> i, i, all & (all << i));
            send_ipi(0, i, 0);
        }
        send_ipi(0, -1, all);
        send_ipi(1, -1, all);
        send_ipi(-1, -1, all);
        stop_others();
        send_ipi(1 << me, 0, 1 << me);
    }
    // "all available harts" while the others are stopped: these may or may not
    // find the IPI when they start
    send_ipi(0, -1, 1 << me);
    check_bad_masks(IPI, 0);
    csr_clear(sip, SSIP); // a bad mask can name good harts, too
    check(sbi(IPI, 1, 1 << me, 0).error, NOT_SUPPORTED, "function 1");
    check(ipi_pending(), false, "function 1 sends an IPI");
    done("ipi");
}

// --- "RFENCE Extension" ------------------------------------------------------

// Sv39: addresses below 4 GiB stay as they are, except for pages of 4 KiB at
// PAGES.
#define PAGE 4096ul
#define PAGES 0x40000000ul
enum {
    V = 1,
    R = 2,
    W = 4,
    X = 8,
    A = 64,
    D = 128,
    RWX = V | R | W | X | A | D
};
enum { ASID = 3 };
#define PAGED __attribute__((aligned(4096)))
static volatile uint64_t level2[512] PAGED, level1[512] PAGED,
    level0[512] PAGED;
static uint64_t a_page[512] PAGED, another_page[512] PAGED;

static void *map(uint64_t page, const void *to, uint64_t flags) {
    level0[page] = (uint64_t)to >> 12 << 10 | flags;
    return (void *)(PAGES + page * PAGE);
}

static void paging_on(void) {
    level2[0] = 0ul << 28 | RWX;
    level2[1] = (uint64_t)level1 >> 12 << 10 | V;
    level2[2] = 2ul << 28 | RWX;
    level2[3] = 3ul << 28 | RWX;
    level1[0] = (uint64_t)level0 >> 12 << 10 | V;
    asm volatile("sfence.vma" ::: "memory");
    csr_write(satp, 8ul << 60 | (uint64_t)ASID << 44 | (uint64_t)level2 >> 12);
}

static void paging_off(void) {
    csr_write(satp, 0);
    asm volatile("sfence.vma" ::: "memory");
}

static uint32_t code[2] PAGED;
static long run_code(void) { return ((long (*)(void))code)(); }
static void write_code(int value) {
    code[0] = 0x00000513 | value << 20; // li a0, value
    code[1] = 0x00008067;               // ret
    asm volatile("fence" ::: "memory");
}

enum { READ = 1, RUN };

// Reads its page, or runs the code, when h->in says so.
static void use(struct hart *h) {
    volatile uint64_t *page = (void *)(PAGES + h->a0 * PAGE);
    paging_on();
    h->out = 1;
    while (h->in != STOP) {
        if (h->in == READ)
            h->out = *page;
        else if (h->in == RUN)
            h->out = run_code();
        else
            continue;
        h->in = 0;
    }
    paging_off();
}

static uint64_t used(uint64_t hart, uint64_t what) {
    if (hart == me)
        return what == RUN ? (uint64_t)run_code()
                           : *(volatile uint64_t *)(PAGES + me * PAGE);
    harts[hart].in = what;
    until(harts[hart].in == 0, PATIENCE);
    return harts[hart].out;
}

// The ways to tell the harts in MASK that the page at VA has changed.  Ways 8
// and 9 name a part of the page, all others at least the whole page.
static long fence_page(int way, uint64_t mask, uint64_t va) {
    const uint64_t size = PAGE;
    switch (way) {
    case 0: return sbi(RFENCE, 1, mask, 0, va, size).error;
    case 1: return sbi(RFENCE, 1, mask, 0, 0, 0).error;
    case 2: return sbi(RFENCE, 1, mask, 0, 0, -1).error;
    case 3: return sbi(RFENCE, 1, mask, 0, va, -1).error;
    case 4: return sbi(RFENCE, 1, mask, 0, va - 7 * size, 99 * size).error;
    case 5: return sbi(RFENCE, 1, mask, 0, va & -(1ul << 30), 1ul << 30).error;
    case 6: return sbi(RFENCE, 1, 0, -1, va, size).error;
    case 7: return sbi(RFENCE, 1, mask, 0, 0, 1ul << 62).error;
    case 8: return sbi(RFENCE, 1, mask, 0, va, 1).error;
    case 9: return sbi(RFENCE, 1, mask, 0, va + 8, size - 8).error;
    case 10: return sbi(RFENCE, 2, mask, 0, va, size, ASID).error;
    case 11: return sbi(RFENCE, 2, mask, 0, 0, 0, ASID).error;
    case 12: return sbi(RFENCE, 2, mask, 0, 0, -1, ASID).error;
    case 13: return sbi(RFENCE, 2, mask, 0, va, 600 * size, ASID).error;
    default: return 1;
    }
}
enum { WAYS = 14 };

static long fence_code(int way, uint64_t mask) {
    switch (way) {
    case 0: return sbi(RFENCE, 0, mask, 0).error;
    case 1: return sbi(RFENCE, 0, 0, -1).error;
    default: return 1;
    }
}

static void test_rfence(void) {
    uint64_t all = (1 << harts_here) - 1;
    a_page[0] = 1000, another_page[0] = 2000;
    for (uint64_t i = 0; i < harts_here; i++)
        map(i, a_page, RWX);
    write_code(0);
    start_others(use, 0);
    paging_on();
    for (uint64_t i = 0; i < harts_here; i++) {
        for (int way = 0; way < WAYS; way++) {
            uint64_t *page = way & 1 ? a_page : another_page;
            uint64_t before = used(i, READ);
            void *va = map(i, page, RWX);
            asm volatile("fence" ::: "memory");
            check(fence_page(way, 1 << i, (uint64_t)va), OK,
                  "remote_sfence_vma, way %ld", (long)way);
            check(used(i, READ), page[0],
                  "hart %ld after remote_sfence_vma, way %ld (before: %ld)", i,
                  (long)way, before);
        }
        for (int way = 0; way < 2; way++) {
            int value = 100 + i * 10 + way;
            used(i, RUN);
            write_code(value);
            check(fence_code(way, 1 << i), OK, "remote_fence_i, way %ld",
                  (long)way);
            check(used(i, RUN), value, "hart %ld after remote_fence_i, way %ld",
                  i, (long)way);
        }
    }
    paging_off();
    for (uint64_t stopped = 0; stopped < 2; stopped++) {
        for (uint64_t mask = 0; mask <= all; mask++)
            if (!stopped || mask == 0 || mask == 1ul << me)
                for (long f = 0; f < 3; f++)
                    check(sbi(RFENCE, f, mask, 0, PAGES, PAGE, 0).error, OK,
                          "function %ld mask %ld", f, mask);
        for (long f = 0; f < 3; f++)
            check(sbi(RFENCE, f, 0, -1, PAGES, PAGE, 0).error, OK,
                  "function %ld on all harts", f);
        if (!stopped)
            stop_others();
    }
    csr_clear(sip, SSIP);
    for (long f = 0; f < 3; f++)
        check_bad_masks(RFENCE, f);
    for (long f = 3; f < 8; f++) // 3 to 6 are for harts with H
        check(sbi(RFENCE, f, 1 << me, 0, 0, 0, 0).error, NOT_SUPPORTED,
              "function %ld", f);
    check(ipi_pending(), false, "SSIP after remote fences");
    done("rfence");
}

// --- "Hart State Management Extension" ---------------------------------------

// Checks the registers that H began with: "HSM Hart Start Register State".
static void check_entry(struct hart *h, uint64_t opaque) {
    long hart = h - harts;
    check(h->a0, hart, "a0 of hart %ld", hart);
    check(h->a1, opaque, "a1 of hart %ld", hart);
    check(h->satp, 0, "satp of hart %ld", hart);
    check(h->sstatus & SSTATUS_SIE, 0, "sstatus.SIE of hart %ld", hart);
}

// Stops with paging on: the next start must turn it off.
static void stop_at_once(struct hart *h) {
    paging_on();
    h->out = 1;
}

static void stay(struct hart *h) {
    h->out = 1;
    while (h->in != STOP)
        ;
}

static void *jump[5];
static void resume(struct hart *h) {
    h->out = 1;
    __builtin_longjmp(jump, 1);
}

// Suspends this hart; something has to wake it.
static bool suspend_non_retentive(uint64_t type, uint64_t opaque) {
    struct hart *h = this_hart();
    h->run = resume;
    h->a0 = h->a1 = h->satp = h->sstatus = -1;
    if (__builtin_setjmp(jump) == 0) {
        long error = sbi(HSM, HART_SUSPEND, type, entry, opaque).error;
        check(error, 1, "hart_suspend %ld must not return", type);
        return false;
    }
    check_entry(this_hart(), opaque);
    return true;
}

// Suspended until an IPI; in is the suspend type, and the opaque value.
static void sleep_retentive(struct hart *h) {
    paging_on();
    csr_clear(sip, SSIP);
    csr_write(sie, SSIP);
    h->out = 10 + sbi(HSM, HART_SUSPEND, h->in, 0xbad, 0).error;
    csr_clear(sip, SSIP);
    while (h->in != STOP)
        ;
}

static void after_sleep(struct hart *h) {
    check_entry(h, 0x0b5c0de);
    h->out = 10;
    while (h->in != STOP)
        ;
}

static void sleep_non_retentive(struct hart *h) {
    paging_on();
    csr_clear(sip, SSIP);
    csr_write(sie, SSIP);
    csr_set(sstatus, SSTATUS_SIE);
    h->run = after_sleep;
    h->out = sbi(HSM, HART_SUSPEND, h->in, entry, 0x0b5c0de).error;
}

static void test_suspend(void) {
    struct hart *h = this_hart();
    csr_clear(sip, SSIP);
    for (int with_paging = 0; with_paging < 2; with_paging++) {
        if (with_paging)
            paging_on();
        for (uint64_t high = 0; high < 2; high++) { // the type has 32 bits
            uint64_t when = now() + 2 * MS;
            sbi(TIME, 0, when);
            csr_write(sie, STIP);
            check(sbi(HSM, HART_SUSPEND, high << 32, 0xbad, 0).error, OK,
                  "hart_suspend %ld", high << 32);
            check(now() >= when && timer_came(), true, "woken by the timer");
            sbi(TIME, 0, -1);
            csr_write(sie, SSIP);
            sbi(IPI, 0, 1 << me, 0);
            check(sbi(HSM, HART_SUSPEND, high << 32, 0xbad, 0).error, OK,
                  "hart_suspend %ld, SSIP", high << 32);
            check(ipi_pending(), true, "woken by an IPI");
            csr_clear(sip, SSIP);
        }
    }
    for (uint64_t i = 0; i < 4; i++) {
        uint64_t opaque = 0x123456789abcdef0 + i;
        sbi(TIME, 0, now() + 2 * MS);
        csr_write(sie, STIP);
        if (i & 1)
            paging_on();
        suspend_non_retentive(i & 2 ? -1ul << 31 : 1ul << 31, opaque);
        paging_off();
    }
    sbi(TIME, 0, -1);
    csr_write(sie, 0);
    h->out = 1;

    static const uint32_t reserved[] = {1,          2,          0x0fffffff,
                                        0x80000001, 0x80000002, 0x8fffffff};
    for (unsigned i = 0; i < LENGTH(reserved); i++)
        check(sbi(HSM, HART_SUSPEND, reserved[i], entry, 0).error,
              INVALID_PARAM, "hart_suspend %ld", (long)reserved[i]);
    // SBI 2.0 does not say which error platform-specific types return.
    static const uint32_t own[] = {0x10000000, 0x7fffffff, 0x90000000, -1};
    for (unsigned i = 0; i < LENGTH(own); i++) {
        long error = sbi(HSM, HART_SUSPEND, own[i], entry, 0).error;
        check(error == INVALID_PARAM || error == NOT_SUPPORTED, true,
              "hart_suspend %ld is refused (%ld)", (long)own[i], error);
    }
}

static void test_sleeper(uint64_t i, uint64_t type, bool fences) {
    check(run_on(i, type ? sleep_non_retentive : sleep_retentive, type), OK,
          "start hart %ld", i);
    check(until(has_state(i, SUSPENDED), PATIENCE), true, "hart %ld suspended",
          i);
    until(false, 1);
    check(harts[i].out, 0, "hart %ld still sleeps", i);
    check(sbi(HSM, HART_START, i, entry, 0).error != OK, true,
          "hart_start of a suspended hart fails");
    for (long f = 0; fences && f < 3; f++) // these may wake it
        check(sbi(RFENCE, f, 0, -1, 0, 0, 0).error, OK,
              "remote fence %ld on a suspended hart", f);
    check(sbi(IPI, 0, 1 << i, 0).error, OK, "IPI to a suspended hart");
    check(until(harts[i].out != 0, PATIENCE), true, "hart %ld wakes", i);
    check(harts[i].out, 10, "hart %ld after hart_suspend %ld", i, type);
    check(until(has_state(i, STARTED), PATIENCE), true, "hart %ld started", i);
    harts[i].in = STOP;
    join(i);
}

static void test_suspend_others(void) {
    for (uint64_t i = 0; i < harts_here; i++)
        for (unsigned j = 0; i != me && j < 4; j++)
            test_sleeper(i, j & 1 ? 1ul << 31 : 0, j & 2);
}

// Two harts race to start a third; this one begins when GO is set.
static volatile uint64_t go, race_target;
static void race(struct hart *h) {
    h->out = 1;
    while (!go)
        ;
    h->out = 10 + sbi(HSM, HART_START, race_target, entry, 77).error;
}

static void test_race(uint64_t other, uint64_t target) {
    for (int i = 0; i < 20; i++) {
        go = 0;
        race_target = target;
        harts[target].run = stay;
        harts[target].out = harts[target].in = 0;
        run_on(other, race, 0);
        until(harts[other].out, PATIENCE);
        go = 1;
        long error = sbi(HSM, HART_START, target, entry, 88).error;
        join(other);
        long other_error = harts[other].out - 10;
        check((error == OK) + (other_error == OK), 1,
              "winners of a race to start (%ld and %ld)", error, other_error);
        check(until(harts[target].out, PATIENCE), true, "hart %ld runs",
              target);
        check_entry(&harts[target], error == OK ? 88 : 77);
        harts[target].in = STOP;
        join(target);
    }
}

static void test_hsm(void) {
    static const uint64_t nobody[] = {64, 100, 1ul << 32, 1ul << 63, -1};
    for (unsigned i = 0; i <= LENGTH(nobody); i++) {
        uint64_t hart = i < LENGTH(nobody) ? nobody[i] : harts_here;
        check(sbi(HSM, HART_GET_STATUS, hart).error, INVALID_PARAM,
              "status of hart %ld", hart);
        check(sbi(HSM, HART_START, hart, entry, 0).error, INVALID_PARAM,
              "hart_start %ld", hart);
    }
    for (uint64_t i = 0; i < harts_here; i++) {
        struct sbiret ret = sbi(HSM, HART_GET_STATUS, i);
        check(ret.error, OK, "status of hart %ld", i);
        check(ret.value, i == me ? STARTED : STOPPED, "state of hart %ld", i);
    }
    check(sbi(HSM, HART_START, me, entry, 0).error, ALREADY_AVAILABLE,
          "hart_start of myself");
    check(sbi(HSM, 4).error, NOT_SUPPORTED, "function 4");

    for (uint64_t i = 0; i < harts_here; i++) {
        if (i == me)
            continue;
        for (uint64_t j = 1; j <= 50; j++) {
            uint64_t opaque = j * 0x9e3779b97f4a7c15;
            check(run_on(i, stop_at_once, opaque), OK, "start hart %ld", i);
            check(until(harts[i].out, PATIENCE), true, "hart %ld runs", i);
            join(i);
            check_entry(&harts[i], opaque);
        }
        check(run_on(i, stay, 0), OK, "start hart %ld", i);
        check(until(harts[i].out, PATIENCE), true, "hart %ld runs", i);
        check(until(has_state(i, STARTED), PATIENCE), true, "hart %ld started",
              i);
        check(sbi(HSM, HART_START, i, entry, 0).error, ALREADY_AVAILABLE,
              "hart_start of running hart %ld", i);
        harts[i].in = STOP;
        join(i);
    }
    if (harts_here >= 3)
        for (uint64_t i = 1; i < harts_here; i++)
            test_race((me + i) % harts_here,
                      (me + i % (harts_here - 1) + 1) % harts_here);
    done("hsm");
    test_suspend();
    test_suspend_others();
    done("hsm suspend");
}

static const uint64_t bad_addresses[] = {
    0, 0x10000000, 0x7ffffffc, RAM_END, RAM_END + 0x10000000, 1ul << 56, -4ul,
};

// Comes last, because a hart is lost if this fails.
static void test_hsm_addresses(void) {
    uint64_t other = (me + 1) % harts_here;
    if (other != me)
        for (unsigned i = 0; i < LENGTH(bad_addresses); i++) {
            long error = sbi(HSM, HART_START, other, bad_addresses[i], 0).error;
            check(error, INVALID_ADDRESS, "hart_start at %ld",
                  bad_addresses[i]);
            check(until(has_state(other, STOPPED), 1), true,
                  "hart %ld still stopped", other);
            if (error == OK)
                break;
        }
    sbi(TIME, 0, now() + 2 * MS);
    csr_write(sie, STIP);
    for (unsigned i = 0; i < LENGTH(bad_addresses); i++)
        check(sbi(HSM, HART_SUSPEND, 1ul << 31, bad_addresses[i], 0).error,
              INVALID_ADDRESS, "hart_suspend, resume at %ld", bad_addresses[i]);
    sbi(TIME, 0, -1);
    csr_write(sie, 0);
    done("hsm addresses");
}

// --- "System Reset Extension" ------------------------------------------------

static void test_srst(void) {
    static const uint32_t types[] = {3, 4, 0x7fffffff, 0x80000000, 0xefffffff};
    static const uint32_t reasons[] = {2, 3, 0x7fffffff, 0x80000000,
                                       0xdfffffff};
    for (unsigned i = 0; i < LENGTH(types); i++)
        for (uint64_t reason = 0; reason < 2; reason++)
            check(sbi(SRST, 0, types[i], reason).error, INVALID_PARAM,
                  "reset type %ld", (long)types[i]);
    for (uint64_t type = 0; type < 3; type++)
        for (unsigned i = 0; i < LENGTH(reasons); i++)
            check(sbi(SRST, 0, type, reasons[i]).error, INVALID_PARAM,
                  "reset type %ld reason %ld", type, (long)reasons[i]);
    check(sbi(SRST, 1, 0, 0).error, NOT_SUPPORTED, "function 1");
    done("srst");
}

// From any hart, while all the others run.
static void reset(struct hart *h) {
    const char *p = argument(arguments, "srst=");
    uint64_t reason;
    while (*p != ',')
        p++;
    reason = p[1] - '0';
    h->out = 1;
    if (argument(arguments, "high=")) // type and reason have 32 bits
        reason |= 5ul << 32;
    sbi(SRST, 0, number("srst=") | (reason & ~15ul), reason);
    die("the reset returned");
}

static void shut_down(struct hart *h) {
    h->out = 1;
    (void)legacy(8);
    die("the legacy shutdown returned");
}

static void end(void (*run)(struct hart *h)) {
    uint64_t last = (me + harts_here - 1) % harts_here;
    for (uint64_t i = 0; i < harts_here; i++)
        if (i != me && i != last)
            check(run_on(i, argument(arguments, "all=1") ? run : stay, 0), OK,
                  "start hart %ld", i);
    if (last != me)
        check(run_on(last, run, 0), OK, "start hart %ld", last);
    else
        run(this_hart());
    until(false, 10 * PATIENCE);
    die("nothing happens");
}

// --- "Debug Console Extension" -----------------------------------------------

static void test_dbcn(void) {
    static const char text[] = "DBCN writes this.\n";
    uint64_t p = (uint64_t)text, n = LENGTH(text) - 1;
    while (n > 0) { // it may do so in parts
        struct sbiret ret = sbi(DBCN, 0, n, p, 0);
        check(ret.error, OK, "write");
        check(0 <= ret.value && ret.value <= (long)n, true, "its value %ld",
              ret.value);
        if (ret.error || ret.value < 0)
            break;
        p += ret.value, n -= ret.value;
    }
    static const char bytes[] = "DBCN writes bytes.\n";
    for (const char *c = bytes; *c; c++) {
        struct sbiret ret = sbi(DBCN, 2, 0xabcdef00 | *c); // a uint8_t
        check(ret.error, OK, "write_byte");
        check(ret.value, 0, "value of write_byte");
    }

    static char buffer[64];
    for (unsigned i = 0; i < LENGTH(buffer); i++)
        buffer[i] = 'x';
    uint64_t here = (uint64_t)buffer;
    for (long f = 0; f < 2; f++) {
        struct sbiret ret = sbi(DBCN, f, 0, here, 0);
        check(ret.error, OK, "function %ld of no bytes", f);
        check(ret.value, 0, "function %ld of no bytes: value", f);
    }
    check(sbi(DBCN, 3, 1, here, 0).error, NOT_SUPPORTED, "function 3");

    // The address is physical, whatever satp says.
    paging_on();
    check(sbi(DBCN, 0, 0, here, 0).error, OK, "a physical address");

    struct sbiret ret = sbi(DBCN, 1, sizeof buffer, here, 0);
    check(ret.error, OK, "read when there is nothing");
    check(ret.value, 0, "read when there is nothing: value");
    for (unsigned i = 0; i < LENGTH(buffer); i++)
        check(buffer[i], 'x', "byte %ld of the buffer", (long)i);

    say("type for DBCN: ");
    char typed[40];
    unsigned length = 0;
    uint64_t room = 1; // 1, 2, 3, ... bytes at a time
    bool good = true;
    struct patience patience = {4 * PATIENCE * MS, now()};
    while (good && (!length || typed[length - 1] != '!') &&
           patient(&patience, now())) {
        ret = sbi(DBCN, 1, room, here, 0);
        good = ret.error == OK && 0 <= ret.value && ret.value <= (long)room &&
               length + ret.value < (long)sizeof typed && buffer[room] == 'x';
        for (long i = 0; good && i < ret.value; i++)
            typed[length++] = buffer[i], buffer[i] = 'x';
        room += ret.value > 0 && room < 8;
    }
    check(good, true, "read: error %ld, %ld of %ld bytes", ret.error, ret.value,
          room);
    typed[length] = 0;
    paging_off();
    say("\nDBCN read: %s\n", typed);
    done("dbcn");
}

// Not RAM, or not all of it: "Shared memory physical address range parameter".
static void test_dbcn_addresses(void) {
    uint64_t here = (uint64_t)a_page;
    const struct {
        uint64_t n, low, high;
    } bad[] = {
        {1, 0, 0},
        {1, 0x10000000, 0},
        {1, RAM - 1, 0},
        {16, RAM - 8, 0},
        {1, RAM_END, 0},
        {9, RAM_END - 8, 0},
        {RAM_END - RAM + 1, RAM, 0},
        {-1, here, 0},
        {1ul << 63, here, 0},
        {-here, here, 0},     // ends at 2^64
        {-here + 8, here, 0}, // wraps
        {1, -1, 0},
        {8, -4ul, 0},
        {1, 1ul << 56, 0},
        {1, here | 1ul << 63, 0},
        {1, here, 1},
        {1, here, -1},
        {1, here, 1ul << 63},
    };
    for (long f = 0; f < 2; f++)
        for (unsigned i = 0; i < LENGTH(bad); i++)
            check(sbi(DBCN, f, bad[i].n, bad[i].low, bad[i].high).error,
                  INVALID_PARAM, "function %ld of %ld bytes at %ld high %ld", f,
                  bad[i].n, bad[i].low, bad[i].high);
    map(0, a_page, RWX);
    paging_on();
    for (long f = 0; f < 2; f++)
        check(sbi(DBCN, f, 8, PAGES, 0).error, INVALID_PARAM,
              "function %ld at a virtual address", f);
    paging_off();
    done("dbcn addresses");
}

// --- "Legacy Extensions" -----------------------------------------------------

static void test_legacy_console(void) {
    for (const char *c = "legacy putchar.\n"; *c; c++)
        check(legacy(1, *c), OK, "putchar");
    check(legacy(2), -1, "getchar when there is nothing");
    say("type for getchar: ");
    char typed[40];
    unsigned length = 0;
    long c = -1;
    struct patience patience = {4 * PATIENCE * MS, now()};
    while (c != '!' && -1 <= c && c < 256 && patient(&patience, now())) {
        c = legacy(2);
        if (c >= 0 && length < sizeof typed - 1)
            typed[length++] = c;
    }
    check(c, '!', "the last getchar");
    typed[length] = 0;
    say("\ngetchar read: %s\n", typed);
    done("legacy console");
}

// The calls with a mask of harts are not offered, so the mask does not matter,
// whether it names harts or can't be read.
static void test_legacy_masks(void) {
    csr_clear(sip, SSIP);
    a_page[0] = 1ul << me;
    const uint64_t masks[] = {(uint64_t)a_page, 0, RAM_END, 0x10000800, 1};
    for (long extension = 3; extension < 8; extension++)
        for (unsigned i = 0; i < LENGTH(masks); i++) {
            trapped();
            check(legacy(extension, masks[i], 0, -1, 0), NOT_SUPPORTED,
                  "legacy %ld, mask at %ld", extension, masks[i]);
            check(trapped(), false, "legacy %ld, mask at %ld traps", extension,
                  masks[i]);
        }
    check(ipi_pending(), false, "SSIP after them");
    done("legacy masks");
}

static int fresh = 1; // a reboot loads the guest anew

int main(uint64_t hart, const char *fdt) {
    say("sbi: hart %ld begins\n", hart);
    check(fresh, 1, "memory is as it was loaded");
    fresh = 0;
    me = hart;
    arguments = fdt;
    harts_here = number("harts=");
    if (argument(fdt, "srst="))
        end(reset);
    if (argument(fdt, "legacy=8"))
        end(shut_down);
    test_base();
    test_time();
    test_ipi();
    test_rfence();
    test_hsm();
    test_srst();
    test_dbcn();
    test_legacy_console();
    test_legacy_masks();
    if (!argument(fdt, "gentle")) {
        test_dbcn_addresses();
        test_hsm_addresses();
    }
    say("sbi: ");
    return 0;
}
