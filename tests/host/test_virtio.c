#include "../../virtio.c"
#include "device.h"
#include "unit.h"

// Slot 0 has a device, and most tests use that one.
#define AT(reg) (GUEST_VIRTIO + 4 * (reg))
#define OK (STATUS_FEATURES_OK | 3)
enum { NUM = 8, DESC_AT = 0x1000, AVAIL_AT = 0x2000, USED_AT = 0x3000 };
enum { DATA_AT = 0x4000, END = GUEST_RAM_SIZE };

static void write32(unsigned reg, uint32_t value) {
    assert_true(store(4, AT(reg), value));
}

static uint32_t read32(unsigned reg) {
    assert_true(load(LWU, AT(reg)));
    return vcpus[0].regs[5];
}

// What the relay does with the device's registers, with our table and ring, and
// with the guest's rings: its loads, stores and fences, one after the other.
static struct event {
    enum { LOAD, STORE, FENCE } what;
    const volatile void *at;
    unsigned width;
    uint64_t value; // what is there afterwards
} events[20000];
static unsigned count;

// The queue whose table look() checks between any two of them.
static struct queue *const queue = &slots[0].queue[0];

static void look(void) {
    hpa_t start = (hpa_t)ram(GUEST_RAM);
    for (unsigned i = 0; queue->ours && queue->ready && i < 2 * NUM; i++) {
        struct desc d = queue->ours->desc[i];
        assert_true(d.addr - start <= GUEST_RAM_SIZE);
        assert_true(d.next < MAX_QUEUE_SIZE);
        assert_false(d.flags & ~(DESC_F_NEXT | DESC_F_WRITE));
    }
}

static void finish_last(void) {
    if (count && events[count - 1].what != FENCE)
        memcpy(&events[count - 1].value, (const void *)events[count - 1].at,
               events[count - 1].width);
}

static bool within(const volatile void *at, const volatile void *from,
                   size_t n) {
    return (hpa_t)at - (hpa_t)from < n;
}

static void note(bool store, const volatile void *at, unsigned width) {
    bool ours = queue->ours && within(at, queue->ours, sizeof *queue->ours);
    bool guests = within(at, ram(GUEST_RAM), GUEST_RAM_SIZE);
    if (!ours && !guests && !within(at, reg(0, 0), 8 * CONFIG))
        return;
    finish_last();
    if (store)
        look();
    assert_true(count < LENGTH(events));
    events[count++] = (struct event){store ? STORE : LOAD, at, width, 0};
}

static void note_fence(void) {
    void (*was)(bool, const volatile void *, unsigned) = at_access;
    at_access = NULL;
    finish_last();
    look();
    assert_true(count < LENGTH(events));
    events[count++] = (struct event){.what = FENCE};
    at_access = was;
}

// Records what the hypervisor does in the given code.
#define watch(...)                                                             \
    do {                                                                       \
        count = 0;                                                             \
        at_fence = note_fence;                                                 \
        at_access = note;                                                      \
        __VA_ARGS__;                                                           \
        at_access = NULL;                                                      \
        at_fence = NULL;                                                       \
        finish_last();                                                         \
        look();                                                                \
    } while (0)

// Returns the number of such an event.  There must be exactly one.
static unsigned when(unsigned what, const volatile void *at) {
    unsigned found = 0, n = 0;
    for (unsigned i = 0; i < count; i++)
        if (events[i].what == what && events[i].at == at)
            found = i, n++;
    assert_int_equal(n, 1);
    return found;
}

static void fence_between(unsigned first, unsigned second) {
    assert_true(first < second);
    while (++first < second && events[first].what != FENCE)
        ;
    assert_true(first < second);
}

static int setup(void **state) {
    reset_machine();
    memset(slots, 0, sizeof slots);
    memset(ram(GUEST_RAM), 0, GUEST_RAM_SIZE);
    devices_reset();
    *reg(1, R_VERSION) = 1;   // a legacy device
    *reg(2, R_DEVICE_ID) = 0; // no device
    *reg(2, R_FEATURES) = 0;
    at_access = NULL;
    virtio_init();
    return 0;
}

