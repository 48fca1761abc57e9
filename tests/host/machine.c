#include "machine.h"
#include <sanitizer/asan_interface.h>
#include <stdarg.h>
#include <sys/mman.h>

struct csrs csrs;
struct call calls[1024];
unsigned calls_made;
struct sbiret answer;
char said[1024];
jmp_buf end;
struct vcpu *entered;
uint32_t ended;
uint64_t this_hart, henvcfg_has;
bool lacks_sv39x4, leaves_htval;
void (*at_fence)(void), (*at_hfence)(void), (*at_wfi)(void);
unsigned fences, fences_i;

// Each has a multiple of eight bytes, as in guest.S.
static const char kernel[] __attribute__((aligned(8))) = "kernel.";
static const char initrd[] __attribute__((aligned(8))) = "initrd.";
asm(".section .rodata; .balign 8\n"
    "host_fdt: .incbin \"host.dtb\"\n .balign 8\n"
    "guest_fdt: .incbin \"guest.dtb\"\n guest_fdt_end: .balign 8\n"
    ".globl host_fdt, boot\n boot:\n.text");
extern const char guest_fdt[], guest_fdt_end[];
static const struct guest as_built = {
    .kernel = {GUEST_RAM + 0x200, kernel, kernel + sizeof kernel},
    .initrd = {GUEST_RAM + 0x1000, initrd, initrd + sizeof initrd},
    .dtb = {GUEST_RAM + 0x2000, guest_fdt, guest_fdt_end},
    .ram_size = GUEST_RAM_SIZE,
    .harts = 4,
};
// hv.h declares the guest constant, but tests change it through "built".  The
// compiler must not know that both are the same.
_Static_assert(sizeof(struct guest) == 88, "the assembler's number");
asm(".data; .balign 8; .globl built, guest\n"
    "built: .quad guest\n guest: .zero 88\n.text");

static struct sbiret note(const struct call *call) {
    calls[calls_made++ % LENGTH(calls)] = *call;
    return answer;
}
struct sbiret (*the_firmware)(const struct call *call) = note;

struct sbiret host_sbi(uint64_t id, uint64_t function, const uint64_t *a) {
    struct call call = {id, function, {a[0], a[1], a[2], a[3], a[4]}};
    return the_firmware(&call);
}

void hv_printf(const char *format, ...) {
    va_list numbers;
    va_start(numbers, format);
    size_t used = strlen(said);
    vsnprintf(said + used, sizeof said - used, format, numbers);
    va_end(numbers);
}

_Noreturn void shut_down(uint32_t how) {
    ended = how;
    longjmp(end, DIED);
}

void sleep_(void) {
    if (at_wfi)
        at_wfi();
    else if (vcpus[this_hart].state == HART_STOPPED &&
             !vcpus[this_hart].start_pc) // otherwise an IPI wakes it
        longjmp(end, ASLEEP);
}

void fence_(void) {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    fences++;
    if (at_fence)
        at_fence();
}

void hfence_(void) {
    if (at_hfence)
        at_hfence();
}

void keep_(void) { csrs.henvcfg &= henvcfg_has; }

_Noreturn void enter_guest(struct vcpu *v) {
    entered = v;
    longjmp(end, ENTERED);
}

// The guest has no translation of its own here.  A load that faults leaves the
// address in htval, as an exit does.
long hlvx_hu(gva_t gva, uint64_t mxr) {
    uint16_t code = 0;
    const void *p = guest_ptr(gva, sizeof code);
    if (!p && !leaves_htval)
        csrs.htval = gva >> 2;
    if (!p)
        return lacks_sv39x4 ? 0 : -1;
    return memcpy(&code, p, sizeof code), code;
}

static void map(uint64_t at, uint64_t size) {
    void *wanted = (void *)at;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    check(mmap(wanted, size, PROT_READ | PROT_WRITE, flags, -1, 0) == wanted);
}

void make_machine(void) {
    map(GUEST_VIRTIO, VIRTIO_SLOTS * PAGE);
    map(HOST_PLIC, PLIC_SIZE);
    map(HOST_UART, PAGE);
    map(HOST_TEST, PAGE);
    map(HOST_RAM, HOST_RAM_SIZE);
    reset_machine();
    // Report any access just beyond one end of the guest's RAM.
    char *start = ram(GUEST_RAM);
    ASAN_POISON_MEMORY_REGION(start - PAGE, PAGE);
    ASAN_POISON_MEMORY_REGION(start + GUEST_RAM_SIZE, PAGE);
}

void reset_harts(void) {
    the_firmware = note;
    answer = (struct sbiret){0};
    calls_made = 0;
    said[0] = 0;
    entered = NULL;
    ended = 0;
    at_fence = at_hfence = at_wfi = NULL;
    fences = fences_i = 0;
    host.resetting = 0;
    this_hart = 0;
    henvcfg_has = -1;
    lacks_sv39x4 = leaves_htval = false;
    csrs = (struct csrs){.sstatus = SSTATUS_SPP};
    for (uint64_t hart = 0; hart < MAX_HARTS; hart++) {
        memset(&vcpus[hart], 0, offsetof(struct vcpu, log));
        vcpus[hart].hart = hart;
    }
}

void reset_machine(void) {
    *built = as_built;
    reset_harts();
    host = (struct host){.fdt = host_fdt,
                         .plic = HOST_PLIC,
                         .uart = HOST_UART,
                         .isa = "rv64imach_sstc",
                         .henvcfg = -1,
                         .sstc = true,
                         .booted = true};
    init_memory(HOST_RAM + HOST_RAM_SIZE, GUEST_RAM_SIZE);
}

void leave(uint64_t cause, uint64_t tval, gpa_t gpa, uint64_t htinst) {
    csrs.scause = cause;
    csrs.sepc = GUEST_RAM + PC;
    csrs.stval = tval;
    csrs.htval = gpa >> 2;
    csrs.htinst = htinst;
    handle_exit(&vcpus[0]);
}

bool load(unsigned funct3, gpa_t gpa) {
    leave(CAUSE_LOAD_GUEST_PAGE_FAULT, gpa, gpa, 0x03 | 5 << 7 | funct3 << 12);
    return csrs.sepc == GUEST_RAM + PC + 4;
}

bool store(unsigned width, gpa_t gpa, uint64_t value) {
    unsigned funct3 = __builtin_ctz(width);
    vcpus[0].regs[5] = value;
    leave(CAUSE_STORE_GUEST_PAGE_FAULT, gpa, gpa,
          0x23 | 5 << 20 | funct3 << 12);
    return csrs.sepc == GUEST_RAM + PC + 4;
}

void *ram(gpa_t gpa) {
    void *p = guest_ptr(gpa, 0);
    check(p);
    return p;
}

void failed(const char *file, int line, const char *what) {
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
    abort();
}
