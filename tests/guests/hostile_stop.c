// A hart stops and is started again, over and over, while another one does what
// makes all harts fence: remote fences, and stores that take a device's
// registers away.  If a hart stopped in the firmware just then, the firmware
// would wait for it for ever.
#include "guest.h"

static void nothing(struct hart *h) { h->out = 1; }

int main(uint64_t hart, const char *fdt) {
    uint64_t other = 1 - hart, starts = 0;
    check(*argument(fdt, "harts="), '2', "harts");
    while (starts < 1500) {
        if (has_state(other, STOPPED)) {
            check(run_on(other, nothing, 0), OK, "hart_start");
            starts++;
        }
        for (uint64_t slot = 0; slot < 8; slot++) {
            volatile uint32_t *device = (void *)(0x10001000 + slot * 0x1000);
            device[0x70 / 4] = 0; // Status: reset
            device[0x14 / 4] = 0; // DeviceFeaturesSel
            check(sbi(RFENCE, slot % 3, 3, 0, 0, -1).error, OK, "remote fence");
        }
    }
    join(other);
    return 0;
}
