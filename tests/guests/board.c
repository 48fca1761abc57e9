// The machine that a kernel in S-mode sees.  Boot arguments: harts=N, and what
// to do:
//
//   case=begin     what each hart finds when it starts
//   case=widths    the devices' registers, in every width, a line for each
//   case=senvcfg   the guest has a senvcfg of its own
//   case=straddle  accesses that begin in RAM and go on into a device
//   case=own       the same into a page that the guest has itself
//   case=clock     the time of day, and its alarm
//   case=power V   stores V, in hexadecimal, to the test device while all
//                  harts run; with "half" among the arguments, by sh
#include "guest.h"

#define B(address) (*(volatile uint8_t *)(address))
#define H(address) (*(volatile uint16_t *)(address))
#define W(address) (*(volatile uint32_t *)(address))
#define D(address) (*(volatile uint64_t *)(address))
#define TEST 0x100000ul
#define RTC 0x101000ul
#define PLIC 0xc000000ul
#define UART 0x10000000ul
#define VIRTIO 0x10001000ul

static uint64_t me, harts_here;
static const char *arguments;

// Registers of this hart's S-mode context in the PLIC.
#define ENABLE (PLIC + 0x2000 + 0x80 * (2 * me + 1))
#define THRESHOLD (PLIC + 0x200000 + 0x1000 * (2 * me + 1))
#define CLAIM (THRESHOLD + 4)

// --- The beginning -----------------------------------------------------------

// Priv. and SBI leave some of this open.  These are the values that kernels get
// from QEMU and OpenSBI, or that they rely on.
static void begin(struct hart *h) {
    (void)h;
    check(csr_read(sie), 0, "sie");
    check(csr_read(sstatus) & SSTATUS_SIE, 0, "sstatus.SIE");
    check(csr_read(satp), 0, "satp");
    check(csr_read(sip), 0, "sip: nobody has asked for an interrupt yet");
    h->out = 1;
}

static void test_begin(void) {
    for (uint64_t i = 0; i < harts_here; i++)
        check(W(PLIC + 0x200000 + 0x1000 * (2 * i + 1)), 0,
              "threshold of hart %ld", i);
    begin(this_hart());
    for (uint64_t i = 0; i < harts_here; i++)
        if (i != me) {
            check(run_on(i, begin, 0), OK, "start hart %ld", i);
            join(i);
        }
    done("begin");
}

// --- Registers in every width ------------------------------------------------

static const struct {
    const char *name;
    uint64_t at;
} places[] = {
    {"UART RBR", UART},
    {"UART IER", UART + 1},
    {"UART IIR", UART + 2},
    {"UART LCR", UART + 3},
    {"UART MCR", UART + 4},
    {"UART LSR", UART + 5},
    {"UART MSR", UART + 6},
    {"UART SCR", UART + 7},
    {"UART, behind it", UART + 8},
    {"PLIC priority 8", PLIC + 4 * 8},
    {"PLIC priority 9", PLIC + 4 * 9},
    {"PLIC priority 10", PLIC + 4 * 10},
    {"PLIC priority 30", PLIC + 4 * 30},
    {"PLIC pending", PLIC + 0x1000},
    {"PLIC enable, M-mode", PLIC + 0x2000},
    {"PLIC enable, S-mode", PLIC + 0x2080},
    {"PLIC enable, S-mode, word 1", PLIC + 0x2084},
    {"PLIC threshold, M-mode", PLIC + 0x200000},
    {"PLIC threshold, S-mode", PLIC + 0x201000},
    {"PLIC, behind it", PLIC + 0x600000},
    {"RTC alarm low", RTC + 0x08},
    {"RTC alarm high", RTC + 0x0c},
    {"RTC irq enabled", RTC + 0x10},
    {"RTC alarm status", RTC + 0x18},
    {"RTC, behind it", RTC + 0x1000},
    {"test", TEST},
    {"test, behind it", TEST - 8},
    {"CLINT msip", 0x2000000},
    {"CLINT mtimecmp", 0x2004000},
    {"CLINT mtime", 0x200bff8},
    {"virtio magic", VIRTIO},
    {"virtio device", VIRTIO + 8},
    {"virtio queue size", VIRTIO + 0x38},
    {"virtio queue", VIRTIO + 0x80},
    {"virtio configuration", VIRTIO + 0x100},
    {"virtio configuration +8", VIRTIO + 0x108},
    {"virtio, behind it", VIRTIO + 8 * 0x1000},
    {"nothing", 0x4000000},
    {"behind RAM", RAM_END + 0x10000000},
    {"boot ROM", 0x1000},
    {"fw_cfg", 0x10100000},
    {"pflash", 0x22000000},
    {"PCIe ECAM", 0x30000000},
    {"PCIe", 0x50000000},
};

