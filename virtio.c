// A relay for virtio-mmio devices (virtio 1.2, chapters 2 and 4.2).
//
// The guest's slot n is the host's slot n, whatever sits there: a disk, a
// network card, a source of entropy.  The guest talks to the host's device
// itself, with one thing between them: the addresses that it gives are
// guest-physical and must be checked and translated before the device may use
// them.  So the device gets rings of ours, in which every descriptor of the
// guest's stands again with its translated address.  The data moves straight
// between the device and the guest's RAM.
//
// The registers that the guest reads are a page of plain memory, which it can't
// write to; we keep it up to date.  Only its stores are VM exits.

#include "hv.h"

// Registers (virtio 1.2, 4.2.2).
enum { VERSION = 0x004, DEVICE_ID = 0x008, DEVICE_FEATURES = 0x010 };
enum { DEVICE_FEATURES_SEL = 0x014, DRIVER_FEATURES = 0x020 };
enum { DRIVER_FEATURES_SEL = 0x024, QUEUE_SEL = 0x030, QUEUE_NUM_MAX = 0x034 };
enum { QUEUE_NUM = 0x038, QUEUE_READY = 0x044, QUEUE_NOTIFY = 0x050 };
enum { INTERRUPT_STATUS = 0x060, INTERRUPT_ACK = 0x064, STATUS = 0x070 };
enum { QUEUE_DESC_LOW = 0x080, QUEUE_DEVICE_HIGH = 0x0a4 };
enum { CONFIG = 0x100, CONFIG_END = 0x200 };

enum { STATUS_DRIVER_OK = 4, STATUS_FEATURES_OK = 8, STATUS_NEEDS_RESET = 64 };
enum { INTERRUPT_USED = 1, INTERRUPT_CONFIG = 2, NO_INTERRUPT = 1 };
enum { DESC_F_NEXT = 1, DESC_F_WRITE = 2 };
enum { MAX_QUEUES = 4, MAX_QUEUE_SIZE = 1024 };

// The feature bits that we pass on, in 32-bit word SEL: those that belong to
// the kind of device (0 to 23), and VERSION_1 (32).  The others change the
// rings.
static uint32_t allowed(uint32_t sel) { return sel ? sel == 1 : 0x00ffffff; }

// The parts of a split virtqueue (virtio 1.2, 2.7).
struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};
struct avail {
    uint16_t flags, idx, ring[MAX_QUEUE_SIZE];
};
struct used {
    uint16_t flags, idx;
    struct {
        uint32_t id, len;
    } ring[MAX_QUEUE_SIZE];
};

static struct slot {
    volatile uint32_t *host; // the device's registers
    uint32_t source;         // its interrupt at the host's PLIC
    uint32_t device_sel, driver_sel, queue_sel; // what these registers say
    bool refused; // the driver wanted a feature that it was not offered
    bool stopped; // the driver made a mistake that the device must not see
    struct queue {
        bool ready;
        bool used_up;               // was ready since the last reset
        uint32_t num;               // entries
        uint32_t place[6];          // QueueDescLow, -High, QueueDriverLow, ...
        uint16_t translated;        // how far we are in the guest's avail ring,
        uint16_t returned;          // and in our used ring
        volatile struct desc *desc; // the guest's rings
        volatile struct avail *avail;
        volatile struct used *used;
        struct rings { // ours, which the device sees
            struct desc desc[MAX_QUEUE_SIZE];
            volatile struct avail avail;
            volatile struct used used;
            bool in_flight[MAX_QUEUE_SIZE]; // the device may be using it
        } ours;
    } queue[MAX_QUEUES];
} slots[VIRTIO_SLOTS];

// What the guest reads.
static uint32_t pages[VIRTIO_SLOTS][PAGE / 4] __attribute__((aligned(PAGE)));

// Brings slot N's page up to date with the device's registers, and with its
// configuration space if that may have changed.
static void refresh(unsigned n, bool config) {
    struct slot *s = &slots[n];
    uint32_t *page = pages[n];
    for (unsigned i = 0; i < CONFIG / 4; i++)
        if (i != INTERRUPT_STATUS / 4)
            page[i] = s->host[i];
    // By bytes: behind its end, which may be anywhere, nothing can be read.
    for (unsigned i = CONFIG; config && i < CONFIG_END; i++)
        ((uint8_t *)page)[i] = ((volatile uint8_t *)s->host)[i];
    page[DEVICE_FEATURES / 4] &= allowed(s->device_sel);
    if (s->queue_sel >= MAX_QUEUES)
        page[QUEUE_NUM_MAX / 4] = 0;
    if (s->stopped)
        page[STATUS / 4] |= STATUS_NEEDS_RESET;
}

