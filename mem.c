// Memory: an allocator that only ever gives, the guest's second stage of
// address translation, and guest_ptr(), the only way to a pointer into the
// guest's RAM.

#include "hv.h"

static hpa_t heap, heap_end; // what alloc() has not handed out yet
static char *guest_ram;      // HPA of GUEST_RAM
static uint64_t guest_ram_size;

// Divides the RAM between the end of our image and RAM_END.  The guest gets
// SIZE bytes, aligned so that few and large page table entries can map them.
// alloc() gets what lies below.  Above the guest's RAM there is nothing of
// ours: what the alignment leaves there stays unused.  virtio.c relies on that.
void init_memory(hpa_t ram_end, uint64_t size) {
    heap = (hpa_t)hv_end;
    heap_end = (ram_end - size) & -(size < GIB ? 2 * MIB : GIB);
    // The 512 queues of all virtio slots, 20 KiB each, and some page tables
    // take less than 16 MiB.  So a guest can't make us run out of memory.
    if (size > ram_end || heap_end < heap + 16 * MIB)
        die("the guest wants %lx bytes of RAM, the host has %lx left", size,
            ram_end - heap);
    guest_ram = (char *)heap_end;
    guest_ram_size = size;
    host.root = alloc(16 * 1024, 16 * 1024);
    map_guest(GUEST_RAM, heap_end, size, PTE_R | PTE_W | PTE_X);
}

// Returns SIZE bytes of zeros, aligned to ALIGN, a power of two.  Nothing is
// ever freed: all that we allocate lives as long as the guest.  While the guest
// runs only virtio.c allocates, and it holds its lock.
void *alloc(uint64_t size, uint64_t align) {
    hpa_t start = (heap + align - 1) & -align;
    if (start > heap_end || size > heap_end - start)
        die("out of memory: wanted %lx more bytes", size);
    heap = start + size;
    return memset((void *)start, 0, size);
}

// Maps SIZE bytes at GPA to HPA, all three multiples of PAGE, with the
// permissions PERM: PTE_R, PTE_W, PTE_X.  PERM = 0 unmaps them, and then every
// access there is an exit.
//
// The second stage of translation is Sv39x4.  That is Sv39 with a root of 2,048
// entries in place of 512, so that a guest-physical address has 41 bits (Priv.
// "Guest Physical Address Translation").
//
// An entry (PTE) has an address, less its lower 12 bits, from bit 10 on.  With
// a permission it is a leaf and maps 1 GiB, 2 MiB or 4 KiB to that address.
// Without one, the next table is there.  We use the largest leaves that fit.
// Every step of the guest's own page walk reads a PTE at a guest-physical
// address, which takes a whole walk of the second stage.  Larger leaves make
// those walks shorter.
//
// A leaf needs PTE_U, because every access by a guest counts as one from user
// mode.  A and D are set here, or the first access would fault on a hart that
// leaves them to software.  Do not map a part of a larger leaf again: that leaf
// would be taken for a table.
void map_guest(gpa_t gpa, hpa_t hpa, uint64_t size, uint64_t perm) {
    while (size) {
        uint64_t leaf = GIB;
        while (((gpa | hpa) & (leaf - 1)) || size < leaf)
            leaf /= 512;
        uint64_t *pte = &host.root[gpa / GIB % 2048];
        for (uint64_t span = GIB; span > leaf; span /= 512) {
            if (!*pte)
                *pte = (hpa_t)alloc(PAGE, PAGE) >> 2 | PTE_V;
            pte = (uint64_t *)((*pte & ~0x3fful) << 2); // the next table
            pte += gpa / (span / 512) % 512;
        }
        *pte = perm ? hpa >> 2 | perm | PTE_V | PTE_U | PTE_A | PTE_D : 0;
        gpa += leaf;
        hpa += leaf;
        size -= leaf;
    }
}

// Returns a pointer to SIZE bytes of the guest's RAM at GPA, or NULL if any of
// them is not RAM.  The guest may pass any values, up to the largest.
void *guest_ptr(gpa_t gpa, uint64_t size) {
    uint64_t offset = gpa - GUEST_RAM; // of a GPA below the RAM: a huge one
    if (offset > guest_ram_size || size > guest_ram_size - offset)
        return NULL;
    return guest_ram + offset;
}

// Reads the guest's instruction at PC.  Returns -1 if the guest could not fetch
// it.  It reads two bytes at a time, because an instruction may cross a page.
//
// The instruction HLVX (trap.S) reads what the guest may execute, even if it
// may not read it.  On QEMU 7.2 it needs sstatus.MXR for that, which the
// specification does not ask for.  A change of MXR flushes the TLB there, so we
// try without it first: callers pass MXR = 0, and we call ourselves with
// SSTATUS_MXR.
long fetch(gva_t pc, uint64_t mxr) {
    long low = hlvx_hu(pc, mxr);
    long high = (low & 3) == 3 ? hlvx_hu(pc + 2, mxr) : 0;
    if (low >= 0 && high >= 0)
        return high << 16 | low;
    return mxr ? -1 : fetch(pc, SSTATUS_MXR);
}

// Does the load or store A at AT, in a device of the host's or in memory.
void access_memory(hpa_t at, struct access *a) {
#define IN_WIDTH_OF(type)                                                      \
    if (a->width == sizeof(type) && a->store)                                  \
        *(volatile type *)at = a->value;                                       \
    else if (a->width == sizeof(type))                                         \
        a->value = *(volatile type *)at;
    IN_WIDTH_OF(uint8_t)
    IN_WIDTH_OF(uint16_t)
    IN_WIDTH_OF(uint32_t)
    IN_WIDTH_OF(uint64_t)
}

// The compiler calls these two for assignments of structures, too.
void *memcpy(void *to, const void *from, size_t n) {
    for (size_t i = 0; i < n; i++)
        ((char *)to)[i] = ((const char *)from)[i];
    return to;
}

void *memset(void *to, int c, size_t n) {
    for (size_t i = 0; i < n; i++)
        ((char *)to)[i] = c;
    return to;
}
