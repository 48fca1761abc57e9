#include "device.h"

struct entry {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

static struct device_queue {
    bool on;
    uint32_t num;
    const struct entry *desc;
    const uint16_t *avail;
    uint16_t *used, seen;
} queues[VIRTIO_SLOTS][QUEUES];

// A register has this value if nobody has written to it since the last look.
#define UNTOUCHED 0xdeadu

void devices_reset(void) {
    memset(queues, 0, sizeof queues);
    for (unsigned n = 0; n < VIRTIO_SLOTS; n++) {
        memset((void *)reg(n, 0), 0, 0x200);
        *reg(n, R_VERSION) = 2;
        *reg(n, R_DEVICE_ID) = 2;
        *reg(n, R_FEATURES) = 1u << 29; // EVENT_IDX
        *reg(n, R_QUEUE_READY) = *reg(n, R_NOTIFY) = UNTOUCHED;
    }
}

static uint64_t address(unsigned slot, unsigned n) {
    return (uint64_t)*reg(slot, n + 1) << 32 | *reg(slot, n);
}

static bool in_guest_ram(uint64_t hpa, uint64_t size) {
    uint64_t start = (uint64_t)ram(GUEST_RAM), offset = hpa - start;
    return offset <= GUEST_RAM_SIZE && size <= GUEST_RAM_SIZE - offset;
}

static bool is_ours(uint64_t hpa, uint64_t size) {
    uint64_t start = (uint64_t)ram(GUEST_RAM);
    return hpa >= HOST_RAM && hpa < start && size <= start - hpa;
}

static void turn_on(unsigned slot) {
    check(*reg(slot, R_QUEUE_SEL) < QUEUES);
    struct device_queue *q = &queues[slot][*reg(slot, R_QUEUE_SEL)];
    uint32_t num = *reg(slot, R_QUEUE_NUM);
    uint64_t desc = address(slot, R_DESC), avail = address(slot, R_AVAIL);
    uint64_t used = address(slot, R_USED);
    check(num && !(num & (num - 1)) && num <= 1024);
    check(is_ours(desc, 16 * num) && desc % 16 == 0);
    check(is_ours(avail, 6 + 2 * num) && avail % 2 == 0);
    check(in_guest_ram(used, 6 + 8 * num) && used % 4 == 0);
    q->on = true;
    q->num = num;
    q->desc = (const struct entry *)desc;
    q->avail = (const uint16_t *)avail;
    q->used = (uint16_t *)used;
}

// Takes the chain that begins at HEAD.  Returns false if the device gives up.
// It does so at an index outside the table, which is how the hypervisor stops
// it.  It also does so in a circle, which a guest can make by using descriptors
// again too early.
static bool take(struct device_queue *q, uint16_t head) {
    unsigned length = 0;
    uint16_t i = head;
    struct entry d;
    do {
        if (i >= q->num || length++ == q->num)
            return false;
        d = q->desc[i];
        check(!(d.flags & ~(F_NEXT | F_WRITE)));
        if (!d.len)
            return false; // QEMU refuses it, and asks for a reset
        check(in_guest_ram(d.addr, d.len));
        char *first = (char *)d.addr, *last = first + d.len - 1;
        if (d.flags & F_WRITE)
            *first = *last = length;
        else
            (void)*(volatile char *)first, (void)*(volatile char *)last;
        i = d.next;
    } while (d.flags & F_NEXT);
    uint16_t *entry = &q->used[2 + q->used[1] % q->num * 4];
    entry[0] = head;
    entry[1] = entry[2] = entry[3] = 0;
    q->used[1]++;
    return true;
}

unsigned device_run(unsigned slot) {
    unsigned taken = 0;
    for (struct device_queue *q = queues[slot]; q < queues[slot] + QUEUES;
         q++) {
        if (!q->on)
            continue;
        // Check all descriptors, even if no chain leads to them now: one may
        // have done so a moment ago.
        for (unsigned i = 0; i < q->num; i++)
            check(in_guest_ram(q->desc[i].addr, q->desc[i].len) &&
                  q->desc[i].next < 1024);
        while (q->on && q->seen != q->avail[1]) {
            uint16_t ahead = q->avail[1] - q->seen;
            if (ahead > q->num || !take(q, q->avail[2 + q->seen % q->num])) {
                *reg(slot, R_STATUS) |= NEEDS_RESET;
                q->on = false;
            }
            q->seen++;
            taken += q->on;
        }
    }
    return taken;
}

void devices_look(void) {
    for (unsigned n = 0; n < VIRTIO_SLOTS; n++) {
        uint32_t ready = *reg(n, R_QUEUE_READY), index = *reg(n, R_NOTIFY);
        *reg(n, R_QUEUE_READY) = *reg(n, R_NOTIFY) = UNTOUCHED;
        // A queue that is no longer ready goes on working until the reset, as
        // QEMU's queues do.
        if (ready == 1)
            turn_on(n);
        else if (*reg(n, R_STATUS) == 0)
            memset(queues[n], 0, sizeof queues[n]);
        check(index == UNTOUCHED || index < QUEUES);
    }
}
