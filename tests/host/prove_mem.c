// CBMC: guest_ptr() over all addresses and lengths, for RAM of any size.
#include "prove.h"
#include "../../mem.c"

char hv_end[1];
void hv_printf(const char *format, ...) {}
void shut_down(uint32_t how) { assume(false); }

void prove(void) {
    uint64_t base = any64();
    guest_ram_size = any64();
    // CBMC's pointers end there, and no machine has that much memory.
    assume(base && base < 1ul << 54 && guest_ram_size < 1ul << 54);
    guest_ram = (char *)base;
    gpa_t gpa = any64();
    uint64_t size = any64();
    uint64_t hpa = (uint64_t)guest_ptr(gpa, size);
    // With 128 bits nothing overflows.
    unsigned __int128 first = gpa, behind = first + size;
    bool inside = first >= GUEST_RAM &&
                  behind <= (unsigned __int128)GUEST_RAM + guest_ram_size;
    claim(inside == (hpa != 0), "RAM, and nothing else");
    claim(!hpa || hpa == base + (gpa - GUEST_RAM), "where it is");
    claim(!hpa || (hpa >= base && hpa + size <= base + guest_ram_size),
          "none of its bytes is outside");
}