static void set_interrupt_status(unsigned n, uint32_t status) {
    pages[n][INTERRUPT_STATUS / 4] = status;
    plic_set_line(n + 1, status);
}

// The device must not see what the driver did: it stays away from its queues
// until the driver resets it.
static void stop(uint64_t n, const char *why) {
    printf("hv: virtio slot %ld stops until it is reset: %s\n", n, why);
    slots[n].stopped = true;
    refresh(n, false);
    set_interrupt_status(n, pages[n][INTERRUPT_STATUS / 4] | INTERRUPT_CONFIG);
}

// The part of a queue whose address the guest wrote to the two registers PLACE;
// NULL if its SIZE bytes are not all RAM, or not aligned.
static volatile void *part(const uint32_t *place, uint64_t size,
                           unsigned align) {
    gpa_t gpa = (uint64_t)place[1] << 32 | place[0];
    return gpa % align ? NULL : guest_ptr(gpa, size);
}

// Gives the device our rings in place of the guest's.  False if those can't be,
// or if the queue was ready before: the device may still use what it was given
// then, and only a reset of the device ends that.
static bool start_queue(struct queue *q, volatile uint32_t *host) {
    q->desc = part(&q->place[0], 16 * q->num, 16);
    q->avail = part(&q->place[2], 6 + 2 * q->num, 2);
    q->used = part(&q->place[4], 6 + 8 * q->num, 4);
    if (q->used_up || !q->num || q->num > MAX_QUEUE_SIZE ||
        q->num & (q->num - 1) || !q->desc || !q->avail || !q->used)
        return false;
    memset(&q->ours, 0, sizeof q->ours);
    q->translated = q->returned = 0;
    const volatile void *ours[] = {q->ours.desc, &q->ours.avail, &q->ours.used};
    for (unsigned i = 0; i < 3; i++) {
        host[QUEUE_DESC_LOW / 4 + 4 * i] = (hpa_t)ours[i];
        host[QUEUE_DESC_LOW / 4 + 4 * i + 1] = (hpa_t)ours[i] >> 32;
    }
    host[QUEUE_NUM / 4] = q->num;
    host[QUEUE_READY / 4] = q->ready = q->used_up = true;
    return true;
}

// Copies what is new in the guest's avail ring into ours, with every address
// checked and translated.  False if something is wrong with it.
//
// The guest may rewrite its rings while we read them, so each field is read
// once and what we read is what we use.  A descriptor that is in flight can't
// be used again, by the same chain neither, so a chain ends after NUM steps.
static bool translate(struct queue *q) {
    uint16_t idx = q->avail->idx;
    fence(); // idx, then the entries that it promises
    if ((uint16_t)(idx - q->translated) > q->num)
        return false;
    for (; q->translated != idx; q->translated++) {
        uint16_t head = q->avail->ring[q->translated % q->num], i = head;
        struct desc d;
        do {
            if (i >= q->num || q->ours.in_flight[i])
                return false;
            d = (struct desc){q->desc[i].addr, q->desc[i].len, q->desc[i].flags,
                              q->desc[i].next};
            d.addr = (hpa_t)guest_ptr(d.addr, d.len);
            if (!d.addr || d.flags & ~(DESC_F_NEXT | DESC_F_WRITE))
                return false;
            q->ours.in_flight[i] = true;
            q->ours.desc[i] = d;
            i = d.next;
        } while (d.flags & DESC_F_NEXT);
        q->ours.avail.ring[q->translated % q->num] = head;
    }
    fence(); // the entries, then idx
    q->ours.avail.idx = idx;
    return true;
}

// Copies what is new in our used ring into the guest's.  Returns whether the
// guest wants to be interrupted for it.
static bool give_back(struct queue *q) {
    uint16_t idx = q->ours.used.idx;
    if (idx == q->returned)
        return false;
    fence();
    for (; q->returned != idx; q->returned++) {
        unsigned at = q->returned % q->num, i = q->ours.used.ring[at].id;
        q->used->ring[at].id = i;
        q->used->ring[at].len = q->ours.used.ring[at].len;
        for (; q->ours.desc[i].flags & DESC_F_NEXT; i = q->ours.desc[i].next)
            q->ours.in_flight[i] = false;
        q->ours.in_flight[i] = false;
    }
    fence();
    q->used->idx = idx;
    fence(); // a driver that clears NO_INTERRUPT looks at idx after that
    return !(q->avail->flags & NO_INTERRUPT);
}

