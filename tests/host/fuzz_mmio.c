// libFuzzer: a guest that does what the input says, with its RAM, its
// virtqueues and its devices' registers.  The devices check what they get
// (device.c).
#include "../../virtio.c"
#define take take_trap // fuzz.h has another
#include "../../mmode.c"
#undef take
#include "device.h"
#include "fuzz.h"

// Returns an address: mostly in RAM, sometimes near its end, or anywhere.
static gpa_t place(void) {
    uint64_t kind = take(1);
    return kind < 0xc0   ? GUEST_RAM + take(2)
           : kind < 0xe0 ? GUEST_RAM + GUEST_RAM_SIZE - (kind & 31)
           : kind < 0xf0 ? take(4)
                         : take(8);
}

static void write_ram(gpa_t gpa, const void *from, uint64_t n) {
    void *to = guest_ptr(gpa, n);
    if (to)
        memcpy(to, from, n);
}

static void write_virtio(unsigned slot, unsigned reg, uint32_t value) {
    check(store(4, GUEST_VIRTIO + slot * PAGE + 4 * reg, value));
    devices_look();
}

// Sets up a queue as a driver does, except where the input wants something
// else.
static gpa_t desc, avail;
static unsigned num;
static void set_up(unsigned slot) {
    if (take(1) & 1)
        write_virtio(slot, STATUS, 0);
    write_virtio(slot, STATUS, 11);
    write_virtio(slot, QUEUE_SEL, take(1) % 80);
    num = take(1);
    num = num < 16 ? 1 << num : num;
    write_virtio(slot, QUEUE_NUM, num);
    gpa_t parts[] = {desc = place(), avail = place(), place()};
    for (unsigned i = 0; i < 3; i++) {
        write_virtio(slot, QUEUE_DESC_LOW + 4 * i, parts[i]);
        write_virtio(slot, QUEUE_DESC_LOW + 4 * i + 1, parts[i] >> 32);
    }
    write_virtio(slot, QUEUE_READY, 1);
}

static void operation(void) {
    uint64_t what = take(1);
    unsigned slot = what >> 4 & 3;
    switch (what & 15) {
    case 0: { // anything in RAM
        uint8_t bytes[16];
        gpa_t gpa = place();
        for (unsigned i = 0; i < sizeof bytes; i++)
            bytes[i] = take(1);
        write_ram(gpa, bytes, sizeof bytes);
        break;
    }
    case 1: // a register of a slot
        write_virtio(slot, take(1) % CONFIG, take(4));
        break;
    case 2: set_up(slot); break;
    case 3:
    case 4: { // a descriptor, in most cases a useful one
        unsigned i = take(1);
        struct desc d = {place(), take(1), take(1) & 3, take(1)};
        if (d.next < 0xc0 && num)
            d.next %= num;
        write_ram(desc + 16 * i, &d, sizeof d);
        break;
    }
    case 5:
    case 6: // an entry in the ring, and the notification
        if (num) {
            uint16_t *idx = guest_ptr(avail + 2, 2), head = take(1);
            head = head < 0xc0 ? head % num : head;
            if (!idx || (uintptr_t)idx % 2)
                break;
            write_ram(avail + 4 + *idx % num * 2, &head, 2);
            *idx += 1;
            write_virtio(slot, QUEUE_NOTIFY, take(1) % 80);
        }
        break;
    case 7: device_run(slot); break;
    case 8: // any exit by a load or a store, in a device or near one
    case 9: {
        static const gpa_t bases[] = {
            GUEST_PLIC,  GUEST_PLIC + 0x2000,  GUEST_PLIC + 0x200000,
            GUEST_UART,  GUEST_VIRTIO,         GUEST_VIRTIO + CONFIG,
            GUEST_CLINT, GUEST_CLINT + 0x4000, GUEST_CLINT + 0xbff8,
        };
        uint64_t base = take(1), tval = take(2), htinst = take(4);
        gpa_t gpa = (base < LENGTH(bases) ? bases[base] : take(8)) + tval;
        unsigned cause = CAUSE_FETCH_GUEST_PAGE_FAULT + base % 4;
        leave(cause == CAUSE_VIRTUAL_INSTRUCTION ? cause + 1 : cause, gpa, gpa,
              htinst);
        break;
    }
    case 10: // any other exit
        leave(take(1), take(8), take(8), take(4));
        break;
    case 11: { // any instruction, such as M-mode's
        uint32_t inst = take(4);
        memcpy(ram(GUEST_RAM + PC), &inst, sizeof inst);
        leave(CAUSE_ILLEGAL_INSTRUCTION + take(1) % 2 * 20, 0, 0, 0);
        break;
    }
    default: { // a load or store of a device's register
        static const gpa_t bases[] = {GUEST_PLIC, GUEST_UART, GUEST_CLINT,
                                      GUEST_VIRTIO};
        gpa_t gpa = bases[slot] + take(3);
        unsigned width = take(1);
        if (width & 4)
            load(width >> 3 & 7, gpa);
        else
            store(1 << (width & 3), gpa, take(8));
    }
    }
    devices_look();
}

// The firmware has nothing to do for fences and the like.
static struct sbiret nothing(const struct call *call) {
    return (struct sbiret){0};
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    make_machine();
    devices_reset();
    virtio_init();
    return 0;
}

static void reset(void) {
    reset_harts();
    the_firmware = nothing;
    memset(ram(GUEST_RAM), 0, GUEST_RAM_SIZE);
    devices_reset();
    for (struct slot *s = slots; s < slots + VIRTIO_SLOTS; s++) {
        s->device_sel = s->driver_sel = s->queue_sel = s->queues = 0;
        s->refused = false;
        s->features[0] = s->features[1] = 0;
        for (struct queue *q = s->queue; q < s->queue + MAX_QUEUES; q++)
            *q = (struct queue){.ours = q->ours};
    }
    desc = avail = num = 0;
    memset(harts, 0, sizeof harts);
    for (unsigned hart = 0; hart < MAX_HARTS; hart++)
        clint.msip[hart] = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length) {
    reset();
    data = input;
    size = length;
    uint64_t options = take(1);
    if (options & 1) // the guest began in M-mode
        mmode_init();
    while (size) {
        enum how how = how_ends(operation());
        check(how != DIED);
        for (unsigned slot = 0; slot < 4; slot++)
            if (options & 2 << slot) // else the device is late
                device_run(slot);
    }
    return 0;
}
