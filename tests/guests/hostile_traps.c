// What a kernel may not do, from VS-mode and VU-mode.  The guest's hart has no
// hypervisor extension, so that extension's instructions and CSRs are illegal.
// A page table outside RAM is an access fault of the access that needed it.
#include "guest.h"

enum { FETCH = 1, ILLEGAL = 2, LOAD = 5, STORE = 7 };

static bool user;

static void check_trap(const char *what, uint64_t cause, uint64_t pc,
                       uint64_t tval) {
    struct trap t = this_hart()->trap;
    const char *mode = user ? "VU" : "VS";
    check(trapped(), true, "%s %s traps", mode, what);
    check(t.cause, cause, "%s %s: scause", mode, what);
    check(t.pc, pc, "%s %s: sepc", mode, what);
    // QEMU 7.2 sets stval to 0 for some, which is allowed
    if (cause != ILLEGAL || t.tval)
        check(t.tval, tval, "%s %s: stval", mode, what);
    check(t.sstatus & (SSTATUS_SPP | SSTATUS_SIE), user ? 0 : SSTATUS_SPP,
          "%s %s: sstatus", mode, what);
}

// For those that load and store, QEMU 7.2 leaves stval as it was; QEMU 10.0
// does so for mret.  So stval is not checked.
#define LOOSE(x)                                                               \
    x(hlv_b, "hlv.b a1, (a0)") x(hlv_d, "hlv.d a1, (a0)")                      \
        x(hlvx_hu, "hlvx.hu a1, (a0)") x(hlvx_wu, "hlvx.wu a1, (a0)")          \
            x(hsv_w, "hsv.w a1, (a0)") x(mret, "mret")
#define ILLEGALS(x)                                                            \
    x(hfence_vvma, "hfence.vvma") x(hfence_gvma, "hfence.gvma") x(             \
        hstatus, "csrr a1, hstatus") x(w_hstatus, "csrw hstatus, a1")          \
        x(hedeleg, "csrw hedeleg, a1") x(hideleg, "csrr a1, hideleg") x(       \
            hvip, "csrs hvip, a1") x(hip, "csrr a1, hip") x(hie,               \
                                                            "csrr a1, hie")    \
            x(hgeie, "csrw hgeie, a1") x(hgeip, "csrr a1, hgeip") x(           \
                htval, "csrr a1, htval") x(htinst, "csrr a1, htinst")          \
                x(hgatp, "csrr a1, hgatp") x(w_hgatp, "csrw hgatp, zero") x(   \
                    henvcfg, "csrr a1, henvcfg") x(hcounteren,                 \
                                                   "csrw hcounteren, zero")    \
                    x(htimedelta,                                              \
                      "csrw htimedelta, a1") x(vsstatus, "csrr a1, vsstatus")  \
                        x(vsie, "csrr a1, vsie") x(vsip, "csrr a1, vsip") x(   \
                            vstvec, "csrw vstvec, a1") x(vsscratch,            \
                                                         "csrw vsscratch, a1") \
                            x(vsepc, "csrw vsepc, a1") x(vscause,              \
                                                         "csrr a1, vscause")   \
                                x(vstval, "csrr a1, vstval")                   \
                                    x(vsatp, "csrw vsatp, a1") x(              \
                                        vstimecmp, "csrw 0x24d, a1")           \
                                        x(mstatus, "csrr a1, mstatus") x(      \
                                            mepc, "csrw mepc, a1")             \
                                            x(pmpcfg0, "csrw pmpcfg0, a1") x(  \
                                                mhartid, "csrr a1, mhartid")   \
                                                x(w_cycle, "csrw cycle, a1")   \
                                                    x(c_zero, ".2byte 0")      \
                                                        x(ones, ".4byte -1")
#define USERS(x)                                                               \
    x(wfi, "wfi") x(sret, "sret") x(sfence_vma, "sfence.vma")                  \
        x(satp, "csrr a1, satp") x(sstatus, "csrr a1, sstatus")                \
            x(rdcycle, "csrr a1, cycle") x(rdtime, "csrr a1, time")            \
                x(rdinstret, "csrr a1, instret")                               \
                    x(hpmcounter3, "csrr a1, hpmcounter3")                     \
                        x(hpmcounter31, "csrr a1, hpmcounter31")
