// A relay for virtio-mmio devices (virtio 1.2, chapters 2 and 4.2).
//
// The guest's slot n is the host's slot n, whatever device is there: a disk, a
// network card, a source of entropy.  The guest drives the host's device
// itself.  But the addresses that the guest hands over are guest-physical, and
// they must be checked and translated before the device may use them.  So the
// device works with a copy of the guest's descriptors and avail ring, in which
// the addresses are host-physical:
//
//      the guest's RAM                              our memory
//
//      desc  [ GPA, len, next ]  -- copy_chain() --> desc  [ HPA, len, next ]
//      avail [ idx, ring...   ]  -- translate()  --> avail [ idx, ring...   ]
//                                                             |
//      buffers  <------ reads and writes them -------+        | reads
//                                                    |        v
//      used  [ idx, ring...   ]  <--- writes --------+----- device
//
// A request is a chain of descriptors.  The driver fills them in, and puts the
// number of the first one into avail.  Then it writes QueueNotify, which is an
// exit, and we copy what is new.  When the device is done with a chain it says
// so in used.  That ring has no addresses in it, so it is the guest's own, and
// so are the buffers.
//
// One thing needs care.  A busy device looks at avail by itself, and it says so
// by a flag in used: no need to notify me.  A guest that sees this flag does
// not notify, so we are not called, and the device looks at our avail in vain.
// With the feature EVENT_IDX a device does not use the flag.  So we accept this
// feature, and don't offer it to the guest.  In return we have to tell the
// device when to interrupt: when used.idx gets past the number used_event, at
// the end of our avail ring.  See ask_for_interrupts().
//
// The registers are mapped for the guest to read.  A store always traps.  From
// a reset until the features are negotiated a read traps, too, because then we
// hide some of the device's features.  A driver that accepts one of these does
// not get FEATURES_OK: see REFUSED.

#include "hv.h"

// Registers, as indices into slot.regs (virtio 1.2, 4.2.2)
enum { VERSION = 0x004 / 4, DEVICE_ID = 0x008 / 4, QUEUE_READY = 0x044 / 4 };
enum { DEVICE_FEATURES = 0x010 / 4, DEVICE_FEATURES_SEL = 0x014 / 4 };
enum { DRIVER_FEATURES = 0x020 / 4, DRIVER_FEATURES_SEL = 0x024 / 4 };
enum { QUEUE_SEL = 0x030 / 4, QUEUE_NUM = 0x038 / 4, STATUS = 0x070 / 4 };
enum { QUEUE_NOTIFY = 0x050 / 4, INTERRUPT_ACK = 0x064 / 4 };
enum { QUEUE_DESC_LOW = 0x080 / 4, QUEUE_DRIVER_LOW = 0x090 / 4 };
enum { QUEUE_DEVICE_LOW = 0x0a0 / 4, CONFIG = 0x100 / 4 };

enum { STATUS_DRIVER_OK = 4, STATUS_FEATURES_OK = 8 };
enum { DESC_F_NEXT = 1, DESC_F_WRITE = 2 };
enum { MAX_QUEUES = 64, MAX_QUEUE_SIZE = 1024 };
enum { F_EVENT_IDX = 1 << 29, F_VERSION_1 = 1 << 0 }; // in words 0 and 1

// The kinds of devices that we pass on, a bit for each ID (virtio 1.2, chapter
// 5): network, block, console, entropy, SCSI, 9P, input, socket.  Some other
// kinds have addresses in their buffers, where we don't look.  A balloon, for
// example, would give away our own memory if the guest told it to.
#define KINDS 0xc031eu

// A register shows 32 feature bits at a time, those in word SEL.  This returns
// those that we pass on: bits 0 to 23, which each kind of device has for
// itself, and VERSION_1.  Most of the others change how the rings work.
static uint32_t allowed(uint32_t sel) {
    return sel == 0 ? 0x00ffffff : sel == 1 ? F_VERSION_1 : 0;
}

// The parts of a queue (virtio 1.2, 2.7): a table of descriptors and two rings.
// used has entries of another type, but nobody looks at them here.
struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};
struct ring {
    uint16_t flags, idx, ring[MAX_QUEUE_SIZE + 1]; // with used_event, in avail
};

static struct slot {
    volatile uint32_t *regs; // the device's registers; NULL: there are none
    uint32_t device_sel, driver_sel, queue_sel; // what these registers say
    uint32_t features[2];                       // that the driver has accepted
    bool refused;    // it has accepted one that was not offered
    unsigned queues; // all that are ready are below this number
    struct queue {
        bool ready;
        uint16_t translated;  // up to which idx we have copied avail
        uint32_t num;         // entries of each ring
        uint32_t set[CONFIG]; // what the guest wrote to the queue's registers
        const volatile struct desc *desc; // the guest's
        const volatile struct ring *avail, *used;
        struct ours { // what the device sees in their place
            volatile struct desc desc[MAX_QUEUE_SIZE];
            volatile struct ring avail;
        } * ours;
    } queue[MAX_QUEUES];
} slots[VIRTIO_SLOTS];

