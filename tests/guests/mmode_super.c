// A teaching kernel, in the order in which xv6 does things: out of M-mode,
// UART, page table, traps, PLIC, disk; then, instead of a shell, checks.
#include "mmode_super.h"

#define MAXVA (1ul << 38)
#define TRAMPOLINE (MAXVA - PAGE)
#define TRAPFRAME (TRAMPOLINE - PAGE)
#define SATP_SV39 (8ul << 60)

extern char trampoline[], uservec[], userret[], kernelvec[];
extern char user_begin[], user_end[];

// What each hart has seen.
static struct seen {
    volatile uint64_t ticks;      // in all,
    volatile uint64_t user_ticks; // those that came from U-mode,
    volatile uint64_t ecalls;     // and the other traps from there
    volatile uint64_t faults[16]; // by cause
    volatile uint64_t disk, uart; // external interrupts that it claimed
    volatile uint64_t none;       // and those that another hart claimed first
} seen[MAX_HARTS];

static uint64_t mtime(void) { return reg64(CLINT_MTIME); }
static void interrupts_on(void) {
    csr_write(sstatus, csr_read(sstatus) | STATUS_SIE);
}
static void interrupts_off(void) {
    csr_write(sstatus, csr_read(sstatus) & ~(uint64_t)STATUS_SIE);
}

// --- Out of M-mode -----------------------------------------------------------

uint64_t first_tick[MAX_HARTS];
static void super_main(void);

_Noreturn void start(const void *dtb) {
    uint64_t mstatus = csr_read(mstatus) & ~(uint64_t)STATUS_MPP;
    csr_write(mstatus, mstatus | STATUS_MPP_S);
    csr_write(mepc, super_main);
    csr_write(satp, 0);
    csr_write(medeleg, 0xffff);
    csr_write(mideleg, 0xffff);
    csr_set(sie, SIP_SEIP | SIP_STIP);
    csr_write(pmpaddr0, 0x3fffffffffffff); // all of memory,
    csr_write(pmpcfg0, 0xf);               // top of range: read, write, execute
    asm volatile("csrr tp, mhartid");
    if (hart() == 0)
        harts = dtb_harts(dtb);
    start_timer(dtb);
    asm volatile("mret");
    __builtin_unreachable();
}

// --- UART: 16550, echo by interrupts -----------------------------------------

static struct {
    struct lock lock;
    char out[32]; // a ring of what the program writes
    uint64_t put, taken;
    char line[1024]; // what came in
    volatile uint64_t length;
    volatile bool complete;
} uart;

static void uart_init(void) {
    reg8(UART + UART_IER) = 0;
    reg8(UART + UART_LCR) = 0x80; // the baud rate's divisor
    reg8(UART + 0) = 3;
    reg8(UART + 1) = 0;
    reg8(UART + UART_LCR) = 3; // 8 bits, no parity
    reg8(UART + UART_FCR) = 7; // FIFOs on, and cleared
    reg8(UART + UART_IER) = 3; // interrupts of transmitter and receiver
}

// The lock is held.
static void uart_start(void) {
    for (;;) {
        if (uart.taken == uart.put) {
            if (uart_reads_isr)
                (void)reg8(UART + UART_ISR); // clears THRE's interrupt
            return;
        }
        if (!(reg8(UART + UART_LSR) & LSR_TX_IDLE))
            return; // it will interrupt
        reg8(UART + UART_THR) = uart.out[uart.taken++ % sizeof uart.out];
    }
}

// For what programs write: the UART's interrupt empties the buffer.
static void uart_write(char c) {
    uint64_t before;
    for (;;) {
        before = acquire(&uart.lock);
        if (uart.put - uart.taken < sizeof uart.out)
            break;
        release(&uart.lock, STATUS_SIE);
        asm volatile("wfi");
    }
    uart.out[uart.put++ % sizeof uart.out] = c;
    uart_start();
    release(&uart.lock, before);
}

static void uart_interrupt(void) {
    seen[hart()].uart++;
    uint64_t before = acquire(&uart.lock);
    while (reg8(UART + UART_LSR) & LSR_RX_READY) {
        char c = reg8(UART + UART_RHR);
        if (c == '\r')
            c = '\n';
        uart_put(c);
        if (uart.complete)
            continue;
        uart.complete = c == '\n' || uart.length == sizeof uart.line - 1;
        uart.line[uart.complete ? uart.length : uart.length++] =
            uart.complete ? 0 : c;
    }
    uart_start();
    release(&uart.lock, before);
}

