// The vocabulary: names and bits out of the specifications, the types, and what
// each file offers the ones above it.  No logic lives here.
//
// "Priv." is the RISC-V Privileged Architecture 1.12 with its chapter on the
// hypervisor extension, "SBI" the Supervisor Binary Interface 2.0, "16550" the
// data sheet of National's PC16550D.
#pragma once
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

// scause (Priv. "Supervisor Cause Register", with H)
#define CAUSE_INTERRUPT (1ul << 63)
enum { CAUSE_FETCH_ACCESS = 1, CAUSE_ILLEGAL_INSTRUCTION = 2 };
enum { CAUSE_LOAD_ACCESS = 5, CAUSE_STORE_ACCESS = 7, CAUSE_LOAD_PAGE = 13 };
enum { CAUSE_VIRTUAL_SUPERVISOR_ECALL = 10, CAUSE_VIRTUAL_INSTRUCTION = 22 };
enum { CAUSE_FETCH_GUEST_PAGE_FAULT = 20, CAUSE_LOAD_GUEST_PAGE_FAULT = 21 };
enum { CAUSE_STORE_GUEST_PAGE_FAULT = 23 };

// sip and sie: our own interrupts; hvip and hideleg: the guest's
enum { SIP_SSIP = 1 << 1, SIP_STIP = 1 << 5, SIP_SEIP = 1 << 9 };
enum { HVIP_VSSIP = 1 << 2, HVIP_VSTIP = 1 << 6, HVIP_VSEIP = 1 << 10 };

// sstatus and vsstatus share one layout
enum { SSTATUS_SIE = 1 << 1, SSTATUS_SPIE = 1 << 5, SSTATUS_SPP = 1 << 8 };
enum { SSTATUS_VS = 3 << 9, SSTATUS_FS = 3 << 13, SSTATUS_MXR = 1 << 19 };
enum { SSTATUS_UXL_64 = 2ul << 32, HSTATUS_VSXL_64 = 2ul << 32 };

enum { HSTATUS_SPV = 1 << 7, HSTATUS_SPVP = 1 << 8, HSTATUS_VTW = 1 << 21 };

enum { HENVCFG_CBIE = 3 << 4, HENVCFG_CBCFE = 1 << 6, HENVCFG_CBZE = 1 << 7 };
enum { HENVCFG_ADUE = 1ul << 61, HENVCFG_PBMTE = 1ul << 62 };
#define HENVCFG_STCE (1ul << 63)

#define HGATP_MODE_SV39X4 (8ul << 60)
enum { PTE_V = 1, PTE_R = 2, PTE_W = 4, PTE_X = 8, PTE_U = 16 };
enum { PTE_A = 64, PTE_D = 128 };

// --- SBI 2.0: extensions, functions, states of a hart, reset types -----------
enum { LEGACY_SET_TIMER, LEGACY_PUTCHAR, LEGACY_GETCHAR, LEGACY_CLEAR_IPI };
enum { LEGACY_SEND_IPI = 4, LEGACY_REMOTE_FENCE_I = 5, LEGACY_SHUTDOWN = 8 };
enum { SBI_EXT_BASE = 0x10, SBI_EXT_HSM = 0x48534d, SBI_EXT_IPI = 0x735049 };
enum { SBI_EXT_TIME = 0x54494d45, SBI_EXT_RFENCE = 0x52464e43 };
enum { SBI_EXT_SRST = 0x53525354, SBI_EXT_DBCN = 0x4442434e };
enum { HART_START, HART_STOP, HART_GET_STATUS, HART_SUSPEND };
enum { HART_STARTED, HART_STOPPED, HART_START_PENDING, HART_SUSPENDED = 4 };
enum { SBI_REMOTE_FENCE_I = 0, SBI_REMOTE_HFENCE_GVMA = 4 };
enum { SBI_REMOTE_HFENCE_VVMA_ASID = 5, SBI_REMOTE_HFENCE_VVMA = 6 };
enum { SBI_SRST_SHUTDOWN, SBI_SRST_FAILURE = 1, SBI_SRST_WARM_REBOOT = 2 };

// --- The machine the guest sees; guest.dts says the same to the guest --------
#define GUEST_RAM 0x80000000ul
#define GUEST_CLINT 0x02000000ul
#define GUEST_PLIC 0x0c000000ul
#define GUEST_VIRTIO 0x10001000ul
enum { PLIC_SIZE = 0x600000, VIRTIO_SLOTS = 8 };
#define GUEST_UART 0x10000000ul