#define CODE(name, instruction)                                                \
    uint64_t i_##name(uint64_t a0);                                            \
    asm(".pushsection .text\n.balign 4\n.option push\n.option norvc\n"         \
        ".option arch, +h\n i_" #name ": " instruction                         \
        "\nret\n.option pop\n.popsection");
#define ROW(name, ...) {#name, i_##name},
LOOSE(CODE) ILLEGALS(CODE) USERS(CODE) struct illegal {
    const char *name;
    uint64_t (*run)(uint64_t);
};
static const struct illegal loose[] = {LOOSE(ROW)};
static const struct illegal illegals[] = {ILLEGALS(ROW)};
static const struct illegal users[] = {USERS(ROW)};

static void expect_illegal(const struct illegal *i, bool exactly) {
    trapped();
    if (user)
        user_call(i->run, (uint64_t)harts);
    else
        i->run((uint64_t)harts);
    uint32_t inst = *(uint32_t *)i->run;
    check_trap(i->name, ILLEGAL, (uint64_t)i->run,
               !exactly          ? this_hart()->trap.tval
               : (inst & 3) == 3 ? inst
                                 : inst & 0xffff);
}

// --- Page tables -------------------------------------------------------------

#define SV39 (8ul << 60)
enum { V = 1, RWX = 14, U = 16, AD = 192, GB = 1 << 30 };
static uint64_t root[512] __attribute__((aligned(4096)));
static uint64_t middle[512] __attribute__((aligned(4096)));

static void access_all(const char *what, uint64_t va) {
    trapped();
    asm volatile("ld zero, (%0)" ::"r"(va));
    struct trap t = this_hart()->trap;
    check_trap(what, LOAD, t.pc, va);
    asm volatile("lw zero, (%0)" ::"r"(va)); // the width of the device
    t = this_hart()->trap;
    check_trap(what, LOAD, t.pc, va);
    asm volatile("sd zero, (%0)" ::"r"(va));
    t = this_hart()->trap;
    check_trap(what, STORE, t.pc, va);
    asm volatile("amoor.d zero, zero, (%0)" ::"r"(va));
    t = this_hart()->trap;
    check_trap(what, STORE, t.pc, va);
    ((void (*)(void))va)();
    check_trap(what, FETCH, va, va);
}

// The first four entries of the root map the lowest 4 GiB to themselves.
static void test_walks(void) {
    static const uint64_t out[] = {
        0,       0x1000,       0x100000,  0x20000000, 0x7ffff000,
        RAM_END, RAM_END + GB, 1ul << 40, 0xc600000,  0xc200000};
    for (uint64_t i = 0; i < 4; i++)
        root[i] = i * GB / 4 | RWX | V | AD;
    for (unsigned i = 0; i < LENGTH(out); i++) {
        root[5] = out[i] / 4 | V; // the next table is not in RAM
        root[6] = (uint64_t)middle / 4 | V;
        middle[0] = out[i] / 4 | V;                           // nor the last
        middle[1] = (out[i] & -(2 << 20)) / 4 | RWX | V | AD; // nor the page
        csr_write(satp, SV39 | (uint64_t)root / 4096);
        asm volatile("sfence.vma" ::: "memory");
        access_all("second table", 5ul * GB + 8);
        access_all("third table", 6ul * GB + 0x3010);
        if (out[i] != 0xc200000) // which is a device's page
            access_all("page", 6ul * GB + (2 << 20) + 0x800);
        csr_write(satp, 0);
    }
    done("walks");
}

int main(uint64_t hart, const char *fdt) {
    (void)hart, (void)fdt;
    csr_write(scounteren, 0);
    for (user = 0;; user = 1) {
        for (unsigned i = 0; i < LENGTH(loose); i++)
            expect_illegal(&loose[i], false);
        for (unsigned i = 0; i < LENGTH(illegals); i++)
            expect_illegal(&illegals[i], true);
        for (unsigned i = 0; user && i < LENGTH(users); i++)
            expect_illegal(&users[i], true);
        done(user ? "illegal, VU" : "illegal, VS");
        if (user)
            break;
    }
    user = false;
    test_walks();
    return 0;
}