// --- PLIC --------------------------------------------------------------------

// Context 2 * hart + 1 is S-mode's.
static void plic_init(void) {
    reg32(PLIC + 4 * UART_IRQ) = 1;
    reg32(PLIC + 4 * VIRTIO_IRQ) = 1;
}

static void plic_init_hart(void) {
    reg32(PLIC + 0x2080 + hart() * 0x100) = 1 << UART_IRQ | 1 << VIRTIO_IRQ;
    reg32(PLIC + 0x201000 + hart() * 0x2000) = 0; // threshold
}

static volatile uint32_t *plic_claim(void) {
    return &reg32(PLIC + 0x201004 + hart() * 0x2000);
}

// --- Disk: virtio-blk by virtio-mmio, version 2 ------------------------------

#define virtio(offset) reg32(VIRTIO + (offset))
enum { VIRTIO_MAGIC = 0, VIRTIO_VERSION = 4, VIRTIO_DEVICE_ID = 8 };
enum { VIRTIO_VENDOR_ID = 0xc, VIRTIO_DEVICE_FEATURES = 0x10 };
enum { VIRTIO_DRIVER_FEATURES = 0x20, VIRTIO_QUEUE_SEL = 0x30 };
enum { VIRTIO_QUEUE_NUM_MAX = 0x34, VIRTIO_QUEUE_NUM = 0x38 };
enum { VIRTIO_QUEUE_READY = 0x44, VIRTIO_QUEUE_NOTIFY = 0x50 };
enum { VIRTIO_INTERRUPT_STATUS = 0x60, VIRTIO_INTERRUPT_ACK = 0x64 };
enum { VIRTIO_STATUS = 0x70, VIRTIO_QUEUE_DESC = 0x80 };
enum { VIRTIO_QUEUE_DRIVER = 0x90, VIRTIO_QUEUE_DEVICE = 0xa0 };
enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };
enum { DESC_NEXT = 1, DESC_WRITE = 2 };
enum { QUEUE = 8, SECTOR = 512, BLOCK = 1024 };

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

struct available {
    uint16_t flags, index, ring[QUEUE];
};

struct used {
    uint16_t flags, index;
    struct {
        uint32_t id, length;
    } ring[QUEUE];
};

struct request {
    uint32_t type, reserved; // 0: read, 1: write
    uint64_t sector;
};

static struct {
    struct lock lock;
    struct descriptor *desc;
    struct available *available;
    volatile struct used *used;
    uint16_t used_index;
    bool taken[QUEUE];             // descriptors in use
    struct request request[QUEUE]; // by a chain's first descriptor, and so are:
    volatile uint8_t status[QUEUE];
    volatile bool done[QUEUE];
} disk;

static void virtio_address(unsigned reg, void *p) {
    virtio(reg) = (uint64_t)p;
    virtio(reg + 4) = (uint64_t)p >> 32;
}