static void slots_are_found(void **state) {
    assert_ptr_equal(slots[0].regs, reg(0, 0));
    assert_null(slots[1].regs);
    assert_ptr_equal(slots[2].regs, reg(2, 0));
    assert_null(slots[3].regs); // not in the host's device tree
    assert_ptr_equal(slots[7].regs, reg(7, 0));
    assert_string_equal(said,
                        "hv: slot 1: unknown, or lacks force-legacy=false or "
                        "event_idx\r\n");
    // An empty slot may be read without an exit.  What we leave out reads as 0.
    write32(PAGE / 4 + STATUS, 5);
    assert_int_equal(read32(PAGE / 4 + VERSION), 0);
    assert_int_equal(read32(3 * PAGE / 4), 0);
    assert_int_equal(*reg(1, R_STATUS), 0);
}

// A balloon (5), a GPU (16), an IOMMU (23) and kinds yet to come may take
// addresses that nobody would check.
static void only_known_kinds_are_passed_on(void **state) {
    static const uint32_t known[] = {1, 2, 3, 4, 8, 9, 18, 19};
    for (uint32_t id = 1, k = 0; id < 70; id++) {
        *reg(0, R_DEVICE_ID) = id;
        memset(slots, 0, sizeof slots);
        virtio_init();
        bool yes = k < LENGTH(known) && known[k] == id;
        k += yes;
        assert_ptr_equal(slots[0].regs, yes ? reg(0, 0) : NULL);
    }
}

static void registers_have_32_bits(void **state) {
    assert_false(store(1, AT(STATUS), 1));
    assert_false(store(2, AT(STATUS), 1));
    assert_false(store(8, AT(STATUS), 1));
    assert_false(load(LBU, AT(0)) || load(LHU, AT(0)) || load(LD, AT(0)));
    assert_true(store(4, AT(STATUS), 1));
}

// A device that lacks what we need counts as none.
static void a_device_must_have_event_idx(void **state) {
    *reg(0, R_FEATURES) = ~F_EVENT_IDX;
    memset(slots, 0, sizeof slots);
    said[0] = 0;
    *reg(1, R_DEVICE_ID) = 0;
    virtio_init();
    assert_null(slots[0].regs);
    assert_ptr_equal(slots[7].regs, reg(7, 0));
    assert_string_equal(said,
                        "hv: slot 0: unknown, or lacks force-legacy=false "
                        "or event_idx\r\n");
    // The device is asked for the first word of its features.
    *reg(0, DEVICE_FEATURES_SEL) = 1;
    virtio_init();
    assert_int_equal(*reg(0, DEVICE_FEATURES_SEL), 0);
}

// The device has seen this one access, between two fences.  They are needed
// because the lock puts only memory in order.
static void is_one_access(unsigned what, unsigned offset, unsigned width) {
    assert_int_equal(count, 3);
    assert_int_equal(events[0].what, FENCE);
    assert_int_equal(events[1].what, what);
    assert_ptr_equal(events[1].at, (hpa_t)reg(0, 0) + offset);
    assert_int_equal(events[1].width, width);
    assert_int_equal(events[2].what, FENCE);
}

// The configuration space has fields of 8, 16 and 32 bits, and one access for
// each (virtio 1.2, 4.2.2.2).
static void the_devices_own_have_their_widths(void **state) {
    volatile uint64_t *config = (volatile uint64_t *)reg(0, CONFIG);
    const uint64_t before = 0x0102030405060708, value = 0x8899aabbccddeeff;
    for (unsigned width = 1; width <= 4; width *= 2) {
        for (unsigned at = 0; at < 8; at += width) {
            uint64_t mask = -1ul >> (64 - 8 * width) << 8 * at;
            config[2] = before;
            watch(assert_true(store(width, AT(CONFIG) + 16 + at, value)));
            is_one_access(STORE, 4 * CONFIG + 16 + at, width);
            assert_int_equal(config[2],
                             (before & ~mask) | (value << 8 * at & mask));
            unsigned unsigned_load = LBU + __builtin_ctz(width);
            watch(assert_true(load(unsigned_load, AT(CONFIG) + 16 + at)));
            is_one_access(LOAD, 4 * CONFIG + 16 + at, width);
            assert_int_equal(vcpus[0].regs[5], value & mask >> 8 * at);
        }
        assert_true(store(width, AT(2 * CONFIG) - width, value));
        assert_true(load(LBU + __builtin_ctz(width), AT(2 * CONFIG) - width));
        assert_false(store(width, AT(2 * CONFIG), value));
        assert_false(load(LBU + __builtin_ctz(width), AT(2 * CONFIG)));
    }
    config[2] = before;
    assert_false(store(8, AT(CONFIG) + 16, value));
    assert_false(load(LD, AT(CONFIG) + 16));
    assert_int_equal(config[2], before);
    assert_false(store(4, AT(CONFIG) + 18, 1));
    assert_false(load(LW, AT(CONFIG) + 18));
}

