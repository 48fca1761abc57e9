#include "mmode_lib.h"
#include <stdarg.h>

_Alignas(16) char stacks[MAX_HARTS * STACK];

unsigned harts = 1;

void *memset(void *to, int c, size_t n) {
    for (char *p = to; n--; p++)
        *p = c;
    return to;
}

void *memcpy(void *to, const void *from, size_t n) {
    const char *q = from;
    for (char *p = to; n--; p++, q++)
        *p = *q;
    return to;
}

// --- Locks and meetings ------------------------------------------------------

uint64_t acquire(struct lock *l) {
    uint64_t sstatus = csr_read(sstatus);
    csr_write(sstatus, sstatus & ~(uint64_t)STATUS_SIE);
    while (__atomic_exchange_n(&l->taken, 1, __ATOMIC_ACQUIRE))
        ;
    return sstatus & STATUS_SIE;
}

void release(struct lock *l, uint64_t before) {
    __atomic_store_n(&l->taken, 0, __ATOMIC_RELEASE);
    csr_write(sstatus, csr_read(sstatus) | before);
}

void barrier(void) {
    static unsigned arrived;
    unsigned mine = __atomic_fetch_add(&arrived, 1, __ATOMIC_ACQ_REL);
    unsigned all = (mine / harts + 1) * harts;
    while (__atomic_load_n(&arrived, __ATOMIC_ACQUIRE) < all)
        ;
}

// --- The console -------------------------------------------------------------

void uart_put(char c) {
    while (!(reg8(UART + UART_LSR) & LSR_TX_IDLE))
        ;
    reg8(UART + UART_THR) = c;
}

static void put_number(uint64_t n, unsigned base) {
    if (n >= base)
        put_number(n / base, base);
    uart_put("0123456789abcdef"[n % base]);
}

void print(const char *format, ...) {
    static struct lock lock;
    va_list args;
    va_start(args, format);
    uint64_t before = acquire(&lock);
    for (const char *p = format; *p; p++) {
        if (*p != '%') {
            uart_put(*p);
            continue;
        }
        switch (*++p) {
        case 's':
            for (const char *s = va_arg(args, const char *); *s; s++)
                uart_put(*s);
            break;
        case 'd': {
            long n = va_arg(args, long);
            if (n < 0)
                uart_put('-');
            put_number(n < 0 ? -n : n, 10);
            break;
        }
        case 'u': put_number(va_arg(args, uint64_t), 10); break;
        case 'x':
            uart_put('0');
            uart_put('x');
            put_number(va_arg(args, uint64_t), 16);
            break;
        }
    }
    release(&lock, before);
    va_end(args);
}

// --- Checks ------------------------------------------------------------------

static uint64_t checks, failures;

bool check(const char *file, int line, const char *what, uint64_t got,
           uint64_t want) {
    __atomic_fetch_add(&checks, 1, __ATOMIC_RELAXED);
    if (got == want)
        return true;
    // A flood of lines would tell no more, and take minutes.
    if (__atomic_fetch_add(&failures, 1, __ATOMIC_RELAXED) < 50)
        print("FAIL hart %u, %s:%u: %s: got %x, want %x\n", (uint64_t)hart(),
              file, (uint64_t)line, what, got, want);
    return false;
}

void summary(const char *group) {
    print("%s: %u checks, %u failed\n", group, checks, failures);
    checks = failures = 0;
}

void stop(void) {
    summary("stopped");
    park();
}

void park(void) {
    for (;;)
        asm volatile("wfi");
}

// --- The device tree ---------------------------------------------------------

// This searches and does not parse: a hart's node is named cpu@N, and "sstc" is
// an extension in a list with "_" or a NUL on both sides.
static unsigned find(const char *dtb, const char *text, bool word) {
    const uint8_t *size = (const uint8_t *)dtb + 4; // big-endian
    const char *end = dtb + (size[1] << 16 | size[2] << 8 | size[3]) - 5;
    unsigned found = 0;
    for (const char *p = dtb + 1; p < end; p++)
        if (p[0] == text[0] && p[1] == text[1] && p[2] == text[2] &&
            p[3] == text[3] &&
            (!word || ((!p[-1] || p[-1] == '_') && (!p[4] || p[4] == '_'))))
            found++;
    return found;
}

unsigned dtb_harts(const void *dtb) { return find(dtb, "cpu@", false); }

bool dtb_has_sstc(const void *dtb) { return find(dtb, "sstc", true); }

// --- Page tables -------------------------------------------------------------

void *alloc_page(void) {
    static char *next = image_end;
    void *page = __atomic_fetch_add(&next, PAGE, __ATOMIC_RELAXED);
    return memset(page, 0, PAGE);
}

uint64_t *root_table(void) { return alloc_page(); }

static uint64_t *entry(uint64_t *table, uint64_t va, bool make) {
    for (int level = 2; level > 0; level--) {
        uint64_t *pte = &table[va >> (12 + 9 * level) & 511];
        if (!(*pte & PTE_V)) {
            if (!make)
                return NULL;
            *pte = (uint64_t)alloc_page() >> 12 << 10 | PTE_V;
        }
        table = (uint64_t *)(*pte >> 10 << 12);
    }
    return &table[va >> 12 & 511];
}

uint64_t *walk(uint64_t *root, uint64_t va) { return entry(root, va, false); }

void map(uint64_t *root, uint64_t va, uint64_t pa, uint64_t size,
         uint64_t perm) {
    for (uint64_t at = 0; at < size; at += PAGE)
        *entry(root, va + at, true) =
            (pa + at) >> 12 << 10 | perm | PTE_AD | PTE_V;
}
