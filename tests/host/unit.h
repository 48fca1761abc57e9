// For the unit tests, which use cmocka.  Include it after the file under test.
#pragma once
#include "machine.h"
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

// If a test sets this, each load and store calls it first (Makefile, unit.c).
extern void (*at_access)(bool store, const volatile void *at, unsigned width);

static inline int fresh(void **state) {
    at_access = NULL;
    reset_machine();
    return 0;
}

// Returns the PTE that the hart's walk finds for GPA, and the size of its leaf.
static inline uint64_t walk(gpa_t gpa, uint64_t *size) {
    uint64_t *table = host.root, pte = table[gpa >> 30];
    for (*size = GIB; pte && !(pte & (PTE_R | PTE_W | PTE_X)); *size /= 512) {
        assert_int_equal(pte & 0x3ff, PTE_V);
        table = (uint64_t *)(pte >> 10 << 12);
        assert_true((char *)table >= hv_end &&
                    (char *)table < (char *)ram(GUEST_RAM));
        pte = table[gpa / (*size / 512) % 512];
    }
    return pte;
}

// A file's tests, each with a machine of its own.
#define TESTS(name, ...)                                                       \
    int name(void) {                                                           \
        const struct CMUnitTest tests[] = {__VA_ARGS__};                       \
        return cmocka_run_group_tests_name(#name, tests, NULL, NULL);          \
    }
#define T(function) cmocka_unit_test_setup(function, fresh)
