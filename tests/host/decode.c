// Prints what decode() makes of instructions.  Each pair of words on the
// standard input is an instruction, and whether it is transformed.  The output
// for it is a line
//   KIND WIDTH SIGNED REGISTER LENGTH
// where KIND is "load" or "store".  If decode() refuses the instruction, it is
// "noload" or "nostore", and only LENGTH follows.
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
        printf(" %u\n", (in[0] & 3) == 3 ? 4 : 2); // as handle_mmio() does it
    }
}
