// Code that the hypervisor has to read, because an instruction in it accesses a
// device.  It lies in a page that can only be executed, in a user's page, or
// across two pages, the second of which may be unmapped or not in RAM.  With
// boot argument harts=2 another hart unmaps it meanwhile.
#include "guest.h"

#define SV39 (8ul << 60)
enum { V = 1, R = 2, W = 4, X = 8, U = 16, AD = 192, GB = 1 << 30 };
enum { FETCH_ACCESS = 1, FETCH_PAGE = 12 };
#define CODE (5ul * GB)
// MagicValue of a virtio slot, and its value.  After a reset of the device,
// reading it is an exit.
#define DEVICE 0x10008000ul
#define STATUS (*(volatile uint32_t *)(DEVICE + 0x70))
enum { MAGIC = 0x74726976 };

static volatile uint64_t root[512] __attribute__((aligned(4096)));
static volatile uint64_t middle[512] __attribute__((aligned(4096)));
static volatile uint64_t last[512] __attribute__((aligned(4096)));
static uint16_t code[2 * 2048] __attribute__((aligned(4096)));

static void page(unsigned n, uint64_t flags) {
    last[n] = ((uint64_t)code / 4096 + n) << 10 | AD | flags;
}

static void flush(void) { asm volatile("sfence.vma; fence.i" ::: "memory"); }

static void paging_on(void) {
    csr_write(satp, SV39 | (uint64_t)root / 4096);
    flush();
}

// Puts `lw a0, (a0); ret` at OFFSET in the two pages, and returns its virtual
// address.
static uint64_t put_code(uint64_t offset) {
    static const uint16_t insts[] = {0x2503, 0x0005, 0x8082};
    for (unsigned i = 0; i < LENGTH(insts); i++)
        code[offset / 2 + i] = insts[i];
    flush();
    return CODE + offset;
}

static uint64_t run(uint64_t pc) {
    register uint64_t a0 asm("a0") = DEVICE;
    asm volatile("jalr %1" : "+r"(a0) : "r"(pc) : "ra", "t0", "memory");
    return a0;
}

static void works(uint64_t offset, const char *what) {
    trapped();
    check(run(put_code(offset)), MAGIC, "%s", what);
    check(trapped(), false, "%s traps", what);
}

static void fails(uint64_t offset, uint64_t cause, const char *what) {
    uint64_t pc = put_code(offset);
    flush();
    trapped();
    run(pc);
    check(trapped(), true, "%s traps", what);
    check(this_hart()->trap.cause, cause, "%s: scause", what);
    check(this_hart()->trap.pc, pc, "%s: sepc", what);
    check(this_hart()->trap.tval, offset < 4094 ? pc : pc + 2, "%s: stval",
          what);
}

static void alone(void) {
    page(0, V | X), page(1, V | X), flush();
    works(0, "executable only");
    works(4094, "across two pages");
    page(0, V | R | X), page(1, V | R | W | X), flush();
    works(4092, "readable, too");
    page(1, 0);
    fails(4094, FETCH_PAGE, "into a page that is not mapped");
    last[1] = 0x1000 / 4 | V | X | AD;
    fails(4094, FETCH_ACCESS, "into a page that is not in RAM");
    page(1, V | R | X), page(0, V | R | W);
    fails(0, FETCH_PAGE, "from a page without code");
    page(0, V | X | U);
    fails(0, FETCH_PAGE, "from a user's page");
    page(0, V | R | W | X), page(1, V | R | W | X), flush();
    done("code");
}

static volatile bool stop;
static void unmap(struct hart *h) {
    for (unsigned i = 0; !stop; i++) {
        last[i & 1] = 0;
        asm volatile("fence");
        for (unsigned j = 0; j < i % 64; j++)
            asm volatile("nop");
        page(i & 1, V | X);
        asm volatile("fence");
    }
    h->out = 1;
}

static void race(uint64_t other) {
    uint64_t faults = 0, rounds = 0;
    put_code(8), put_code(4094);
    check(run_on(other, unmap, 0), OK, "start hart %ld", other);
    // This takes longer where the harts do not really run at the same time.
    struct patience p = {PATIENCE * MS, now()};
    for (uint64_t end = now() + 2000 * MS;
         now() < end || ((!faults || faults == rounds) && patient(&p, now()));
         rounds++) {
        uint64_t pc = CODE + (rounds & 1 ? 4094 : 8);
        flush();
        trapped();
        uint64_t value = run(pc);
        if (!trapped()) {
            check(value, MAGIC, "the value");
            continue;
        }
        faults++;
        struct trap t = this_hart()->trap;
        bool second = t.tval == pc + 2 || t.tval == pc + 4;
        check(t.cause, FETCH_PAGE, "scause at %ld, stval %ld", t.pc, t.tval);
        check(second || t.tval == pc, true, "stval %ld", t.tval);
    }
    stop = true;
    join(other);
    say("%ld rounds, %ld faults\n", rounds, faults);
    check(faults > 0 && faults < rounds, true, "some rounds fault, not all");
    done("race");
}

int main(uint64_t hart, const char *fdt) {
    for (uint64_t i = 0; i < 4; i++)
        root[i] = i * GB / 4 | R | W | X | V | AD;
    root[5] = (uint64_t)middle / 4 | V;
    middle[0] = (uint64_t)last / 4 | V;
    paging_on();
    STATUS = 0;
    alone();
    if (argument(fdt, "harts=2"))
        race(1 - hart);
    csr_write(satp, 0);
    return 0;
}