// Maps the registers of slot N for the guest with permissions PERM: PTE_R, or 0
// to unmap them on all harts (SBI 8.5, remote_hfence_gvma).
static void map_slot(unsigned n, uint64_t perm) {
    map_guest(GUEST_VIRTIO + n * PAGE, (hpa_t)slots[n].regs, PAGE, perm);
    fence(); // the PTE must be there before any hart walks again
    if (!perm)
        host_sbi(SBI_EXT_RFENCE, SBI_REMOTE_HFENCE_GVMA, (uint64_t[5]){0, -1});
}

// Returns the part of a queue whose address the guest wrote to the registers
// LOW and the next one.  Returns NULL if its SIZE bytes are not all RAM or not
// aligned to ALIGN.
static void *part(const uint32_t *low, uint64_t size, unsigned align) {
    gpa_t gpa = (uint64_t)low[1] << 32 | low[0];
    return gpa % align ? NULL : guest_ptr(gpa, size);
}

// Makes Q, the queue that QueueSel names, ready, with our rings in place of the
// guest's.  Does nothing if something is wrong with it: QueueReady stays 0.
static void start_queue(struct slot *s, struct queue *q) {
    q->num = q->set[QUEUE_NUM];
    q->desc = part(&q->set[QUEUE_DESC_LOW], 16 * q->num, 16);
    q->avail = part(&q->set[QUEUE_DRIVER_LOW], 6 + 2 * q->num, 2);
    q->used = part(&q->set[QUEUE_DEVICE_LOW], 6 + 8 * q->num, 4);
    if (!q->num || q->num > MAX_QUEUE_SIZE || q->num & (q->num - 1) ||
        !q->desc || !q->avail || !q->used)
        return;
    if (!q->ours) {
        q->ours = alloc(sizeof *q->ours, PAGE);
        for (unsigned i = 0; i < MAX_QUEUE_SIZE; i++)
            q->ours->desc[i].addr = (hpa_t)guest_ptr(GUEST_RAM, 0);
    }
    // Old descriptors stay.  If QueueReady = 0 has not stopped the device, it
    // may still read them, and no field of them is wrong: see copy_chain(). The
    // ring is cleared, and with it used_event, so the first chain interrupts.
    memset((void *)&q->ours->avail, 0, sizeof q->ours->avail);
    q->translated = 0;
    if (s->queues <= s->queue_sel)
        s->queues = s->queue_sel + 1;
    const volatile void *parts[] = {q->ours->desc, &q->ours->avail, q->used};
    for (unsigned i = 0; i < LENGTH(parts); i++) {
        s->regs[QUEUE_DESC_LOW + 4 * i] = (hpa_t)parts[i];
        s->regs[QUEUE_DESC_LOW + 4 * i + 1] = (hpa_t)parts[i] >> 32;
    }
    s->regs[QUEUE_NUM] = q->num;
    fence(); // the device must see our rings before it looks at them
    s->regs[QUEUE_READY] = q->ready = true;
}

// Copies the chain of descriptors that begins with number HEAD into our table,
// and checks and translates every address.  Returns false if something is
// wrong.
//
// The guest may change its descriptors while we read them.  So we read each
// field once, use what we have read, and check all of it before the first
// store.
//
// The guest may also use a descriptor again while the device is still reading
// it.  The device may then see an old field with a new one.  So each field must
// be right by itself at any time: an address in the guest's RAM, a next in our
// table.  A length may then go with the wrong address.  That does no harm,
// because above the guest's RAM there is nothing of ours (init_memory).
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

// Copies what is new in the guest's avail ring to ours.  Returns false if
// something is wrong with it.  We don't pass that on.  In its place the device
// gets a head past the end of the table.  QEMU's devices then report an error
// to the guest: they set DEVICE_NEEDS_RESET in Status and interrupt.
static bool translate(struct queue *q) {
    uint16_t idx = q->avail->idx;
    bool ok = true;
    fence(); // read idx before the entries that it promises
    while (ok && q->translated != idx) {
        uint16_t head = q->avail->ring[q->translated % q->num];
        ok = (uint16_t)(idx - q->translated) <= q->num && copy_chain(q, head);
        q->ours->avail.ring[q->translated++ % q->num] = ok ? head : q->num;
    }
    fence(); // write the entries before idx
    q->ours->avail.idx = q->translated;
    return ok;
}

// The guest has something new for the device in slot N, in queue INDEX.
static void notify(uint64_t n, uint32_t index) {
    if (index >= MAX_QUEUES || !slots[n].queue[index].ready)
        return;
    struct queue *q = &slots[n].queue[index];
    q->ready = translate(q);
    if (!q->ready)
        say("virtio slot %lx stops: a wrong descriptor or index", n);
    fence(); // the device must see our ring before it looks at it
    slots[n].regs[QUEUE_NOTIFY] = index;
}

