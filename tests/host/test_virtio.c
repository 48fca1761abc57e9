#include "../../virtio.c"
#include "device.h"
#include "unit.h"

// Slot 0 is a device; so are the other ones of host.dts.
#define AT(offset) (GUEST_VIRTIO + (offset))
#define OK (STATUS_FEATURES_OK | 3)
enum { NUM = 8, DESC_AT = 0x1000, AVAIL_AT = 0x2000, USED_AT = 0x3000 };
enum { DATA_AT = 0x4000, END = GUEST_RAM_SIZE };

static void write32(unsigned offset, uint32_t value) {
    assert_true(store(4, AT(offset), value));
}

static uint32_t read32(unsigned offset) {
    assert_true(load(LWU, AT(offset)));
    return vcpus[0].regs[5];
}

static int setup(void **state) {
    reset_machine();
    memset(slots, 0, sizeof slots);
    memset(ram(GUEST_RAM), 0, GUEST_RAM_SIZE);
    devices_reset();
    *reg(1, R_VERSION) = 1;   // a legacy device
    *reg(2, R_DEVICE_ID) = 0; // nothing
    virtio_init();
    return 0;
}

static void slots_are_found(void **state) {
    assert_ptr_equal(slots[0].host, reg(0, 0));
    assert_null(slots[1].host);
    assert_ptr_equal(slots[2].host, reg(2, 0));
    assert_null(slots[3].host); // not in the host's device tree
    assert_ptr_equal(slots[7].host, reg(7, 0));
    assert_string_equal(said,
                        "hv: slot 1: unknown, or not force-legacy=false\r\n");
    // An empty slot may be read without an exit.  What we leave out reads as 0.
    write32(PAGE + STATUS, 5);
    assert_int_equal(read32(PAGE + VERSION), 0);
    assert_int_equal(read32(3 * PAGE), 0);
    assert_int_equal(*reg(1, R_STATUS), 0);
}

// A balloon (5), a GPU (16), an IOMMU (23) and what may come take addresses
// that nobody would check.
static void only_known_kinds_are_passed_on(void **state) {
    static const uint32_t known[] = {1, 2, 3, 4, 8, 9, 18, 19};
    for (uint32_t id = 1, k = 0; id < 70; id++) {
        *reg(0, R_DEVICE_ID) = id;
        memset(slots, 0, sizeof slots);
        virtio_init();
        bool yes = k < LENGTH(known) && known[k] == id;
        k += yes;
        assert_ptr_equal(slots[0].host, yes ? reg(0, 0) : NULL);
    }
}

static void registers_have_32_bits(void **state) {
    assert_false(store(1, AT(STATUS), 1));
    assert_false(store(2, AT(STATUS), 1));
    assert_false(store(8, AT(STATUS), 1));
    assert_false(load(LBU, AT(0)) || load(LHU, AT(0)) || load(LD, AT(0)));
    assert_true(store(4, AT(STATUS), 1));
}

static void the_devices_own_have_all_widths(void **state) {
    for (unsigned width = 1; width <= 8; width *= 2) {
        uint64_t value = 0x8899aabbccddeeff, mask = -1ul >> (64 - 8 * width);
        assert_true(store(8, AT(CONFIG + 16), 0));
        assert_true(store(width, AT(CONFIG + 16), value));
        assert_true(load(LD, AT(CONFIG + 16)));
        assert_int_equal(vcpus[0].regs[5], value & mask);
        if (width < 8)
            assert_true(load(LBU + __builtin_ctz(width), AT(CONFIG + 16)));
        assert_int_equal(vcpus[0].regs[5], value & mask);
    }
    assert_true(load(LD, AT(CONFIG_END - 8)));
    assert_false(load(LD, AT(CONFIG_END)));
    assert_false(store(4, AT(CONFIG_END), 1));
}

static void features_are_filtered(void **state) {
    *reg(0, R_FEATURES) = -1;
    assert_int_equal(read32(DEVICE_FEATURES), 0x00ffffff);
    write32(DEVICE_FEATURES_SEL, 1);
    assert_int_equal(read32(DEVICE_FEATURES), 1);
    write32(DEVICE_FEATURES_SEL, 2);
    assert_int_equal(read32(DEVICE_FEATURES), 0);
    assert_int_equal(*reg(0, DEVICE_FEATURES_SEL / 4), 2);
    write32(DRIVER_FEATURES_SEL, 1);
    write32(DRIVER_FEATURES, 1);
    assert_int_equal(*reg(0, R_DRIVER_FEATURES), 1);
    write32(DRIVER_FEATURES_SEL, 0);
    write32(DRIVER_FEATURES, 0x00ffffff);
    assert_int_equal(*reg(0, R_DRIVER_FEATURES), 0x20ffffff);
    write32(STATUS, OK);
    assert_int_equal(read32(STATUS), OK);
}

