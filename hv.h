// The vocabulary: names and bits from the specifications, our types, and the
// functions that each file offers.  There is no logic here, so you need not
// read it first.  Come back when you meet a name that you don't know.
//
// A hart is a hardware thread; a core has one or more.  It has modes.  VS-mode
// is the guest's kernel, VU-mode its programs.  HS-mode is us: S-mode on a hart
// with the hypervisor extension H.  M-mode is the firmware, OpenSBI, which we
// call by the SBI.  A trap from VS- or VU-mode to us is a VM exit, or exit for
// short.  Traps that we have delegated go to VS-mode without us.
//
// In HS-mode sstatus.SIE is always 0, so no interrupt gets in while our own
// code runs.  A wfi of ours ends all the same when an interrupt is pending that
// sie enables.  SIE does not count while the guest runs, because VS-mode is
// below HS-mode: then an interrupt of ours that sie enables is an exit.
//
// In comments, capitals name a function's parameters or a structure's fields:
// FDT, HART.
//
// The comments cite three specifications.  "Priv." is the RISC-V Instruction
// Set Manual, Volume II: Privileged Architecture, version 20250508, with its
// chapters on the hypervisor extension H, Sstc, Smstateen and Ssdbltrp.  "SBI"
// is the Supervisor Binary Interface 2.0.  "virtio" is Virtual I/O Device 1.2.
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Three kinds of addresses.  A guest-virtual address is what a program in the
// guest uses.  The guest's own page tables translate it to a guest-physical
// address, which the guest takes for a real one.  Our page tables translate
// that to a host-physical address, which is what the memory bus sees.  We run
// with satp = Bare, that is without translation, so it is also a C pointer.
typedef uint64_t gva_t, gpa_t, hpa_t;

#define MIB (1ul << 20)
#define GIB (1ul << 30)
#define PAGE 4096
#define MAX_HARTS 8
#define LENGTH(array) (sizeof(array) / sizeof *(array))

#include <csr.h> // csr_read(), fence() and other single instructions

// --- Bits of the CSRs --------------------------------------------------------

// scause: why the hart trapped (Priv. "Supervisor Cause (scause) Register", and
// its table with H).  vscause and mcause use the same numbers, and hedeleg and
// medeleg have a bit for each of them.
#define CAUSE_INTERRUPT (1ul << 63)
enum {
    CAUSE_FETCH_MISALIGNED = 0,
    CAUSE_FETCH_ACCESS = 1,
    CAUSE_ILLEGAL_INSTRUCTION = 2,
    CAUSE_BREAKPOINT = 3,
    CAUSE_LOAD_MISALIGNED = 4,
    CAUSE_LOAD_ACCESS = 5,
    CAUSE_STORE_MISALIGNED = 6,
    CAUSE_STORE_ACCESS = 7,
    CAUSE_USER_ECALL = 8,
    CAUSE_SUPERVISOR_ECALL = 9,
    CAUSE_VIRTUAL_SUPERVISOR_ECALL = 10,
    CAUSE_MACHINE_ECALL = 11,
    CAUSE_FETCH_PAGE = 12,
    CAUSE_LOAD_PAGE = 13,
    CAUSE_STORE_PAGE = 15,
    CAUSE_FETCH_GUEST_PAGE_FAULT = 20,
    CAUSE_LOAD_GUEST_PAGE_FAULT = 21,
    CAUSE_VIRTUAL_INSTRUCTION = 22,
    CAUSE_STORE_GUEST_PAGE_FAULT = 23,
};

// The exceptions that go straight to the guest, without an exit: all that any
// S-mode kernel handles for itself.  We take the others, above all ecall from
// VS-mode, guest page faults and virtual instructions.
#define HEDELEG                                                                \
    (1 << CAUSE_FETCH_MISALIGNED | 1 << CAUSE_FETCH_ACCESS |                   \
     1 << CAUSE_ILLEGAL_INSTRUCTION | 1 << CAUSE_BREAKPOINT |                  \
     1 << CAUSE_LOAD_MISALIGNED | 1 << CAUSE_LOAD_ACCESS |                     \
     1 << CAUSE_STORE_MISALIGNED | 1 << CAUSE_STORE_ACCESS |                   \
     1 << CAUSE_USER_ECALL | 1 << CAUSE_FETCH_PAGE | 1 << CAUSE_LOAD_PAGE |    \
     1 << CAUSE_STORE_PAGE)