// Asks for an interrupt when the device is done with the next chain of each
// queue.  The guest has just acknowledged an interrupt, and must now look at
// used.  But the device may finish a chain before it reads our used_event, and
// does not interrupt for that.  So look at used.idx again.  While we hold the
// lock no hart can notify, so the device can finish NUM chains at most.
static void ask_for_interrupts(struct slot *s) {
    for (struct queue *q = s->queue; q < s->queue + s->queues; q++)
        for (unsigned times = 0; q->ready && times <= q->num; times++) {
            uint16_t idx = q->used->idx;
            q->ours->avail.ring[q->num] = idx; // used_event
            fence();
            if (q->used->idx == idx)
                break;
        }
}

// Handles a write of VALUE to slot N's Status.
static void set_status(unsigned n, uint32_t value) {
    struct slot *s = &slots[n];
    value &= s->refused ? 0xff & ~STATUS_FEATURES_OK : 0xff; // it has 8 bits
    if (value & STATUS_FEATURES_OK & ~s->regs[STATUS]) {
        // The driver need not have written both words of its features, so write
        // both here, with our EVENT_IDX.
        s->regs[DRIVER_FEATURES_SEL] = 0;
        s->regs[DRIVER_FEATURES] = s->features[0] | F_EVENT_IDX;
        s->regs[DRIVER_FEATURES_SEL] = 1;
        s->regs[DRIVER_FEATURES] = s->features[1];
    }
    s->regs[STATUS] = value;
    map_slot(n, value & (STATUS_FEATURES_OK | STATUS_DRIVER_OK) ? PTE_R : 0);
    if (value)
        return;
    // This was a reset, and QEMU's device has let go of all buffers by now.
    while (s->queues)
        s->queue[--s->queues].ready = false;
    s->refused = false;
    s->features[0] = s->features[1] = s->driver_sel = 0;
    s->regs[DEVICE_FEATURES_SEL] = s->device_sel = 0;
    s->regs[QUEUE_SEL] = s->queue_sel = 0;
}

// Handles a write of VALUE to register REG of slot N.
static void write_register(unsigned n, unsigned reg, uint32_t value) {
    struct slot *s = &slots[n];
    struct queue *q =
        s->queue_sel < MAX_QUEUES ? &s->queue[s->queue_sel] : NULL;
    switch (reg) {
    case QUEUE_NOTIFY: notify(n, value); break;
    case INTERRUPT_ACK:
        s->regs[reg] = value;
        fence(); // acknowledge before we look what the device has done since
        ask_for_interrupts(s);
        break;
    case DEVICE_FEATURES_SEL: s->regs[reg] = s->device_sel = value; break;
    case DRIVER_FEATURES_SEL: s->driver_sel = value; break;
    case DRIVER_FEATURES:
        s->refused |= value & ~allowed(s->driver_sel);
        if (s->driver_sel < LENGTH(s->features))
            s->features[s->driver_sel] = value & allowed(s->driver_sel);
        break;
    case STATUS: set_status(n, value); break;
    case QUEUE_SEL: s->regs[reg] = s->queue_sel = value; break;
    case QUEUE_READY:
        if (q && !value)
            s->regs[reg] = q->ready = false;
        else if (q && !q->ready)
            start_queue(s, q);
        break;
    default: // size or place of queue q, for start_queue()
        if (q)
            q->set[reg] = value;
    }
}

// Does a load or store A of the guest's in one of the slots.  Returns false if
// there is no register of that width.
bool virtio_access(struct vcpu *v, struct access *a) {
    unsigned n = a->offset / PAGE, reg = a->offset % PAGE / 4;
    struct slot *s = &slots[n];
    // The device's own configuration is behind the registers, as long as they
    // are.
    if (reg < CONFIG ? a->width != 4 : reg >= 2 * CONFIG)
        return false;
    if (!s->regs)
        return true; // reads as 0

    static atomic_flag busy; // the lock: one hart at a time works in here
    while (atomic_flag_test_and_set(&busy))
        ;
    fence(); // the lock alone puts RAM in order, but not devices
    if (reg < CONFIG && a->store)
        write_register(n, reg, a->value);
    else
        access_memory((hpa_t)s->regs + a->offset % PAGE, a);
    if (reg == DEVICE_FEATURES)
        a->value &= allowed(s->device_sel);
    fence();
    atomic_flag_clear(&busy);
    return true;
}

// Finds the host's slots.  We use those that are where the guest's are; then
// their numbers and interrupts are the same, too.
void virtio_init(void) {
    fdt_prop reg = NULL;
    while ((reg = fdt_find(host.fdt, reg, "virtio,mmio", "reg"))) {
        volatile uint32_t *regs = (void *)fdt_number(reg, 0);
        uint64_t n = ((hpa_t)regs - GUEST_VIRTIO) / PAGE;
        if (n >= VIRTIO_SLOTS)
            continue;
        uint32_t id = regs[DEVICE_ID];
        regs[DEVICE_FEATURES_SEL] = 0;
        // An ID of 0 is an empty slot, which may be seen.
        if (!id || (id < 32 && KINDS >> id & 1 && regs[VERSION] == 2 &&
                    regs[DEVICE_FEATURES] & F_EVENT_IDX))
            slots[n].regs = regs;
        else
            say("slot %lx: unknown, or lacks force-legacy=false or event_idx",
                n);
        map_slot(n, slots[n].regs ? PTE_R : 0);
    }
}
