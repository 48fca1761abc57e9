// CBMC: the relay's walk through a guest's rings of SIZE entries.  Any read of
// volatile memory gives any value (goto-instrument --nondet-volatile), so the
// guest may change its rings at any moment.
//
// The device may read our rings at any moment, too.  So we claim what it may
// find there between any two stores: test_proofs.py puts a look() after each.
// And we claim it for each field of an entry by itself, because the device may
// see an old field together with a new one.
//
// Each step begins with any table that the claims allow.  So what holds for one
// new entry in the ring (AT_MOST 1) also holds for the next one.
#include "prove.h"
#include <csr.h>
#undef fence
#define fence() rest()
// test_proofs.py puts this after the fence that follows the read of idx
#define few(q, idx)                                                            \
    assume((uint16_t)(idx - q->translated) <= at_most ||                       \
           (uint16_t)(idx - q->translated) > q->num)
static void look(void), rest(void);
static unsigned at_most = AT_MOST; // new entries in the ring
#include "virtio.c"                // with smaller queues, see test_proofs.py

enum { NUM = 8 };
#define RAM_AT 0x140000000ul
static const uint64_t ram_size = 1ul << 30;

static bool in_ram(uint64_t hpa, uint64_t size) {
    return hpa >= RAM_AT && size <= ram_size && hpa - RAM_AT <= ram_size - size;
}

// Does what prove_mem.c proves of the real one.
void *guest_ptr(gpa_t gpa, uint64_t size) {
    uint64_t hpa = gpa - GUEST_RAM + RAM_AT;
    return gpa >= GUEST_RAM && in_ram(hpa, size) ? (void *)hpa : NULL;
}

struct sbiret host_sbi(uint64_t id, uint64_t function, const uint64_t *a) {
    return (struct sbiret){any32(), any32()};
}
void hv_printf(const char *format, ...) {}
void map_guest(gpa_t gpa, hpa_t to, uint64_t size, uint64_t perm) {
    claim(gpa >= GUEST_VIRTIO && size == PAGE &&
              gpa - GUEST_VIRTIO < VIRTIO_SLOTS * PAGE,
          "no page but a slot's is mapped");
}

static struct ours ours;
// The same memory as the device sees it.  It is not volatile, so a read gives
// what we have written there, not any value.
static struct desc *const table = (struct desc *)ours.desc;
static struct ring *const ring = (struct ring *)&ours.avail;

void *alloc(uint64_t size, uint64_t align) {
    for (unsigned i = 0; i < MAX_QUEUE_SIZE; i++)
        table[i] = (struct desc){0};
    return &ours;
}
void *hv_memset(void *to, int c, size_t n) {
    claim(to == (void *)&ours.avail && n == sizeof ours.avail,
          "only our ring is cleared");
    *ring = (struct ring){0};
    return to;
}

static uint32_t registers[2 * CONFIG];
static struct desc guests[NUM];
static struct ring guests_avail, guests_used;
static struct queue *const queue = &slots[0].queue[0];

// Tells whether each field is right by itself.  Then a device may see some of
// them old and the others new.
static bool each_is_right(struct desc d) {
    return in_ram(d.addr, 0) && d.next < MAX_QUEUE_SIZE &&
           !(d.flags & ~(DESC_F_NEXT | DESC_F_WRITE));
}

// The entry that we look at.  It may be any, but stays the same throughout.
static uint32_t which;
static bool looking = true;

// Called between any two stores.
static void look(void) {
    claim(!looking || each_is_right(table[which]),
          "each field is right at any time");
}

// Called at each fence, and so before the device hears of a chain.  By then no
// entry is half old and half new.
static void rest(void) {
    claim(!looking || (each_is_right(table[which]) &&
                       in_ram(table[which].addr, table[which].len)),
          "what the device may read and write is in RAM");
}

