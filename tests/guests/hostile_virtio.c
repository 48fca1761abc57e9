// What a driver can do wrong with a virtqueue, on each queue of each device.  A
// queue in the wrong place or of the wrong size never gets ready; a wrong
// descriptor or index makes the device ask for a reset, and nothing else.  With
// boot argument race, another hart rewrites the rings all the time.
#include "guest.h"

enum { MAGIC = 0, ID = 8, DRIVER_FEATURES = 0x20, DRIVER_FEATURES_SEL = 0x24 };
enum { QUEUE_SEL = 0x30, QUEUE_NUM_MAX = 0x34, QUEUE_NUM = 0x38, READY = 0x44 };
enum { NOTIFY = 0x50, ACK = 0x64, STATUS = 0x70, DESC = 0x80, AVAIL = 0x90 };
enum { USED = 0xa0, NEEDS_RESET = 64, DRIVER_OK = 15, SIZE = 8 };
enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };

static volatile struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
} desc[65536] __attribute__((aligned(4096)));
static volatile uint16_t avail[2048] __attribute__((aligned(4096)));
static volatile uint16_t used[8192] __attribute__((aligned(4096)));
static char data[3 * 65536] __attribute__((aligned(4096)));
#define DATA ((uint64_t)data)

static volatile uint32_t *slot; // the device
static uint32_t queue, id;      // its queue, its kind
static volatile bool racing;

static void w(uint64_t reg, uint32_t value) { slot[reg / 4] = value; }

static void w64(uint64_t reg, uint64_t value) {
    w(reg, value), w(reg + 4, value >> 32);
}

static uint32_t begin(void) { // returns the status
    w(STATUS, 0), w(STATUS, 1), w(STATUS, 3);
    w(DRIVER_FEATURES_SEL, 1), w(DRIVER_FEATURES, 1);
    w(DRIVER_FEATURES_SEL, 0), w(DRIVER_FEATURES, 0);
    w(STATUS, 11);
    for (unsigned i = 0; i < 16; i++)
        avail[i] = used[i] = 0;
    return slot[STATUS / 4];
}

static bool ring(uint32_t size, uint64_t d, uint64_t a, uint64_t u) {
    w(QUEUE_SEL, queue), w(QUEUE_NUM, size);
    w64(DESC, d), w64(AVAIL, a), w64(USED, u);
    w(READY, 1);
    return slot[READY / 4];
}

static void never_ready(uint32_t size, uint64_t d, uint64_t a, uint64_t u) {
    begin();
    check(ring(size, d, a, u), false,
          "device %ld queue %ld: %ld, %ld, %ld, %ld", (long)id, (long)queue,
          (long)size, d, a, u);
    w(STATUS, DRIVER_OK);
    w(NOTIFY, queue);
    w(STATUS, 0);
}

static void bad_queues(void) {
    static const uint32_t sizes[] = {0,    3,        65535,      2048,
                                     1025, 1u << 31, 0x10000008, -1};
    static const uint64_t nowhere[] = {
        0,         0x1000,     0x7ffffff0, RAM_END - 64,
        RAM_END,   0x10000000, 0xc000000,  1ul << 32,
        1ul << 63, -16ul,      -4096ul,    RAM + (1ul << 32),
        0x100000};
    uint64_t d = (uint64_t)desc, a = (uint64_t)avail, u = (uint64_t)used;
    for (unsigned i = 0; i < LENGTH(sizes); i++)
        never_ready(sizes[i], d, a, u);
    for (unsigned i = 0; i < LENGTH(nowhere); i++) {
        never_ready(SIZE, nowhere[i], a, u);
        never_ready(SIZE * 8, d, nowhere[i], u);
        never_ready(SIZE, d, a, nowhere[i]);
    }
    never_ready(SIZE, d + 8, a, u);
    never_ready(SIZE, d, a + 1, u);
    never_ready(SIZE, d, a, u + 2);
}

// A device looks at a queue when it is notified.  Some look only when they need
// a buffer, like a network card at the queue that it receives with.
static bool late(void) { return (id == 1 && queue == 0) || id == 3; }

static bool asks_for_reset(void) {
    return until(slot[STATUS / 4] & NEEDS_RESET, late() ? 1 : 1000) || late();
}

// Puts N entries that begin with HEAD into the ring; the device must stop.
static void stops(const char *what, uint16_t n, uint16_t head) {
    for (unsigned i = 0; i < SIZE; i++)
        avail[2 + i] = head;
    asm volatile("fence");
    avail[1] += n;
    w(NOTIFY, queue);
    check(asks_for_reset(), true, "device %ld queue %ld, %s: NEEDS_RESET",
          (long)id, (long)queue, what);
    w(NOTIFY, queue); // this says nothing more
    w(ACK, -1);
    w(STATUS, 0);
    check(slot[STATUS / 4], 0, "reset");
}

// Makes a queue ready in which DESC[0] is wrong, and first has the device
// finish a round of requests that any device can deal with.
static void start(uint64_t addr, uint32_t len, uint16_t flags, uint16_t next) {
    begin();
    desc[0] = (struct desc){addr, len, flags, next};
    desc[1] = (struct desc){DATA, 64, NEXT, 0};
    desc[4] = (struct desc){DATA, 64, NEXT, 5};
    desc[5] = (struct desc){DATA + 64, 64, WRITE, 0};
    desc[SIZE] = desc[65535] = desc[4]; // good, if they were in the queue
    check(ring(SIZE, (uint64_t)desc, (uint64_t)avail, (uint64_t)used), true,
          "device %ld queue %ld is ready", (long)id, (long)queue);
    w(STATUS, DRIVER_OK);
    for (uint16_t i = 0; i < SIZE && !late() && !racing; i++) {
        avail[2 + i] = 4;
        asm volatile("fence");
        avail[1] = i + 1;
        w(NOTIFY, queue);
        check(until(used[1] == i + 1, 1000), true, "device %ld queue %ld: done",
              (long)id, (long)queue);
    }
}

