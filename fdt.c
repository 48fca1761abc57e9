// Flattened device trees (Devicetree specification 0.4, chapter 5): read what
// the host has, and complete the guest's tree.
//
// A tree is made of big-endian 32-bit words.  Its structure block is a row of
// items, each of which begins with a token:
//
//      FDT_BEGIN_NODE  name of the node, ending in a 0
//      FDT_PROP        length of the value in bytes, offset of the name, value
//      FDT_END_NODE
//      FDT_END         of all
//
// First come a node's properties, then its children.  Names of properties are
// in a block of their own.  Names and values are padded to whole words.

#include "hv.h"

enum { TOTALSIZE = 1, OFF_DT_STRUCT = 2, OFF_DT_STRINGS = 3 }; // in the header
enum { FDT_BEGIN_NODE = 1, FDT_PROP = 3, FDT_END = 9 };        // tokens
enum { SIZE = 1, NAME = 2, VALUE = 3 }; // words of a property, after its token

static uint32_t be32(uint32_t x) {
    return x >> 24 | (x >> 8 & 0xff00) | (x << 8 & 0xff0000) | x << 24;
}

static void *value(fdt_prop p) { return (void *)(p + VALUE); }

static bool same(const char *a, const char *b) {
    size_t i = 0;
    while (a[i] && a[i] == b[i])
        i++;
    return a[i] == b[i];
}

// Returns the token after P.  After a name it goes to the word that has the end
// of the name in it, or the one after that.  So it may return a word of zeros:
// 0 is no token, and the next call skips it.
static fdt_prop next(fdt_prop p) {
    if (be32(*p) == FDT_PROP)
        return p + VALUE + (be32(p[SIZE]) + 3) / 4;
    if (be32(*p++) == FDT_BEGIN_NODE)
        for (const char *name = (const char *)p; *name++;)
            p = (fdt_prop)(((size_t)name + 3) & -4);
    return p;
}

// Tells whether STRING is the value of P, or one of several strings in it.
static bool lists(fdt_prop p, const char *string) {
    const char *s = value(p), *end = s + be32(p[SIZE]);
    while (s < end && !same(s, string))
        while (*s++)
            ;
    return s < end;
}

// Finds the next property NAME after AFTER, or the first one if AFTER is NULL.
// With a STRING it takes only nodes that have STRING in the list of some
// property, be it "compatible" or "device_type".  Returns NULL if there is no
// such property.
fdt_prop fdt_find(const uint32_t *fdt, fdt_prop after, const char *string,
                  const char *name) {
    const char *names = (const char *)fdt + be32(fdt[OFF_DT_STRINGS]);
    fdt_prop p = after ? next(after) : fdt + be32(fdt[OFF_DT_STRUCT]) / 4;
    fdt_prop found = NULL; // in this node
    bool match = !string;  // this node lists it
    for (; be32(*p) != FDT_END && !(found && match); p = next(p)) {
        bool prop = be32(*p) == FDT_PROP;
        if (be32(*p) == FDT_BEGIN_NODE) {
            found = NULL;
            match = !string;
        }
        if (prop && same(names + be32(p[NAME]), name))
            found = p;
        if (prop && string && lists(p, string))
            match = true;
    }
    return match ? found : NULL;
}

// Returns number N of REG, a property "reg": 0 is the address of a device, 1
// its size in bytes.  Each has two words here, as on QEMU's board.
uint64_t fdt_number(fdt_prop reg, unsigned n) {
    const uint32_t *words = reg + VALUE + 2 * n;
    return (uint64_t)be32(words[0]) << 32 | be32(words[1]);
}

// Returns where the host has a device that is compatible with NAME, or 0 if it
// has none.
static hpa_t find(const char *name) {
    fdt_prop reg = fdt_find(host.fdt, NULL, name, "reg");
    return reg ? fdt_number(reg, 0) : 0;
}

// Tells whether the host's ISA, such as "rv64imac_zicsr_zba", has EXTENSION.
// That is one letter of the first word, or one of the words after a "_".
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