// Any state that the queue can be in while it is ready.
static void begin(void) {
    which = any32();
    assume(which < MAX_QUEUE_SIZE);
    slots[0].regs = registers;
    for (unsigned i = 0; i < MAX_QUEUE_SIZE; i++) {
        struct desc d = {any64(), any32(), any16(), any16()};
        assume(each_is_right(d) && in_ram(d.addr, d.len));
        table[i] = d;
    }
    queue->num = SIZE;
    queue->desc = guests;
    queue->avail = &guests_avail;
    queue->used = &guests_used;
    queue->ours = &ours;
    queue->ready = true;
    queue->translated = any16();
}

void prove(void) {
    begin();
    uint16_t before = queue->translated;
    bool good = translate(queue);
    rest();
    uint16_t more = queue->translated - before;
    claim(more <= queue->num, "no more than the ring holds");
    // The new entries in the ring that the device sees.
    uint32_t i = any32();
    assume(i < more);
    bool wrong = !good && i == more - 1u;
    claim(ring->ring[(uint16_t)(before + i) % queue->num] < queue->num || wrong,
          "the chain begins in the table");
    claim(!wrong ||
              ring->ring[(uint16_t)(before + i) % queue->num] == queue->num,
          "or nowhere, where the guest's is wrong");
    claim(ring->idx == queue->translated, "the index");
}

// One chain.  The device follows it through our table, and reaches its end.
void prove_chain(void) {
    begin();
    looking = false; // prove() does that
    uint16_t before = queue->translated;
    assume(translate(queue) && queue->translated != before);
    uint16_t i = ring->ring[before % queue->num];
    bool ended = false;
    for (unsigned n = 0; n < NUM && !ended; n++) {
        claim(i < queue->num, "the chain stays in the table");
        claim(in_ram(table[i].addr, table[i].len), "its buffers are in RAM");
        ended = !(table[i].flags & DESC_F_NEXT);
        i = table[i].next;
    }
    claim(ended, "the chain ends");
}

// After a mistake of the guest's the device finds a chain that begins nowhere.
void prove_notify(void) {
    begin();
    uint16_t before = queue->translated;
    assume(queue->num <= 2); // prove() has larger rings
    registers[QUEUE_NOTIFY] = -1;
    uint32_t index = any32();
    notify(0, index);
    uint16_t last = queue->translated - 1;
    claim(queue->ready || (ring->idx == queue->translated &&
                           ring->ring[last % queue->num] == queue->num),
          "it stops");
    claim(index == 0 || (queue->ready && queue->translated == before),
          "no other queue is ready");
}

// Any write to any register but QueueNotify, which prove_notify() has, and
// InterruptACK.  The queue is in any state, and may not have a table yet.
void prove_start(void) {
    begin();
    queue->ready = any32() & 1;
    queue->num = any32();
    queue->ours = queue->ready || any32() & 1 ? &ours : NULL;
    queue->set[QUEUE_NUM] = any32();
    for (unsigned i = 0; i < 10; i++)
        queue->set[QUEUE_DESC_LOW + i] = any32();
    uint32_t reg = any32();
    assume(reg < CONFIG);
    assume(reg != QUEUE_NOTIFY && reg != INTERRUPT_ACK);
    bool was_ready = queue->ready;
    write_register(0, reg, any32());
    if (was_ready || !queue->ready)
        return;
    rest();
    claim(!ring->idx, "there is nothing in our ring");
    const uint32_t *to = registers + QUEUE_DESC_LOW;
    uint64_t num = queue->num;
    claim(num && num <= MAX_QUEUE_SIZE && !(num & (num - 1)), "the size");
    claim(registers[QUEUE_NUM] == num, "which the device gets, too");
    claim(((uint64_t)to[1] << 32 | to[0]) == (uint64_t)ours.desc &&
              ((uint64_t)to[5] << 32 | to[4]) == (uint64_t)&ours.avail,
          "the device gets our table and ring");
    uint64_t used = (uint64_t)to[9] << 32 | to[8];
    claim(in_ram(used, 6 + 8 * num) && used % 4 == 0,
          "the used ring is in RAM");
    claim(in_ram((uint64_t)queue->desc, 16 * num) &&
              in_ram((uint64_t)queue->avail, 6 + 2 * num),
          "the guest's table and ring are in RAM");
}
