// For the unit tests, which are cmocka's.  Include it behind the file tested.
#pragma once
#include "machine.h"
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

// Called before each load and store, if there is one (Makefile, unit.c).
extern void (*at_access)(bool store, const volatile void *at, unsigned width);

static inline int fresh(void **state) {
    at_access = NULL;
    reset_machine();
    return 0;
}

// A file's tests, each with a machine of its own.
#define TESTS(name, ...)                                                       \
    int name(void) {                                                           \
        const struct CMUnitTest tests[] = {__VA_ARGS__};                       \
        return cmocka_run_group_tests_name(#name, tests, NULL, NULL);          \
    }
#define T(function) cmocka_unit_test_setup(function, fresh)
