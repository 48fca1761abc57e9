// The vocabulary: names and bits out of the specifications, the types, and what
// each file offers the ones above it.  No logic lives here.
//
// "Priv." is the RISC-V Privileged Architecture, 20240411 or later, with its
// chapters on the hypervisor extension, Sstc and Smstateen; "SBI" the
// Supervisor Binary Interface 2.0; "16550" the data sheet of National's
// PC16550D.
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Guest-physical: what the guest takes for physical.  Host-physical: what the
// memory bus sees; we run with satp = Bare, so it is also a C pointer.  Guest-
// virtual: what a program in the guest sees.
typedef uint64_t gpa_t, hpa_t, gva_t;

#define MIB (1ul << 20)
#define GIB (1ul << 30)
#define PAGE 4096
#define MAX_HARTS 8
#define LENGTH(array) (sizeof(array) / sizeof *(array))

#include <csr.h> // csr_read() and its like

// --- Bits of the CSRs --------------------------------------------------------

// scause, vscause, and of a guest that has an M-mode, mcause (Priv. "Supervisor
// Cause Register", with H); hedeleg and medeleg have a bit for each
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

// What the guest can deal with goes straight to it: all that an S-mode kernel
// is used to see.  Not delegated: ecall out of VS-mode, guest page faults,
// virtual instructions.
#define HEDELEG                                                                \
    (1 << CAUSE_FETCH_MISALIGNED | 1 << CAUSE_FETCH_ACCESS |                   \
     1 << CAUSE_ILLEGAL_INSTRUCTION | 1 << CAUSE_BREAKPOINT |                  \
     1 << CAUSE_LOAD_MISALIGNED | 1 << CAUSE_LOAD_ACCESS |                     \
     1 << CAUSE_STORE_MISALIGNED | 1 << CAUSE_STORE_ACCESS |                   \
     1 << CAUSE_USER_ECALL | 1 << CAUSE_FETCH_PAGE | 1 << CAUSE_LOAD_PAGE |    \
     1 << CAUSE_STORE_PAGE)

enum {
    // sip and sie: our own interrupts
    SIP_SSIP = 1 << 1, // software: an IPI
    SIP_STIP = 1 << 5, // timer
    SIP_SEIP = 1 << 9, // external: the PLIC
    // hvip and hideleg: the guest's
    HVIP_VSSIP = 1 << 2,
    HVIP_VSTIP = 1 << 6,
    HVIP_VSEIP = 1 << 10,
};

// sstatus and vsstatus share one layout
enum {
    SSTATUS_SIE = 1 << 1,       // interrupts are on
    SSTATUS_SPIE = 1 << 5,      // they were, before the trap
    SSTATUS_SPP = 1 << 8,       // it came from S-mode, not from U-mode
    SSTATUS_VS = 3 << 9,        // vector registers may be used
    SSTATUS_FS = 3 << 13,       // floating-point registers may be used
    SSTATUS_MXR = 1 << 19,      // what may be executed may be read
    SSTATUS_UXL_64 = 2ul << 32, // U-mode has 64 bits
};

enum {
    HSTATUS_SPV = 1 << 7,        // sret leads into a virtual mode
    HSTATUS_SPVP = 1 << 8,       // HLV and HLVX act for VS-mode, not VU-mode
    HSTATUS_VTW = 1 << 21,       // WFI in VS-mode traps
    HSTATUS_VSXL_64 = 2ul << 32, // VS-mode has 64 bits

    HENVCFG_CBIE_FLUSH = 1 << 4, // cbo.inval flushes: it writes back, too
    HENVCFG_CBCFE = 1 << 6,      // cbo.clean and cbo.flush
    HENVCFG_CBZE = 1 << 7,       // cbo.zero
    HENVCFG_ADUE = 1ul << 61,    // the hart sets A and D of the guest's PTEs
    HENVCFG_PBMTE = 1ul << 62,   // memory types in the guest's PTEs
};
#define HENVCFG_STCE (1ul << 63) // stimecmp is the guest's vstimecmp

