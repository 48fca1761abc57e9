// A relay for virtio-mmio devices (virtio 1.2, chapters 2 and 4.2).
//
// The guest's slot n is the host's slot n, whatever sits there: a disk, a
// network card, a source of entropy.  The guest talks to the host's device
// itself, with one thing between them: the addresses that it gives are
// guest-physical and must be checked and translated before the device may use
// them.  So the device gets descriptors and an available ring of ours, in which
// the guest's stand again with translated addresses.  The data moves straight
// between the device and the guest's RAM, and so does the used ring, in which
// the device says what it has done: it holds no addresses.
//
// The device reports to the guest without us, but the used ring also has a flag
// with which it asks not to be notified while it looks at the available ring
// anyway.  It would look at ours, where nothing new appears unless the guest
// notifies us.  The feature EVENT_IDX replaces that flag by something that a
// guest without the feature does not see.  So we take the feature and don't
// offer it; for us it means to say which used entry shall interrupt next.
//
// The registers are mapped for the guest to read.  Stores always trap, and from
// the driver's reset of the device until it has negotiated the features so do
// reads, because there is something to hide then.

#include "hv.h"

// Registers (virtio 1.2, 4.2.2).
enum { VERSION = 0x004, DEVICE_ID = 0x008, DEVICE_FEATURES = 0x010 };
enum { DEVICE_FEATURES_SEL = 0x014, DRIVER_FEATURES = 0x020 };
enum { DRIVER_FEATURES_SEL = 0x024, QUEUE_SEL = 0x030, QUEUE_NUM = 0x038 };
enum { QUEUE_READY = 0x044, QUEUE_NOTIFY = 0x050, INTERRUPT_ACK = 0x064 };
enum { STATUS = 0x070, QUEUE_DESC_LOW = 0x080, QUEUE_DEVICE_HIGH = 0x0a4 };
enum { CONFIG = 0x100, CONFIG_END = 0x200 };

enum { STATUS_DRIVER_OK = 4, STATUS_FEATURES_OK = 8 };
enum { DESC_F_NEXT = 1, DESC_F_WRITE = 2 };
enum { MAX_QUEUES = 64, MAX_QUEUE_SIZE = 1024 };
#define F_EVENT_IDX (1u << 29)

// The kinds of devices that we pass on, by their IDs (virtio 1.2, 5): network,
// block, console, entropy, SCSI, 9P, input, socket.  Others take addresses in
// their buffers, too, where we don't look: a balloon would give our own memory
// away if the guest said so.
#define KINDS 0xc031eu

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
enum { FLAGS, IDX, RING }; // of both others, in 16-bit words

static struct slot {
    volatile uint32_t *host; // the device's registers; NULL: there are none
    uint32_t device_sel, driver_sel, queue_sel; // what these registers say
    uint32_t features[2];                       // that the driver has accepted
    bool refused;    // it accepted one that was not offered
    unsigned queues; // so many may be ready
    struct queue {
        bool ready;
        uint16_t translated;              // how far we are in the avail ring
        uint32_t num;                     // entries
        uint32_t place[10];               // QueueDescLow to QueueDeviceHigh
        const volatile struct desc *desc; // the guest's
        const volatile uint16_t *avail, *used;
        struct ours { // what the device sees instead
            volatile struct desc desc[MAX_QUEUE_SIZE];
            volatile uint16_t avail[RING + MAX_QUEUE_SIZE + 1];
        } * ours;
    } queue[MAX_QUEUES];
} slots[VIRTIO_SLOTS];

// Maps slot N's registers for the guest to read, or takes them away, on all
// harts (SBI 8.5, remote_hfence_gvma).
static void set_mapped(unsigned n, bool on) {
    map_guest(GUEST_VIRTIO + n * PAGE, (hpa_t)slots[n].host, PAGE, on * PTE_R);
    if (!on)
        host_sbi(SBI_EXT_RFENCE, SBI_REMOTE_HFENCE_GVMA, (uint64_t[5]){0, -1});
}

// The part of a queue whose address the guest wrote to the two registers PLACE;
// NULL if its SIZE bytes are not all RAM, or not aligned.
static void *part(const uint32_t *place, uint64_t size, unsigned align) {
    gpa_t gpa = (uint64_t)place[1] << 32 | place[0];
    return gpa % align ? NULL : guest_ptr(gpa, size);
}

