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

static bool has_prefix(const char *string, const char *prefix) {
    while (*prefix && *string == *prefix)
        string++, prefix++;
    return !*prefix;
}

static bool same(const char *a, const char *b) {
    return has_prefix(a, b) && has_prefix(b, a);
}

uint64_t fdt_size(const void *fdt) {
    return be32(((const struct fdt_header *)fdt)->totalsize);
}

static const char *fdt_name(const struct fdt_header *fdt,
                            const uint32_t *prop) {
    return (const char *)fdt + be32(fdt->off_dt_strings) + be32(prop[2]);
}

static const uint32_t *fdt_structs(const struct fdt_header *fdt) {
    return (const uint32_t *)((const char *)fdt + be32(fdt->off_dt_struct));
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

// The first node behind AFTER (NULL: of all) that has a property NAME whose
// first string is STRING (NULL: whatever its value); NULL if there is none.
fdt_node fdt_find(const void *fdt, fdt_node after, const char *name,
                  const char *string) {
    fdt_node node = NULL, p = fdt_structs(fdt);
    for (; be32(*p) != FDT_END; p = fdt_next(p)) {
        if (be32(*p) == FDT_BEGIN_NODE)
            node = p;
        else if (be32(*p) == FDT_PROP && node > after &&
                 same(fdt_name(fdt, p), name) &&
                 (!string || same((const char *)(p + 3), string)))
            return node;
    }
    return NULL;
}

// The value of property NAME of NODE, and its length in bytes; NULL and 0 if it
// has none.
const void *fdt_get(const void *fdt, fdt_node node, const char *name,
                    uint32_t *length) {
    const uint32_t *p = node;
    do
        p = fdt_next(p);
    while (be32(*p) == FDT_NOP ||
           (be32(*p) == FDT_PROP && !same(fdt_name(fdt, p), name)));
    bool found = be32(*p) == FDT_PROP;
    *length = found ? be32(p[1]) : 0;
    return found ? p + 3 : NULL;
}

// The same, of the first node that has such a property.
const void *fdt_value(const void *fdt, const char *name, uint32_t *length) {
    fdt_node node = fdt_find(fdt, NULL, name, NULL);
    return node ? fdt_get(fdt, node, name, length) : (*length = 0, NULL);
}

// Where NODE's device is, two cells each for address and size, as on every
// board with 64-bit addresses, and its first interrupt, 0 if it has none.
struct region fdt_region(const void *fdt, fdt_node node) {
    uint32_t length = 0;
    const uint32_t *reg = node ? fdt_get(fdt, node, "reg", &length) : NULL;
    if (length < 16)
        die("the device tree lacks memory, ns16550a, plic, or a reg of theirs");
    hpa_t base = (uint64_t)be32(reg[0]) << 32 | be32(reg[1]);
    uint64_t size = (uint64_t)be32(reg[2]) << 32 | be32(reg[3]);
    const uint32_t *irq = fdt_get(fdt, node, "interrupts", &length);
    return (struct region){base, size, length ? be32(*irq) : 0};
}

// Gives property NAME of whatever nodes have it another VALUE, no longer than
// the one that guest.dts keeps room for.  What remains of the room becomes
// NOPs.
static void fdt_set(void *fdt, const char *name, const void *value,
                    uint32_t length) {
    for (fdt_node n = NULL; (n = fdt_find(fdt, n, name, NULL));) {
        uint32_t room, used = (length + 3) / 4;
        uint32_t *old = (uint32_t *)fdt_get(fdt, n, name, &room);
        if (length > room)
            die("guest.dts has no room for a %s of %ld bytes", name,
                (uint64_t)length);
        old[-2] = be32(length);
        memcpy(old, value, length);
        for (; used < (room + 3) / 4; used++)
            old[used] = be32(FDT_NOP);
    }
}

// Whether NAME, one extension of an ISA string (it ends at '_' or at the end),
// is for the guest.  Extensions for programs are, unless something we set above
// takes them away: hstatus.VTW makes Zawrs's wrs.nto trap, Zkr's seed CSR is
// M-mode's to give.  Of those for kernels ("s...") only those about
// translation, which henvcfg passes on, and Sstc if it is there; "x..." may be
// anything.
static bool for_guest(const char *name) {
    if (*name == 's')
        return has_prefix(name, "sv") ||
               (host.sstc && has_prefix(name, "sstc"));
    return *name != 'x' && !has_prefix(name, "zawrs") &&
           !has_prefix(name, "zkr") && !has_prefix(name, "zicfi");
}

// Writes to TO the guest's riscv,isa: HOST's without h, and without what
// for_guest() refuses.  Returns its length in bytes, with the NUL.
static uint32_t guest_isa(char *to, const char *from) {
    char *out = to;
    bool first = true, take = true;
    for (; *from; from++) {
        if (*from == '_') {
            first = false;
            take = for_guest(from + 1);
        }
        if (take && !(first && *from == 'h'))
            *out++ = *from;
    }
    *out = '\0';
    return out + 1 - to;
}

// Whether ISA names an extension: one letter, which stands before the first
// '_', or a name together with the '_' before it.
bool isa_has(const char *isa, const char *name) {
    bool letter = !name[1];
    for (; *isa && !(letter && *isa == '_'); isa++)
        if (has_prefix(isa, name))
            return true;
    return false;
}

// Writes the guest's device tree to TO: guest.dts with what is the host's to
// say, and with the place of the initramfs.
void make_guest_fdt(void *to, gpa_t initrd, gpa_t initrd_end) {
    uint32_t start[] = {be32(initrd >> 32), be32(initrd)};
    uint32_t end[] = {be32(initrd_end >> 32), be32(initrd_end)};
    static char isa[1024]; // half the stack
    uint32_t length;
    memcpy(to, guest_dtb, fdt_size(guest_dtb));
    fdt_set(to, "linux,initrd-start", start, sizeof start);
    fdt_set(to, "linux,initrd-end", end, sizeof end);
    const void *seed = fdt_value(host.fdt, "rng-seed", &length);
    fdt_set(to, "rng-seed", seed, length);
    const void *timebase = fdt_value(host.fdt, "timebase-frequency", &length);
    fdt_set(to, "timebase-frequency", timebase, length);
    fdt_set(to, "riscv,isa", isa, guest_isa(isa, host.isa));
}
