// Checks of M-mode's registers and traps, as far as kernels without firmware
// use them: each form of each instruction on each register, mret, the timer.
// The groups after "done" go beyond what those kernels need.
#include "mmode_lib.h"

extern char run_routines[], mvec[], svec[], svec_user[];
extern char user_code[], user_loop[], user_ecall[];

// --- One instruction, with all registers known -------------------------------

struct area {
    uint64_t in[32], out[32];
    uint64_t kept[16]; // the caller's registers
};
static struct area areas[MAX_HARTS];

enum { C_ADDI_S1_1 = 0x0485 }; // compressed neighbours, counted by s1 (x9)

static uint8_t *slot(void) {
    return (void *)run_routines + 8192 * hart() + 4092;
}

// Puts the instruction among its neighbours, and returns where: in the middle,
// so that its halves are in two pages, or in front of them.
static void *place(uint32_t instruction, bool middle) {
    const uint16_t low = instruction, high = instruction >> 16;
    const uint16_t code[4] = {middle ? C_ADDI_S1_1 : low, middle ? low : high,
                              middle ? high : C_ADDI_S1_1, C_ADDI_S1_1};
    memcpy(slot(), code, sizeof code);
    asm volatile("fence.i" ::: "memory");
    return slot() + (middle ? 2 : 0);
}

static void run(void) {
    void (*routine)(struct area *) = (void *)(run_routines + 8192 * hart());
    routine(&areas[hart()]);
}

static uint64_t random_state[MAX_HARTS];