static uint64_t load(uint64_t at, uint64_t width) {
    switch (width) {
    case 1: return B(at);
    case 2: return H(at);
    case 4: return W(at);
    default: return D(at);
    }
}

static void store(uint64_t at, uint64_t width, uint64_t value) {
    switch (width) {
    case 1: B(at) = value; break;
    case 2: H(at) = value; break;
    case 4: W(at) = value; break;
    default: D(at) = value;
    }
}

static void try(unsigned i, uint64_t width, long value, bool show) {
    uint64_t at = places[i].at;
    trapped();
    uint64_t got = 0;
    if (value < 0)
        got = load(at, width);
    else
        store(at, width, value);
    struct trap t = this_hart()->trap;
    bool yes = trapped();
    if (value < 0)
        say("%s: load of %ld: ", places[i].name, width);
    else
        say("%s: store %ld in %ld: ", places[i].name, value, width);
    if (yes)
        say("cause %ld, at +%ld\n", t.cause, t.tval - at);
    else if (value < 0 && show)
        say("%ld\n", got);
    else
        say("ok\n");
}

static void widths(void) {
    // Harmless everywhere: to the UART, 7 is a character or a word length.
    static const long values[] = {3, 7, 0};
    W(THRESHOLD) = 0; // without the hypervisor the firmware has set it
    for (unsigned i = 0; i < LENGTH(places); i++)
        for (uint64_t width = 1; width <= 8; width *= 2) {
            if (places[i].at % width)
                continue;
            try(i, width, -1, true);
            for (unsigned j = 0; j < LENGTH(values); j++) {
                if (places[i].at - UART == 3 && values[j] != 3)
                    continue; // LCR: eight bits
                try(i, width, values[j], true);
                // Read back what came of it: at the UART one byte, as we don't
                // know what the registers next to it hold.
                try(i, width < 4 && places[i].at < UART ? 4 : 1, -1, true);
            }
        }
    W(THRESHOLD) = 8, say("PLIC threshold 8: %ld\n", (long)W(THRESHOLD));
    W(PLIC + 40) = -1, say("PLIC priority -1: %ld\n", (long)W(PLIC + 40));
    W(TEST) = 0x1234, say("test after 0x1234: %ld\n", (long)W(TEST));
    say("the end\n");
}

// --- senvcfg -----------------------------------------------------------------

static uint64_t zero(uint64_t address) {
    asm volatile(".option push\n.option arch, +zicboz\ncbo.zero (%0)\n"
                 ".option pop" ::"r"(address)
                 : "memory");
    return 0;
}

static void test_senvcfg(void) {
    enum { CBZE = 1 << 7 };
    static uint8_t block[256] __attribute__((aligned(64)));
    bool zicboz = argument(arguments, "_zicboz") != 0;
    for (uint64_t on = 0; on < 2; on++) {
        trapped();
        csr_write(0x10a, on * CBZE);
        check(trapped(), false, "a write of senvcfg traps");
        uint64_t value = csr_read(0x10a);
        check(trapped(), false, "a read of senvcfg traps");
        if (!zicboz)
            continue;
        check(value & CBZE, on * CBZE, "senvcfg.CBZE");
        block[64] = 5;
        user_call(zero, (uint64_t)&block[64]);
        check(trapped(), !on, "cbo.zero in U-mode, CBZE %ld: traps", on);
        check(block[64], on ? 0 : 5, "cbo.zero in U-mode, CBZE %ld", on);
    }
    say(zicboz ? "Zicboz\n" : "no Zicboz\n");
    done("senvcfg");
}

// --- From RAM into a device --------------------------------------------------

#define SV39 (8ul << 60)
#define LEAF(pa) ((uint64_t)(pa) >> 2 | 0xcf)
#define EDGE (0x100000000ul + 4096) // RAM ends there, the device begins
static uint64_t root[512] __attribute__((aligned(4096)));
static uint64_t middle[512] __attribute__((aligned(4096)));
static uint64_t last[512] __attribute__((aligned(4096)));
static volatile uint8_t page[4096] __attribute__((aligned(4096)));

