// Drivers that ask for no more than they need.  Boot arguments:
//
//   words=1    they write only the word of features that has VERSION_1
//   words=2    they write both words, the other one as 0
//
// The entropy device must work for them, and so must the network card if there
// is one (-n): after a reset, without writing QueueSel, and for a long time.
#include "guest.h"

enum {
    DEVICE_ID = 0x08,
    FEATURES = 0x20,
    FEATURES_SEL = 0x24,
    QUEUE_SEL = 0x30
};
enum { QUEUE_NUM_MAX = 0x34, QUEUE_NUM = 0x38, QUEUE_READY = 0x44 };
enum { NOTIFY = 0x50, STATUS = 0x70, DESC = 0x80, SIZE = 8, HEADER = 12 };
enum { WRITE = 2, NETWORK = 1, ENTROPY = 4, NO_NOTIFY = 1 };

static volatile struct queue {
    struct {
        uint64_t addr;
        uint32_t len;
        uint16_t flags, next;
    } desc[SIZE];
    uint16_t avail[2 + SIZE + 1];
    uint16_t used[2 + 4 * SIZE + 1] __attribute__((aligned(4)));
    uint8_t data[SIZE][2048];
} queues[3] __attribute__((aligned(4096)));

static volatile uint32_t *slot;
static uint64_t words, silent; // silent: times no notification was wanted

static uint32_t get(uint64_t reg) { return slot[reg / 4]; }
static void set(uint64_t reg, uint32_t value) { slot[reg / 4] = value; }

static bool find(uint32_t id) {
    for (uint64_t n = 0; n < 8; n++) {
        slot = (void *)(0x10001000 + n * 0x1000);
        if (get(DEVICE_ID) == id)
            return true;
    }
    return false;
}

static void negotiate(void) {
    set(STATUS, 0);
    set(STATUS, 1);
    set(STATUS, 3);
    if (words == 2)
        set(FEATURES_SEL, 0), set(FEATURES, 0);
    set(FEATURES_SEL, 1);
    set(FEATURES, 1);
    set(STATUS, 11);
    check(get(STATUS), 11, "status of device %ld", (long)get(DEVICE_ID));
}

// Makes Q, with buffers of LEN bytes, the queue that QueueSel names.
static void start(volatile struct queue *q, uint32_t len, uint16_t flags) {
    for (unsigned i = 0; i < SIZE; i++) {
        q->desc[i].addr = (uint64_t)q->data[i];
        q->desc[i].len = len;
        q->desc[i].flags = flags;
    }
    q->avail[1] = q->used[0] = q->used[1] = 0;
    const volatile void *parts[] = {q->desc, q->avail, q->used};
    set(QUEUE_NUM, SIZE);
    for (unsigned i = 0; i < 3; i++) {
        set(DESC + 16 * i, (uint64_t)parts[i]);
        set(DESC + 16 * i + 4, (uint64_t)parts[i] >> 32);
    }
    set(QUEUE_READY, 1);
    check(get(QUEUE_READY), 1, "QueueReady");
}

// Gives the device the next buffer of Q, its queue N, as a driver does.
static void give(volatile struct queue *q, uint32_t n) {
    uint16_t idx = q->avail[1];
    q->avail[2 + idx % SIZE] = idx % SIZE;
    asm volatile("fence");
    q->avail[1] = idx + 1;
    asm volatile("fence");
    if (q->used[0] & NO_NOTIFY)
        silent++;
    else
        set(NOTIFY, n);
}

static bool comes(volatile struct queue *q, uint16_t idx, const char *what,
                  uint64_t round) {
    bool yes = until(q->used[1] == idx, PATIENCE);
    asm volatile("fence");
    check(yes, true, "%s, round %ld: used %ld of %ld", what, round,
          (long)q->used[1], (long)idx);
    return yes;
}

// QueueSel is 0 after a reset (virtio 1.2, 4.2.2.1), whatever it was before.
static void entropy(void) {
    for (uint64_t before = 0; before < 4; before++) {
        set(QUEUE_SEL, before);
        negotiate();
        check(get(QUEUE_NUM_MAX) >= SIZE, true, "QueueNumMax, QueueSel was %ld",
              before);
        volatile struct queue *q = &queues[0];
        start(q, 64, WRITE);
        set(STATUS, 15);
        uint64_t sum = 0;
        for (unsigned i = 0; i < 64; i++)
            q->data[0][i] = 0;
        for (uint64_t round = 0; round < 100; round++) {
            give(q, 0);
            if (!comes(q, round + 1, "entropy", round))
                break;
        }
        for (unsigned i = 0; i < 64; i++)
            sum += q->data[0][i];
        check(sum > 0, true, "entropy, QueueSel was %ld", before);
    }
    set(STATUS, 0);
    done("entropy");
}

// "Who has 10.0.2.2?", which QEMU's own network answers.
static const uint8_t arp[] = {
    255, 255, 255, 255, 255, 255, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 8,  6, 0, 1,
    8,   0,   6,   4,   0,   1,   0x52, 0x54, 0, 0x12, 0x34, 0x56, 10, 0, 2, 15,
    0,   0,   0,   0,   0,   0,   10,   0,    2, 2};

static void network(void) {
    volatile struct queue *receive = &queues[1], *transmit = &queues[2];
    negotiate();
    set(QUEUE_SEL, 0);
    start(receive, 2048, WRITE);
    set(QUEUE_SEL, 1);
    start(transmit, HEADER + 60, 0);
    for (unsigned i = 0; i < SIZE; i++)
        for (unsigned b = 0; b < sizeof arp; b++)
            transmit->data[i][HEADER + b] = arp[b];
    set(STATUS, 15);
    for (unsigned i = 0; i < SIZE; i++)
        give(receive, 0);
    uint16_t sent = 0, received = 0;
    for (uint64_t round = 0; round < 3000; round++) {
        give(transmit, 1);
        if (!comes(transmit, ++sent, "a packet", round))
            break;
        bool yes = until(receive->used[1] != received, PATIENCE);
        check(yes, true, "an answer, round %ld", round);
        if (!yes)
            break;
        for (; received != receive->used[1]; received++)
            give(receive, 0);
    }
    done("answers");
    // A second packet right behind the first: the device is still at work and
    // wants no notification.
    for (uint64_t round = 0; round < 20000; round++) {
        give(transmit, 1);
        give(transmit, 1);
        if (!comes(transmit, sent += 2, "two packets", round))
            break;
    }
    set(STATUS, 0);
    done("packets");
}

int main(uint64_t hart, const char *fdt) {
    (void)hart;
    words = argument(fdt, "words=")[0] - '0';
    check(find(ENTROPY), true, "the entropy device is there");
    entropy();
    if (find(NETWORK))
        network();
    say("%ld notifications were not wanted\n", silent);
    return 0;
}