static void features_are_filtered(void **state) {
    *reg(0, R_FEATURES) = -1;
    assert_int_equal(read32(DEVICE_FEATURES), 0x00ffffff);
    write32(DEVICE_FEATURES_SEL, 1);
    assert_int_equal(read32(DEVICE_FEATURES), 1);
    write32(DEVICE_FEATURES_SEL, 2);
    assert_int_equal(read32(DEVICE_FEATURES), 0);
    assert_int_equal(*reg(0, DEVICE_FEATURES_SEL), 2);
}

static void write_features(uint32_t sel, uint32_t value) {
    write32(DRIVER_FEATURES_SEL, sel);
    write32(DRIVER_FEATURES, value);
}

// The device gets both words, each with its selector, when the driver says that
// these are all.  It gets nothing before.
static void gets_features(uint32_t word0, uint32_t word1) {
    const struct {
        unsigned reg;
        uint32_t value;
    } stores[] = {{DRIVER_FEATURES_SEL, 0},
                  {DRIVER_FEATURES, word0},
                  {DRIVER_FEATURES_SEL, 1},
                  {DRIVER_FEATURES, word1},
                  {STATUS, OK}};
    unsigned n = 0;
    watch(write32(STATUS, OK));
    for (unsigned i = 0; i < count; i++)
        if (events[i].what == STORE &&
            within(events[i].at, reg(0, 0), 4 * CONFIG)) {
            assert_true(n < LENGTH(stores));
            assert_ptr_equal(events[i].at, reg(0, stores[n].reg));
            assert_int_equal(events[i].value, stores[n].value);
            n++;
        }
    assert_int_equal(n, LENGTH(stores));
    assert_int_equal(read32(STATUS), OK);
}

static void the_driver_s_features_are_passed_on(void **state) {
    enum { NONE, FIRST, SECOND, FIRST_SECOND, SECOND_FIRST, ORDERS };
    for (unsigned order = 0; order < ORDERS; order++) {
        write32(STATUS, 0);
        *reg(0, R_DRIVER_FEATURES) = 0x1234;
        *reg(0, DRIVER_FEATURES_SEL / 4) = 0x77;
        bool first = order != NONE && order != SECOND;
        bool second = order != NONE && order != FIRST;
        if (order == FIRST || order == FIRST_SECOND)
            write_features(0, 0x00abcdef);
        if (second)
            write_features(1, 1);
        if (order == SECOND_FIRST)
            write_features(0, 0x00abcdef);
        write32(STATUS, 3);
        assert_int_equal(*reg(0, R_DRIVER_FEATURES), 0x1234);
        assert_int_equal(*reg(0, DRIVER_FEATURES_SEL / 4), 0x77);
        gets_features(F_EVENT_IDX | (first ? 0x00abcdef : 0), second);
    }
}

// What the driver has written last counts.
static void features_may_be_written_again(void **state) {
    write_features(0, 7);
    write_features(0, 2);
    write_features(1, 1);
    write_features(1, 0);
    gets_features(F_EVENT_IDX | 2, 0);
    write_features(1, 1);
    write32(STATUS, 0);
    gets_features(F_EVENT_IDX, 0); // nothing is left of the old ones
}

static void status_has_8_bits(void **state) {
    write32(STATUS, OK);
    write32(QUEUE_SEL, 1);
    write32(STATUS, 0x100); // 0: a reset
    assert_int_equal(read32(STATUS), 0);
    assert_int_equal(slots[0].queue_sel, 0);
}

