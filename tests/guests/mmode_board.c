// The board below a kernel that begins in M-mode: where exceptions go with
// medeleg or without, counters, software interrupts between harts, the timer's
// halves, the UART's interrupt, and the power switch.
//
// It prints what it sees, line by line.  The lines must be the same on QEMU
// with the hypervisor and without it.
#include "mmode_lib.h"

extern char board_m[], board_s[], board_vectors[];
enum { MSI = 3, MIP_MSIP = 1 << MSI, MIP_MEIP = 1 << MEI };
enum { MODE_U = 0, MODE_S = STATUS_MPP_S, MODE_M = STATUS_MPP };
#define CLINT_MSIP(hart) (CLINT + 4 * (hart))
#define NOWHERE 0xf0000000ul // beyond RAM

// The handlers in mmode_board_asm.S rely on this order.
static struct record {
    volatile uint64_t kept[2], cause, pc, tval, status, traps;
    uint64_t *volatile back; // where to go on after an interrupt, or NULL
    volatile uint64_t vector;
} m[MAX_HARTS], s[MAX_HARTS];

typedef void (*probe)(uint64_t);
#define PROBES(x)                                                              \
    x(ecall) x(ebreak) x(csr) x(read_only) x(zero) x(load) x(store) x(amo)     \
        x(fetch)
#define DECLARE(name) void probe_##name(uint64_t);
PROBES(DECLARE)
#define ROW(name) {#name, probe_##name},
static const struct {
    const char *name;
    probe run;
} probes[] = {PROBES(ROW)};

static bool soon(volatile uint64_t *count, uint64_t least) {
    for (uint64_t start = csr_read(time); *count < least;)
        if (csr_read(time) - start > 1000 * INTERVAL)
            return false;
    return true;
}

// --- Exceptions --------------------------------------------------------------

static probe below; // what lower() runs, on hart 0

// Runs in S-mode or U-mode, and goes back to M-mode by a software interrupt,
// which medeleg can't send elsewhere.
static _Noreturn void lower(void) {
    below(NOWHERE);
    reg32(CLINT_MSIP(0)) = 1;
    for (;;)
        ;
}

static void run_in(uint64_t mode, probe run) {
    static context_t back;
    below = run;
    if (mode == MODE_M) {
        run(NOWHERE);
        return;
    }
    if (save(back)) {
        reg32(CLINT_MSIP(0)) = 0;
        return;
    }
    m->back = back;
    csr_clear(mstatus, STATUS_MPP | STATUS_MPIE);
    csr_set(mstatus, mode);
    csr_write(mepc, lower);
    csr_write(mie, MIP_MSIP);
    asm volatile("mret" ::: "memory");
    __builtin_unreachable();
}

static void exceptions(void) {
    static const uint64_t delegated[] = {0, 0xf7ff, 0x100, 0x200, 0x4, 0xaa};
    static const char *const names[] = {"U", "S", "?", "M"};
    for (unsigned d = 0; d < sizeof delegated / sizeof *delegated; d++)
        for (unsigned mode = 0; mode < 4; mode += 1 + (mode == 1))
            for (unsigned i = 0; i < sizeof probes / sizeof *probes; i++) {
                csr_write(medeleg, delegated[d]);
                m->traps = s->traps = 0;
                run_in((uint64_t)mode << 11, probes[i].run);
                // One of M-mode's traps is the interrupt that led back.
                bool to_m = m->traps > (mode != 3);
                struct record *r = to_m ? m : s;
                print("medeleg %x, %s in %s: %u in M, %u in S", delegated[d],
                      probes[i].name, names[mode], m->traps - (mode != 3),
                      s->traps);
                if (to_m && mode != 3)
                    print("\n"); // overwritten by now: see undelegated()
                else
                    print(": cause %x, pc +%x, tval %x, from %u\n", r->cause,
                          r->pc - (uint64_t)probes[i].run, r->tval,
                          to_m ? r->status >> 11 & 3 : r->status >> 8 & 1);
            }
    csr_write(medeleg, 0);
}

// Exceptions that come from S-mode and U-mode to M-mode, as M-mode sees each.
static struct record seen;
static probe looked_at;
static void look_at(uint64_t address) {
    looked_at(address);
    memcpy(&seen, m, sizeof seen);
}

static void undelegated(void) {
    for (unsigned mode = 0; mode < 2; mode++)
        for (unsigned i = 0; i < sizeof probes / sizeof *probes; i++) {
            looked_at = probes[i].run;
            memset(&seen, 0, sizeof seen);
            run_in((uint64_t)mode << 11, look_at);
            print("%s in %s: mcause %x, mepc +%x, mtval %x, MPP %u, MPIE %u\n",
                  probes[i].name, mode ? "S" : "U", seen.cause,
                  seen.pc - (uint64_t)probes[i].run, seen.tval,
                  seen.status >> 11 & 3, seen.status >> 7 & 1);
        }
}

