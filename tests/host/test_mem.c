#include "../../mem.c"
#include "unit.h"

static void guest_ptr_knows_the_bounds(void **state) {
    static const uint64_t gpas[] = {
        0,
        1,
        GUEST_RAM - 1,
        GUEST_RAM,
        GUEST_RAM + 1,
        GUEST_RAM + GUEST_RAM_SIZE - 1,
        GUEST_RAM + GUEST_RAM_SIZE,
        GUEST_RAM + GUEST_RAM_SIZE + 1,
        HOST_RAM,
        1ul << 63,
        -GUEST_RAM,
        -1ul,
    };
    static const uint64_t sizes[] = {
        0,         1,          2,         GUEST_RAM_SIZE - 1,
        GUEST_RAM, 1ul << 32,  1ul << 63, GUEST_RAM_SIZE,
        -1ul,      -GUEST_RAM, -2ul,      GUEST_RAM_SIZE + 1,
    };
    for (unsigned i = 0; i < LENGTH(gpas); i++)
        for (unsigned j = 0; j < LENGTH(sizes); j++) {
            // with 128 bits nothing overflows
            unsigned __int128 first = gpas[i], behind = first + sizes[j];
            bool inside = first >= GUEST_RAM &&
                          behind <= GUEST_RAM + (uint64_t)GUEST_RAM_SIZE;
            char *p = guest_ptr(gpas[i], sizes[j]);
            assert_ptr_equal(p,
                             inside ? guest_ram + (gpas[i] - GUEST_RAM) : NULL);
        }
}

static void alloc_gives_zeroed_memory_once(void **state) {
    char *first = alloc(24, 8);
    memset(first, 0xff, 24);
    char *page = alloc(PAGE, PAGE), *last = alloc(1, 1);
    assert_true(page >= first + 24 && last == page + PAGE);
    assert_int_equal((hpa_t)page % PAGE, 0);
    for (unsigned i = 0; i < PAGE; i++)
        assert_int_equal(page[i], 0);
}

static void alloc_dies_when_there_is_no_more(void **state) {
    heap_end -= PAGE; // the last page is poisoned
    uint64_t left = heap_end - heap;
    assert_int_equal(how_ends(alloc(left + 1, 1)), DIED);
    assert_int_equal(how_ends(alloc(-1ul, 1)), DIED);
    assert_non_null(alloc(left - 1, 1));
    // No address that is left is aligned like this.
    assert_int_equal(how_ends(alloc(1, 4 * MIB)), DIED);
    assert_non_null(alloc(1, 1));
    assert_int_equal(how_ends(alloc(1, 1)), DIED);
    assert_non_null(strstr(said, "out of memory"));
}

static void maps(gpa_t gpa, hpa_t hpa, uint64_t perm, uint64_t leaf) {
    uint64_t size, pte = walk(gpa, &size);
    assert_int_equal(pte & 0x3ff, perm | PTE_V | PTE_U | PTE_A | PTE_D);
    assert_int_equal(pte >> 10 << 12, hpa & -size);
    assert_int_equal(size, leaf);
}

static void maps_nothing(gpa_t gpa) {
    uint64_t size;
    assert_int_equal(walk(gpa, &size), 0);
}

static void map_guest_takes_the_largest_leaf(void **state) {
    // From 4 KiB below a 2 MiB page to 4 KiB above a 1 GiB page.
    gpa_t gpa = 4 * GIB - 2 * MIB - PAGE;
    hpa_t hpa = 64 * GIB - 2 * MIB - PAGE;
    uint64_t size = PAGE + 2 * MIB + GIB + PAGE;
    map_guest(gpa, hpa, size, PTE_R | PTE_W);
    maps_nothing(gpa - 1);
    maps(gpa, hpa, PTE_R | PTE_W, PAGE);
    maps(gpa + PAGE, hpa + PAGE, PTE_R | PTE_W, 2 * MIB);
    maps(gpa + PAGE + 2 * MIB - 1, hpa + PAGE, PTE_R | PTE_W, 2 * MIB);
    maps(4 * GIB, 64 * GIB, PTE_R | PTE_W, GIB);
    maps(5 * GIB, 65 * GIB, PTE_R | PTE_W, PAGE);
    maps_nothing(gpa + size);
    // An HPA that is less aligned than the GPA needs smaller leaves.
    map_guest(8 * GIB, 8 * GIB + 2 * MIB, GIB, PTE_R);
    maps(8 * GIB, 8 * GIB + 2 * MIB, PTE_R, 2 * MIB);
    maps(9 * GIB - 1, 9 * GIB, PTE_R, 2 * MIB);
    // The last page in 41 bits, mapped and taken away again.
    map_guest((1ul << 41) - PAGE, HOST_RAM, PAGE, PTE_X);
    maps((1ul << 41) - 1, HOST_RAM, PTE_X, PAGE);
    map_guest((1ul << 41) - PAGE, HOST_RAM, PAGE, 0);
    maps_nothing((1ul << 41) - PAGE);
}

static void the_guests_ram_is_mapped(void **state) {
    hpa_t hpa = (hpa_t)guest_ram;
    for (uint64_t at = 0; at < GUEST_RAM_SIZE; at += PAGE)
        maps(GUEST_RAM + at, hpa + at, PTE_R | PTE_W | PTE_X, PAGE);
    maps_nothing(GUEST_RAM - 1);
    maps_nothing(GUEST_RAM + GUEST_RAM_SIZE);
    assert_int_equal((hpa_t)host.root % (16 * 1024), 0);
}

static void init_memory_refuses_what_does_not_fit(void **state) {
    assert_int_equal(how_ends(init_memory(HOST_RAM, MIB)), DIED);
    assert_int_equal(how_ends(init_memory(HOST_RAM + MIB, MIB)), DIED);
    assert_int_equal(how_ends(init_memory(HOST_RAM, -1ul)), DIED);
    assert_non_null(strstr(said, "the guest wants"));
    // 1 GiB would be mapped by one leaf.
    assert_int_equal(how_ends(init_memory(HOST_RAM + GIB, GIB)), DIED);
}

static void copies(void **state) {
    char from[] = "from", to[] = "....";
    assert_ptr_equal(hv_memcpy(to, from, 3), to);
    assert_string_equal(to, "fro.");
    assert_ptr_equal(hv_memset(to, 'x', 2), to);
    assert_string_equal(to, "xxo.");
}

TESTS(test_mem, T(guest_ptr_knows_the_bounds),
      T(alloc_gives_zeroed_memory_once), T(alloc_dies_when_there_is_no_more),
      T(map_guest_takes_the_largest_leaf), T(the_guests_ram_is_mapped),
      T(init_memory_refuses_what_does_not_fit), T(copies))