static void an_unknown_feature_is_refused(void **state) {
    static const uint32_t unknown[][2] = {
        {0, 1 << 24}, {0, 1 << 29}, {1, 2}, {1, 1u << 31}, {2, 1}};
    for (unsigned i = 0; i < LENGTH(unknown); i++) {
        *reg(0, R_DRIVER_FEATURES) = 0x1234;
        write_features(unknown[i][0], unknown[i][1]);
        write32(STATUS, OK);
        assert_int_equal(read32(STATUS), 3);
        assert_int_equal(*reg(0, R_DRIVER_FEATURES), 0x1234);
        write32(STATUS, 0);
        write32(STATUS, OK);
        assert_int_equal(read32(STATUS), OK);
        write32(STATUS, 0);
    }
}

static void a_reset_forgets_the_selectors(void **state) {
    struct slot *s = &slots[0];
    write_features(1, 1);
    write32(DEVICE_FEATURES_SEL, 1);
    write32(QUEUE_SEL, 3);
    assert_int_equal(*reg(0, DEVICE_FEATURES_SEL), 1);
    assert_int_equal(*reg(0, R_QUEUE_SEL), 3);
    write32(STATUS, 0);
    assert_int_equal(s->device_sel | s->driver_sel | s->queue_sel, 0);
    assert_int_equal(s->features[0] | s->features[1], 0);
    assert_int_equal(*reg(0, DEVICE_FEATURES_SEL), 0);
    assert_int_equal(*reg(0, R_QUEUE_SEL), 0);
    // Features that are read or written belong to word 0 again.
    *reg(0, R_FEATURES) = -1;
    assert_int_equal(read32(DEVICE_FEATURES), 0x00ffffff);
    write32(DRIVER_FEATURES, 5);
    assert_int_equal(s->features[0], 5);
}

// The lock has a fence, and the PTE one before the firmware tells the harts.
static struct sbiret two_fences(const struct call *call) {
    assert_int_equal(fences, 2);
    calls[calls_made++] = *call;
    return (struct sbiret){0};
}

// Once the features are negotiated, the guest can read the page without an
// exit.
static void the_registers_are_mapped(void **state) {
    the_firmware = two_fences;
    calls_made = 0;
    write32(STATUS, OK);
    write32(STATUS, OK | STATUS_DRIVER_OK);
    assert_int_equal(calls_made, 0);
    fences = 0;
    write32(STATUS, 0);
    assert_int_equal(calls_made, 1);
    assert_int_equal(calls[0].id, SBI_EXT_RFENCE);
    assert_int_equal(calls[0].function, SBI_REMOTE_HFENCE_GVMA);
    assert_int_equal(calls[0].a[1], -1);
}

static void place(uint64_t num, uint64_t desc, uint64_t avail, uint64_t used) {
    uint64_t parts[] = {desc, avail, used};
    write32(QUEUE_NUM, num);
    for (unsigned i = 0; i < 3; i++) {
        write32(QUEUE_DESC_LOW + 4 * i, parts[i]);
        write32(QUEUE_DESC_LOW + 4 * i + 1, parts[i] >> 32);
    }
    *reg(0, R_QUEUE_READY) = 0;
    write32(QUEUE_READY, 1);
}

static void begin(void) {
    write32(STATUS, 0);
    devices_look();
    memset(ram(GUEST_RAM), 0, GUEST_RAM_SIZE);
    write32(STATUS, OK);
    place(NUM, GUEST_RAM + DESC_AT, GUEST_RAM + AVAIL_AT, GUEST_RAM + USED_AT);
    assert_int_equal(read32(QUEUE_READY), 1);
    devices_look();
}