enum {
    // in sip and sie: our own interrupts
    SIP_SSIP = 1 << 1, // software: an IPI
    SIP_STIP = 1 << 5, // timer
    SIP_SEIP = 1 << 9, // external: the PLIC
    // in hvip and hideleg: the same three for the guest.  A bit in hvip is an
    // interrupt that it finds in its own sip, one place lower.
    HVIP_VSSIP = 1 << 2,
    HVIP_VSTIP = 1 << 6,
    HVIP_VSEIP = 1 << 10,
};

// sstatus, and vsstatus, which has the same layout
enum {
    SSTATUS_SIE = 1 << 1,       // interrupts are on
    SSTATUS_SPIE = 1 << 5,      // they were on before the trap
    SSTATUS_SPP = 1 << 8,       // the trap came from S-mode, not from U-mode
    SSTATUS_VS = 3 << 9,        // vector registers may be used
    SSTATUS_FS = 3 << 13,       // floating-point registers may be used
    SSTATUS_MXR = 1 << 19,      // executable pages may be read, too
    SSTATUS_UXL_64 = 2ul << 32, // U-mode has 64 bits
};

enum {
    HSTATUS_SPV = 1 << 7,        // sret leads into a virtual mode
    HSTATUS_SPVP = 1 << 8,       // HLV and HLVX act for VS-mode, not VU-mode
    HSTATUS_VTW = 1 << 21,       // WFI in VS-mode is an exit
    HSTATUS_VSXL_64 = 2ul << 32, // VS-mode has 64 bits

    HENVCFG_CBIE_FLUSH = 1 << 4, // the guest's cbo.inval works, as a cbo.flush
    HENVCFG_CBCFE = 1 << 6,      // the guest may use cbo.clean and cbo.flush
    HENVCFG_CBZE = 1 << 7,       // the guest may use cbo.zero
    HENVCFG_ADUE = 1ul << 61,    // the hart sets A and D in the guest's PTEs
    HENVCFG_PBMTE = 1ul << 62,   // the guest's PTEs have memory types
};
#define HENVCFG_STCE (1ul << 63)      // the guest's stimecmp is vstimecmp
#define HSTATEEN0_ENVCFG (1ul << 62)  // the guest has senvcfg
#define HGATP_MODE_SV39X4 (8ul << 60) // how the second stage translates

// Entries of page tables, the guest's and ours
enum {
    PTE_V = 1 << 0, // valid
    PTE_R = 1 << 1, // may be read
    PTE_W = 1 << 2, // may be written
    PTE_X = 1 << 3, // may be executed
    PTE_U = 1 << 4, // by user mode
    PTE_A = 1 << 6, // accessed
    PTE_D = 1 << 7, // dirty
};

// --- SBI 2.0 -----------------------------------------------------------------

enum {
    // extensions
    LEGACY_SET_TIMER = 0,
    LEGACY_PUTCHAR = 1,
    LEGACY_GETCHAR = 2,
    LEGACY_SHUTDOWN = 8,
    SBI_EXT_BASE = 0x10,
    SBI_EXT_TIME = 0x54494d45,
    SBI_EXT_IPI = 0x735049,
    SBI_EXT_RFENCE = 0x52464e43,
    SBI_EXT_HSM = 0x48534d,
    SBI_EXT_SRST = 0x53525354,
    SBI_EXT_DBCN = 0x4442434e,
    // functions of HSM
    HART_START = 0,
    HART_STOP = 1,
    HART_GET_STATUS = 2,
    HART_SUSPEND = 3,
    // states of a hart
    HART_STARTED = 0,
    HART_STOPPED = 1,
    HART_START_PENDING = 2,
    HART_SUSPENDED = 4,
    // functions of RFENCE
    SBI_REMOTE_FENCE_I = 0,
    SBI_REMOTE_HFENCE_GVMA = 4,
    SBI_REMOTE_HFENCE_VVMA_ASID = 5,
    SBI_REMOTE_HFENCE_VVMA = 6,
    // types of SRST's reset, and its reason
    SBI_SRST_SHUTDOWN = 0,
    SBI_SRST_WARM_REBOOT = 2,
    SBI_SRST_FAILURE = 1,
};

