// Flattened device trees (Devicetree specification 0.4, chapter 5): look things
// up in the host's, and finish the guest's.
//
// Everything is made of big-endian 32-bit words.  The structure block is a
// string of tokens: a node begins (its name follows), a property (length in
// bytes, offset of its name, value), a node ends.  All properties of a node
// stand before its first child.

#include "hv.h"

enum { FDT_BEGIN_NODE = 1, FDT_PROP = 3, FDT_NOP = 4, FDT_END = 9 };
enum { TOTALSIZE = 1, OFF_DT_STRUCT, OFF_DT_STRINGS }; // words of the header

static uint32_t be32(uint32_t x) {
    return x >> 24 | (x >> 8 & 0xff00) | (x << 8 & 0xff0000) | x << 24;
}

static bool same(const char *a, const char *b) {
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

uint64_t fdt_size(const uint32_t *fdt) { return be32(fdt[TOTALSIZE]); }

// The token after P.
static fdt_prop next(fdt_prop p) {
    if (be32(*p) == FDT_PROP)
        return p + 3 + (be32(p[1]) + 3) / 4;
    if (be32(*p++) == FDT_BEGIN_NODE)
        for (const char *name = (const char *)p; *name++;)
            p = (fdt_prop)(((size_t)name + 3) & -4);
    return p;
}

// Whether P is a property NAME.
static bool is_prop(const uint32_t *fdt, fdt_prop p, const char *name) {
    const char *names = (const char *)fdt + be32(fdt[OFF_DT_STRINGS]);
    return be32(*p) == FDT_PROP && same(names + be32(p[2]), name);
}

// Whether P has STRING in it, if it is a string or a list of strings.
static bool lists(fdt_prop p, const char *string) {
    const char *s = (const char *)(p + 3), *end = s + be32(p[1]);
    while (s < end && !same(s, string))
        while (*s++)
            ;
    return s < end;
}

// The next property NAME behind AFTER (NULL: the first) in a node of which a
// property, such as "compatible", lists STRING (NULL: in any); NULL if there is
// none.
fdt_prop fdt_find(const uint32_t *fdt, fdt_prop after, const char *string,
                  const char *name) {
    fdt_prop p = after ? next(after) : fdt + be32(fdt[OFF_DT_STRUCT]) / 4;
    fdt_prop found = NULL;
    bool match = !string;
    for (; be32(*p) != FDT_END && !(found && match); p = next(p)) {
        if (be32(*p) == FDT_BEGIN_NODE)
            found = NULL, match = !string;
        else if (is_prop(fdt, p, name))
            found = p;
        if (string && be32(*p) == FDT_PROP && lists(p, string))
            match = true;
    }
    return match ? found : NULL;
}

// Number N of REG, a property "reg", 0 the address of a device and 1 its size
// in bytes: two words each, as on every board with 64-bit addresses.
uint64_t fdt_number(fdt_prop reg, unsigned n) {
    return (uint64_t)be32(reg[3 + 2 * n]) << 32 | be32(reg[4 + 2 * n]);
}

// Whether the host's ISA, as "rv64imac_zicsr_zba", has EXTENSION: a letter of
// the first word, or a word.
bool isa_has(const char *extension) {
    bool letter = !extension[1];
    for (const char *s = host.isa + 4; *s && !(letter && *s == '_'); s++) {
        size_t i = 0;
        while (extension[i] && s[i] == extension[i])
            i++;
        bool word = s[-1] == '_' && (!s[i] || s[i] == '_');
        if (!extension[i] && (letter || word))
            return true;
    }
    return false;
}

// Fills in what is the host's to say in the guest's device tree, a copy of
// guest.dts.
void finish_guest_fdt(uint32_t *fdt) {
    // riscv,isa-extensions lists all that a guest may be told of: what needs
    // nothing but the hart, or what init_hart() passes on.  What the host has
    // stays, and becomes the older riscv,isa, "rv64imac_zicsr", too.
    fdt_prop isa = NULL, list = NULL;
    while ((isa = fdt_find(fdt, isa, NULL, "riscv,isa"))) {
        list = fdt_find(fdt, list, NULL, "riscv,isa-extensions");
        char *string = (char *)(isa + 3) + 4, *kept = (char *)(list + 3);
        char *room = string + be32(isa[1]) - 4, *end = kept + be32(list[1]);
        for (const char *from = kept; from < end; from++) {
            bool take = isa_has(from) && (host.sstc || !same(from, "sstc")) &&
                        (host.henvcfg & HENVCFG_PBMTE || !same(from, "svpbmt"));
            if (take && from[1])
                *string++ = '_';
            for (; *from; from++)
                if (take)
                    *string++ = *kept++ = *from;
            if (take)
                *kept++ = 0;
        }
        memset(kept, 0, end - kept);
        memset(string, 0, room - string);
    }
    // The rest is copied, as much as guest.dts has room for; what the host does
    // not have becomes zeros, and so a device that is compatible with nothing.
    static const struct {
        const char *node, *name;
    } copies[] = {{NULL, "timebase-frequency"},
                  {NULL, "rng-seed"},
                  {NULL, "mmu-type"},
                  {NULL, "riscv,cbom-block-size"},
                  {NULL, "riscv,cboz-block-size"},
                  {"ns16550a", "interrupts"},
                  {"google,goldfish-rtc", "interrupts"},
                  {"google,goldfish-rtc", "compatible"},
                  {"sifive,test1", "compatible"}};
    for (unsigned i = 0; i < LENGTH(copies); i++) {
        const char *node = copies[i].node, *name = copies[i].name;
        fdt_prop from = fdt_find(host.fdt, NULL, node, name), to = NULL;
        while ((to = fdt_find(fdt, to, node, name))) {
            uint32_t room = be32(to[1]), size = from ? be32(from[1]) : 0;
            memset((void *)(to + 3), 0, room);
            if (from)
                memcpy((void *)(to + 3), from + 3, size < room ? size : room);
        }
    }
    // A driver may believe that no source has a larger number than this.
    fdt_prop last = fdt_find(fdt, NULL, NULL, "riscv,ndev"), source = NULL;
    while ((source = fdt_find(fdt, source, NULL, "interrupts")))
        if (be32(source[3]) > be32(last[3]))
            memcpy((void *)(last + 3), source + 3, 4);
}