static void a_queue_must_be_in_ram(void **state) {
    const gpa_t d = GUEST_RAM + DESC_AT, a = GUEST_RAM + AVAIL_AT,
                u = GUEST_RAM + USED_AT, end = GUEST_RAM + END;
    const uint64_t wrong[][4] = {
        {0, d, a, u},
        {3, d, a, u},
        {2048, d, a, u},
        {0x80000000, d, a, u},
        {0x10000000, d, a, u}, // 16 times that is 0 in 32 bits
        {NUM, d + 8, a, u},
        {NUM, d, a + 1, u},
        {NUM, d, a, u + 2},
        {NUM, end - 16 * NUM + 16, a, u},
        {NUM, d, end - 2 * NUM - 4, u},
        {NUM, d, a, end - 8 * NUM - 4},
        {NUM, GUEST_RAM - 16, a, u},
        {NUM, d, GUEST_RAM - 2, u},
        {NUM, d, a, GUEST_RAM - 4},
        {NUM, d | 1ul << 32, a, u},
        {NUM, d, a | 1ul << 63, u},
        {NUM, d, a, GUEST_UART},
    };
    for (unsigned i = 0; i < LENGTH(wrong); i++) {
        place(wrong[i][0], wrong[i][1], wrong[i][2], wrong[i][3]);
        assert_int_equal(read32(QUEUE_READY), 0);
        assert_false(slots[0].queue[0].ready);
    }
    place(NUM, end - 16 * NUM, a, u);
    assert_int_equal(read32(QUEUE_READY), 1);
    devices_look();
    // Once it is ready, nothing about it changes.
    write32(QUEUE_NUM, 4);
    write32(QUEUE_DESC_LOW, 0);
    *reg(0, R_QUEUE_READY) = 0x77;
    write32(QUEUE_READY, 1);
    assert_int_equal(*reg(0, R_QUEUE_READY), 0x77);
    assert_int_equal(slots[0].queue[0].num, NUM);
    assert_int_equal(*reg(0, R_QUEUE_NUM), NUM);
    write32(QUEUE_READY, 0);
    assert_int_equal(read32(QUEUE_READY), 0);
    assert_false(slots[0].queue[0].ready);
}

static void set_desc(unsigned i, gpa_t addr, uint32_t len, unsigned flags,
                     unsigned next) {
    struct desc *d = ram(GUEST_RAM + DESC_AT);
    d[i] = (struct desc){addr, len, flags, next};
}

// Puts HEAD into the avail ring, makes IDX its index, and notifies.
static void publish(uint16_t idx, uint16_t head) {
    struct ring *avail = ram(GUEST_RAM + AVAIL_AT);
    avail->ring[(uint16_t)(idx - 1) % NUM] = head;
    avail->idx = idx;
    write32(QUEUE_NOTIFY, 0);
}

static void a_chain_is_translated(void **state) {
    begin();
    char *data = ram(GUEST_RAM + DATA_AT), *last = ram(GUEST_RAM + END);
    set_desc(3, GUEST_RAM + DATA_AT, 16, F_NEXT, 7);
    set_desc(7, GUEST_RAM + END - 1, 1, F_WRITE, 99);
    publish(1, 3);
    assert_int_equal(*reg(0, R_NOTIFY), 0);
    const struct ours *ours = slots[0].queue[0].ours;
    assert_int_equal(ours->desc[3].addr, (hpa_t)data);
    assert_int_equal(ours->desc[3].len, 16);
    assert_int_equal(ours->avail.ring[0], 3);
    assert_int_equal(ours->avail.idx, 1);
    assert_int_equal(device_run(0), 1);
    assert_int_equal(last[-1], 2);
    // It goes on past the ring's end.
    set_desc(0, GUEST_RAM, 1, 0, 0);
    for (unsigned i = 2; i < 3 * NUM; i++) {
        publish(i, 0);
        assert_int_equal(device_run(0), 1);
    }
    assert_string_equal(strstr(said, "stops") ?: "", "");
}

static void the_longest_chain_fits(void **state) {
    begin();
    for (unsigned i = 0; i < NUM; i++)
        set_desc(i, GUEST_RAM + DATA_AT, 8, i < NUM - 1 ? F_NEXT : 0, i + 1);
    publish(1, 0);
    assert_int_equal(device_run(0), 1);
}