static void bad_descriptors(void) {
    static const struct {
        uint64_t addr, len;
    } bad[] = {{0, 64},         {0x1000, 64},           {RAM - 1, 1},
               {RAM - 8, 64},   {RAM_END - 16, 17},     {RAM_END + 1, 0},
               {-1ul, 64},      {RAM, 0xffffffff},      {RAM_END, 1},
               {0x100000, 4},   {RAM + (1ul << 32), 8}, {RAM_END - 1, 1u << 31},
               {0x10000000, 8}, {-64ul, 128},           {1ul << 63, 1}};
    for (unsigned i = 0; i < LENGTH(bad); i++)
        for (uint16_t write = 0; write <= WRITE; write += WRITE) {
            start(bad[i].addr, bad[i].len, write, 0);
            stops("an address", 1, 0);
        }
    start(DATA, 64, NEXT, 65535), stops("next", 1, 0);
    start(DATA, 64, NEXT, SIZE), stops("next, just", 1, 0);
    start(DATA, 64, NEXT, 0), stops("itself", 1, 0);
    start(DATA, 64, NEXT, 1), stops("a cycle", 1, 0);
    start(DATA, 64, INDIRECT, 0), stops("indirect", 1, 0);
    start(DATA, 64, 0xfff8, 0), stops("flags", 1, 0);
    start(DATA, 64, 0, 0), stops("head", 1, SIZE);
    start(DATA, 64, 0, 0), stops("head", 1, 65535);
    start(DATA, 64, 0, 0), stops("index", SIZE + 1, 0);
    start(DATA, 64, 0, 0), stops("index", 65535, 0);
}

// Spoils and repairs the requests that another hart makes.  A repaired one is
// an even descriptor and the next, which any device can deal with.
static void rewrite(struct hart *h) {
    uint64_t x = 0x2545f4914f6cdd1d + h->in;
    static const uint64_t edges[] = {RAM - 8, RAM_END - 64, RAM, 0, -8ul};
    while (racing) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        unsigned i = x % SIZE;
        switch (x >> 8 & 15) {
        case 0: desc[i].addr = DATA + (x >> 40 & 0xfff); break;
        case 1: desc[i].addr = edges[(x >> 20) % LENGTH(edges)]; break;
        case 2:
            // A length that fits into data, or not even into RAM.  QEMU 7.2
            // aborts when its network card sends less than a header, 12 bytes.
            desc[i].len = 1u << (x >> 25 & 15 ? 4 + (x >> 20 & 31) % 13 : 31);
            break;
        case 3: desc[i].flags = x >> 20 & 3; break;
        case 4: desc[i].next = (x >> 20) % (SIZE + 1); break;
        case 5: avail[2 + i] = (x >> 20) % (SIZE + 1) & ~1; break;
        case 6: avail[1] += !(x >> 20 & 0xffff); break;
        default:
            desc[i] = i & 1 ? (struct desc){DATA + 64, 64, WRITE, 0}
                            : (struct desc){DATA, 64, NEXT, i + 1};
        }
    }
    h->out = 1;
}

static void race(uint64_t me) {
    uint64_t other = 1 - me, rounds = 0, finished = 0, stopped = 0;
    racing = true;
    run_on(other, rewrite, queue);
    for (uint64_t end = now() + 500 * MS; rounds < 50 || now() < end;
         rounds++) {
        start(DATA, 64, WRITE, 0);
        for (unsigned i = 0; i < 8; i++) {
            avail[1] += 1;
            w(NOTIFY, queue), w(ACK, 3);
        }
        finished += used[1];
        stopped += slot[STATUS / 4] & NEEDS_RESET;
        w(READY, 0),
            ring(1 << (rounds & 7), DATA, (uint64_t)avail, DATA + 32768);
        w(NOTIFY, queue);
        w(STATUS, 0);
    }
    racing = false;
    join(other);
    say("device %ld queue %ld: %ld rounds, %ld finished, %ld stopped\n",
        (long)id, (long)queue, rounds, finished, stopped / NEEDS_RESET);
}

int main(uint64_t hart, const char *fdt) {
    for (uint64_t n = 0; n < 8; n++) {
        slot = (void *)(0x10001000 + n * 4096);
        id = slot[ID / 4];
        w(QUEUE_SEL, 1);
        for (queue = 0; id && queue < 4; queue++) {
            w(STATUS, 0), w(QUEUE_SEL, queue);
            if (!slot[QUEUE_NUM_MAX / 4])
                break;
            if (argument(fdt, "race")) {
                race(hart);
                continue;
            }
            bad_queues();
            bad_descriptors();
        }
        if (id) {
            say("device %ld: %ld queues\n", (long)id, (long)queue);
            done("device");
        }
    }
    // Nothing may have been written to a wrong buffer; in the race the last 64
    // bytes may be a right one.
    uint64_t right = argument(fdt, "race") ? 64 : 0;
    for (uint64_t end = RAM_END - 4096; end < RAM_END - right; end++)
        check(*(char *)end, 0, "RAM at %ld", end);
    check(trapped(), false, "any trap");
    return 0;
}
