// A blind fuzzer: random loads, stores, fetches, SBI calls and virtqueues,
// mostly where something is or where it ends, on all harts at once.  Boot
// arguments: harts=N seed=N (decimal) seconds=N.  If it does not end, something
// is wrong.
#include "guest.h"

extern char bss_start[], bss_end[];
static char scratch[1 << 18] __attribute__((aligned(4096)));
#define SCRATCH ((uint64_t)scratch + (1 << 17))
enum { LOADS, STORES, FETCHES, CALLS, QUEUES, SLEEPS, FAULTS, KINDS };

static volatile uint64_t counts[MAX_HARTS][KINDS];
static uint64_t state[MAX_HARTS], seed, end;

static uint64_t random(void) { // xorshift64*
    uint64_t *x = &state[this_hart() - harts];
    *x ^= *x >> 12, *x ^= *x << 25, *x ^= *x >> 27;
    return *x * 0x2545f4914f6cdd1d;
}

static uint64_t below(uint64_t n) { return (random() >> 16) % n; }

// Could SIZE bytes at A be part of the fuzzer?  It lives on both sides of
// SCRATCH, and neither a device nor we may write there.
static bool mine(uint64_t a, uint64_t size) {
    return a < (uint64_t)bss_end && a + size > 0x80200000 &&
           (a < (uint64_t)scratch || a + size > (uint64_t)scratch + (1 << 18));
}

// An interesting number: an edge, one near an edge, or something else entirely.
static uint64_t number(void) {
    static const uint64_t edges[] = {
        0,          RAM,       RAM_END,   0x10000000, 0x10001000, 0x10008000,
        0x10009000, 0xc000000, 0xc001000, 0xc002000,  0xc200000,  0xc201000,
        0xc600000,  0x2000000, 0x2004000, 0x200c000,  0x100000,   0x101000,
        0x40000000, 1ul << 31, 1ul << 32, 1ul << 40,  1ul << 41,  1ul << 63};
    uint64_t n = edges[below(LENGTH(edges))];
    switch (below(6)) {
    case 0: return n + below(16) - 8;
    case 1: return n + below(0x2000) - 0x1000;
    case 2: return SCRATCH + below(1 << 16);
    case 3: return below(64);
    case 4: return random() >> below(64);
    default: return n;
    }
}

static uint64_t safe_number(void) {
    uint64_t n;
    do
        n = number();
    while (mine((uint32_t)n, 1 << 17)); // also if only its lower half is stored
    return n;
}

// A register of a device, or any address.
static uint64_t address(void) {
    uint64_t slot = 0x10001000 + below(8) * 4096;
    switch (below(8)) {
    case 0: return 0x10000000 + below(9);
    case 1: return 0xc000000 + 4 * below(128);
    case 2: return 0xc002000 + 4 * below(512);
    case 3: return 0xc200000 + 4096 * below(20) + 4 * below(3);
    case 4: return slot + 4 * below(0x60);
    case 5: return slot + below(0x210);
    case 6: return (random() & 0x1fffff8) + 0xc000000;
    default: return number();
    }
}

#define LOAD(inst) asm volatile(inst " t0, (%0)" ::"r"(a) : "t0", "memory")
#define STORE(inst) asm volatile(inst " %1, (%0)" ::"r"(a), "r"(v) : "memory")
#define AMO(inst)                                                              \
    asm volatile(inst " t0, %1, (%0)" ::"r"(a), "r"(v) : "t0", "memory")

static void access(uint64_t *count) {
    uint64_t a = address(), v = safe_number(), kind = below(16);
    if (mine(a - 8, 24))
        return;
    if (a >> 12 == 0x100) // the test device: odd values end the machine
        v &= -2;
    count[kind < 7 ? LOADS : STORES]++;
    switch (kind) {
    case 0: LOAD("lb"); break;
    case 1: LOAD("lhu"); break;
    case 2: LOAD("lw"); break;
    case 3: LOAD("ld"); break;
    case 4: LOAD("lr.w"); break;
    case 5: asm volatile("fld ft0, (%0)" ::"r"(a)); break;
    case 6: LOAD("lw"); break;
    case 7: STORE("sb"); break;
    case 8: STORE("sh"); break;
    case 9: STORE("sd"); break;
    case 10: AMO("amoadd.w"); break;
    case 11: AMO("amoswap.d"); break;
    case 12: asm volatile("fsd ft0, (%0)" ::"r"(a)); break;
    default: STORE("sw"); // what most registers take
    }
}

static void fetch(uint64_t *count) {
    uint64_t a = number();
    if (a - RAM < RAM_END - RAM) // what is there may run for ever
        return;
    count[FETCHES]++;
    ((void (*)(void))(a & -2))();
}

