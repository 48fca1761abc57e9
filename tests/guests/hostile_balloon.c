// A memory balloon finds page numbers inside its buffers, where the hypervisor
// does not look.  With the numbers here it would give away the hypervisor's own
// text.  So the guest must see no balloon, whatever QEMU was told.
#include "guest.h"

static volatile struct {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
} desc[8] __attribute__((aligned(4096)));
static volatile uint16_t avail[16], used[64] __attribute__((aligned(4096)));
static uint32_t pages[512] __attribute__((aligned(4096)));

int main(uint64_t hart, const char *fdt) {
    (void)hart, (void)fdt;
    uint64_t parts[] = {(uint64_t)desc, (uint64_t)avail, (uint64_t)used};
    unsigned kinds = 0;
    for (uint64_t n = 0; n < 8; n++) {
        volatile uint32_t *slot = (void *)(0x10001000 + n * 4096);
        uint32_t id = slot[2];
        kinds |= 1u << id % 32;
        if (id != 5)
            continue;
        static const uint32_t status[] = {0, 1, 3, 11};
        slot[0x24 / 4] = 1, slot[0x20 / 4] = 1;
        for (unsigned i = 0; i < LENGTH(status); i++)
            slot[0x70 / 4] = status[i];
        slot[0x30 / 4] = 0, slot[0x38 / 4] = 8; // inflate
        for (unsigned i = 0; i < 3; i++)
            slot[0x80 / 4 + 4 * i] = parts[i], slot[0x84 / 4 + 4 * i] = 0;
        slot[0x44 / 4] = 1, slot[0x70 / 4] = 15;
        for (unsigned i = 0; i < LENGTH(pages); i++)
            pages[i] = (RAM + 0x200000) / 4096 + i; // the hypervisor's
        desc[0].addr = (uint64_t)pages, desc[0].len = sizeof pages;
        avail[1] = 1;
        slot[0x50 / 4] = 0;
        until(used[1] == 1, 1000);
    }
    check(kinds & 1 << 4, 1 << 4, "the entropy device is there");
    check(kinds & 1 << 5, 0, "a balloon is there");
    return 0;
}