#define HSTATEEN0_ENVCFG (1ul << 62) // senvcfg is the guest's

#define HGATP_MODE_SV39X4 (8ul << 60)
enum {
    PTE_V = 1 << 0, // valid
    PTE_R = 1 << 1,
    PTE_W = 1 << 2,
    PTE_X = 1 << 3,
    PTE_U = 1 << 4, // for user mode
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
    // types of SRST, and the reason that is not 0
    SBI_SRST_SHUTDOWN = 0,
    SBI_SRST_WARM_REBOOT = 2,
    SBI_SRST_FAILURE = 1,
};

// --- The machine the guest sees; guest.dts says the same to the guest --------

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
    // what a store to the test device asks for, in its lower half
    TEST_FAIL = 0x3333, // end, with the upper half as the exit status
    TEST_PASS = 0x5555, // end
    TEST_RESET = 0x7777,
};

// --- Types -------------------------------------------------------------------

// One VM exit, as the hart reports it, and what came of it.
struct exit {
    uint64_t time, end; // ticks: the guest has left, and goes on
    uint64_t cause, pc; // scause; sepc, the guest instruction that left
    uint64_t tval;      // stval: guest-virtual address, or the instruction
    gpa_t gpa;          // htval and the low bits of stval
    uint64_t inst;      // htinst, or what stands at pc, of a load or store
    uint64_t value;     // what was read from a device, or written
    uint64_t call;      // a7 and the lower half of a6: an SBI call
};

// Where a hart of the guest's begins, and with what in a1.
struct start {
    _Atomic gpa_t pc; // 0: nowhere yet
    uint64_t opaque;
};

// One virtual hart.  It runs on the hart of the same number and nowhere else.
// Its first page has the hart's stack at its end: what an exit touches is close
// together, because the switch between guest and hypervisor has flushed the
// TLB, and each page costs a refill.  Behind it is the flight recorder: the
// last exits, as many as make it 512 KiB in all, which boot.S knows.
extern struct vcpu {
    uint64_t regs[32];      // x0 to x31; trap.S knows that they come first
    uint64_t hart;          // mhartid, the guest's and ours
    _Atomic uint64_t state; // HART_STARTED and so on (SBI 9)
    struct exit *exit;      // why it is not running
    struct mmode *mmode;    // of a guest that began in M-mode, else NULL
    struct start start;     // where it shall begin: see start_hart()
    uint64_t exits;         // so far; number n is in log[n % 7224]
    struct exit log[7224] __attribute__((aligned(PAGE)));
} __attribute__((aligned(PAGE))) vcpus[MAX_HARTS];

// A load or store at an address that is no memory.
struct access {
    bool store;       // store or AMO; else load
    bool sign_extend; // LB, LH and LW fill the register with the sign
    uint8_t width;    // bytes: 1, 2, 4 or 8
    uint8_t reg;      // where the value goes to or comes from
    uint8_t base;     // where the address is, less an offset
    uint8_t low;      // the lower bits of that offset
    uint8_t length;   // of the instruction in bytes: 2 or 4
    uint64_t offset;  // from the device's base, aligned to width
    uint64_t value;   // read, or to be written
};

// A device.  WIDTHS has a bit for each width that its registers have.  ACCESS
// does what A says, and returns false if there is no such register: the guest
// gets an access fault.
struct device {
    gpa_t base;
    uint64_t size;
    unsigned widths;
    bool (*access)(struct vcpu *v, struct access *a);
};

// A property in a flattened device tree: where its token FDT_PROP stands.
typedef const uint32_t *fdt_prop;

struct sbiret {
    long error, value;
};