static void disk_init(void) {
    CHECK("virtio MagicValue", virtio(VIRTIO_MAGIC), 0x74726976);
    CHECK("virtio Version", virtio(VIRTIO_VERSION), 2);
    CHECK("virtio DeviceID", virtio(VIRTIO_DEVICE_ID), 2);
    CHECK("virtio VendorID", virtio(VIRTIO_VENDOR_ID), 0x554d4551);
    uint32_t status = 0;
    virtio(VIRTIO_STATUS) = status;
    virtio(VIRTIO_STATUS) = status |= ACKNOWLEDGE;
    virtio(VIRTIO_STATUS) = status |= DRIVER;

    // Only features 0 to 31, as no others are selected; so VIRTIO_F_VERSION_1
    // is not among them.  virtio 2.2.3 asks for it, but QEMU does not mind.
    uint32_t features = virtio(VIRTIO_DEVICE_FEATURES);
    // Not these: read-only, SCSI commands, write cache, more queues, any
    // layout, indirect descriptors, event indexes.
    features &= ~(1u << 5 | 1u << 7 | 1u << 11 | 1u << 12 | 1u << 27 |
                  1u << 28 | 1u << 29);
    virtio(VIRTIO_DRIVER_FEATURES) = features;
    virtio(VIRTIO_STATUS) = status |= FEATURES_OK;
    status = virtio(VIRTIO_STATUS);
    CHECK("virtio FEATURES_OK", status & FEATURES_OK, FEATURES_OK);

    virtio(VIRTIO_QUEUE_SEL) = 0;
    CHECK("virtio QueueReady", virtio(VIRTIO_QUEUE_READY), 0);
    CHECK("virtio QueueNumMax", virtio(VIRTIO_QUEUE_NUM_MAX) >= QUEUE, 1);
    disk.desc = alloc_page();
    disk.available = alloc_page();
    disk.used = alloc_page();
    virtio(VIRTIO_QUEUE_NUM) = QUEUE;
    virtio_address(VIRTIO_QUEUE_DESC, disk.desc);
    virtio_address(VIRTIO_QUEUE_DRIVER, disk.available);
    virtio_address(VIRTIO_QUEUE_DEVICE, (void *)disk.used);
    virtio(VIRTIO_QUEUE_READY) = 1;
    virtio(VIRTIO_STATUS) = status | DRIVER_OK;
}

// The lock is held.
static bool three_descriptors(unsigned index[3]) {
    unsigned n = 0;
    for (unsigned i = 0; i < QUEUE && n < 3; i++)
        if (!disk.taken[i])
            index[n++] = i;
    for (unsigned i = 0; n == 3 && i < 3; i++)
        disk.taken[index[i]] = true;
    return n == 3;
}

// Gives the request to the device and sleeps until the interrupt.  The queue
// has room for two at a time; other harts wait.
static void disk_transfer(bool write, uint64_t block, void *data) {
    unsigned i[3];
    for (;;) {
        acquire(&disk.lock);
        if (three_descriptors(i))
            break;
        release(&disk.lock, STATUS_SIE);
    }
    struct request *request = &disk.request[i[0]];
    *request = (struct request){write, 0, block * (BLOCK / SECTOR)};
    disk.desc[i[0]] = (struct descriptor){(uint64_t)request, sizeof *request,
                                          DESC_NEXT, i[1]};
    disk.desc[i[1]] = (struct descriptor){
        (uint64_t)data, BLOCK, DESC_NEXT | (write ? 0 : DESC_WRITE), i[2]};
    disk.status[i[0]] = 0xff;
    disk.desc[i[2]] =
        (struct descriptor){(uint64_t)&disk.status[i[0]], 1, DESC_WRITE, 0};
    disk.done[i[0]] = false;
    disk.available->ring[disk.available->index % QUEUE] = i[0];
    __sync_synchronize();
    disk.available->index++;
    __sync_synchronize();
    virtio(VIRTIO_QUEUE_NOTIFY) = 0;
    release(&disk.lock, STATUS_SIE);
    while (!disk.done[i[0]])
        asm volatile("wfi"); // a tick also ends it, if another hart was told
    acquire(&disk.lock);
    CHECK("disk: status of the request", disk.status[i[0]], 0);
    for (unsigned n = 0; n < 3; n++)
        disk.taken[i[n]] = false;
    release(&disk.lock, STATUS_SIE);
}

static void disk_interrupt(void) {
    seen[hart()].disk++;
    uint64_t before = acquire(&disk.lock);
    // This comes first, so that a request done after the loop interrupts again.
    virtio(VIRTIO_INTERRUPT_ACK) = virtio(VIRTIO_INTERRUPT_STATUS) & 3;
    __sync_synchronize();
    while (disk.used_index != disk.used->index) {
        __sync_synchronize();
        disk.done[disk.used->ring[disk.used_index % QUEUE].id] = true;
        disk.used_index++;
    }
    release(&disk.lock, before);
}

// --- Traps -------------------------------------------------------------------

static bool interrupt(uint64_t scause) {
    if (scause == (INTERRUPT | SEI)) {
        unsigned source = *plic_claim();
        switch (source) {
        case 0: seen[hart()].none++; return true; // another hart has it
        case UART_IRQ: uart_interrupt(); break;
        case VIRTIO_IRQ: disk_interrupt(); break;
        default: CHECK("PLIC: claimed source", source, 0);
        }
        *plic_claim() = source;
        return true;
    }
    if (scause == tick_cause) {
        seen[hart()].ticks += tick_acknowledge();
        return true;
    }
    return false;
}

