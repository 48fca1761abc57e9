// How long a guest waits for what should come.  Only time in which its hart
// runs counts.  On a busy machine a hart often stands still for milliseconds,
// and so does what it waits for.
#pragma once
#include <stdbool.h>
#include <stdint.h>

// Two looks at the clock are less than 1 ms apart while the hart runs.
enum { GAP = 10000 }; // ticks

struct patience {
    uint64_t left, last; // ticks; the time of the last look
};

// Is any patience left at the time NOW?
__attribute__((unused)) static bool patient(struct patience *p, uint64_t now) {
    uint64_t passed = now - p->last < GAP ? now - p->last : GAP;
    p->last = now;
    p->left -= passed < p->left ? passed : p->left;
    return p->left > 0;
}