static uint64_t random_number(void) { // xorshift
    uint64_t *x = &random_state[hart()];
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

static void random_registers(void) {
    for (unsigned i = 1; i < 32; i++)
        areas[hart()].in[i] = random_number();
}

static void check_registers(const char *what) {
    const struct area *a = &areas[hart()];
    for (unsigned i = 0; i < 32; i++)
        if (!CHECK(what, a->out[i], a->in[i]))
            print("  register x%u\n", (uint64_t)i);
}

// --- The six instructions on each register -----------------------------------

enum { CSRRW = 1, CSRRS, CSRRC, CSRRWI = 5, CSRRSI, CSRRCI };

// WRITE has the bits that may be written, HOLD those of them that must read
// back.  Most fields are WARL, so HOLD has only fields that kernels can't do
// without, and that are there if the extension is.
static const struct csr {
    const char *name;
    unsigned number;
    uint64_t write, hold;
} csrs[] = {
    {"mscratch", 0x340, -1ul, -1ul},
    // Priv. 3.1.14: all valid addresses, here Sv39's lower half
    {"mepc", 0x341, (1ul << 38) - 2, (1ul << 38) - 2},
    {"mtvec", 0x305, (1ul << 38) - 4, (1ul << 38) - 4},
    {"mcause", 0x342, 7, 7}, // WLRL: eight exceptions that all harts have
    // SIE, MIE, SPIE, MPIE, SPP, MPP, FS, SUM, MXR
    {"mstatus", 0x300, 0xc79aa, 0xc79aa},
    {"medeleg", 0x302, 0xb10c, 0xb10c},
    {"mideleg", 0x303, 0x222, 0x222},
    {"mie", 0x304, 0x2a2, 0x2a2}, // SSIE, STIE, MTIE, SEIE
    {"mip", 0x344, 2, 2},         // SSIP
    {"mcounteren", 0x306, COUNTEREN_TM, COUNTEREN_TM},
    {"menvcfg", 0x30a, MENVCFG_STCE, MENVCFG_STCE},
    {"pmpcfg0", 0x3a0, 0xd, 0}, // R, X, top of range
    {"pmpcfg2", 0x3a2, 0, 0},
    {"pmpaddr0", 0x3b0, (1ul << 54) - 1, 0},
    {"pmpaddr1", 0x3b1, (1ul << 54) - 1, 0},
    {"pmpaddr15", 0x3bf, (1ul << 54) - 1, 0},
    {"mhartid", 0xf14, 0, -1ul},
    {0},
};

// Priv. 3.1.6.1: MPP is U, S or M, so here both of its bits or none.
static uint64_t legal(const struct csr *c, uint64_t value) {
    value &= c->write;
    if (c->number == 0x300)
        value = value & STATUS_MPP ? value | STATUS_MPP : value;
    return value;
}

static uint32_t encode(unsigned number, unsigned form, unsigned rd,
                       unsigned rs1) {
    return number << 20 | rs1 << 15 | form << 12 | rd << 7 | 0x73;
}

// Runs one instruction.  *VALUE is what the register holds, before and after.
static void check_form(const struct csr *c, unsigned form, unsigned rd,
                       unsigned rs1, uint64_t *value) {
    struct area *a = &areas[hart()];
    bool middle = random_number() & 1, immediate = form & 4;
    random_registers();
    if (immediate)
        rs1 = legal(c, rs1) & 31;
    else if (rs1)
        a->in[rs1] = legal(c, a->in[rs1]);
    // The neighbour in front adds to s1 before the instruction reads it.
    if (middle && rs1 == 9 && !immediate)
        a->in[9]--;
    place(encode(c->number, form, rd, rs1), middle);
    run();
    if (middle)
        a->in[9]++;
    uint64_t operand = immediate ? rs1 : a->in[rs1], old = *value;
    switch (form & 3) {
    case CSRRW: *value = operand; break;
    case CSRRS: *value |= operand; break;
    case CSRRC: *value &= ~operand; break;
    }
    bool same = true;
    if (rd) {
        uint64_t got = a->out[rd] - (rd == 9 ? 2 - middle : 0);
        same &= CHECK("the old value in rd", got & c->hold, old & c->hold);
        a->in[rd] = a->out[rd];
    }
    if (rd != 9)
        a->in[9] += 2 - middle;
    for (unsigned i = 0; i < 32; i++)
        same &= CHECK("all other registers", a->out[i], a->in[i]);
    if (!same)
        print("  %s %s, x%u, %s%u\n",
              (const char *[]){"", "csrrw", "csrrs", "csrrc", "", "csrrwi",
                               "csrrsi", "csrrci"}[form],
              c->name, (uint64_t)rd, immediate ? "" : "x", (uint64_t)rs1);
}

static void check_forms(const struct csr *c) {
    bool read_only = c->number >> 10 == 3;
    uint64_t value = hart(), unused = 0;
    if (hart() == 0)
        print("csr: %s\n", c->name);
    if (!read_only)
        check_form(c, CSRRW, 0, 1 + random_number() % 31, &value);
    for (unsigned n = 0; n < 96; n++) {
        uint64_t r = random_number();
        unsigned form = (const uint8_t[]){CSRRW,  CSRRS,  CSRRC,
                                          CSRRWI, CSRRSI, CSRRCI}[n % 6];
        // Priv. 2.1 and Zicsr: with x0 or 0, csrrs and csrrc don't write.
        if (read_only && (form & 3) == CSRRW)
            continue;
        unsigned rd = r >> 20 & 31, rs1 = read_only ? 0 : r >> 40 & 31;
        check_form(c, form, n % 24 < 6 ? 0 : rd, n % 24 > 17 ? 0 : rs1, &value);
        if (n % 48 >= 24 && rd) // the same register twice
            check_form(c, form, rd, read_only ? 0 : rd, &value);
    }
    check_form(c, CSRRS, 10, 0, &value); // csrr
    if (!read_only)
        check_form(c, CSRRW, 0, 0, &unused);
}

// All pairs of registers, shared out among the harts.
static void check_pairs(const struct csr *c) {
    uint64_t value = 0;
    check_form(c, CSRRW, 0, 0, &value);
    for (unsigned rd = hart(); rd < 32; rd += harts)
        for (unsigned rs1 = 0; rs1 < 32; rs1++)
            check_form(c, CSRRW + (rd + rs1) % 3, rd, rs1, &value);
}

// Fields that are views of other registers, or otherwise special.
static void check_fields(void) {
    csr_write(mcause, INTERRUPT | MTI);
    CHECK("mcause: an interrupt", csr_read(mcause), INTERRUPT | MTI);
    csr_write(mideleg, 0);
    CHECK("mideleg: none of M-mode's", csr_read(mideleg) & 0x888, 0);
    csr_write(mie, 0);
    csr_write(mideleg, 0x222);
    // Priv. 3.1.6 and 3.1.9: sstatus, sie and sip are views of these.
    const uint64_t view =
        STATUS_SPIE | STATUS_SPP | STATUS_FS | STATUS_SUM | STATUS_MXR;
    uint64_t zero = csr_read(mstatus) & ~view;
    csr_write(mstatus, zero | view);
    CHECK("sstatus: as set in mstatus", csr_read(sstatus) & view, view);
    csr_write(sstatus, 0);
    CHECK("mstatus: as cleared in sstatus", csr_read(mstatus) & view, 0);
    csr_write(sstatus, STATUS_SPIE | STATUS_SUM);
    CHECK("mstatus: as set in sstatus", csr_read(mstatus) & view,
          STATUS_SPIE | STATUS_SUM);
    csr_write(mstatus, zero);
    CHECK("sstatus: as cleared in mstatus", csr_read(sstatus) & view, 0);
    csr_write(mie, MIP_MTIP | SIP_STIP);
    CHECK("sie: as set in mie", csr_read(sie), SIP_STIP);
    csr_write(sie, SIP_SSIP | SIP_SEIP);
    CHECK("mie: as set in sie", csr_read(mie) & 0xfff,
          MIP_MTIP | SIP_SSIP | SIP_SEIP);
    csr_write(mie, 0);
    CHECK("sie: as cleared in mie", csr_read(sie), 0);
    csr_write(sip, SIP_SSIP);
    CHECK("mip: SSIP as set in sip", csr_read(mip) & SIP_SSIP, SIP_SSIP);
    csr_write(mip, 0);
    CHECK("sip: SSIP as cleared in mip", csr_read(sip) & SIP_SSIP, 0);
}

// --- Traps -------------------------------------------------------------------

enum { SPIN = 0x6f }; // j ., loops using no register, until a trap skips it
#define SATP_SV39 (8ul << 60)
#define NEVER (~0ul)
// S-mode sees at FROM what is at TO, and programs see their code USER bytes
// higher.
#define FROM (RAM + 0x400000)
#define TO (RAM + 0x600000)
#define USER 0x40000000ul

static struct state {
    // The last trap to M-mode, and how many there were.
    volatile uint64_t mcause, mepc, mstatus, traps, late, mip;
    volatile uint64_t user_mepc, user_mstatus; // of the last from U-mode
    volatile uint64_t again; // take at least this many more timer interrupts
    bool raise, leave;  // raise SSIP; when those are over, return from go()
    bool exceptions;    // exceptions are expected
    volatile bool done; // the handler has finished
    context_t back;
    // The last trap to S-mode.
    volatile uint64_t scause, sepc, sstatus, a0;
    volatile bool s_trap, too_early;
} state[MAX_HARTS];

static _Alignas(16) char m_stacks[MAX_HARTS + 1][4096];
static _Alignas(16) char u_stacks[MAX_HARTS + 1][4096];

static uint64_t mtime(void) { return reg64(CLINT_MTIME); }
static void timer(uint64_t at) { reg64(CLINT_MTIMECMP(hart())) = at; }

// MTIP follows mtimecmp (Priv. 3.2.1), "eventually, but not necessarily
// immediately".
static bool mtip_becomes(uint64_t value) {
    struct patience p = {1000 * INTERVAL, mtime()};
    while (patient(&p, mtime()))
        if ((csr_read(mip) & MIP_MTIP) == value)
            return true;
    return false;
}

void m_trap(void) {
    struct state *s = &state[hart()];
    uint64_t mepc = csr_read(mepc);
    s->mcause = csr_read(mcause);
    s->mstatus = csr_read(mstatus);
    s->mepc = mepc;
    s->traps++;
    s->done = false;
    if (!(s->mstatus & STATUS_MPP)) {
        s->user_mepc = mepc;
        s->user_mstatus = s->mstatus;
    }
    if (s->mcause == (INTERRUPT | MTI)) {
        uint64_t pa = mepc >= RAM + USER ? mepc - USER : mepc;
        bool spins = *(volatile uint32_t *)(pa & ~3ul) == SPIN;
        // The last one has to end a loop, which may not have begun yet.
        if (s->again && (spins || s->again > 1))
            s->again--;
        if (s->again) {
            timer(mtime() + INTERVAL / 20);
        } else {
            timer(NEVER);
            s->late += !mtip_becomes(0);
            if (spins)
                mepc += 4;
        }
    } else if (s->exceptions) {
        mepc += 4;
    } else {
        print("FAIL hart %u: trap: mcause %x, mepc %x, mstatus %x\n",
              (uint64_t)hart(), s->mcause, mepc, s->mstatus);
        stop();
    }
    if (s->raise) {
        csr_write(sip, SIP_SSIP);
        s->mip = csr_read(mip);
        // Even with SIE = 1, S-mode's interrupts wait for mret (Priv. 3.1.6.1).
        for (unsigned i = 0; i < 100; i++)
            asm volatile("nop");
    }
    *(volatile uint64_t *)(FROM + 8 * hart()) = 'M';
    s->done = true;
    if (s->leave && !s->again) {
        s->leave = false;
        resume(s->back);
    }
    csr_write(mepc, mepc);
}

void s_trap(void) {
    struct state *s = &state[hart()];
    s->too_early = !s->done;
    s->scause = csr_read(scause);
    s->sepc = csr_read(sepc);
    s->sstatus = csr_read(sstatus);
    s->s_trap = true;
    csr_write(sip, 0);
}

static _Noreturn void leave(void) {
    state[hart()].leave = true;
    timer(0);
    for (;;)
        ;
}

_Noreturn void s_from_user(uint64_t a0) {
    struct state *s = &state[hart()];
    s->a0 = a0; // hart() works: the program leaves tp alone
    s_trap();
    leave();
}

// mret to TO in the mode MPP; returns when the code there has called leave().
static void go(uint64_t mpp, uint64_t mpie, uint64_t to) {
    if (save(state[hart()].back))
        return;
    uint64_t mstatus =
        csr_read(mstatus) & ~(uint64_t)(STATUS_MPP | STATUS_MPIE);
    csr_write(mstatus, mstatus | mpp | mpie);
    csr_write(mepc, to);
    asm volatile("mret" ::: "memory");
    __builtin_unreachable();
}

// --- mret and the timer, in M-mode -------------------------------------------

// mret to M-mode itself; returns mstatus after it.
static uint64_t mret_to_m(uint64_t mpie) {
    uint64_t mstatus =
        csr_read(mstatus) & ~(uint64_t)(STATUS_MPIE | STATUS_MIE);
    uint64_t after;
    asm volatile("la t0, 1f\n"
                 "csrw mepc, t0\n"
                 "csrw mstatus, %1\n"
                 "mret\n"
                 "j .\n"
                 "1: csrr %0, mstatus"
                 : "=r"(after)
                 : "r"(mstatus | STATUS_MPP | mpie)
                 : "t0", "memory");
    return after;
}

static void check_mret(void) {
    csr_write(mie, 0);
    const uint64_t fields = STATUS_MPP | STATUS_MPIE | STATUS_MIE;
    // Priv. 3.1.6.1: MIE = MPIE, MPIE = 1, MPP = U
    CHECK("mret, MPIE = 0", mret_to_m(0) & fields, STATUS_MPIE);
    CHECK("mret, MPIE = 1", mret_to_m(STATUS_MPIE) & fields,
          STATUS_MPIE | STATUS_MIE);
    csr_write(mscratch, 5); // so this is still M-mode
    CHECK("mret to M: mscratch", csr_read(mscratch), 5);
    csr_write(mscratch, m_stacks[hart() + 1]);
}

// Writes to a CSR so that the pending interrupt can come.  It has to come at
// the next instruction (Priv. 3.1.9).
#define CHECK_TRAP_AFTER(what, instruction, operand)                           \
    ({                                                                         \
        uint64_t next_, traps_ = s->traps;                                     \
        asm volatile("la %0, 1f\n" instruction "\n1: nop"                      \
                     : "=&r"(next_)                                            \
                     : "r"((uint64_t)(operand))                                \
                     : "memory");                                              \
        CHECK(what ": traps", s->traps, traps_ + 1);                           \
        CHECK(what ": mepc", s->mepc, next_);                                  \
        CHECK(what ": mcause", s->mcause, INTERRUPT | MTI);                    \
        CHECK(what ": MPP, MPIE, MIE in the handler",                          \
              s->mstatus &(STATUS_MPP | STATUS_MPIE | STATUS_MIE),             \
              STATUS_MPP | STATUS_MPIE);                                       \
        CHECK(what ": MPP, MPIE, MIE after mret",                              \
              csr_read(mstatus) & (STATUS_MPP | STATUS_MPIE | STATUS_MIE),     \
              STATUS_MPIE | STATUS_MIE);                                       \
    })

static void pass(uint64_t time) {
    for (uint64_t start = mtime(); mtime() - start < time;)
        ;
}

static void check_timer(void) {
    struct state *s = &state[hart()];
    uint64_t before = csr_read(time), now = mtime(), after = csr_read(time);
    CHECK("mtime is time", before <= now && now <= after, 1);

    csr_write(mtvec, mvec);
    csr_write(mstatus, csr_read(mstatus) & ~(uint64_t)STATUS_MIE);
    csr_write(mie, MIP_MTIP);
    timer(NEVER);
    CHECK("mip: no MTIP before mtimecmp", mtip_becomes(0), 1);
    timer(mtime() + INTERVAL / 20);
    CHECK("mtimecmp reads back", reg64(CLINT_MTIMECMP(hart())) >= now, 1);
    pass(INTERVAL / 20);
    CHECK("mip: MTIP after mtimecmp", mtip_becomes(MIP_MTIP), 1);
    csr_write(mip, 0); // Priv. 3.1.9: read-only in mip
    CHECK("mip: MTIP is read-only", csr_read(mip) & MIP_MTIP, MIP_MTIP);
    pass(INTERVAL / 20);
    CHECK("no trap with MIE = 0", s->traps, 0);
    asm volatile("wfi"); // ends at once
    CHECK("no trap after wfi with MIE = 0", s->traps, 0);

    CHECK_TRAP_AFTER("MIE set", "csrs mstatus, %1", STATUS_MIE);
    CHECK("mip: no MTIP after the handler", csr_read(mip) & MIP_MTIP, 0);
    csr_write(mie, 0);
    timer(0);
    CHECK("mip: MTIP for mtimecmp = 0", mtip_becomes(MIP_MTIP), 1);
    CHECK("no trap with MTIE = 0", s->traps, 1);
    CHECK_TRAP_AFTER("MTIE set", "csrw mie, %1", MIP_MTIP);
    csr_write(mstatus, csr_read(mstatus) & ~(uint64_t)STATUS_MIE);
    timer(0);
    mtip_becomes(MIP_MTIP);
    CHECK("no trap with MIE = 0 again", s->traps, 2);
    uint64_t to_m = csr_read(mstatus) | STATUS_MPP | STATUS_MPIE;
    CHECK_TRAP_AFTER("mret with MPIE = 1",
                     "csrw mepc, %0\ncsrw mstatus, %1\nmret", to_m);

    // Five timer traps, over which no register may change.
    s->again = 5;
    timer(mtime());
    random_registers();
    void *spin = place(SPIN, false);
    run();
    areas[hart()].in[9] += 2;
    check_registers("registers over timer traps in M-mode");
    CHECK("five timer traps", s->traps >= 8, 1);
    uint64_t traps = s->traps;
    CHECK("five timer traps: mepc", s->mepc, (uint64_t)spin);
    csr_write(mie, 0);
    timer(mtime());
    pass(INTERVAL / 10);
    CHECK("no trap with MTIE cleared", s->traps, traps);
    timer(NEVER);
    CHECK("MTIP goes when mtimecmp is written", s->late, 0);
    CHECK("mscratch: the handler's stack", csr_read(mscratch),
          (uint64_t)m_stacks[hart() + 1]);
}

// --- S-mode ------------------------------------------------------------------

static uint64_t root[512] __attribute__((aligned(PAGE)));
static uint64_t middle[512] __attribute__((aligned(PAGE)));

static uint64_t pte(uint64_t pa, uint64_t perm) {
    return pa >> 12 << 10 | perm | PTE_A | PTE_D | PTE_V;
}

static void make_tables(void) {
    const uint64_t rwx = PTE_R | PTE_W | PTE_X;
    root[0] = pte(0, PTE_R | PTE_W);
    root[RAM >> 30] = (uint64_t)middle >> 12 << 10 | PTE_V;
    root[(RAM + USER) >> 30] = pte(RAM, rwx | PTE_U);
    for (uint64_t i = 0; i < 512; i++)
        middle[i] = pte(RAM + (i << 21), rwx);
    middle[FROM >> 21 & 511] = pte(TO, rwx);
}

// A timer trap leaves S-mode's registers as they are.
static void timer_trap_in_s(uint64_t sstatus) {
    struct state *s = &state[hart()];
    const uint64_t fields = STATUS_SIE | STATUS_SPIE | STATUS_SPP | STATUS_SUM |
                            STATUS_MXR | STATUS_FS;
    uint64_t satp = csr_read(satp), sepc = random_number() >> 30 << 1;
    uint64_t stval = random_number() >> 30, traps = s->traps;
    csr_write(sstatus, sstatus);
    csr_write(sepc, sepc);
    csr_write(scause, 13);
    csr_write(stval, stval);
    csr_write(sie, 0);
    random_registers();
    s->again = 2;
    timer(mtime());
    run();
    uint64_t now = csr_read(sstatus);
    csr_write(sstatus, 0);
    areas[hart()].in[9] += 2;
    check_registers("registers over a timer trap in S-mode");
    CHECK("timer trap in S: sstatus", now & fields, sstatus);
    CHECK("timer trap in S: sepc", csr_read(sepc), sepc);
    CHECK("timer trap in S: scause", csr_read(scause), 13);
    CHECK("timer trap in S: stval", csr_read(stval), stval);
    CHECK("timer trap in S: satp", csr_read(satp), satp);
    CHECK("timer trap in S: stvec", csr_read(stvec), (uint64_t)svec);
    CHECK("timer trap in S: sie", csr_read(sie), 0);
    CHECK("timer trap in S: traps", s->traps >= traps + 2, 1);
    CHECK("timer trap in S: mcause", s->mcause, INTERRUPT | MTI);
    CHECK("timer trap in S: mepc", s->mepc, (uint64_t)slot());
    CHECK("timer trap in S: mstatus",
          s->mstatus & (STATUS_MPP | STATUS_MIE | fields),
          STATUS_MPP_S | sstatus);
}

static void in_s_mode(void) {
    struct state *s = &state[hart()];
    csr_write(stvec, svec);
    asm volatile("sfence.vma");
    csr_write(satp, SATP_SV39 | (uint64_t)root >> 12);
    asm volatile("sfence.vma" ::: "memory");
    place(SPIN, false);
    for (unsigned i = 0; i < 16; i++)
        timer_trap_in_s((i & 1 ? STATUS_SIE : 0) | (i & 2 ? STATUS_SPIE : 0) |
                        (i & 4 ? STATUS_SPP : 0) |
                        (i & 8 ? STATUS_SUM | 1 << 13 : 0));

    // Addresses are translated before and after, but not in M-mode.
    volatile uint64_t *from = (void *)(FROM + 8 * hart());
    volatile uint64_t *to = (void *)(TO + 8 * hart());
    *from = 'S';
    CHECK("translation in S-mode", *to, 'S');
    timer_trap_in_s(STATUS_SPIE);
    CHECK("translation in S-mode, after the trap", *from, 'S');
    CHECK("no translation in M-mode", *to, 'S');

    // A software interrupt that M-mode raises comes after its mret.
    csr_write(sie, SIP_SSIP);
    csr_write(sstatus, STATUS_SIE);
    s->raise = true;
    s->s_trap = false;
    uint64_t begin, end; // in between it arms the timer and waits
    asm volatile("la %0, 1f\n la %1, 2f\n"
                 "1: sd zero, 0(%3)\n"
                 "3: lbu t0, 0(%2)\n beqz t0, 3b\n"
                 "2:"
                 : "=&r"(begin), "=&r"(end)
                 : "r"(&s->s_trap), "r"(CLINT_MTIMECMP(hart()))
                 : "t0", "memory");
    CHECK("SSIP: not before M-mode's mret", s->too_early, 0);
    CHECK("SSIP: pending in mip", s->mip & SIP_SSIP, SIP_SSIP);
    CHECK("SSIP: scause", s->scause, INTERRUPT | SSI);
    CHECK("SSIP: sepc", s->sepc >= begin && s->sepc <= end, 1);
    CHECK("SSIP: sstatus", s->sstatus & (STATUS_SIE | STATUS_SPIE | STATUS_SPP),
          STATUS_SPIE | STATUS_SPP);
    // With SIE = 0 it stays pending.
    csr_write(sstatus, 0);
    s->s_trap = false;
    uint64_t traps = s->traps;
    timer(mtime());
    while (s->traps == traps)
        ;
    pass(INTERVAL / 100);
    CHECK("SSIP: none with SIE = 0", s->s_trap, 0);
    CHECK("SSIP: pending in sip", csr_read(sip) & SIP_SSIP, SIP_SSIP);
    csr_write(sstatus, STATUS_SIE);
    for (unsigned i = 0; i < 1000 && !s->s_trap; i++)
        ;
    CHECK("SSIP: comes with SIE = 1", s->s_trap, 1);
    csr_write(sstatus, 0);
    csr_write(sie, 0);
    s->raise = false;
    leave();
}

static void check_s_mode(void) {
    struct state *s = &state[hart()];
    csr_write(medeleg, 0xffff);
    csr_write(mideleg, 0xffff);
    csr_write(pmpaddr0, 0x3fffffffffffff);
    csr_write(pmpcfg0, 0xf);
    csr_write(mie, MIP_MTIP);
    for (unsigned mie = 0; mie < 2; mie++) {
        csr_write(satp, 0);
        // In S-mode, MIE does not matter; a trap puts it into MPIE.
        go(STATUS_MPP_S, mie ? STATUS_MPIE : 0, (uint64_t)in_s_mode);
        CHECK("S-mode: MPP, MPIE, MIE in the handler",
              s->mstatus & (STATUS_MPP | STATUS_MPIE | STATUS_MIE),
              STATUS_MPP_S | (mie ? STATUS_MPIE : 0));
    }
}

// --- U-mode ------------------------------------------------------------------

static void check_u_mode(void) {
    struct state *s = &state[hart()];
    csr_write(stvec, svec_user);
    csr_write(sscratch, u_stacks[hart() + 1]);
    uint64_t traps = s->traps;
    s->again = 5;
    timer(mtime());
    // satp is as S-mode left it.
    go(0, STATUS_MPIE, (uint64_t)user_code + USER);
    CHECK("U-mode: timer traps", s->traps >= traps + 6, 1);
    CHECK("U-mode: the ecall's scause", s->scause, CAUSE_U_ECALL);
    CHECK("U-mode: the ecall's sepc", s->sepc, (uint64_t)user_ecall + USER);
    CHECK("U-mode: the ecall's SPP", s->sstatus & STATUS_SPP, 0);
    CHECK("U-mode: registers over timer traps", s->a0, 0);
    // The last trap before the one that leave() causes came from U-mode.
    CHECK("U-mode: mepc", s->user_mepc, (uint64_t)user_loop + USER);
    CHECK("U-mode: MPP, MPIE, MIE",
          s->user_mstatus & (STATUS_MPP | STATUS_MPIE | STATUS_MIE),
          STATUS_MPIE);
}

// --- More than teaching kernels need -----------------------------------------

// Bits that are read-only in the specification, but not in QEMU 7.2.
static void group_warl(void) {
    csr_write(mepc, RAM + 0x1235); // Priv. 3.1.14
    CHECK("mepc: bit 0 is 0", csr_read(mepc), RAM + 0x1234);
    csr_write(medeleg, -1ul); // Priv. 3.1.8: ecall from M-mode
    CHECK("medeleg: bit 11 is 0", csr_read(medeleg) >> 11 & 1, 0);
    for (uint64_t mpp = 0; mpp < 4; mpp++) { // Priv. 3.1.6.1: 2 is no mode
        csr_clear(mstatus, STATUS_MPP);
        csr_set(mstatus, mpp << 11);
        uint64_t got = (csr_read(mstatus) & STATUS_MPP) >> 11;
        CHECK("mstatus: MPP", mpp == 2 ? got != 2 : got == mpp, 1);
    }
}

// pmpaddr0 and pmpcfg0 read back, as QEMU's do.
static void group_pmp(void) {
    csr_write(pmpaddr0, 0x20001fff);
    CHECK("pmpaddr0", csr_read(pmpaddr0), 0x20001fff);
    csr_write(pmpcfg0, 0x0f0f);
    CHECK("pmpcfg0", csr_read(pmpcfg0), 0x0f0f);
    csr_write(pmpcfg0, 0xf);
    csr_write(pmpaddr0, 0x3fffffffffffff);
    CHECK("pmpaddr0, all of it", csr_read(pmpaddr0), 0x3fffffffffffff);
    CHECK("pmpcfg0, all of it", csr_read(pmpcfg0), 0xf);
}

// S-mode's registers in M-mode: satp can be read and written as in S-mode, but
// does not translate; sstatus.SIE is mstatus.SIE, but lets no interrupt come.
static void group_views(void) {
    csr_set(mstatus, STATUS_SIE);
    CHECK("sstatus: SIE as set in mstatus", csr_read(sstatus) & STATUS_SIE,
          STATUS_SIE);
    csr_write(sstatus, 0);
    CHECK("mstatus: SIE as cleared in sstatus", csr_read(mstatus) & STATUS_SIE,
          0);
    csr_write(satp, SATP_SV39 | (uint64_t)root >> 12);
    *(volatile uint64_t *)(FROM + 8 * hart()) = 1;
    *(volatile uint64_t *)(TO + 8 * hart()) = 2;
    CHECK("no translation in M-mode", *(volatile uint64_t *)(FROM + 8 * hart()),
          1);
    CHECK("satp", csr_read(satp), SATP_SV39 | (uint64_t)root >> 12);
    csr_write(satp, 0);
    CHECK("satp, cleared", csr_read(satp), 0);
}

// Exceptions that are not delegated come to M-mode.
static void ecall_in_s(void) {
    struct state *s = &state[hart()];
    uint64_t at;
    asm volatile("la %0, 1f\n.balign 4\n1: ecall" : "=r"(at)::"memory");
    CHECK("ecall from S: mcause", s->mcause, CAUSE_S_ECALL);
    CHECK("ecall from S: mepc", s->mepc, at);
    CHECK("ecall from S: MPP", s->mstatus & STATUS_MPP, STATUS_MPP_S);
    leave();
}

static void group_ecall(void) {
    struct state *s = &state[hart()];
    csr_write(medeleg, 0xb1ff); // not 9, ecall from S-mode
    s->exceptions = true;
    go(STATUS_MPP_S, 0, (uint64_t)ecall_in_s);
    uint64_t at;
    asm volatile("la %0, 1f\n1: ecall" : "=r"(at)::"memory");
    CHECK("ecall from M: mcause", s->mcause, 11);
    CHECK("ecall from M: mepc", s->mepc, at);
    CHECK("ecall from M: MPP", s->mstatus & STATUS_MPP, STATUS_MPP);
}

// Illegal instructions in M-mode: writes to a register that can't be written.
static void group_illegal(void) {
    struct state *s = &state[hart()];
    s->exceptions = true;
    for (unsigned form = CSRRW; form <= CSRRCI; form++) {
        if (form == 4)
            continue;
        uint64_t traps = s->traps;
        random_registers();
        void *at = place(encode(0xf14, form, 10, 11), true);
        run();
        areas[hart()].in[9] += 2;
        check_registers("mhartid written: registers");
        CHECK("mhartid written: traps", s->traps, traps + 1);
        CHECK("mhartid written: mcause", s->mcause, CAUSE_ILLEGAL);
        CHECK("mhartid written: mepc", s->mepc, (uint64_t)at);
    }
}

// --- All of it ---------------------------------------------------------------

static volatile bool started;

_Noreturn void start(const void *dtb) {
    asm volatile("csrr tp, mhartid");
    random_state[hart()] = hart() + 12345;
    if (hart() == 0) {
        harts = dtb_harts(dtb);
        make_tables();
        print("kernel: starting on %u harts\n", (uint64_t)harts);
        __atomic_store_n(&started, true, __ATOMIC_RELEASE);
    }
    while (!__atomic_load_n(&started, __ATOMIC_ACQUIRE))
        ;
    bool sstc = dtb_has_sstc(dtb);
    CHECK("mstatus: MIE after reset", csr_read(mstatus) & STATUS_MIE, 0);
    csr_write(mie, 0);
    for (const struct csr *c = csrs; c->name; c++) {
        struct csr with = *c;
        if (!sstc && (c->number == 0x306 || c->number == MENVCFG))
            with.write = with.hold = 0; // without Sstc none needs it
        check_forms(&with);
    }
    check_pairs(&csrs[0]);
    check_fields();
    static const struct {
        const char *name;
        void (*check)(void);
    } required[] = {{"mret", check_mret},
                    {"timer", check_timer},
                    {"S-mode", check_s_mode},
                    {"U-mode", check_u_mode}},
      groups[] = {{"pmp", group_pmp},
                  {"views", group_views},
                  {"ecall", group_ecall},
                  {"illegal", group_illegal},
                  {"warl", group_warl}};
    for (unsigned i = 0; i < 4; i++) {
        barrier();
        if (hart() == 0)
            print("%s\n", required[i].name);
        required[i].check();
    }
    barrier();
    if (hart() == 0)
        summary("done");
    for (unsigned i = 0; i < 5; i++) {
        barrier();
        groups[i].check();
        barrier();
        if (hart() == 0)
            summary(groups[i].name);
    }
    park();
}
