// Loads, stores and fetches of every kind where there is no memory, from
// VS-mode and from VU-mode: each must arrive as the access fault that the
// specification names, and leave the registers alone.
#include "guest.h"

// One instruction each, which accesses the address in a0 and has operands in a1
// and fa1.  NAME is the label of the instruction itself.
#define PROBE(name, before, instruction)                                       \
    extern const char name[];                                                  \
    uint64_t run_##name(uint64_t address);                                     \
    asm(".pushsection .text\n.balign 4\n.option push\n"                        \
        ".option arch, +v, +zicboz\n run_" #name ": li a1, 0x5a5\n" before     \
        "\n" #name ": " instruction "\n.option pop\nmv a0, a1\nret\n"          \
        ".popsection");
// clang-format off
#define LOADS(x) \
    x(lb, "", "lb a1, (a0)") \
    x(lbu, "", "lbu a1, (a0)") \
    x(lh, "", "lh a1, (a0)") \
    x(lhu, "", "lhu a1, (a0)") \
    x(lw, "", ".option norvc; lw a1, (a0); .option rvc") \
    x(lwu, "", "lwu a1, (a0)") \
    x(ld, "", ".option norvc; ld a1, (a0); .option rvc") \
    x(c_lw, "", "c.lw a1, (a0)") \
    x(c_ld, "", "c.ld a1, (a0)") \
    x(c_ldsp, "mv t0, sp; mv sp, a0", "c.ldsp a1, 0(sp); mv sp, t0") \
    x(flw, "", "flw fa1, (a0)") \
    x(fld, "", ".4byte 0x00053587") \
    x(c_fld, "", "c.fld fa1, (a0)") \
    x(lr_w, "", "lr.w a1, (a0)") \
    x(lr_d, "", "lr.d a1, (a0)")
#define STORES(x) \
    x(sb, "", "sb a1, (a0)") \
    x(sh, "", "sh a1, (a0)") \
    x(sw, "", ".option norvc; sw a1, (a0); .option rvc") \
    x(sd, "", ".option norvc; sd a1, (a0); .option rvc") \
    x(c_sw, "", "c.sw a1, (a0)") \
    x(c_sd, "", "c.sd a1, (a0)") \
    x(c_swsp, "mv t0, sp; mv sp, a0", "c.swsp a1, 0(sp); mv sp, t0") \
    x(fsw, "", "fsw fa1, (a0)") \
    x(fsd, "", ".4byte 0x00b53027") \
    x(c_fsd, "", "c.fsd fa1, (a0)") \
    x(amoadd_w, "", "amoadd.w a1, a1, (a0)") \
    x(amoswap_d, "", "amoswap.d a1, a1, (a0)") \
    x(amomaxu_w, "", "amomaxu.w a1, a1, (a0)")
#define VECTOR_LOADS(x) \
    x(vle8, "vsetivli zero, 4, e8, m1, ta, ma", "vle8.v v8, (a0)") \
    x(vle64, "vsetivli zero, 2, e64, m1, ta, ma", "vle64.v v8, (a0)")
#define VECTOR_STORES(x) \
    x(vse8, "vsetivli zero, 4, e8, m1, ta, ma", "vse8.v v8, (a0)") \
    x(vse32, "vsetivli zero, 2, e32, m1, ta, ma", "vse32.v v8, (a0)")
#define CBO_STORES(x) \
    x(cbo_zero, "", "cbo.zero (a0)")
// clang-format on
LOADS(PROBE);
STORES(PROBE);
VECTOR_LOADS(PROBE);
VECTOR_STORES(PROBE);
CBO_STORES(PROBE);

enum { FETCH = 1, ILLEGAL = 2, LOAD = 5, STORE = 7 };

struct probe {
    const char *name, *pc;
    uint64_t (*run)(uint64_t);
    uint64_t cause;
};
#define LOAD_ROW(name, ...) {#name, name, run_##name, LOAD},
#define STORE_ROW(name, ...) {#name, name, run_##name, STORE},
static const struct probe probes[] = {LOADS(LOAD_ROW) STORES(STORE_ROW)};
static const struct probe vector[] = {VECTOR_LOADS(LOAD_ROW)
                                          VECTOR_STORES(STORE_ROW)};
static const struct probe cbo[] = {CBO_STORES(STORE_ROW)};

static bool user;

// Runs PROBE at ADDRESS.  It must trap, and every detail of the trap must be
// right.
static void expect(const struct probe *p, uint64_t address) {
    for (uint64_t spie = 0; spie < 2; spie++) { // were interrupts on?
        trapped();
        if (user)
            csr_write(sstatus, (csr_read(sstatus) & ~SSTATUS_SPIE) | spie << 5);
        else if (spie)
            csr_set(sstatus, SSTATUS_SIE);
        uint64_t a1 = user ? user_call(p->run, address) : p->run(address);
        csr_clear(sstatus, SSTATUS_SIE);
        struct trap t = this_hart()->trap;
        const char *mode = user ? "VU" : "VS";
        check(trapped(), true, "%s %s at %ld traps", mode, p->name, address);
        check(t.cause, p->cause, "%s %s at %ld: scause", mode, p->name,
              address);
        check(t.tval, address, "%s %s at %ld: stval", mode, p->name, address);
        check(t.pc, p->cause == FETCH ? address : (uint64_t)p->pc,
              "%s %s at %ld: sepc", mode, p->name, address);
        check(t.sstatus & (SSTATUS_SPP | SSTATUS_SPIE | SSTATUS_SIE),
              (user ? 0 : SSTATUS_SPP) | spie << 5, "%s %s at %ld: sstatus",
              mode, p->name, address);
        if (p->cause != FETCH)
            check(a1, 0x5a5, "%s %s at %ld: a1", mode, p->name, address);
    }
}

