// Every SBI call, with arguments from the edges and with random ones.  Each
// must do what it was asked to, or return an error that the specification
// names.  Boot argument: harts=N.  With two harts, one of these calls starts
// the other hart at some point.
#include "guest.h"

static const uint64_t edges[] = {
    0,          1,           2,           3,          4,           63,
    64,         4095,        4096,        RAM - 8,    RAM - 1,     RAM,
    RAM + 4096, RAM_END - 8, RAM_END - 1, RAM_END,    RAM_END + 1, 1ul << 31,
    0x80000001, 1ul << 32,   1ul << 40,   1ul << 41,  1ul << 62,   1ul << 63,
    0x10000000, 0x10001000,  0xc201004,   -1ul << 32, -4096ul,     -8ul,
    -2ul,       -1ul};
static const uint64_t ids[] = {0,    1,    2,    3,        4,   5,      6,
                               7,    BASE, 9,    TIME,     IPI, RFENCE, HSM,
                               DBCN, SRST, 0x11, 0x504d55, -1};

// Calls that rightly end the run, or stop the hart.
static bool is_end(uint64_t id, uint64_t function, uint64_t a0, uint64_t a1) {
    return (id == SRST && function == 0 && (uint32_t)a0 < 3 &&
            (uint32_t)a1 < 2) ||
           (id == HSM && (function == HART_STOP || function == HART_SUSPEND));
}

static uint64_t calls;

static void call(uint64_t id, uint64_t function, uint64_t a0, uint64_t a1,
                 uint64_t a2, uint64_t a3, uint64_t a4) {
    if (is_end(id, function, a0, a1))
        return;
    calls++;
    struct sbiret ret = sbi(id, function, a0, a1, a2, a3, a4);
    if (id >= 3 && id < 8) { // legacy calls with a mask: not offered
        check(trapped(), false, "legacy %ld mask at %ld traps", id, a0);
        check(ret.error, NOT_SUPPORTED, "legacy %ld mask at %ld", id, a0);
    } else if (id > 8) {
        check(ret.error <= 0 && ret.error >= -9, true,
              "%ld, %ld (%ld, %ld, %ld) gives %ld", id, function, a0, a1, a2,
              ret.error);
    }
}

// Buffers of the debug console: inside RAM, or the answer is INVALID_PARAM.
static void test_buffers(void) {
    for (unsigned i = 0; i < LENGTH(edges); i++)
        for (unsigned j = 0; j < LENGTH(edges); j++)
            for (uint64_t high = 0; high < 2; high++)
                for (uint64_t f = 0; f < 2; f++) {
                    uint64_t n = edges[i], at = edges[j];
                    bool good = !high && at >= RAM && at <= RAM_END &&
                                n <= RAM_END - at;
                    struct sbiret ret = sbi(DBCN, f, n, at, high);
                    check(ret.error, good ? OK : INVALID_PARAM,
                          "DBCN %ld of %ld bytes at %ld", f, n, at);
                    check(ret.value >= 0 && (uint64_t)ret.value <= n, true,
                          "DBCN %ld of %ld bytes at %ld: value", f, n, at);
                }
    done("buffers");
}

static uint64_t random(void) { // xorshift
    static uint64_t x = 0x9e3779b97f4a7c15;
    x ^= x << 13, x ^= x >> 7;
    return x ^= x << 17;
}

static uint64_t value(void) {
    uint64_t r = random();
    return r % 4 ? edges[r / 4 % LENGTH(edges)] + (r >> 32) % 3 - 1
                 : random() >> r / 4 % 64;
}

int main(uint64_t hart, const char *fdt) {
    uint64_t n = argument(fdt, "harts=")[0] - '0';
    for (unsigned i = 0; i < LENGTH(ids); i++)
        for (uint64_t f = 0; f < 9; f++)
            for (unsigned j = 0; j < LENGTH(edges); j++)
                for (unsigned k = 0; k < 2; k++) {
                    uint64_t a1 = k ? 0 : edges[j], a0 = k ? edges[j] : 1;
                    if (ids[i] != SRST && ids[i] != DBCN)
                        call(ids[i], f, a0, a1, edges[j], a1, a0);
                }
    done("edges");
    test_buffers();
    for (uint64_t i = 0; i < 20000; i++) {
        uint64_t id = ids[random() % LENGTH(ids)], f = random() % 9;
        if (id != DBCN || f == 2)
            call(id, random() % 64 ? f : value(), value(), value(), value(),
                 value(), value());
    }
    done("random");
    for (uint64_t i = 0; i < n; i++) // all are still there
        check(sbi(HSM, HART_GET_STATUS, i).error, OK, "status of hart %ld", i);
    check(has_state(hart, STARTED), true, "hart %ld runs", hart);
    say("%ld calls\n", calls);
    return 0;
}
