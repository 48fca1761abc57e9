// Flattened device trees (Devicetree specification 0.4, chapter 5): look things
// up in the host's, and write the guest's.
//
// The structure block is a string of big-endian 32-bit tokens: a node begins
// (its name follows), a property (length, offset of its name, value), a node
// ends.  All properties of a node stand before its first child.

#include "hv.h"

enum { FDT_BEGIN_NODE = 1, FDT_END_NODE, FDT_PROP, FDT_NOP, FDT_END = 9 };

struct fdt_header {
    uint32_t magic, totalsize, off_dt_struct, off_dt_strings, off_mem_rsvmap,
        version, last_comp_version, boot_cpuid_phys, size_dt_strings,
        size_dt_struct;
};

static uint32_t be32(uint32_t x) {
    return x >> 24 | (x >> 8 & 0xff00) | (x << 8 & 0xff0000) | x << 24;
}

static bool same(const char *a, const char *b) {
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static bool has_prefix(const char *string, const char *prefix) {
    while (*prefix && *string == *prefix)
        string++, prefix++;
    return !*prefix;
}

uint64_t fdt_size(const void *fdt) {
    return be32(((const struct fdt_header *)fdt)->totalsize);
}

static const char *fdt_name(const struct fdt_header *fdt,
                            const uint32_t *prop) {
    return (const char *)fdt + be32(fdt->off_dt_strings) + be32(prop[2]);
}

// The token after P.
static const uint32_t *fdt_next(const uint32_t *p) {
    if (be32(*p) == FDT_PROP)
        return p + 3 + (be32(p[1]) + 3) / 4;
    if (be32(*p) == FDT_BEGIN_NODE) {
        const char *name = (const char *)(p + 1);
        while (*name)
            name++;
        return p + 1 + (name - (const char *)(p + 1)) / 4 + 1;
    }
    return p + 1;
}

// The value of property NAME of the node that begins at NODE, and its length in
// bytes; NULL if it has none.
const void *fdt_get(const void *fdt, fdt_node node, const char *name,
                    uint32_t *length) {
    for (const uint32_t *p = fdt_next(node);; p = fdt_next(p)) {
        uint32_t token = be32(*p);
        if (token == FDT_PROP && same(fdt_name(fdt, p), name)) {
            if (length)
                *length = be32(p[1]);
            return p + 3;
        }
        if (token != FDT_PROP && token != FDT_NOP)
            return NULL;
    }
}

// The next node behind AFTER (NULL: from the start) that has the property NAME
// with STRING among its strings (NULL: with any value); NULL if there is none.
fdt_node fdt_find(const void *fdt, fdt_node after, const char *name,
                  const char *string) {
    const struct fdt_header *header = fdt;
    fdt_node p =
        after ? fdt_next(after)
              : (fdt_node)((const char *)fdt + be32(header->off_dt_struct));
    for (; be32(*p) != FDT_END; p = fdt_next(p)) {
        if (be32(*p) != FDT_BEGIN_NODE)
            continue;
        uint32_t length;
        const char *value = fdt_get(fdt, p, name, &length);
        const char *end = value + length;
        if (value && !string)
            return p;
        for (; value && value < end; value++) {
            if (same(value, string))
                return p;
            while (*value)
                value++;
        }
    }
    return NULL;
}

// Cell number I of a property's value.
uint32_t fdt_cell(const void *value, unsigned i) {
    return be32(((const uint32_t *)value)[i]);
}

// "reg" of NODE, where addresses and sizes have two cells each, as on every
// board with 64-bit addresses.
uint64_t fdt_reg(const void *fdt, fdt_node node, uint64_t *size) {
    const uint32_t *reg = fdt_get(fdt, node, "reg", NULL);
    if (!reg)
        die("a node of the device tree lacks its reg");
    if (size)
        *size = (uint64_t)be32(reg[2]) << 32 | be32(reg[3]);
    return (uint64_t)be32(reg[0]) << 32 | be32(reg[1]);
}

// Copies the tree FROM to TO, with other values for the properties that EDITS
// names, wherever they stand.  Values change their length, so the tokens are
// copied one by one; the strings follow.  Returns the size of the result.
uint64_t fdt_copy(void *to, const void *from, const struct fdt_edit *edits) {
    const struct fdt_header *old = from;
    struct fdt_header *new = to;
    uint32_t start = be32(old->off_dt_struct);
    memcpy(to, from, start); // the header and the reserved memory map
    const uint32_t *p = (const uint32_t *)((const char *)from + start);
    uint32_t *out = (uint32_t *)((char *)to + start);

    for (bool more = true; more; p = fdt_next(p)) {
        more = be32(*p) != FDT_END;
        const struct fdt_edit *e = edits;
        if (be32(*p) == FDT_PROP)
            while (e->name && !same(e->name, fdt_name(from, p)))
                e++;
        if (be32(*p) == FDT_PROP && e->name) {
            out[0] = p[0];
            out[1] = be32(e->length);
            out[2] = p[2];
            memcpy(out + 3, e->value, e->length);
            out += 3 + (e->length + 3) / 4;
        } else {
            memcpy(out, p, (fdt_next(p) - p) * 4);
            out += fdt_next(p) - p;
        }
    }

    uint32_t strings = (char *)out - (char *)to;
    uint32_t length = be32(old->size_dt_strings);
    memcpy(out, (const char *)from + be32(old->off_dt_strings), length);
    new->off_dt_strings = be32(strings);
    new->size_dt_struct = be32(strings - start);
    new->totalsize = be32(strings + length);
    return strings + length;
}

// Whether NAME, one extension of an ISA string (it ends at '_' or at the end),
// is for the guest.  Extensions for programs are, unless something we set above
// takes them away: hstatus.VTW makes Zawrs's wrs.nto trap, Zkr's seed CSR is
// M-mode's to give.  Of those for kernels ("s...") only what henvcfg passes on
// or what works without anybody's help; "x..." may be anything.
static bool for_guest(const char *name) {
    static const char *const never[] = {"x",     "sh",  "sm",
                                        "zawrs", "zkr", "zicfi"};
    static const char *const kernel[] = {"sstc", "svinval", "svnapot", "svpbmt",
                                         "svadu"};
    for (unsigned i = 0; i < LENGTH(never); i++)
        if (has_prefix(name, never[i]))
            return false;
    for (unsigned i = 0; i < LENGTH(kernel); i++)
        if (has_prefix(name, kernel[i]))
            return i > 0 || host.sstc;
    return *name != 's';
}

// Writes to TO the guest's riscv,isa: HOST's without h, and without what
// for_guest() refuses.  Returns its length in bytes, with the NUL.
static uint32_t guest_isa(char *to, const char *host) {
    char *out = to;
    bool take = true;
    for (bool single = true; *host; host++) {
        if (*host == '_') {
            single = false;
            take = for_guest(host + 1);
        }
        if (take && !(single && *host == 'h'))
            *out++ = *host;
    }
    *out++ = '\0';
    return out - to;
}

// Whether an ISA string has the letter h among its single-letter extensions.
bool isa_has_h(const char *isa) {
    while (*isa && *isa != '_' && *isa != 'h')
        isa++;
    return *isa == 'h';
}

// Writes the guest's device tree to TO: guest.dts with what is the host's to
// say, and with the place of the initramfs.
void make_guest_fdt(void *to, gpa_t initrd, gpa_t initrd_end) {
    const void *fdt = host.fdt;
    fdt_node cpus = fdt_find(fdt, NULL, "timebase-frequency", NULL);
    fdt_node cpu = fdt_find(fdt, NULL, "device_type", "cpu");
    fdt_node chosen = fdt_find(fdt, NULL, "rng-seed", NULL);
    static char isa[1024];
    uint32_t isa_length = guest_isa(isa, fdt_get(fdt, cpu, "riscv,isa", NULL));
    uint32_t timebase_length, seed_length = 0;
    const void *timebase =
        fdt_get(fdt, cpus, "timebase-frequency", &timebase_length);
    const void *seed =
        chosen ? fdt_get(fdt, chosen, "rng-seed", &seed_length) : NULL;
    uint32_t start[] = {be32(initrd >> 32), be32(initrd)};
    uint32_t end[] = {be32(initrd_end >> 32), be32(initrd_end)};
    const struct fdt_edit edits[] = {
        {"riscv,isa", isa, isa_length},
        {"timebase-frequency", timebase, timebase_length},
        {"rng-seed", seed, seed_length},
        {"linux,initrd-start", start, sizeof start},
        {"linux,initrd-end", end, sizeof end},
        {NULL, NULL, 0},
    };
    fdt_copy(to, guest_dtb, edits);
}