// Makes the queue that QueueSel names ready, with our rings in place of the
// guest's.
static void start_queue(struct slot *s, struct queue *q) {
    q->desc = part(&q->place[0], 16 * q->num, 16);
    q->avail = part(&q->place[4], 6 + 2 * q->num, 2);
    q->used = part(&q->place[8], 6 + 8 * q->num, 4);
    if (!q->num || q->num > MAX_QUEUE_SIZE || q->num & (q->num - 1) ||
        !q->desc || !q->avail || !q->used)
        return; // QueueReady stays 0
    if (!q->ours) {
        q->ours = alloc(sizeof *q->ours, PAGE);
        for (unsigned i = 0; i < MAX_QUEUE_SIZE; i++)
            q->ours->desc[i].addr = (hpa_t)guest_ptr(GUEST_RAM, 0);
    }
    // The descriptors stay: all are right, see copy_chain(), whenever the
    // device, which QueueReady = 0 may not have stopped, reads one.
    memset((void *)q->ours->avail, 0, sizeof q->ours->avail);
    q->translated = 0;
    if (s->queues <= s->queue_sel)
        s->queues = s->queue_sel + 1;
    const volatile void *parts[] = {q->ours->desc, q->ours->avail, q->used};
    for (unsigned i = 0; i < 3; i++) {
        s->host[QUEUE_DESC_LOW / 4 + 4 * i] = (hpa_t)parts[i];
        s->host[QUEUE_DESC_LOW / 4 + 4 * i + 1] = (hpa_t)parts[i] >> 32;
    }
    s->host[QUEUE_NUM / 4] = q->num;
    fence(); // the rings, then the device's look at them
    s->host[QUEUE_READY / 4] = q->ready = true;
}

// Copies the chain of descriptors that begins at HEAD into our table, with
// every address checked and translated.  False if something is wrong with it.
//
// The guest may rewrite its rings while we read them, so each field is read
// once, what we read is what we use, and all is checked before the first store.
// The guest may also use a descriptor again that the device is just reading,
// and make it see an old field with a new one.  So each field is right by
// itself, at any time: an address in the guest's RAM, a next in our table.  A
// length may then be another buffer's, but behind the guest's RAM there is
// nothing (init_memory).
static bool copy_chain(struct queue *q, uint16_t head) {
    uint16_t i = head;
    for (unsigned length = 0; i < q->num && length < q->num; length++) {
        struct desc d = {q->desc[i].addr, q->desc[i].len, q->desc[i].flags,
                         q->desc[i].next};
        bool more = d.flags & DESC_F_NEXT;
        d.addr = (hpa_t)guest_ptr(d.addr, d.len);
        if (!d.addr || d.flags & ~(DESC_F_NEXT | DESC_F_WRITE) ||
            (more && d.next >= q->num))
            return false;
        volatile struct desc *to = &q->ours->desc[i];
        to->addr = d.addr;
        to->len = d.len;
        to->next = i = more ? d.next : 0;
        to->flags = d.flags;
        if (!more)
            return true;
    }
    return false;
}

// Copies what is new in the guest's avail ring into ours.  False if something
// is wrong: the device must not see that, and gets a mistake of ours, a chain
// that begins at no descriptor.  So it says DEVICE_NEEDS_RESET by itself, with
// the interrupt that belongs to it.
static bool translate(struct queue *q) {
    uint16_t idx = q->avail[IDX];
    bool ok = true;
    fence(); // idx, then the entries that it promises
    while (ok && q->translated != idx) {
        uint16_t head = q->avail[RING + q->translated % q->num];
        ok = (uint16_t)(idx - q->translated) <= q->num && copy_chain(q, head);
        q->ours->avail[RING + q->translated++ % q->num] = ok ? head : -1;
    }
    fence(); // the entries, then idx
    q->ours->avail[IDX] = q->translated;
    return ok;
}

// The guest has something for the device in queue INDEX.
static void notify(uint64_t n, uint32_t index) {
    if (index >= MAX_QUEUES || !slots[n].queue[index].ready)
        return;
    struct queue *q = &slots[n].queue[index];
    q->ready = translate(q);
    if (!q->ready)
        say("virtio slot %lx stops: a wrong descriptor or index", n);
    fence(); // our ring, then the device's look at it
    slots[n].host[QUEUE_NOTIFY / 4] = index;
}

// Asks for an interrupt at the next used entry.  There may be new ones by the
// time that the device reads this, without an interrupt, so look again.  The
// guest looks after its acknowledge, which brought us here.  While we hold the
// lock the device can finish NUM requests at most.
static void ask_for_interrupt(struct queue *q) {
    uint16_t idx;
    unsigned times = 0;
    do {
        idx = q->used[IDX];
        q->ours->avail[RING + q->num] = idx; // used_event
        fence();
    } while (q->used[IDX] != idx && times++ < q->num);
}

