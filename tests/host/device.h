// The devices behind the relay: registers in plain memory and, once a queue is
// ready, a device that takes what the rings hold and checks all of it.
#pragma once
#include "machine.h"

enum { R_VERSION = 1, R_DEVICE_ID, R_FEATURES = 4, R_DRIVER_FEATURES = 8 };
enum { R_QUEUE_SEL = 12, R_QUEUE_NUM = 14, R_QUEUE_READY = 17 };
enum { R_NOTIFY = 20, R_STATUS = 28, R_DESC = 32, R_AVAIL = 36, R_USED = 40 };
enum { QUEUES = 64, NEEDS_RESET = 64, F_NEXT = 1, F_WRITE = 2 };

// Register N of a slot, in 32-bit words.
static inline volatile uint32_t *reg(unsigned slot, unsigned n) {
    return (volatile uint32_t *)(GUEST_VIRTIO + slot * PAGE) + n;
}

void devices_reset(void); // registers, too; slots 0 to 7 have devices
void devices_look(void);  // sees what the last exit wrote to them
// Takes the chains in all queues of a slot, and returns how many there were.
unsigned device_run(unsigned slot);
