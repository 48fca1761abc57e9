// Memory: a bump allocator, the guest's second stage of address translation,
// and the only door from a number that a guest gave to a pointer that we use.

#include "hv.h"

static hpa_t heap, heap_end;
static char *guest_ram; // HPA of GUEST_RAM
static uint64_t guest_ram_size;

// SIZE bytes, zeroed, aligned to ALIGN (a power of two).  Nothing is ever given
// back: what we allocate lives as long as the guest.
void *alloc(uint64_t size, uint64_t align) {
    hpa_t start = (heap + align - 1) & -align;
    if (start > heap_end || size > heap_end - start)
        die("out of memory: wanted %lx more bytes", size);
    heap = start + size;
    return memset((void *)start, 0, size);
}

// The second stage of translation is Sv39x4: Sv39 with a root of 2,048 entries
// instead of 512, so that a guest-physical address has 41 bits (Priv. "Guest-
// Physical Address Translation").
//
// Maps SIZE bytes at GPA to HPA with the permissions PERM (PTE_R, PTE_W,
// PTE_X; 0: so that every access is an exit), by the largest leaves that fit: 1
// GiB, 2 MiB or 4 KiB.  The larger the leaf, the shorter the walk of the second
// stage, and each of the up to three steps of the guest's own walk needs one.
// G-stage leaves must say U, because every access by a guest counts as one by a
// user; A and D are set beforehand, or the first access would fault on a hart
// that leaves them to software.  What is there already must not be a larger
// leaf: it would be taken for a table.
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

// The host's view of SIZE bytes of guest RAM at GPA, or NULL if one of them is
// not RAM.  Written so that nothing can overflow, whatever the guest passes.
void *guest_ptr(gpa_t gpa, uint64_t size) {
    uint64_t offset = gpa - GUEST_RAM; // of a smaller GPA: a huge one
    if (offset > guest_ram_size || size > guest_ram_size - offset)
        return NULL;
    return guest_ram + offset;
}

// Reads the guest's instruction at PC, two bytes at a time, because it may
// cross a page.  Returns -1 if the guest itself could not fetch it.  HLVX reads
// what can be executed, but in QEMU 7.2 only with MXR if it can't be read, too.
// That comes second, because changing MXR flushes the TLB there: MXR is 0, and
// SSTATUS_MXR when this calls itself.
long fetch(gva_t pc, uint64_t mxr) {
    long low = hlvx_hu(pc, mxr);
    long high = (low & 3) == 3 ? hlvx_hu(pc + 2, mxr) : 0;
    if (low >= 0 && high >= 0)
        return high << 16 | low;
    return mxr ? -1 : fetch(pc, SSTATUS_MXR);
}

// Divides what lies between our own image and RAM_END: SIZE bytes at the end
// are the guest's RAM, aligned like the leaf that can map them, the rest is for
// alloc().  What the alignment leaves behind the guest's RAM stays unused:
// virtio.c relies on it.
void init_memory(hpa_t ram_end, uint64_t size) {
    heap = (hpa_t)hv_end;
    heap_end = (ram_end - size) & -(size < GIB ? 2 * MIB : GIB);
    // 16 MiB: more than all queues of all slots take (virtio.c), so that it is
    // never the guest who runs us out of memory.
    if (size > ram_end || heap_end < heap + 16 * MIB)
        die("the guest wants %lx bytes of RAM, the host has %lx left", size,
            ram_end - heap);
    guest_ram = (char *)heap_end;
    guest_ram_size = size;
    host.root = alloc(16 * 1024, 16 * 1024);
    map_guest(GUEST_RAM, heap_end, size, PTE_R | PTE_W | PTE_X);
}

// The compiler calls these for assignments of structures, too.
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