// An exception in S-mode that is expected; the instruction is skipped.
static volatile struct {
    bool armed, came;
    uint64_t cause, value;
} expected[MAX_HARTS];

static unsigned instruction_length(uint64_t pc) {
    return (*(volatile uint16_t *)pc & 3) == 3 ? 4 : 2;
}

void kernel_trap(void) {
    uint64_t sepc = csr_read(sepc), sstatus = csr_read(sstatus);
    uint64_t scause = csr_read(scause);
    CHECK("trap from S-mode: SPP", sstatus & STATUS_SPP, STATUS_SPP);
    CHECK("trap from S-mode: SIE", sstatus & STATUS_SIE, 0);
    if (interrupt(scause)) {
        CHECK("interrupt in S-mode: SPIE", sstatus & STATUS_SPIE, STATUS_SPIE);
    } else if (expected[hart()].armed) {
        expected[hart()].came = true;
        expected[hart()].cause = scause;
        expected[hart()].value = csr_read(stval);
        sepc += instruction_length(sepc);
    } else {
        print("FAIL hart %u: trap in S-mode: scause %x, sepc %x, stval %x\n",
              (uint64_t)hart(), scause, sepc, csr_read(stval));
        stop();
    }
    csr_write(sepc, sepc);
    csr_write(sstatus, sstatus);
}

// --- A program in U-mode -----------------------------------------------------

struct trapframe {
    uint64_t regs[32];
    uint64_t kernel_sp, kernel_tp, kernel_trap, kernel_satp;
    uint64_t epc;
};
_Static_assert(offsetof(struct trapframe, kernel_satp) == FRAME_SATP, "");

static struct process {
    struct trapframe *frame;
    uint64_t *root;
    void *data;     // the page of its data
    context_t back; // where it goes when it ends
} processes[MAX_HARTS];

enum { A0 = 10, A1 = 11, A7 = 17, RA = 1 };
enum { USER_DATA = 0x1000, USER_READ_ONLY = 0x2000, USER_LAZY = 0x3000 };

static uint64_t satp_of(uint64_t *root) {
    return SATP_SV39 | (uint64_t)root >> 12;
}

static uint64_t *user_page(struct process *p, uint64_t va, uint64_t perm) {
    uint64_t *page = alloc_page();
    map(p->root, va, (uint64_t)page, PAGE, perm | PTE_U);
    return page;
}

static void user_call(struct process *p) {
    uint64_t *regs = p->frame->regs;
    seen[hart()].ecalls++;
    switch (regs[A7]) {
    case SYS_WRITE: {
        const uint64_t *pte = walk(p->root, regs[A0]);
        const char *text = (char *)(*pte >> 10 << 12 | (regs[A0] & (PAGE - 1)));
        static struct lock line; // keeps the text together
        acquire(&line);
        interrupts_on(); // they empty the buffer
        while (*text)
            uart_write(*text++);
        interrupts_off();
        release(&line, 0);
        break;
    }
    case SYS_ADD: regs[A0] += regs[A1]; break;
    case SYS_CHECK: CHECK("U-mode", regs[A0], regs[A1]); break;
    case SYS_EXIT: resume(p->back);
    default: CHECK("U-mode: a7", regs[A7], SYS_EXIT);
    }
}

static void user_return(void) __attribute__((noreturn));