// --- Interrupts --------------------------------------------------------------

// Interrupt N: is it pending in mip, and does it become a trap?
static uint64_t pending[MAX_HARTS], came[MAX_HARTS];

static void take(unsigned n) {
    m[hart()].traps = m[hart()].cause = m[hart()].vector = 0;
    pending[hart()] = csr_read(mip) >> n & 1;
    csr_write(mie, 1 << n);
    csr_write(mstatus, csr_read(mstatus) | STATUS_MIE);
    came[hart()] = soon(&m[hart()].traps, 1);
    csr_write(mstatus, csr_read(mstatus) & ~(uint64_t)STATUS_MIE);
    csr_write(mie, 0);
}

static void tell(const char *what) {
    print("hart %u, %s: pending %u, came %u, mcause %x, vector %u\n",
          (uint64_t)hart(), what, pending[hart()], came[hart()],
          m[hart()].cause, m[hart()].vector);
}

static void expect_interrupt(const char *what, unsigned n) {
    take(n);
    tell(what);
}

static void software(void) {
    uint64_t id = hart();
    print("hart %u: msip %u, mip %x\n", id, (uint64_t)reg32(CLINT_MSIP(id)),
          csr_read(mip));
    reg32(CLINT_MSIP(id)) = 1;
    print("msip set: %u\n", (uint64_t)reg32(CLINT_MSIP(id)));
    csr_write(mip, 0); // MSIP is read-only there
    expect_interrupt("own msip", MSI);
    csr_write(mtvec, board_vectors + 1);
    expect_interrupt("own msip, vectored", MSI);
    csr_write(mtvec, board_m);
    reg32(CLINT_MSIP(id)) = 0;
    print("msip cleared: %u, mip %x\n", (uint64_t)reg32(CLINT_MSIP(id)),
          csr_read(mip));
    reg32(CLINT_MSIP(id)) = -2;
    print("msip's other bits: %x, mip %x\n", (uint64_t)reg32(CLINT_MSIP(id)),
          csr_read(mip));
    reg32(CLINT_MSIP(id)) = 0;
}

static void timer(uint64_t id) {
    uint64_t before = reg64(CLINT_MTIME);
    uint32_t low = reg32(CLINT_MTIME), high = reg32(CLINT_MTIME + 4);
    uint64_t halves = (uint64_t)high << 32 | low;
    print("mtime by halves: %u\n",
          (uint64_t)(before <= halves && halves <= reg64(CLINT_MTIME)));
    uint64_t when = reg64(CLINT_MTIME) + INTERVAL / 10;
    reg32(CLINT_MTIMECMP(id) + 4) = -1;
    reg32(CLINT_MTIMECMP(id)) = when;
    reg32(CLINT_MTIMECMP(id) + 4) = when >> 32;
    print("mtimecmp: %u\n", (uint64_t)(reg64(CLINT_MTIMECMP(id)) == when));
    // QEMU's timer may be late; what matters is that it comes.
    while (reg64(CLINT_MTIME) < when || !(csr_read(mip) & MIP_MTIP))
        ;
    expect_interrupt("mtimecmp by halves", MTI);
    reg32(CLINT_MTIMECMP(id)) = -1;
    reg32(CLINT_MTIMECMP(id) + 4) = -1;
    print("mip %x\n", csr_read(mip));
}

// The transmitter is empty, which keeps the interrupt up until IIR is read.
// Printing a character in between would raise it anew.
static void uart(void) {
    uint64_t context = 2 * hart(); // this hart's M-mode
    reg32(PLIC + 4 * UART_IRQ) = 1;
    reg32(PLIC + 0x2000 + 0x80 * context) = 1 << UART_IRQ;
    reg32(PLIC + 0x200000 + 0x1000 * context) = 0;
    reg8(UART + UART_IER) = 2;
    take(MEI);
    uint64_t claimed = reg32(PLIC + 0x200004 + 0x1000 * context);
    uint64_t again = reg32(PLIC + 0x200004 + 0x1000 * context);
    (void)reg8(UART + UART_ISR);
    reg8(UART + UART_IER) = 0;
    reg32(PLIC + 0x200004 + 0x1000 * context) = claimed;
    uint64_t after = csr_read(mip);
    reg32(PLIC + 0x2000 + 0x80 * context) = 0;
    tell("UART");
    print("claimed %u, then %u; mip %x\n", claimed, again, after);
}

