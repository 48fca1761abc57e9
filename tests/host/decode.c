// What decode() makes of instructions: for each pair of words on the standard
// input, the instruction and whether it is transformed, a line
//   KIND WIDTH SIGNED REGISTER LENGTH
// where KIND is "load", "store", or "no" and which of them it would be.
#include "../../mmio.c"
#include "machine.h"

int main(void) {
    uint32_t in[2];
    while (fread(in, sizeof in, 1, stdin)) {
        struct access a = {0};
        bool done = decode(in[0], in[1], &a);
        printf("%s%s", done ? "" : "no", a.store ? "store" : "load");
        if (done)
            printf(" %u %u %u", a.width,
                   a.sign_extend && !a.store && a.width < 8, a.reg);
        printf(" %u\n", a.length);
    }
}
