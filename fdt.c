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

// The next property NAME behind AFTER (NULL: the first), NULL if there is none.
fdt_prop fdt_find(const uint32_t *fdt, fdt_prop after, const char *name) {
    fdt_prop p = after ? next(after) : fdt + be32(fdt[OFF_DT_STRUCT]) / 4;
    while (be32(*p) != FDT_END && !is_prop(fdt, p, name))
        p = next(p);
    return be32(*p) == FDT_END ? NULL : p;
}

// Of the host's tree: the property "reg" of the next node behind AFTER (NULL:
// the first) of which a property is STRING, or a list that begins with it, such
// as "compatible"; NULL if there is none.
fdt_prop fdt_find_reg(fdt_prop after, const char *string) {
    const uint32_t *fdt = host.fdt;
    fdt_prop p = after ? next(after) : fdt + be32(fdt[OFF_DT_STRUCT]) / 4;
    fdt_prop reg = NULL, match = NULL;
    for (; be32(*p) != FDT_END && !(reg && match); p = next(p)) {
        if (be32(*p) == FDT_BEGIN_NODE)
            reg = match = NULL;
        else if (is_prop(fdt, p, "reg"))
            reg = p;
        else if (be32(*p) == FDT_PROP && same((const char *)(p + 3), string))
            match = p;
    }
    return match ? reg : NULL;
}

// Number N of a "reg", 0 the address of a device and 1 its size in bytes: two
// words each, as on every board with 64-bit addresses.
uint64_t fdt_number(fdt_prop reg, unsigned n) {
    if (!reg)
        die("the host's device tree lacks memory, ns16550a or plic");
    return (uint64_t)be32(reg[3 + 2 * n]) << 32 | be32(reg[4 + 2 * n]);
}

// Whether ISA ("rv64imac_zicsr_zba") has EXTENSION: a letter, or '_' and a
// name.
bool isa_has(const char *isa, const char *extension) {
    for (isa += 4; *isa && (extension[1] || *isa != '_'); isa++) {
        size_t i = 0;
        while (extension[i] && isa[i] == extension[i])
            i++;
        if (!extension[i] && (i == 1 || isa[i] == '_' || !isa[i]))
            return true;
    }
    return false;
}

// Fills in what is the host's to say in the guest's device tree, a copy of
// guest.dts.  The ISA there is a list of strings, "rv64" and all extensions
// that a guest may be told of: what needs nothing but the hart, or what
// init_csrs() passes on.  Those that the host has become one string.
void finish_guest_fdt(uint32_t *fdt) {
    for (fdt_prop p = NULL; (p = fdt_find(fdt, p, "riscv,isa"));) {
        char *to = (char *)(fdt + (p + 3 - fdt)), *end = to + be32(p[1]);
        to += 4;
        for (const char *from = to + 1; from < end; from++) {
            bool take =
                isa_has(host.isa, from) && (host.sstc || !same(from, "_sstc"));
            for (; *from; from++)
                if (take)
                    *to++ = *from;
        }
        memset(to, 0, end - to);
    }
    // The rest is numbers, which guest.dts has room for.
    static const char *const names[] = {"timebase-frequency", "rng-seed",
                                        "riscv,cbom-block-size",
                                        "riscv,cboz-block-size"};
    for (unsigned i = 0; i < LENGTH(names); i++) {
        fdt_prop from = fdt_find(host.fdt, NULL, names[i]);
        for (fdt_prop to = NULL; from && (to = fdt_find(fdt, to, names[i]));) {
            uint32_t room = be32(to[1]), size = be32(from[1]);
            memcpy(fdt + (to + 3 - fdt), from + 3, size < room ? size : room);
        }
    }
}