// One access each, at a0 with a1.
// clang-format off
#define ACCESSES(x) \
    x(lw, 4, 0, ".option norvc; lw a1, (a0); .option rvc") \
    x(lwu, 4, 0, "lwu a1, (a0)") \
    x(ld, 8, 0, ".option norvc; ld a1, (a0); .option rvc") \
    x(lh, 2, 0, "lh a1, (a0)") \
    x(lhu, 2, 0, "lhu a1, (a0)") \
    x(c_lw, 4, 0, "c.lw a1, (a0)") \
    x(c_ld, 8, 0, "c.ld a1, (a0)") \
    x(c_lw_4, 4, 0, "addi a0, a0, -4; c.lw a1, 4(a0)") \
    x(c_ldsp, 8, 0, "mv t0, sp; mv sp, a0; c.ldsp a1, 0(sp); mv sp, t0") \
    x(lw_far, 4, 0, "li t0, 2040; sub a0, a0, t0; lw a1, 2040(a0)") \
    x(sh, 2, 1, "sh a1, (a0)") \
    x(sw, 4, 1, ".option norvc; sw a1, (a0); .option rvc") \
    x(sd, 8, 1, ".option norvc; sd a1, (a0); .option rvc") \
    x(c_sw, 4, 1, "c.sw a1, (a0)") \
    x(c_sd, 8, 1, "c.sd a1, (a0)") \
    x(c_sd_8, 8, 1, "addi a0, a0, -8; c.sd a1, 8(a0)") \
    x(c_swsp, 4, 1, "mv t0, sp; mv sp, a0; c.swsp a1, 0(sp); mv sp, t0") \
    x(sw_near, 4, 1, "addi a0, a0, 7; sw a1, -7(a0)")
// clang-format on
#define CODE(name, width, store, instruction)                                  \
    uint64_t s_##name(uint64_t address, uint64_t value);                       \
    asm(".pushsection .text\n.balign 4\ns_" #name ": " instruction             \
        "\nmv a0, a1\nret\n.popsection");
#define ROW(name, width, store, ...) {#name, s_##name, width, store},
ACCESSES(CODE)
static const struct {
    const char *name;
    uint64_t (*run)(uint64_t address, uint64_t value);
    uint64_t width;
    bool store;
} accesses[] = {ACCESSES(ROW)};

// Maps RAM below EDGE, and a page of a device from there on.
static void put_beside(uint64_t device) {
    for (unsigned i = 0; i < 3; i++)
        root[i] = LEAF(i << 30);
    root[4] = (uint64_t)middle >> 2 | 1;
    middle[0] = (uint64_t)last >> 2 | 1;
    last[0] = LEAF(page);
    last[1] = LEAF(device);
    csr_write(satp, SV39 | (uint64_t)root >> 12);
    asm volatile("sfence.vma" ::: "memory");
    for (unsigned b = 0; b < 4096; b++)
        page[b] = 0xaa;
}

// The page with the threshold is the guest's own, so what such an access does
// there is the hart's business: the test compares it with the bare machine.
static void own_page(void) {
    W(THRESHOLD) = 0; // the firmware may have set it
    put_beside(THRESHOLD & -4096ul);
    for (unsigned i = 0; i < LENGTH(accesses); i++)
        for (uint64_t in = 1; in < accesses[i].width; in++) {
            W(THRESHOLD) = 3;
            trapped();
            uint64_t a1 = accesses[i].run(EDGE - in, 0x0505050505050505);
            struct trap t = this_hart()->trap;
            bool yes = trapped();
            say("%s at -%ld: trap %ld, cause %ld, tval +%ld, a1 %ld, threshold "
                "%ld\n",
                accesses[i].name, in, (long)yes, yes ? t.cause : 0,
                yes ? t.tval - EDGE : 0, a1, (long)W(THRESHOLD));
        }
    csr_write(satp, 0);
    W(THRESHOLD) = 0;
    say("the end\n");
}