static void an_unknown_feature_is_refused(void **state) {
    static const uint32_t unknown[][2] = {
        {0, 1 << 24}, {0, 1 << 29}, {1, 2}, {1, 1u << 31}, {2, 1}};
    for (unsigned i = 0; i < LENGTH(unknown); i++) {
        write32(DRIVER_FEATURES_SEL, unknown[i][0]);
        write32(DRIVER_FEATURES, unknown[i][1]);
        assert_int_equal(*reg(0, R_DRIVER_FEATURES),
                         unknown[i][0] ? 0 : F_EVENT_IDX);
        write32(STATUS, OK);
        assert_int_equal(read32(STATUS), 3);
        write32(STATUS, 0);
        write32(STATUS, OK);
        assert_int_equal(read32(STATUS), OK);
    }
}

// From when the features are negotiated its page can be read.
static void the_registers_are_mapped(void **state) {
    calls_made = 0;
    write32(STATUS, OK);
    write32(STATUS, OK | STATUS_DRIVER_OK);
    assert_int_equal(calls_made, 0);
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
        write32(QUEUE_DESC_LOW + 16 * i, parts[i]);
        write32(QUEUE_DESC_LOW + 16 * i + 4, parts[i] >> 32);
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
        {0x10000000, d, a, u}, // 16 times that has no low 32 bits
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
    // Once it is ready nothing about it changes.
    write32(QUEUE_NUM, 4);
    write32(QUEUE_DESC_LOW, 0);
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

// Puts HEAD into the ring, so that IDX entries are in it now.
static void publish(uint16_t idx, uint16_t head) {
    uint16_t *avail = ram(GUEST_RAM + AVAIL_AT);
    avail[RING + (uint16_t)(idx - 1) % NUM] = head;
    avail[IDX] = idx;
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
    assert_int_equal(ours->avail[RING], 3);
    assert_int_equal(ours->avail[IDX], 1);
    assert_int_equal(device_run(0), 1);
    assert_int_equal(last[-1], 2);
    // And on, over the ring's end.
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
        {GUEST_RAM, 1, F_NEXT, NUM, 0, 1},    // behind the ring
        {GUEST_RAM, 1, F_NEXT, 0xffff, 0, 1}, //
        {GUEST_RAM, 1, 0, 0, NUM, 1},         // head
        {GUEST_RAM, 1, 0, 0, 0, NUM + 1},     // more than the ring has
        {GUEST_RAM, 1, 0, 0, 0, 0xffff},      //
    };
    for (unsigned i = 0; i < LENGTH(wrong); i++) {
        begin();
        said[0] = 0;
        set_desc(NUM, GUEST_RAM, 1, 0,
                 0); // behind the ring, and fine otherwise
        set_desc(0, wrong[i].addr, wrong[i].len, wrong[i].flags, wrong[i].next);
        ((uint16_t *)ram(GUEST_RAM + AVAIL_AT))[RING] = wrong[i].head;
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
    write32(0x0fc, 1); // no register
    assert_int_equal(*reg(0, 0x0fc / 4), 0);
}

static void an_acknowledge_asks_for_the_next_interrupt(void **state) {
    begin();
    volatile uint16_t *used = ram(GUEST_RAM + USED_AT);
    used[IDX] = 5;
    write32(INTERRUPT_ACK, 1);
    assert_int_equal(*reg(0, INTERRUPT_ACK / 4), 1);
    assert_int_equal(slots[0].queue[0].ours->avail[RING + NUM], 5);
    write32(QUEUE_READY, 0);
    used[IDX] = 6;
    write32(INTERRUPT_ACK, 1);
    assert_int_equal(slots[0].queue[0].ours->avail[RING + NUM], 5);
}

#define V(function) cmocka_unit_test_setup(function, setup)
TESTS(test_virtio, V(slots_are_found), V(only_known_kinds_are_passed_on),
      V(registers_have_32_bits), V(the_devices_own_have_all_widths),
      V(features_are_filtered), V(an_unknown_feature_is_refused),
      V(the_registers_are_mapped), V(a_queue_must_be_in_ram),
      V(a_chain_is_translated), V(the_longest_chain_fits),
      V(a_wrong_descriptor_stops_the_queue), V(a_notification_needs_a_queue),
      V(there_are_64_queues), V(an_acknowledge_asks_for_the_next_interrupt))