static void a_wrong_descriptor_stops_the_queue(void **state) {
    const struct {
        gpa_t addr;
        uint32_t len;
        uint16_t flags, next, head, idx;
    } wrong[] = {
        {0, 1, 0, 0, 0, 1},
        {GUEST_RAM - 1, 1, 0, 0, 0, 1},
        {GUEST_RAM - 1, 2, 0, 0, 0, 1},
        {GUEST_RAM + END - 1, 2, 0, 0, 0, 1},
        {GUEST_RAM + END, 1, 0, 0, 0, 1},
        {GUEST_RAM, END + 1, 0, 0, 0, 1},
        {GUEST_RAM, -1u, 0, 0, 0, 1},
        {-1ul, 2, 0, 0, 0, 1},
        {-1ul, -1u, 0, 0, 0, 1},
        {GUEST_RAM, 1, 4, 0, 0, 1},           // indirect
        {GUEST_RAM, 1, F_NEXT, 0, 0, 1},      // itself
        {GUEST_RAM, 1, F_NEXT, NUM, 0, 1},    // beyond the table
        {GUEST_RAM, 1, F_NEXT, 0xffff, 0, 1}, //
        {GUEST_RAM, 1, 0, 0, NUM, 1},         // head
        {GUEST_RAM, 1, 0, 0, 0, NUM + 1},     // more entries than there are
        {GUEST_RAM, 1, 0, 0, 0, 0xffff},      //
    };
    for (unsigned i = 0; i < LENGTH(wrong); i++) {
        begin();
        said[0] = 0;
        // One that is beyond the table, but right otherwise.
        set_desc(NUM, GUEST_RAM, 1, 0, 0);
        set_desc(0, wrong[i].addr, wrong[i].len, wrong[i].flags, wrong[i].next);
        ((struct ring *)ram(GUEST_RAM + AVAIL_AT))->ring[0] = wrong[i].head;
        publish(wrong[i].idx, wrong[i].head);
        devices_look();
        assert_int_equal(device_run(0), 0);
        assert_true(*reg(0, R_STATUS) & NEEDS_RESET);
        assert_non_null(strstr(said, "virtio slot 0 stops"));
        said[0] = 0;
        write32(QUEUE_NOTIFY, 0);
        assert_int_equal(*reg(0, R_NOTIFY), 0xdead);
        assert_string_equal(said, "");
    }
    begin(); // the reset has helped
    set_desc(0, GUEST_RAM, 1, 0, 0);
    publish(1, 0);
    assert_int_equal(device_run(0), 1);
}

static void a_notification_needs_a_queue(void **state) {
    begin();
    static const uint32_t none[] = {1, 63, 64, 0x80000000, -1u};
    for (unsigned i = 0; i < LENGTH(none); i++) {
        write32(QUEUE_NOTIFY, none[i]);
        assert_int_equal(*reg(0, R_NOTIFY), 0xdead);
    }
}

static void there_are_64_queues(void **state) {
    write32(STATUS, OK);
    write32(QUEUE_SEL, 63);
    place(NUM, GUEST_RAM + DESC_AT, GUEST_RAM + AVAIL_AT, GUEST_RAM + USED_AT);
    assert_int_equal(read32(QUEUE_READY), 1);
    assert_int_equal(slots[0].queues, 64);
    write32(QUEUE_SEL, 64);
    place(NUM, GUEST_RAM + DESC_AT, GUEST_RAM + AVAIL_AT, GUEST_RAM + USED_AT);
    assert_int_equal(read32(QUEUE_READY), 0);
    write32(QUEUE_SEL, -1u);
    write32(QUEUE_READY, 1);
    assert_int_equal(read32(QUEUE_READY), 0);
    write32(QUEUE_SEL, 0);
    write32(QUEUE_DESC_LOW - 1, 1); // no register
    write32(0x0fc / 4, 1);
    assert_int_equal(*reg(0, QUEUE_DESC_LOW - 1), 0);
    assert_int_equal(*reg(0, 0x0fc / 4), 0);
}

static void an_acknowledge_asks_for_the_next_interrupt(void **state) {
    begin();
    volatile struct ring *used = ram(GUEST_RAM + USED_AT);
    used->idx = 5;
    write32(INTERRUPT_ACK, 1);
    assert_int_equal(*reg(0, INTERRUPT_ACK), 1);
    assert_int_equal(slots[0].queue[0].ours->avail.ring[NUM], 5);
    write32(QUEUE_READY, 0);
    used->idx = 6;
    write32(INTERRUPT_ACK, 1);
    assert_int_equal(slots[0].queue[0].ours->avail.ring[NUM], 5);
}