// --- Types -------------------------------------------------------------------

// One VM exit, as the hart reports it, and what became of it.
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
    gpa_t pc;
    uint64_t opaque;
};

// One virtual hart.  It runs on the hart of the same number and nowhere else.
// Its first page has the hart's stack at its end: what an exit touches is close
// together, because the switch between guest and hypervisor has flushed the
// TLB, and each page costs a refill.  Behind it is the flight recorder: the
// last exits, as many as make it 512 KiB in all, which boot.S knows.
extern struct vcpu {
    uint64_t regs[32]; // x0 to x31; trap.S knows that they come first
    // mhartid, the guest's and ours; HART_STARTED and so on (SBI 9)
    uint64_t hart, state;
    struct exit *exit;   // why it is not running
    struct mmode *mmode; // of a guest that began in M-mode, else NULL
    struct start start;  // where it begins, as start_hart() wants it
    uint64_t exits;      // so many till now, number n is in log[n % 7224]
    struct exit log[7224] __attribute__((aligned(PAGE)));
} __attribute__((aligned(PAGE))) vcpus[MAX_HARTS];

// A load or store at an address that is no memory.
struct access {
    bool store;       // store or AMO; else load
    bool sign_extend; // LB, LH and LW fill the register with the sign
    uint8_t width;    // bytes: 1, 2, 4 or 8
    uint8_t reg;      // where the value goes to or comes from
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
    const char *isa;
    hpa_t plic, uart;
    uint64_t *root; // of the second stage of translation, Sv39x4
    // Its harts compare time with vstimecmp by themselves; the first one has
    // begun to run; all but one shall stop.
    int sstc, running, resetting;
} host;

// The guest as it was built into us (guest.S).
extern const struct guest {
    struct part {
        gpa_t gpa; // where it belongs
        const char *start, *end;
    } kernel, dtb, initrd;
    gpa_t entry;
    uint64_t ram_size, harts; // bytes, number
} guest;

// --- What each file offers the ones above it ---------------------------------

// boot.S, trap.S, guest.S, hv.ld
_Noreturn void enter_guest(struct vcpu *v);
long hlvx_hu(gva_t gva, uint64_t mxr), hlv_bu(gva_t gva, uint64_t mxr);
extern char boot[], hv_end[];

// hv.c
unsigned inject(struct vcpu *v, uint64_t cause, uint64_t tval);
_Noreturn void start_guest(struct vcpu *v);
_Noreturn void stop_hart(struct vcpu *v);

// mmio.c
unsigned handle_mmio(struct vcpu *v);

// sbi.c
unsigned handle_sbi(struct vcpu *v);
struct sbiret start_hart(uint64_t hart, struct start start);

// mmode.c
void mmode_start(struct vcpu *v);
unsigned handle_illegal_instruction(struct vcpu *v);
void mmode_timer(struct vcpu *v);
bool clint_access(struct vcpu *v, struct access *a);

// virtio.c
bool virtio_access(struct vcpu *v, struct access *a);
void virtio_init(void);

// uart.c
bool uart_access(struct vcpu *v, struct access *a);

// plic.c
bool plic_access(struct vcpu *v, struct access *a);
void plic_init(void);

// mem.c
void init_memory(hpa_t ram_end, uint64_t size);
void *alloc(uint64_t size, uint64_t align);
void map_guest(gpa_t gpa, const void *to, uint64_t size, uint64_t perm);
void *guest_ptr(gpa_t gpa, uint64_t size);
long fetch(gva_t pc, uint64_t mxr);
void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int c, size_t n);

// fdt.c
uint64_t fdt_size(const uint32_t *fdt);
fdt_prop fdt_find_reg(fdt_prop after, const char *string);
uint64_t fdt_number(fdt_prop reg, unsigned n);
fdt_prop fdt_find(const uint32_t *fdt, fdt_prop after, const char *name);
void finish_guest_fdt(uint32_t *fdt);
bool isa_has(const char *isa, const char *name);

// print.c
struct sbiret host_sbi(uint64_t id, uint64_t function, const uint64_t *a);
void printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void shut_down(void);

// The end, because the machine or the guest's files are not as they must be, or
// because of a bug of ours.  Never for anything that a running guest does.
#define die(...) (printf("hv: " __VA_ARGS__), printf("\r\n"), shut_down())
