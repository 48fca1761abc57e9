// For CBMC's proofs: any value, what is taken for granted, what is claimed.
#pragma once
#include <stdbool.h>
#include <stdint.h>

uint64_t nondet_uint64_t(void);
uint32_t nondet_uint32_t(void);
uint16_t nondet_uint16_t(void);
#define any64 nondet_uint64_t
#define any32 nondet_uint32_t
#define any16 nondet_uint16_t
#define assume __CPROVER_assume
#define claim(condition, what) __CPROVER_assert(condition, what)