// Interrupt SOURCE of the host, if it is one of ours.  Acknowledging it comes
// first: what the device finishes after that raises the next one.
void virtio_host_interrupt(unsigned source) {
    for (unsigned n = 0; n < VIRTIO_SLOTS; n++) {
        struct slot *s = &slots[n];
        if (s->source != source)
            continue;
        uint32_t status = s->host[INTERRUPT_STATUS / 4];
        s->host[INTERRUPT_ACK / 4] = status;
        status &= INTERRUPT_CONFIG;
        if (status)
            refresh(n, true);
        for (struct queue *q = s->queue; q < s->queue + MAX_QUEUES; q++)
            if (q->ready && give_back(q))
                status |= INTERRUPT_USED;
        if (status)
            set_interrupt_status(n, pages[n][INTERRUPT_STATUS / 4] | status);
    }
}

static void notify(unsigned n, uint32_t index) {
    struct slot *s = &slots[n];
    if (index >= MAX_QUEUES || !s->queue[index].ready || s->stopped ||
        !(pages[n][STATUS / 4] & STATUS_DRIVER_OK))
        return;
    if (translate(&s->queue[index]))
        s->host[QUEUE_NOTIFY / 4] = index;
    else
        stop(n, "a descriptor or an index is wrong");
}

static void set_status(unsigned n, uint32_t value) {
    struct slot *s = &slots[n];
    s->host[STATUS / 4] = s->refused ? value & ~STATUS_FEATURES_OK : value;
    if (value)
        return;
    // Reset.  The device has let go of all buffers when the write returns.
    for (unsigned i = 0; i < MAX_QUEUES; i++)
        s->queue[i].ready = s->queue[i].used_up = false;
    s->refused = s->stopped = false;
    set_interrupt_status(n, 0);
}

// The registers about queue Q, the one that QueueSel names.
static void write_queue(unsigned n, struct queue *q, unsigned reg,
                        uint32_t value) {
    if (reg == QUEUE_NUM && !q->ready)
        q->num = value;
    else if (reg == QUEUE_READY && !value)
        slots[n].host[reg / 4] = q->ready = false;
    else if (reg == QUEUE_READY && !q->ready && !start_queue(q, slots[n].host))
        stop(n, "a queue is not in RAM, not aligned, of an odd size or used");
    else if (reg >= QUEUE_DESC_LOW && reg <= QUEUE_DEVICE_HIGH && !(reg & 8))
        q->place[(reg - QUEUE_DESC_LOW) / 16 * 2 + (reg / 4 & 1)] = value;
}

bool virtio_write(struct vcpu *v, const struct access *a) {
    unsigned n = a->offset / PAGE, reg = a->offset % PAGE;
    uint32_t value = a->value;
    struct slot *s = &slots[n];
    if (!pages[n][DEVICE_ID / 4])
        return true;
    if (reg < CONFIG ? a->width != 4 : reg >= CONFIG_END)
        return false; // the host has nothing there either
    for (unsigned i = 0; reg >= CONFIG && i < a->width; i++)
        ((volatile uint8_t *)s->host)[reg + i] = a->value >> 8 * i;
    switch (reg) {
    case QUEUE_NOTIFY: notify(n, value); return true;
    case INTERRUPT_ACK:
        set_interrupt_status(n, pages[n][INTERRUPT_STATUS / 4] & ~value);
        return true;
    case DEVICE_FEATURES_SEL: s->host[reg / 4] = s->device_sel = value; break;
    case DRIVER_FEATURES_SEL: s->host[reg / 4] = s->driver_sel = value; break;
    case DRIVER_FEATURES:
        s->refused |= value & ~allowed(s->driver_sel);
        s->host[reg / 4] = value & allowed(s->driver_sel);
        break;
    case QUEUE_SEL: s->host[reg / 4] = s->queue_sel = value; break;
    case STATUS: set_status(n, value); break;
    default:
        if (s->queue_sel < MAX_QUEUES)
            write_queue(n, &s->queue[s->queue_sel], reg, value);
        break;
    }
    refresh(n, reg == STATUS || reg >= CONFIG);
    return true;
}

// Finds the host's slots: they are where the guest's are, with the same
// numbers.
void virtio_init(uint64_t hart) {
    fdt_node node = NULL;
    while ((node = fdt_find(host.fdt, node, "compatible", "virtio,mmio"))) {
        struct region r = fdt_region(host.fdt, node);
        uint64_t n = (r.base - GUEST_VIRTIO) / PAGE;
        if (n >= VIRTIO_SLOTS)
            continue;
        slots[n].host = (volatile uint32_t *)r.base;
        slots[n].source = r.irq;
        refresh(n, true);
        plic_host_enable(hart, r.irq);
        if (pages[n][DEVICE_ID / 4] && pages[n][VERSION / 4] != 2) {
            printf("hv: virtio slot %ld is left out: start QEMU with "
                   "-global virtio-mmio.force-legacy=false\n",
                   n);
            pages[n][DEVICE_ID / 4] = 0;
        }
    }
    map_guest(GUEST_VIRTIO, pages, sizeof pages, PTE_R);
}