// --- The machine that the guest sees (guest.dts; the CLINT is for M-mode) ----

#define GUEST_TEST 0x00100000ul
#define GUEST_RTC 0x00101000ul
#define GUEST_CLINT 0x02000000ul
#define GUEST_PLIC 0x0c000000ul
#define GUEST_UART 0x10000000ul
#define GUEST_VIRTIO 0x10001000ul
#define GUEST_RAM 0x80000000ul
enum {
    PLIC_SIZE = 0x600000,
    VIRTIO_SLOTS = 8,
    // what the lower 16 bits of a store to the test device ask for
    TEST_FAIL = 0x3333,  // QEMU ends, with the upper 16 bits as exit status
    TEST_PASS = 0x5555,  // QEMU ends
    TEST_RESET = 0x7777, // the machine starts again
};

// --- Types -------------------------------------------------------------------

// What find_host() found out about the machine below us.
extern struct host {
    const uint32_t *fdt; // our copy of its device tree
    const char *isa;     // what its harts can do: "rv64imach_zicsr_sstc"
    hpa_t plic, uart;
    hpa_t test, rtc; // 0: it has none
    uint64_t *root;  // root of the second stage's page table, Sv39x4
    uint64_t henvcfg;
    bool sstc;             // its harts have Sstc: timers without calls
    _Atomic int booted;    // a hart has begun to set the machine up
    _Atomic int resetting; // all harts but one must stop
} host;

// A property in a flattened device tree: the address of its token FDT_PROP.
typedef const uint32_t *fdt_prop;

// The guest, as it is built into our image (guest.S).  It is entered where its
// kernel begins.
extern const struct guest {
    struct file {
        gpa_t gpa;               // where it belongs
        const char *start, *end; // where it is in our image
    } kernel, dtb, initrd;
    uint64_t ram_size, harts; // bytes, number
} guest;

// One VM exit: what the hart reported, and what became of it.
struct exit {
    uint64_t time, end; // ticks: when the guest left, and when it went on
    uint64_t cause, pc; // scause; sepc, the guest's instruction that left
    uint64_t tval;      // stval: a guest-virtual address, or the instruction
    gpa_t gpa;          // htval, with the lowest two bits of stval
    uint64_t inst;      // of a load or store: htinst, or the code at pc
    uint64_t value;     // of a load or store: what was read or written
    uint64_t call;      // of an SBI call: the lower halves of a7 and a6
};

// One virtual hart.  It runs on the hart of the same number and nowhere else.
//
// The hart's stack is at the end of its first page, so an exit touches few
// pages.  That matters because QEMU flushes the TLB whenever a hart enters or
// leaves a guest, and each page that we touch then has to be looked up again.
// Behind that page is the flight recorder, which holds the last exits.  It
// fills the rest of the 512 KiB that a vcpu has.
enum { LOG_LENGTH = ((1 << 19) - PAGE) / sizeof(struct exit) };
extern struct vcpu {
    uint64_t regs[32];      // x0 to x31
    uint64_t hart;          // mhartid, the same for the guest and for us
    _Atomic uint64_t state; // HART_STARTED and so on (SBI 9)
    struct exit *exit;      // the exit that is being handled
    struct mmode *mmode;    // NULL unless the guest began in M-mode
    _Atomic gpa_t start_pc; // where it is to begin; 0: nowhere yet
    uint64_t start_opaque;  // and what it finds in a1 then
    uint64_t exits;         // number n is in log[n % LOG_LENGTH]
    struct exit log[LOG_LENGTH] __attribute__((aligned(PAGE)));
} __attribute__((aligned(PAGE))) vcpus[MAX_HARTS];
// boot.S and trap.S have these numbers in their code.
_Static_assert(!offsetof(struct vcpu, regs) && sizeof(struct vcpu) == 1 << 19 &&
                   offsetof(struct vcpu, log) == PAGE,
               "struct vcpu is not as boot.S and trap.S expect it");

// What comes back from an SBI call.
struct sbiret {
    long error, value;
};