static void user_trap(void) {
    struct process *p = &processes[hart()];
    uint64_t scause = csr_read(scause), stval = csr_read(stval);
    csr_write(stvec, kernelvec);
    CHECK("trap from U-mode: SPP", csr_read(sstatus) & STATUS_SPP, 0);
    CHECK("trap from U-mode: SPIE", csr_read(sstatus) & STATUS_SPIE,
          STATUS_SPIE);
    CHECK("tp in S-mode", hart() < harts, 1);
    p->frame->epc = csr_read(sepc);
    if (scause < 16)
        seen[hart()].faults[scause]++;
    switch (scause) {
    case CAUSE_U_ECALL:
        p->frame->epc += 4;
        interrupts_on(); // as xv6: not before satp, sepc and scause are read
        interrupts_off();
        user_call(p);
        break;
    case CAUSE_FETCH_PAGE:
        CHECK("fetch fault: stval", stval, p->frame->epc);
        p->frame->epc = p->frame->regs[RA];
        break;
    case CAUSE_LOAD_PAGE:
    case CAUSE_STORE_PAGE:
        if (stval == USER_READ_ONLY + 8) {
            CHECK("store fault: scause", scause, CAUSE_STORE_PAGE);
            *walk(p->root, stval) |= PTE_W | PTE_AD;
            break;
        }
        if (stval == USER_LAZY)
            CHECK("load fault: scause", scause, CAUSE_LOAD_PAGE);
        else // an AMO.  Priv. 3.1.15 wants a store's fault, but QEMU 7.2 with
             // one hart makes a load and a store of it, and the load fails.
            CHECK("AMO fault: stval", stval, USER_LAZY + PAGE);
        *user_page(p, stval, PTE_R | PTE_W) = stval;
        break;
    case CAUSE_ILLEGAL:
    case CAUSE_BREAK: {
        uint64_t *page = (uint64_t *)(*walk(p->root, 0) >> 10 << 12);
        p->frame->epc += instruction_length((uint64_t)page + p->frame->epc);
        break;
    }
    default:
        if (!interrupt(scause)) {
            print("FAIL hart %u: trap in U-mode: scause %x, sepc %x, stval "
                  "%x\n",
                  (uint64_t)hart(), scause, p->frame->epc, stval);
            stop();
        }
        if (scause == tick_cause)
            *(volatile uint32_t *)p->data = ++seen[hart()].user_ticks;
    }
    user_return();
}

static void user_return(void) {
    struct process *p = &processes[hart()];
    interrupts_off();
    csr_write(stvec, TRAMPOLINE + (uservec - trampoline));
    p->frame->kernel_satp = csr_read(satp);
    p->frame->kernel_trap = (uint64_t)user_trap;
    p->frame->kernel_tp = hart();
    uint64_t sstatus = csr_read(sstatus) & ~(uint64_t)STATUS_SPP;
    csr_write(sstatus, sstatus | STATUS_SPIE);
    csr_write(sepc, p->frame->epc);
    void (*back)(uint64_t frame, uint64_t satp) =
        (void *)(TRAMPOLINE + (userret - trampoline));
    back(TRAPFRAME, satp_of(p->root));
    __builtin_unreachable();
}

static void user_run(void) {
    struct process *p = &processes[hart()];
    p->root = root_table();
    p->frame = alloc_page();
    map(p->root, TRAMPOLINE, (uint64_t)trampoline, PAGE, PTE_R | PTE_X);
    map(p->root, TRAPFRAME, (uint64_t)p->frame, PAGE, PTE_R | PTE_W);
    uint64_t *code = user_page(p, 0, PTE_R | PTE_X);
    memcpy(code, user_begin, user_end - user_begin);
    asm volatile("fence.i");
    p->data = user_page(p, USER_DATA, PTE_R | PTE_W);
    *user_page(p, USER_READ_ONLY, PTE_R) = USER_READ_ONLY;
    p->frame->kernel_sp = (uint64_t)alloc_page() + PAGE;
    if (!save(p->back))
        user_return();
    interrupts_on();
}

// --- The checks --------------------------------------------------------------

static uint64_t *kernel_root;
static volatile bool started;

static void map_kernel(void) {
    kernel_root = root_table();
    const uint64_t rw = PTE_R | PTE_W, text = (uint64_t)text_end - RAM;
    map(kernel_root, UART, UART, PAGE, rw);
    map(kernel_root, VIRTIO, VIRTIO, PAGE, rw);
    map(kernel_root, CLINT, CLINT, 0x10000, rw);
    map(kernel_root, PLIC, PLIC, 0x400000, rw);
    map(kernel_root, RAM, RAM, text, PTE_R | PTE_X);
    map(kernel_root, RAM + text, RAM + text, (16ul << 20) - text, rw);
    map(kernel_root, TRAMPOLINE, (uint64_t)trampoline, PAGE, PTE_R | PTE_X);
}