static void call(uint64_t *count) {
    static const uint64_t ids[] = {0, 1,    2,    3,   4,      5,   6,    7,
                                   9, BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN};
    uint64_t id = below(32) ? ids[below(LENGTH(ids))] : number();
    uint64_t f = below(16) ? below(8) : number(), a0 = safe_number();
    if (id == 8 || (id == HSM && f != HART_GET_STATUS))
        return; // the run would rightly end
    if (id == SRST)
        a0 |= 4;
    if ((id == DBCN || id == 1) && below(16)) // they print a lot
        return;
    count[CALLS]++;
    quick_sbi(id, f, a0, safe_number());
}

// Gives a device a queue whose contents may even be right.
static void queue(uint64_t *count) {
    volatile uint32_t *w = (void *)(0x10001000 + below(8) * 4096);
    uint64_t parts[3];
    for (unsigned i = 0; i < 3; i++)
        parts[i] = below(16) ? SCRATCH + (below(0x10000) & -16) : safe_number();
    count[QUEUES]++;
    if (below(4) == 0)
        w[0x70 / 4] = 0;
    static const uint32_t status[] = {1, 3, 11, 15};
    w[0x24 / 4] = 1, w[0x20 / 4] = 1;
    for (unsigned i = 0; i < 3 && below(8); i++)
        w[0x70 / 4] = status[i];
    w[0x30 / 4] = below(4);
    uint32_t size = below(8) ? 1ul << below(11) : number();
    w[0x38 / 4] = size;
    for (unsigned i = 0; i < 3; i++) {
        w[(0x80 + 16 * i) / 4] = parts[i];
        w[(0x84 + 16 * i) / 4] = parts[i] >> 32;
    }
    w[0x44 / 4] = 1;
    w[0x70 / 4] = 15;
    for (uint64_t n = below(32); n; n--) {
        volatile uint64_t *d = (void *)(SCRATCH + below(0x10000) / 16 * 16);
        d[0] = safe_number();
        // At least a header, 12 bytes: with less to send, QEMU 7.2 aborts.
        d[1] = (below(8) ? 12 + below(1 << 12) : 0xffff0000u) | below(4) << 32 |
               below(8) << 48;
        if (parts[1] - SCRATCH < 0x10000) {
            volatile uint16_t *avail = (void *)parts[1];
            avail[2 + below(64)] = below(16);
            avail[1] += below(8) ? 1 : random();
        }
        w[0x50 / 4] = below(4);
        if (below(4) == 0)
            w[0x64 / 4] = 3;
    }
}

static void sleep(uint64_t *count) {
    count[SLEEPS]++;
    csr_write(sie, STIP | (below(2) ? SSIP : 0));
    quick_sbi(TIME, 0, now() + below(2000), 0);
    wfi();
    csr_write(sie, 0);
}

static void fuzz(struct hart *h) {
    static void (*const actions[])(uint64_t *) = {fetch, call, queue, sleep};
    uint64_t *count = (uint64_t *)counts[h - harts];
    state[h - harts] = (seed + 1) * 0x9e3779b97f4a7c15 ^ (h - harts) << 32;
    while (now() < end) {
        uint64_t i = below(32);
        (i < LENGTH(actions) ? actions[i] : access)(count);
        count[FAULTS] += trapped();
        h->out++; // a sign of life
    }
}

static void beat(uint64_t harts_here) {
    volatile uint8_t *uart = (void *)0x10000000;
    uart[3] = 3, uart[1] = 0, uart[4] = 0, uart[2] = 7;
    static const char *names[] = {"loads",  "stores", "fetches", "calls",
                                  "queues", "sleeps", "faults"};
    say("\nfuzz:");
    for (unsigned k = 0; k < KINDS; k++) {
        uint64_t sum = 0;
        for (uint64_t i = 0; i < harts_here; i++)
            sum += counts[i][k];
        say(" %ld %s", sum, names[k]);
    }
    say("\n");
}

static uint64_t decimal(const char *fdt, const char *name) {
    uint64_t n = 0;
    for (const char *p = argument(fdt, name); p && *p >= '0' && *p <= '9'; p++)
        n = 10 * n + *p - '0';
    return n;
}

int main(uint64_t hart, const char *fdt) {
    uint64_t n = decimal(fdt, "harts="), stop;
    seed = decimal(fdt, "seed=");
    stop = now() + decimal(fdt, "seconds=") * 1000 * MS;
    say("fuzz: seed %ld\n", seed);
    // All harts work for a second, pause while a line is printed, and go on.
    while (now() < stop) {
        end = now() + 1000 * MS;
        for (uint64_t i = 0; i < n; i++)
            if (i != hart)
                check(run_on(i, fuzz, 0), OK, "start hart %ld", i);
        fuzz(&harts[hart]);
        for (uint64_t i = 0; i < n; i++)
            if (i != hart)
                join(i);
        for (uint64_t i = 0; i < 8; i++) // no device writes to us from now on
            *(volatile uint32_t *)(0x10001070 + i * 4096) = 0;
        beat(n);
        seed++;
    }
    return 0;
}