static void the_lock_has_a_fence_at_each_end(void **state) {
    watch(write32(QUEUE_SEL, 3));
    is_one_access(STORE, 4 * QUEUE_SEL, 4);
    watch(read32(STATUS));
    is_one_access(LOAD, 4 * STATUS, 4);
}

// A notification reads the guest's index, then its entries.  It writes our
// entries, then our index, and only then does the device hear of it.
static void a_notification_is_in_order(void **state) {
    begin();
    set_desc(3, GUEST_RAM + DATA_AT, 16, 0, 0);
    watch(publish(1, 3));
    struct ring *guests = ram(GUEST_RAM + AVAIL_AT);
    const struct desc *guests_desc = ram(GUEST_RAM + DESC_AT);
    volatile struct ring *ours = &queue->ours->avail;
    // The stores to the guest's ring were publish()'s own.
    unsigned theirs = when(LOAD, &guests->idx);
    fence_between(theirs, when(LOAD, &guests->ring[0]));
    unsigned entry = when(STORE, &ours->ring[0]), idx = when(STORE, &ours->idx);
    unsigned told = when(STORE, reg(0, R_NOTIFY));
    fence_between(entry, idx);
    fence_between(when(STORE, &queue->ours->desc[3].addr), idx);
    fence_between(when(STORE, &queue->ours->desc[3].flags), idx);
    fence_between(idx, told);
    assert_int_equal(events[idx].value, 1);
    fence_between(told, count);
    // Each field of the guest's descriptor is read once.
    when(LOAD, &guests_desc[3].addr);
    when(LOAD, &guests_desc[3].len);
    when(LOAD, &guests_desc[3].flags);
    when(LOAD, &guests_desc[3].next);
}

static void the_rings_are_ready_before_the_queue_is(void **state) {
    begin();
    set_desc(0, GUEST_RAM + DATA_AT, 16, 0, 0);
    publish(1, 0);
    write32(QUEUE_READY, 0);
    *reg(0, R_QUEUE_READY) = 0x77;
    watch(write32(QUEUE_READY, 1));
    unsigned ready = when(STORE, reg(0, R_QUEUE_READY)), last = ready;
    while (events[--last].what != FENCE)
        ; // all that the device will look at comes before that
    assert_true(last > 8);
    for (unsigned i = last; i < ready; i++)
        assert_int_equal(events[i].what, FENCE);
    for (unsigned part = 0; part < 3; part++)
        for (unsigned half = 0; half < 2; half++)
            assert_true(when(STORE, reg(0, R_DESC + 4 * part + half)) < last);
    assert_true(when(STORE, reg(0, R_QUEUE_NUM)) < last);
    assert_int_equal(queue->ours->avail.idx, 0);
    assert_int_equal(queue->ours->avail.ring[0], 0);
    // Every address in a new table is in the guest's RAM before the device sees
    // it.
    queue->ours = NULL;
    queue->ready = false;
    watch(write32(QUEUE_READY, 1));
    for (unsigned i = 0; i < MAX_QUEUE_SIZE; i++)
        assert_int_equal(queue->ours->desc[i].addr, (hpa_t)ram(GUEST_RAM));
    for (unsigned i = when(STORE, reg(0, R_QUEUE_READY)) + 1; i < count; i++)
        assert_int_not_equal(events[i].what, STORE);
}

static void the_acknowledge_comes_before_the_look(void **state) {
    begin();
    volatile struct ring *used = ram(GUEST_RAM + USED_AT);
    volatile uint16_t *event = &queue->ours->avail.ring[NUM];
    used->idx = 5;
    watch(write32(INTERRUPT_ACK, 1));
    unsigned ack = when(STORE, reg(0, INTERRUPT_ACK));
    unsigned asked = when(STORE, event), looks[2], n = 0;
    for (unsigned i = 0; i < count; i++)
        if (events[i].what == LOAD && events[i].at == &used->idx)
            looks[n++ % 2] = i;
    assert_int_equal(n, 2);
    fence_between(ack, looks[0]);
    fence_between(ack, asked);
    fence_between(asked, looks[1]); // for what came meanwhile
}