static void enable_paging(void) {
    asm volatile("sfence.vma");
    csr_write(satp, satp_of(kernel_root));
    asm volatile("sfence.vma");
}

static void check_disk(void) {
    enum { BLOCKS = 16 };
    uint8_t *out = alloc_page(), *in = alloc_page();
    uint64_t first = 64 + hart() * BLOCKS;
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned b = 0; b < BLOCKS; b++) {
            for (unsigned i = 0; i < BLOCK; i++)
                out[i] = hart() * 89 + b * 7 + i * 3 + i / 256 + pass;
            disk_transfer(true, first + b, out);
        }
        for (unsigned b = 0; b < BLOCKS; b++) {
            memset(in, 0, BLOCK);
            disk_transfer(false, first + b, in);
            unsigned same = 0;
            for (unsigned i = 0; i < BLOCK; i++)
                same += in[i] ==
                        (uint8_t)(hart() * 89 + b * 7 + i * 3 + i / 256 + pass);
            CHECK("disk: bytes read that were written", same, BLOCK);
        }
    }
    // What was there before.
    disk_transfer(false, hart(), in);
    uint64_t sum = 0;
    for (unsigned i = 0; i < BLOCK; i++)
        sum = sum * 31 + in[i];
    print("disk: hart %u, sum of block %u is %x\n", (uint64_t)hart(),
          (uint64_t)hart(), sum);
}

// Ticks may come late, but never early: the CLINT's handler adds the interval
// to mtimecmp, Sstc's adds it to the time.
static void check_rate(void) {
    uint64_t ticks = seen[hart()].ticks, now = mtime();
    uint64_t most = now < first_tick[hart()]
                        ? 0
                        : (now - first_tick[hart()]) / INTERVAL + 1;
    CHECK("ticks: no more than intervals", ticks <= most, 1);
}

// Waits for at least three intervals, and for more if the machine is busy.
static void wait_for_pending(uint64_t bit) {
    static int hidden;
    uint64_t start = mtime();
    struct patience p = {100 * INTERVAL, start};
    while (mtime() - start < 3 * INTERVAL ||
           (!(csr_read(sip) & bit) && !hidden && patient(&p, mtime())))
        ;
    // QEMU before 8.2 does not show STIP in vsip.  test_mmode.py knows whether
    // that makes this a failure.
    if (!(csr_read(sip) & bit) &&
        !__atomic_exchange_n(&hidden, 1, __ATOMIC_RELAXED))
        print("hidden: a tick that is pending is not in sip\n");
}

// Does a pending tick come when it may?
static bool comes_after(uint64_t before) {
    struct patience p = {300 * INTERVAL, mtime()};
    while (seen[hart()].ticks == before)
        if (!patient(&p, mtime()))
            return false;
    return true;
}

static void check_ticks(void) {
    struct seen *s = &seen[hart()];
    for (uint64_t until = s->ticks + 10; s->ticks < until;)
        asm volatile("wfi");
    check_rate();
    for (uint64_t until = s->ticks + 3; s->ticks < until;)
        ; // while it runs

    // With interrupts off ticks wait, and come as one, however many there are.
    uint64_t bit = 1ul << (tick_cause & 63), before;
    interrupts_off();
    before = s->ticks;
    wait_for_pending(bit);
    CHECK("ticks: none with SIE = 0", s->ticks, before);
    asm volatile("wfi"); // Priv. 3.3.3: ends if one is pending, SIE or not
    CHECK("ticks: none after wfi", s->ticks, before);
    interrupts_on();
    CHECK("ticks: the pending one comes", comes_after(before), 1);

    // Masked in sie it is the same.
    csr_write(sie, csr_read(sie) & ~bit);
    before = s->ticks;
    wait_for_pending(bit);
    CHECK("ticks: none with sie's bit = 0", s->ticks, before);
    csr_write(sie, csr_read(sie) | bit);
    CHECK("ticks: the masked one comes", comes_after(before), 1);
    check_rate();
}