// Addresses that are empty in the guest's machine, though mostly not in the
// host's.
static const uint64_t nowhere[] = {0,
                                   0x1000,
                                   0x100008,
                                   0x102000,
                                   0x2000000,
                                   0x200bff8,
                                   0x3000000,
                                   0x4000000,
                                   0xbfffff8,
                                   0xc600000,
                                   0xffffff8,
                                   0x10000008,
                                   0x10000100,
                                   0x10000ff8,
                                   0x10009000,
                                   0x10100000,
                                   0x20000000,
                                   0x30000000,
                                   0x40000000,
                                   0x7ffffff8,
                                   RAM_END,
                                   RAM_END + 0x40000000,
                                   1ul << 33,
                                   1ul << 40,
                                   (1ul << 41) - 8};

static uint64_t fetch(uint64_t address) {
    ((void (*)(void))address)();
    return 0;
}

static void test_nowhere(void) {
    const struct probe fetches = {"fetch", 0, fetch, FETCH};
    for (unsigned i = 0; i < LENGTH(nowhere); i++) {
        for (unsigned j = 0; j < LENGTH(probes); j++)
            // The UART's page may be read, so an AMO there fails on QEMU's bus,
            // and QEMU 7.2 says that the load failed.
            if (nowhere[i] >> 12 != 0x10000 || probes[j].name[0] != 'a')
                expect(&probes[j], nowhere[i]);
        expect(&fetches, nowhere[i]);
    }
    // devices are no place for code either
    static const uint64_t devices[] = {0x100000,  0x101000,   0xc000000,
                                       0xc200000, 0x10000000, 0x10001000,
                                       0x10008000};
    for (unsigned i = 0; i < LENGTH(devices); i++)
        expect(&fetches, devices[i]);
    done(user ? "nowhere, VU" : "nowhere, VS");
}

// Accesses that a device does not take.  The PLIC and virtio take words, the
// test device takes words and halfwords, the UART integers of any width.  None
// takes a misaligned access, an AMO or a floating-point register.
static void test_widths(void) {
    static const uint64_t test = 0x100000, uart = 0x10000007, plic = 0xc000008,
                          threshold = 0xc200000, // M-mode's: always an exit
        status = 0x10008070;                     // slot 7: entropy
    for (unsigned i = 0; i < LENGTH(probes); i++) {
        const struct probe *p = &probes[i];
        bool word = p->run == run_sw || p->run == run_c_sw ||
                    p->run == run_c_swsp || p->run == run_lw ||
                    p->run == run_lwu || p->run == run_c_lw;
        bool integer = word || p->run == run_sb || p->run == run_sh ||
                       p->run == run_sd || p->run == run_c_sd;
        if (p->cause == STORE && !integer)
            expect(p, uart & -8);
        if (p->cause == STORE && p->run != run_sb && p->run != run_c_swsp &&
            p->name[0] != 'a')
            expect(p, uart); // an odd address
        bool half = p->run == run_sh || p->run == run_lh || p->run == run_lhu;
        if (!word && !half)
            expect(p, test);
        else if (p->run != run_c_swsp)
            expect(p, test + 1);
        if (p->cause == STORE && !word && p->run != run_amoswap_d)
            expect(p, plic); // its page may be read: see test_nowhere()
        if (!word)           // loads of these are exits, too
            expect(p, threshold), expect(p, status);
        else if (p->run != run_c_swsp)
            expect(p, threshold + 2), expect(p, status + 1);
    }
    done(user ? "widths, VU" : "widths, VS");
}

static void test_optional(const struct probe *p, unsigned n, const char *name) {
    if (trapped() && this_hart()->trap.cause == ILLEGAL) { // in main()
        say("no %s\n", name);
        return;
    }
    for (user = 0;; user = 1) {
        for (unsigned i = 0; i < n; i++) {
            for (unsigned j = 0; j < LENGTH(nowhere); j++)
                if (nowhere[j] >> 12 != 0x10000) // the UART's page can be read
                    expect(&p[i], nowhere[j] & -64);
            expect(&p[i], 0xc200000);
        }
        if (user)
            break;
    }
    done(name);
}

int main(uint64_t hart, const char *fdt) {
    (void)hart, (void)fdt;
    csr_set(sstatus, SSTATUS_VS);
    csr_write(scounteren, 7);
    // Resets a device: from here on, reading its registers is an exit.
    *(volatile uint32_t *)0x10008070 = 0;
    for (user = 0;; user = 1) {
        test_nowhere();
        test_widths();
        if (user)
            break;
    }
    trapped();
    asm volatile("csrr a0, 0xc22" ::: "a0"); // vlenb
    test_optional(vector, LENGTH(vector), "vector");
    run_cbo_zero((uint64_t)&harts[1]);
    if (!this_hart()->has_trapped)
        csr_write(0x10a, 0xf0); // senvcfg: in U-mode, too
    test_optional(cbo, LENGTH(cbo), "cbo");
    return 0;
}
