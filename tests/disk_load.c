// A load for the guest's disk; runs in the guest.
//
//   disk_load read DEVICE COUNT SEED   COUNT random direct reads, each checked
//   disk_load records FILE             appends records for ever, and prints the
//                                      number of each that fsync() has taken
//
// Each sector of DEVICE holds its own number, 128 times, as a 32-bit integer.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SECTOR = 512, LONGEST = 256 }; // sectors

static int fail(const char *what) {
    perror(what);
    return 1;
}

static int reads(const char *device, long count, uint64_t random) {
    static uint8_t buffer[(LONGEST + 8) * SECTOR]
        __attribute__((aligned(4096)));
    int fd = open(device, O_RDONLY | O_DIRECT);
    if (fd < 0)
        return fail(device);
    uint32_t sectors = lseek(fd, 0, SEEK_END) / SECTOR;
    for (long i = 0; i < count; i++) {
        random = random * 6364136223846793005 + 1442695040888963407;
        // Most fit in a page or two, some are chains of up to 33 pages.
        uint32_t n =
            i % 64 ? 1 + (random >> 20) % 8 : 1 + (random >> 20) % LONGEST;
        uint32_t first = (random >> 32) % (sectors - n);
        uint8_t *p = buffer + (random >> 28) % 8 * SECTOR;
        memset(p, 0xff, n * SECTOR);
        if (pread(fd, p, n * SECTOR, (off_t)first * SECTOR) != n * SECTOR)
            return fail("pread");
        for (uint32_t k = 0; k < n * SECTOR / 4; k++)
            if (((uint32_t *)p)[k] != first + k / 128) {
                printf("read %ld: sector %u holds %x\n", i, first + k / 128,
                       ((uint32_t *)p)[k]);
                return 1;
            }
    }
    printf("%ld reads are right\n", count);
    return 0;
}

static int records(const char *file) {
    static char record[8192];
    int fd = open(file, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (fd < 0)
        return fail(file);
    for (unsigned i = 0;; i++) {
        // "17 xxxx...x\n", of some length or other
        int length = sprintf(record, "%u ", i), end = 20 + i * 977 % 5000;
        memset(record + length, 'x', end - length);
        record[end] = '\n';
        if (write(fd, record, end + 1) != end + 1 || fsync(fd))
            return fail(file);
        printf("synced %u.\n", i);
        fflush(stdout);
    }
}

int main(int argc, char **argv) {
    if (argc == 5 && !strcmp(argv[1], "read"))
        return reads(argv[2], atol(argv[3]), atol(argv[4]));
    if (argc == 3 && !strcmp(argv[1], "records"))
        return records(argv[2]);
    return 2;
}