// --- Other harts -------------------------------------------------------------

static volatile unsigned turn = -1u; // which hart's it is

// Waits in wfi for an interrupt that hart 0 sends.
static void wait_for(unsigned n) {
    csr_write(mie, 1 << n);
    while (!(csr_read(mip) >> n & 1))
        asm volatile("wfi");
    expect_interrupt("from hart 0", n);
    if (n == MSI)
        reg32(CLINT_MSIP(hart())) = 0;
    else
        reg64(CLINT_MTIMECMP(hart())) = -1;
    __atomic_store_n(&turn, 0, __ATOMIC_SEQ_CST);
}

static void others(void) {
    for (unsigned id = 1; id < harts; id++)
        for (unsigned kind = 0; kind < 2; kind++) {
            __atomic_store_n(&turn, id, __ATOMIC_SEQ_CST);
            if (kind == 0)
                reg32(CLINT_MSIP(id)) = 1;
            else
                reg64(CLINT_MTIMECMP(id)) = 0;
            while (__atomic_load_n(&turn, __ATOMIC_SEQ_CST))
                ;
        }
}

// --- All of it ---------------------------------------------------------------

static void counters(void) {
    uint64_t cycle = csr_read(mcycle), instret = csr_read(minstret);
    for (volatile unsigned i = 0; i < 1000; i++)
        ;
    print("mcycle counts: %u, minstret: %u\n",
          (uint64_t)(csr_read(mcycle) > cycle),
          (uint64_t)(csr_read(minstret) > instret));
}

// mip.STIP: M-mode sets it, unless menvcfg.STCE gives it to stimecmp.
static void stip(bool sstc) {
    csr_write(mip, SIP_STIP);
    print("STIP set: mip %x\n", csr_read(mip));
    csr_write(mip, 0);
    print("STIP cleared: mip %x\n", csr_read(mip));
    if (!sstc)
        return;
    csr_write_(MENVCFG, MENVCFG_STCE);
    csr_write(mcounteren, COUNTEREN_TM);
    static const char *const ops[] = {"csrs", "csrc", "csrw"};
    for (unsigned op = 0; op < 3; op++)
        for (uint64_t bits = 0; bits < 4; bits++) {
            uint64_t operand =
                (bits & 1 ? SIP_SSIP : 0) | (bits & 2 ? SIP_STIP : 0);
            csr_write_(STIMECMP, 0);
            uint64_t due = csr_read(mip);
            if (op == 0)
                asm volatile("csrs mip, %0" ::"r"(operand));
            else if (op == 1)
                asm volatile("csrc mip, %0" ::"r"(operand));
            else
                asm volatile("csrw mip, %0" ::"r"(operand));
            uint64_t still = csr_read(mip);
            csr_write_(STIMECMP, -1);
            print("stimecmp, %s mip %x: mip %x, %x, %x\n", ops[op], operand,
                  due, still, csr_read(mip));
            csr_write(mip, 0);
        }
    csr_write_(MENVCFG, 0);
}

static volatile bool started;

_Noreturn void start(const void *dtb) {
    asm volatile("csrr tp, mhartid");
    csr_write(mie, 0);
    csr_write(mtvec, board_m);
    csr_write(mscratch, &m[hart()]);
    reg64(CLINT_MTIMECMP(hart())) = -1;
    csr_write(pmpaddr0, 0x3fffffffffffff);
    csr_write(pmpcfg0, 0x1f);
    if (hart() == 0) {
        harts = dtb_harts(dtb);
        csr_write(mideleg, 0);
        csr_write(stvec, board_s);
        csr_write(sscratch, s);
        print("board: %u harts\n", (uint64_t)harts);
        counters();
        stip(dtb_has_sstc(dtb));
        exceptions();
        undelegated();
        __atomic_store_n(&started, true, __ATOMIC_RELEASE);
    }
    while (!__atomic_load_n(&started, __ATOMIC_ACQUIRE))
        ;
    for (unsigned id = 0; id < harts; id++) {
        barrier();
        if (id == hart()) {
            software();
            timer(id);
            uart();
        }
    }
    barrier();
    for (unsigned kind = 0; hart() && kind < 2; kind++) {
        while (__atomic_load_n(&turn, __ATOMIC_SEQ_CST) != hart())
            ;
        wait_for(kind ? MTI : MSI);
    }
    if (hart())
        park();
    others();
    reg32(UART) = 'w';
    *(volatile uint16_t *)UART = 'h';
    reg64(UART) = 'd';
    print("\nthe end\n");
    while (!(reg8(UART + UART_LSR) & LSR_TX_IDLE))
        ;
    reg32(0x100000) = 0x5555;
    for (;;)
        ;
}
