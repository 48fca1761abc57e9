// Takes numbers from a fuzzer's input.  They are big-endian.  A number at the
// end of the input may have fewer bytes, and after the end all are 0.
#pragma once
#include "machine.h"

static const uint8_t *data; // what is left of the input
static size_t size;

static uint64_t take(unsigned bytes) {
    uint64_t value = 0;
    for (; bytes && size; bytes--, size--)
        value = value << 8 | *data++;
    return value;
}