// The device uses one more descriptor just as we look.
static uint16_t uses;
static void device_goes_on(void) {
    volatile struct ring *used = ram(GUEST_RAM + USED_AT);
    if (queue->ours->avail.ring[NUM] == used->idx && uses)
        used->idx++, uses--;
}

static void what_is_used_meanwhile_is_seen(void **state) {
    volatile struct ring *used = ram(GUEST_RAM + USED_AT);
    for (unsigned times = 0; times < 3; times++) {
        begin();
        used->idx = 5;
        uses = times;
        at_fence = device_goes_on;
        write32(INTERRUPT_ACK, 1);
        at_fence = NULL;
        assert_int_equal(queue->ours->avail.ring[NUM], 5 + times);
    }
    // A device that never stops does not keep us for ever.
    uses = 60000;
    at_fence = device_goes_on;
    write32(INTERRUPT_ACK, 1);
    at_fence = NULL;
    assert_true(uses >= 60000 - NUM - 2);
}

static void no_field_is_ever_wrong(void **state) {
    begin();
    for (unsigned i = 0; i < NUM; i++) {
        struct desc d = queue->ours->desc[i];
        assert_int_equal(d.addr, (hpa_t)ram(GUEST_RAM));
        assert_int_equal(d.len | d.flags | d.next, 0);
    }
    // watch() looks between any two stores.  These are ways to go wrong.
    const struct desc wrong[] = {{0, 16, 0, 0},
                                 {GUEST_RAM + END, 1, 0, 0},
                                 {GUEST_RAM, 8, 4, 0},
                                 {GUEST_RAM, 8, F_NEXT, NUM},
                                 {GUEST_RAM, 8, F_NEXT, 0xffff},
                                 {GUEST_RAM, 8, F_NEXT, 0}};
    for (unsigned i = 0; i < LENGTH(wrong); i++)
        for (unsigned at = 1; at < NUM; at++) {
            begin();
            for (unsigned j = 0; j < NUM; j++)
                set_desc(j, GUEST_RAM + DATA_AT + j, 16, F_NEXT | F_WRITE,
                         j + 1);
            struct desc old = queue->ours->desc[at], now;
            ((struct desc *)ram(GUEST_RAM + DESC_AT))[at] = wrong[i];
            watch(publish(1, 0));
            // What was right is copied, and what was wrong has changed nothing.
            for (unsigned j = 0; j < at; j++)
                assert_int_equal(queue->ours->desc[j].addr,
                                 (hpa_t)ram(GUEST_RAM + DATA_AT + j));
            now = queue->ours->desc[at];
            if (i < LENGTH(wrong) - 1)
                assert_memory_equal(&now, &old, sizeof now);
            assert_int_equal(queue->ours->avail.ring[0], NUM);
            devices_look();
            assert_int_equal(device_run(0), 0);
        }
    // The last descriptor's next is 0 in our table, whatever the guest's says.
    begin();
    set_desc(2, GUEST_RAM, 8, 0, 0xffff);
    watch(publish(1, 2));
    assert_int_equal(queue->ours->desc[2].next, 0);
    assert_int_equal(queue->ours->avail.ring[0], 2);
}

#define V(function) cmocka_unit_test_setup(function, setup)
TESTS(test_virtio, V(slots_are_found), V(only_known_kinds_are_passed_on),
      V(a_device_must_have_event_idx), V(registers_have_32_bits),
      V(the_devices_own_have_their_widths), V(features_are_filtered),
      V(the_driver_s_features_are_passed_on), V(features_may_be_written_again),
      V(a_reset_forgets_the_selectors), V(status_has_8_bits),
      V(an_unknown_feature_is_refused), V(the_registers_are_mapped),
      V(a_queue_must_be_in_ram), V(a_chain_is_translated),
      V(the_longest_chain_fits), V(a_wrong_descriptor_stops_the_queue),
      V(a_notification_needs_a_queue), V(there_are_64_queues),
      V(an_acknowledge_asks_for_the_next_interrupt),
      V(the_lock_has_a_fence_at_each_end), V(a_notification_is_in_order),
      V(the_rings_are_ready_before_the_queue_is),
      V(the_acknowledge_comes_before_the_look),
      V(what_is_used_meanwhile_is_seen), V(no_field_is_ever_wrong))