static void set_status(unsigned n, uint32_t value) {
    struct slot *s = &slots[n];
    value &= s->refused ? 0xff & ~STATUS_FEATURES_OK : 0xff; // it has 8 bits
    // The driver may write one word of its features only, but we want
    // EVENT_IDX.
    bool negotiated = value & STATUS_FEATURES_OK & ~s->host[STATUS / 4];
    for (uint32_t sel = 0; sel < 2 && negotiated; sel++) {
        s->host[DRIVER_FEATURES_SEL / 4] = sel;
        s->host[DRIVER_FEATURES / 4] =
            s->features[sel] | (sel ? 0 : F_EVENT_IDX);
    }
    s->host[STATUS / 4] = value;
    set_mapped(n, value & (STATUS_FEATURES_OK | STATUS_DRIVER_OK));
    if (value)
        return;
    // Reset.  The device has let go of all buffers when the write returns.
    while (s->queues)
        s->queue[--s->queues].ready = false;
    s->refused = false;
    s->features[0] = s->features[1] = s->driver_sel = 0;
    s->host[DEVICE_FEATURES_SEL / 4] = s->device_sel = 0;
    s->host[QUEUE_SEL / 4] = s->queue_sel = 0;
}

static void write_register(unsigned n, unsigned reg, uint32_t value) {
    struct slot *s = &slots[n];
    struct queue *q =
        s->queue_sel < MAX_QUEUES ? &s->queue[s->queue_sel] : NULL;
    switch (reg) {
    case QUEUE_NOTIFY: notify(n, value); break;
    case INTERRUPT_ACK:
        s->host[reg / 4] = value;
        fence(); // that, then a look at what the device has done since
        for (q = s->queue; q < s->queue + s->queues; q++)
            if (q->ready)
                ask_for_interrupt(q);
        break;
    case DEVICE_FEATURES_SEL: s->host[reg / 4] = s->device_sel = value; break;
    case DRIVER_FEATURES_SEL: s->driver_sel = value; break;
    case DRIVER_FEATURES:
        s->refused |= value & ~allowed(s->driver_sel);
        if (s->driver_sel < 2)
            s->features[s->driver_sel] = value & allowed(s->driver_sel);
        break;
    case STATUS: set_status(n, value); break;
    case QUEUE_SEL: s->host[reg / 4] = s->queue_sel = value; break;
    // The rest is about queue q.  While it is ready its place is fixed.
    case QUEUE_READY:
        if (q && !value)
            s->host[reg / 4] = q->ready = false;
        else if (q && !q->ready)
            start_queue(s, q);
        break;
    case QUEUE_NUM:
        if (q && !q->ready)
            q->num = value;
        break;
    default:
        if (q && !q->ready && reg >= QUEUE_DESC_LOW && reg <= QUEUE_DEVICE_HIGH)
            q->place[(reg - QUEUE_DESC_LOW) / 4] = value;
    }
}

bool virtio_access(struct vcpu *v, struct access *a) {
    unsigned n = a->offset / PAGE, reg = a->offset % PAGE;
    struct slot *s = &slots[n];
    if (reg < CONFIG ? a->width != 4 : reg >= CONFIG_END)
        return false;
    if (!s->host)
        return true;         // reads as 0
    static atomic_flag busy; // one hart at a time, and none while it sleeps
    while (atomic_flag_test_and_set(&busy))
        ;
    fence(); // the lock orders memory alone, but here are devices
    if (reg < CONFIG && a->store)
        write_register(n, reg, a->value);
    else
        access_memory((hpa_t)s->host + reg, a);
    if (reg == DEVICE_FEATURES)
        a->value &= allowed(s->device_sel);
    fence();
    atomic_flag_clear(&busy);
    return true;
}

// Finds the host's slots: they are where the guest's are, with the same numbers
// and interrupts.
void virtio_init(void) {
    fdt_prop reg = NULL;
    while ((reg = fdt_find(host.fdt, reg, "virtio,mmio", "reg"))) {
        volatile uint32_t *regs = (void *)fdt_number(reg, 0);
        uint64_t n = ((hpa_t)regs - GUEST_VIRTIO) / PAGE;
        if (n >= VIRTIO_SLOTS)
            continue;
        uint32_t id = regs[DEVICE_ID / 4];
        regs[DEVICE_FEATURES_SEL / 4] = 0;
        if (!id || (id < 32 && KINDS >> id & 1 && regs[VERSION / 4] == 2 &&
                    regs[DEVICE_FEATURES / 4] & F_EVENT_IDX))
            slots[n].host = regs;
        else
            say("slot %lx: unknown, or lacks force-legacy=false or event_idx",
                n);
        set_mapped(n, slots[n].host);
    }
}