// Reads from its device tree, FDT, what the host has.  No address is assumed or
// probed for, because one that the tree does not list may fault.  All harts are
// taken to be alike.
void find_host(const uint32_t *fdt) {
    host.fdt = fdt;
    host.test = find("sifive,test1");
    host.rtc = find("google,goldfish-rtc");
    host.uart = find("ns16550a");
    host.plic = find("riscv,plic0") ?: find("sifive,plic-1.0.0");
    fdt_prop ram = fdt_find(fdt, NULL, "memory", "reg");
    if (!ram || !host.uart || !host.plic)
        die("the host has RAM at %lx, ns16550a at %lx, PLIC at %lx (0: none)",
            find("memory"), host.uart, host.plic);
    fdt_prop ndev = fdt_find(fdt, NULL, NULL, "riscv,ndev"); // of a PLIC
    if (fdt_find(fdt, ndev, NULL, "riscv,ndev"))
        die("the host has two PLICs, as with two sockets; the guest has one");
    init_memory(fdt_number(ram, 0) + fdt_number(ram, 1), guest.ram_size);
    // Copy the tree, because it may lie where the guest's RAM is now.  (It does
    // not lie right after our image, where alloc() begins: QEMU puts it far
    // up.)
    uint64_t size = be32(fdt[TOTALSIZE]);
    host.fdt = memcpy(alloc(size, 8), fdt, size);
    fdt_prop isa = fdt_find(host.fdt, NULL, NULL, "riscv,isa");
    host.isa = isa ? value(isa) : "rv64";
    if (!isa_has("h"))
        die("this hart has no H extension: start QEMU with -cpu rv64,h=true");
    // Ask for all of these.  The hart keeps the bits that it has and the
    // firmware allows.  The guest's cbo.inval must be a flush: if it only threw
    // a cache line away, what was in memory before load() would come back.
    csr_write(henvcfg, HENVCFG_STCE | HENVCFG_PBMTE | HENVCFG_ADUE |
                           HENVCFG_CBZE | HENVCFG_CBCFE | HENVCFG_CBIE_FLUSH);
    host.henvcfg = csr_read(henvcfg);
    // QEMU 7.2 keeps STCE even without Sstc, so ask its ISA, too.
    host.sstc = host.henvcfg & HENVCFG_STCE && isa_has("sstc");
}

// What the guest's tree gets from the host's, as far as guest.dts has room for
// it.  What the host lacks becomes zeros.  A device whose "compatible" is empty
// has no driver.
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

// Completes the guest's device tree, FDT, with what only the host can tell.  It
// is a copy of guest.dts.
void finish_guest_fdt(uint32_t *fdt) {
    // In each hart's node riscv,isa-extensions lists all that we can offer a
    // guest.  Keep what the host has: strings move to the front, over those
    // that we drop.  They also make up the older riscv,isa, such as
    // "rv64imac_zicsr", after its first four letters.
    fdt_prop isa = NULL, list = NULL;
    while ((isa = fdt_find(fdt, isa, NULL, "riscv,isa"))) {
        list = fdt_find(fdt, list, NULL, "riscv,isa-extensions");
        char *string = (char *)value(isa) + 4, *kept = value(list);
        const char *end = kept + be32(list[SIZE]);
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
        memset(string, 0, (char *)value(isa) + be32(isa[SIZE]) - string);
    }
    for (unsigned i = 0; i < LENGTH(copies); i++) {
        const char *node = copies[i].node, *name = copies[i].name;
        fdt_prop from = fdt_find(host.fdt, NULL, node, name), to = NULL;
        while ((to = fdt_find(fdt, to, node, name))) {
            uint32_t room = be32(to[SIZE]), size = from ? be32(from[SIZE]) : 0;
            memset(value(to), 0, room);
            if (from)
                memcpy(value(to), value(from), size < room ? size : room);
        }
    }
    // A driver believes that no source in the PLIC has a larger number than
    // riscv,ndev.
    fdt_prop last = fdt_find(fdt, NULL, NULL, "riscv,ndev"), source = NULL;
    while ((source = fdt_find(fdt, source, NULL, "interrupts")))
        if (be32(source[VALUE]) > be32(last[VALUE]))
            memcpy(value(last), value(source), 4);
}
