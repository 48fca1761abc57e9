// A driver of a virtio-blk device that breaks the rules; runs in the guest.
//
//   raw_driver REGISTERS NEXT   makes a queue ready a second time while a
//                               request is in flight, and puts in a chain
//                               whose first descriptor names NEXT as the next
//
// It needs /dev/mem, and RAM at MEMORY that the kernel leaves alone.
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FEATURES = 0x20, FEATURES_SEL = 0x24, QUEUE_NUM = 0x38, READY = 0x44 };
enum {
    NOTIFY = 0x50,
    STATUS = 0x70,
    DESC = 0x80,
    DRIVER = 0x90,
    DEVICE = 0xa0
};
enum { NEXT = 1, WRITE = 2 };
static const uint64_t MEMORY = 0xb0000000;

static volatile uint32_t *registers;
static volatile struct memory {
    struct {
        uint64_t addr;
        uint32_t len;
        uint16_t flags, next;
    } desc[8];
    uint16_t avail[0x100], used[0x100];
    uint32_t header[4];
    uint8_t status;
} * memory;

static void set(int reg, uint64_t value) { registers[reg / 4] = value; }

static void desc(int i, uint64_t addr, uint32_t len, int flags, int next) {
    memory->desc[i].addr = addr;
    memory->desc[i].len = len;
    memory->desc[i].flags = flags;
    memory->desc[i].next = next;
}

static void ready(void) {
    set(QUEUE_NUM, 8);
    set(DESC, MEMORY);
    set(DRIVER, MEMORY + offsetof(struct memory, avail));
    set(DEVICE, MEMORY + offsetof(struct memory, used));
    set(READY, 1);
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    int fd = open("/dev/mem", O_RDWR | O_SYNC), both = PROT_READ | PROT_WRITE;
    registers = mmap(0, 4096, both, MAP_SHARED, fd, strtoul(argv[1], NULL, 16));
    memory = mmap(0, 4096, both, MAP_SHARED, fd, MEMORY);
    if (registers == MAP_FAILED || memory == MAP_FAILED)
        return 1;
    memset((void *)memory, 0, sizeof *memory);
    for (int status = 0; status <= 3; status++)
        set(STATUS, status);
    set(FEATURES_SEL, 1);
    set(FEATURES, 1);
    set(STATUS, 11);
    set(0x30, 0);
    ready();
    set(STATUS, 15);

    uint64_t header = MEMORY + offsetof(struct memory, header);
    desc(0, header, 16, NEXT, 1); // a read of 48 MiB, which takes some time
    desc(1, MEMORY + 0x100000, 48 << 20, NEXT | WRITE, 2);
    desc(2, MEMORY + offsetof(struct memory, status), 1, WRITE, 0);
    memory->avail[1] = 1;
    set(NOTIFY, 0);

    set(READY, 0);
    memory->avail[1] = 0;
    ready();
    desc(0, header, 16, NEXT, atoi(argv[2]));
    desc(1, header, 16, NEXT, 0);
    memory->avail[1] = 1;
    set(NOTIFY, 0);
    sleep(1); // the read ends meanwhile
    set(STATUS, 0);
    puts("alive");
    return 0;
}