// M-mode's registers are illegal here (Priv. 2.1), and the hypervisor must not
// play one of these instructions by mistake.
#define CHECK_ILLEGAL(instruction)                                             \
    ({                                                                         \
        volatile typeof(*expected) *e = &expected[hart()];                     \
        e->came = false;                                                       \
        e->armed = true;                                                       \
        uint64_t before_ = 77;                                                 \
        asm volatile(instruction : "+r"(before_)::"memory");                   \
        e->armed = false;                                                      \
        CHECK("S-mode, illegal: " instruction, e->came, 1);                    \
        CHECK("S-mode, scause: " instruction, e->cause, CAUSE_ILLEGAL);        \
        CHECK("S-mode, register: " instruction, before_, 77);                  \
    })

static void check_illegal(void) {
    CHECK_ILLEGAL("csrr %0, mhartid");
    CHECK_ILLEGAL("csrr %0, mstatus");
    CHECK_ILLEGAL("csrrw %0, mscratch, %0");
    CHECK_ILLEGAL("csrw mtvec, %0");
    CHECK_ILLEGAL("csrsi mie, 8");
    CHECK_ILLEGAL("csrci mideleg, 2");
    CHECK_ILLEGAL("csrw pmpcfg0, %0");
    CHECK_ILLEGAL("csrr %0, 0x30a");
    CHECK_ILLEGAL("mret");
}

static void check_ad(void) {
    volatile uint64_t *pte = walk(kernel_root, (uint64_t)&started);
    CHECK("A and D of a written page", *pte & (PTE_A | PTE_D), PTE_A | PTE_D);
    pte = walk(kernel_root, (uint64_t)super_main);
    CHECK("A of a page with code", *pte & PTE_A, PTE_A);
#ifdef NO_AD
    CHECK("D of a page with code", *pte & PTE_D, 0);
    // A load sets A alone, a store sets D as well.
    volatile uint64_t *page = alloc_page();
    pte = walk(kernel_root, (uint64_t)page);
    *pte &= ~(uint64_t)(PTE_A | PTE_D);
    asm volatile("sfence.vma" ::: "memory");
    CHECK("A and D of an untouched page", *pte & (PTE_A | PTE_D), 0);
    (void)*page;
    CHECK("A and D of a page that was read", *pte & (PTE_A | PTE_D), PTE_A);
    *page = 1;
    CHECK("A and D after a store", *pte & (PTE_A | PTE_D), PTE_A | PTE_D);
#endif
}

static void check_user(void) {
    struct seen *s = &seen[hart()];
    user_run();
    CHECK("U-mode: ticks", s->user_ticks >= 5, 1);
    CHECK("U-mode: ecalls", s->ecalls, s->faults[CAUSE_U_ECALL]);
    CHECK("U-mode: ecalls as in the program", s->ecalls, 109);
    CHECK("U-mode: fetch faults", s->faults[CAUSE_FETCH_PAGE], 1);
    CHECK("U-mode: load and store faults",
          s->faults[CAUSE_LOAD_PAGE] + s->faults[CAUSE_STORE_PAGE], 3);
    CHECK("U-mode: illegal", s->faults[CAUSE_ILLEGAL], 7);
    CHECK("U-mode: ebreak", s->faults[CAUSE_BREAK], 1);
}

static void super_main(void) {
    if (hart() == 0) {
        uart_init();
        print("kernel: starting on %u harts\n", (uint64_t)harts);
        map_kernel();
        enable_paging();
        csr_write(stvec, kernelvec);
        plic_init();
        plic_init_hart();
        disk_init();
        __atomic_store_n(&started, true, __ATOMIC_RELEASE);
    } else {
        while (!__atomic_load_n(&started, __ATOMIC_ACQUIRE))
            ;
        enable_paging();
        csr_write(stvec, kernelvec);
        plic_init_hart();
    }
    interrupts_on();
    check_illegal();
    check_ad();
    check_disk();
    barrier();
    check_ticks();
    check_user();
    barrier();
    if (hart() == 0) {
        print("type: ");
        while (!uart.complete)
            asm volatile("wfi");
        print("line: %s\n", uart.line);
    }
    barrier();
    interrupts_off();
    struct seen *s = &seen[hart()];
    print("hart %u: ticks %u, in U-mode %u, ecalls %u, disk %u, uart %u, not "
          "for it %u\n",
          (uint64_t)hart(), s->ticks, s->user_ticks, s->ecalls, s->disk,
          s->uart, s->none);
    barrier();
    if (hart() == 0)
        summary("done");
    park();
}