// What main() found out about the machine below.
extern struct host {
    const uint32_t *fdt; // our copy of its device tree
    const char *isa;     // its harts', as "rv64imach_zicsr_sstc"
    hpa_t plic, uart;
    hpa_t test;     // 0: it has none
    uint64_t *root; // of the second stage of translation, Sv39x4
    uint64_t henvcfg;
    bool sstc;             // its harts compare time with vstimecmp themselves
    _Atomic int running;   // the first one has begun to run
    _Atomic int resetting; // all but one shall stop
} host;

// The guest as it was built into us (guest.S).  It is entered where the kernel
// begins.
extern const struct guest {
    struct part {
        gpa_t gpa; // where it belongs
        const char *start, *end;
    } kernel, dtb, initrd;
    uint64_t ram_size, harts; // bytes, number
} guest;

// --- What each file offers the ones above it ---------------------------------

// boot.S, trap.S, guest.S, hv.ld
_Noreturn void enter_guest(struct vcpu *v);
long hlvx_hu(gva_t gva, uint64_t mxr);
extern char boot[], hv_end[];

// hv.c
unsigned inject(struct vcpu *v, uint64_t cause, uint64_t tval);
_Noreturn void start_guest(struct vcpu *v, gpa_t pc, uint64_t opaque);
_Noreturn void stop_hart(struct vcpu *v);
void stop_others(struct vcpu *v);
void say_stuck(struct vcpu *v, uint64_t cause, uint64_t was, gva_t pc);

// mmio.c
unsigned handle_mmio(struct vcpu *v);
void access_memory(hpa_t at, struct access *a);

// sbi.c
unsigned handle_sbi(struct vcpu *v);
struct sbiret start_hart(uint64_t hart, gpa_t pc, uint64_t opaque);

// mmode.c
void mmode_init(void);
bool mmode_exception(struct vcpu *v, uint64_t cause, uint64_t tval);
unsigned handle_illegal_instruction(struct vcpu *v);
bool mmode_pending(struct vcpu *v);
void mmode_interrupt(struct vcpu *v);
bool clint_access(struct vcpu *v, struct access *a);

// virtio.c
bool virtio_access(struct vcpu *v, struct access *a);
void virtio_init(void);

// uart.c
bool uart_access(struct vcpu *v, struct access *a);
bool test_access(struct vcpu *v, struct access *a);

// plic.c
bool plic_access(struct vcpu *v, struct access *a);
void plic_init(struct vcpu *v);
void plic_show(struct vcpu *v, bool on);

// mem.c
void init_memory(hpa_t ram_end, uint64_t size);
void *alloc(uint64_t size, uint64_t align);
void map_guest(gpa_t gpa, hpa_t hpa, uint64_t size, uint64_t perm);
void *guest_ptr(gpa_t gpa, uint64_t size);
long fetch(gva_t pc, uint64_t mxr);
void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int c, size_t n);

// fdt.c
uint64_t fdt_size(const uint32_t *fdt);
fdt_prop fdt_find(const uint32_t *fdt, fdt_prop after, const char *node,
                  const char *name);
uint64_t fdt_number(fdt_prop reg, unsigned n);
void finish_guest_fdt(uint32_t *fdt);
bool isa_has(const char *extension);

// print.c
struct sbiret host_sbi(uint64_t id, uint64_t function, const uint64_t *a);
void printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void shut_down(uint32_t how);

// A line of ours on the console.
#define say(...) (printf("hv: " __VA_ARGS__), printf("\r\n"))

// The end, because the machine or the guest's files are not as they must be, or
// because of a bug of ours.  Never for anything that a running guest does.
#define die(...)                                                               \
    (printf("hv: " __VA_ARGS__), printf("\r\n"), shut_down(1 << 16 | TEST_FAIL))

// Something about the guest that a user would like to know, once.
#define say_once(...)                                                          \
    do {                                                                       \
        static _Atomic int said_;                                              \
        if (!atomic_exchange(&said_, 1))                                       \
            say(__VA_ARGS__);                                                  \
    } while (0)