// Three devices, each with a register that keeps what is written to it.  At the
// first, loads and stores are both exits; the pages of the others can be read.
static void test_straddle(void) {
    const struct {
        const char *name;
        uint64_t page, offset;
        bool word, readable;
    } devices[] = {{"PLIC", THRESHOLD & -4096ul, THRESHOLD % 4096, true, false},
                   {"UART", UART, 7, false, true},
                   {"priorities", PLIC, 40, true, true}};
    // The page with the threshold is an exit while an interrupt is shown.  So
    // show one: the UART's, at a priority that no threshold below 7 holds back.
    W(PLIC + 40) = 7, W(ENABLE) = 1 << 10;
    B(UART + 1) = 2; // IER: when the transmitter is empty
    for (unsigned d = 0; d < LENGTH(devices); d++) {
        put_beside(devices[d].page);
        for (unsigned i = 0; i < LENGTH(accesses); i++)
            for (uint64_t in = 1; in < accesses[i].width; in++) {
                const char *name = devices[d].name, *inst = accesses[i].name;
                uint64_t there = devices[d].page + devices[d].offset;
                if (!accesses[i].store && devices[d].readable)
                    continue; // no exit: the hart reads it by itself
                if (devices[d].word)
                    W(there) = 3;
                else
                    B(there) = 3;
                trapped();
                uint64_t a1 = accesses[i].run(EDGE - in, 0x0505050505050505);
                struct trap t = this_hart()->trap;
                check(trapped(), true, "%s, %s at -%ld: traps", name, inst, in);
                check(t.cause, accesses[i].store ? 7 : 5,
                      "%s, %s at -%ld: scause", name, inst, in);
                check(t.tval, EDGE, "%s, %s at -%ld: stval", name, inst, in);
                check(a1, 0x0505050505050505, "%s, %s at -%ld: register", name,
                      inst, in);
                check(devices[d].word ? W(there) : B(there), 3,
                      "%s, %s at -%ld: the device", name, inst, in);
            }
        csr_write(satp, 0);
    }
    B(UART + 1) = 0, W(ENABLE) = 0, W(PLIC + 40) = 0, W(THRESHOLD) = 0;
    done("straddle");
}

// --- The clock ---------------------------------------------------------------

static uint64_t clock(void) { // in ns; the lower half latches the upper one
    uint64_t low = W(RTC);
    return (uint64_t)W(RTC + 4) << 32 | low;
}

static void test_clock(void) {
    uint64_t before = clock();
    say("clock: %ld\n", (long)before);
    check(clock() > before, true, "the clock moves");
    W(PLIC + 4 * 11) = 1;
    W(ENABLE) = 1 << 11;
    W(THRESHOLD) = 0;
    for (uint64_t ms = 0; ms < 60; ms += 20) { // now, and later
        uint64_t alarm = clock() + ms * 1000 * 1000;
        W(RTC + 0x10) = 1;           // interrupts on
        W(RTC + 0x0c) = alarm >> 32; // then the lower half, which arms it
        W(RTC + 0x08) = alarm;
        trapped();
        csr_write(sie, SEIP);
        csr_set(sstatus, SSTATUS_SIE);
        check(until(trapped(), PATIENCE), true, "the alarm in %ld ms", ms);
        csr_clear(sstatus, SSTATUS_SIE);
        check(clock() >= alarm, true, "the alarm in %ld ms is not early", ms);
        check(this_hart()->trap.cause, 1ul << 63 | 9, "its cause");
        check(W(CLAIM), 11, "its source");
        W(RTC + 0x1c) = 1; // clear
        W(CLAIM) = 11;
        check(W(CLAIM), 0, "another one");
    }
    done("clock");
}

// --- The power switch --------------------------------------------------------

static uint64_t power;
static bool half;

static void spin(struct hart *h) {
    h->out = 1;
    for (;;)
        ;
}

static void switch_off(struct hart *h) {
    h->out = 1;
    if (half)
        H(TEST) = power;
    else
        W(TEST) = power;
    die("the machine goes on");
}

static void test_power(const char *p) {
    for (; *p && *p != ' '; p++)
        power = 16 * power + (*p <= '9' ? *p - '0' : *p - 'a' + 10);
    half = argument(arguments, "half") != 0;
    uint64_t last = (me + harts_here - 1) % harts_here;
    for (uint64_t i = 0; i < harts_here; i++)
        if (i != me && i != last) {
            check(run_on(i, spin, 0), OK, "start hart %ld", i);
            check(until(harts[i].out, PATIENCE), true, "hart %ld runs", i);
        }
    if (last != me)
        check(run_on(last, switch_off, 0), OK, "start hart %ld", last);
    else
        switch_off(this_hart());
    for (;;)
        ;
}

int main(uint64_t hart, const char *fdt) {
    const char *which = argument(fdt, "case=");
    arguments = fdt;
    me = hart;
    harts_here = argument(fdt, "harts=")[0] - '0';
    switch (*which) {
    case 'b': test_begin(); break;
    case 'w': widths(); break;
    case 's': which[1] == 'e' ? test_senvcfg() : test_straddle(); break;
    case 'o': own_page(); break;
    case 'c': test_clock(); break;
    case 'p': test_power(argument(fdt, "case=power ")); break;
    }
    return 0;
}