// A load or store at an address that is not memory.
struct access {
    bool store;       // a store or an AMO, else a load
    bool sign_extend; // LB, LH and LW fill the register with the sign
    uint8_t width;    // bytes: 1, 2, 4 or 8
    uint8_t reg;      // the register that the value goes to or comes from
    uint8_t base;     // the register with the address
    uint8_t low;      // the lowest three bits of its offset
    uint64_t offset;  // from the beginning of the device, aligned to width
    uint64_t value;   // what was read, or what is to be written
};

// A device.  WIDTHS has a bit for each width that its registers have.  ACCESS
// does what A says.  It returns false if there is no such register, and then
// the guest takes an access fault.
struct device {
    gpa_t base;
    uint64_t size;
    unsigned widths;
    bool (*access)(struct vcpu *v, struct access *a);
};

// --- What each file offers, in the order of reading --------------------------

// boot.S and hv.ld
extern char boot[], hv_end[];

// mem.c
void init_memory(hpa_t ram_end, uint64_t size);
void *alloc(uint64_t size, uint64_t align);
void map_guest(gpa_t gpa, hpa_t hpa, uint64_t size, uint64_t perm);
void *guest_ptr(gpa_t gpa, uint64_t size);
long fetch(gva_t pc, uint64_t mxr);
void access_memory(hpa_t at, struct access *a);
void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int c, size_t n);

// fdt.c
fdt_prop fdt_find(const uint32_t *fdt, fdt_prop after, const char *string,
                  const char *name);
uint64_t fdt_number(fdt_prop reg, unsigned n);
bool isa_has(const char *extension);
void find_host(const uint32_t *fdt);
void finish_guest_fdt(uint32_t *fdt);

// hart.c
_Noreturn void stop_hart(struct vcpu *v);
_Noreturn void start_guest(struct vcpu *v, gpa_t pc, uint64_t opaque);
bool start_hart(uint64_t hart, gpa_t pc, uint64_t opaque);
void stop_others(struct vcpu *v);
unsigned inject(struct vcpu *v, uint64_t cause, uint64_t tval);

// trap.S
_Noreturn void enter_guest(struct vcpu *v);
long hlvx_hu(gva_t gva, uint64_t mxr);

// sbi.c
unsigned handle_sbi(struct vcpu *v);

// mmio.c
unsigned handle_mmio(struct vcpu *v);

// uart.c
bool uart_access(struct vcpu *v, struct access *a);
bool test_access(struct vcpu *v, struct access *a);

// plic.c
void plic_init(struct vcpu *v);
void plic_show(struct vcpu *v, bool on);
bool plic_access(struct vcpu *v, struct access *a);

// virtio.c
void virtio_init(void);
bool virtio_access(struct vcpu *v, struct access *a);

// mmode.c
void mmode_init(void);
bool mmode_exception(struct vcpu *v, uint64_t cause, uint64_t tval);
unsigned handle_illegal_instruction(struct vcpu *v);
bool mmode_pending(struct vcpu *v);
void mmode_interrupt(struct vcpu *v);
bool clint_access(struct vcpu *v, struct access *a);

// print.c
struct sbiret host_sbi(uint64_t id, uint64_t function, const uint64_t *a);
void printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
void say_stuck(struct vcpu *v, uint64_t cause, uint64_t was, gva_t pc);
_Noreturn void shut_down(uint32_t how);

// Prints a line of ours on the console.  Each %lx in it stands for an unsigned
// long, in hexadecimal.
#define say(...) (printf("hv: " __VA_ARGS__), printf("\r\n"))

// Prints a line and ends everything.  This is for a machine or files that we
// can't work with, and for bugs of ours.  Nothing that a running guest does may
// lead here.
#define die(...)                                                               \
    (printf("hv: " __VA_ARGS__), printf("\r\n"), shut_down(1 << 16 | TEST_FAIL))

// Prints a line, but only the first time that it gets here: something about the
// guest that its user should know.
#define say_once(...)                                                          \
    do {                                                                       \
        static _Atomic int said_;                                              \
        if (!atomic_exchange(&said_, 1))                                       \
            say(__VA_ARGS__);                                                  \
    } while (0)
