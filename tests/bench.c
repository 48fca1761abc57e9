// What `make bench` measures inside Linux.  It is the guest's first process, so
// that nothing runs beside it and nobody has to type anything:
//
//   bench init               says how long Linux took to get here,
//   bench one TIMES [PORT]   what things cost on one hart, the network too if
//                            a server listens at PORT of the host,
//   bench two TIMES          and what they cost between two harts.
//
// Prints lines "bench NAME: NANOSECONDS ROUNDS", each the least of TIMES runs.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/aio_abi.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { KIB = 1024, MIB = 1024 * KIB, DISK = 64 * MIB };
enum { TALKERS = 5, MESSAGE = 100, LINE = 64 };

static char *buffer;    // 1 MiB, aligned
static char *scattered; // 4 MiB, no two pages side by side in the machine's RAM
static int disk, port, times;

#define must(ok) must_(ok, #ok)
static void must_(int ok, const char *what) {
    if (!ok) {
        perror(what);
        _exit(1);
    }
}

static long ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000l + t.tv_nsec;
}

// A system call at an address of its own: in a log of all traps it marks where
// a measurement begins and ends.
__attribute__((noinline, noclone)) static void mark(void) {
    register long a0 asm("a0"), a7 asm("a7") = SYS_getpid;
    asm volatile("mark_ecall: ecall" : "=r"(a0) : "r"(a7) : "memory");
}

// Measures N rounds: RUN(N) returns how many ns they took, or 0 to be timed.
static void figure(const char *name, long (*run)(long n), long n) {
    long least = LONG_MAX;
    run(1); // so that nothing is measured that happens only once
    for (int i = 0; i < times; i++) {
        mark();
        long start = ns(), late = run(n);
        long took = late ? late : ns() - start;
        mark();
        least = took < least ? took : least;
    }
    printf("bench %s: %.1f %ld\n", name, (double)least / n, n);
}

// --- Processes ---------------------------------------------------------------

static void wait_all(int n) {
    for (int status; n--;)
        must(wait(&status) > 0 && status == 0);
}

// HARTS is a mask: 1 is hart 0, 2 is hart 1.
static void run_on(unsigned long harts) {
    must(!syscall(SYS_sched_setaffinity, 0, sizeof harts, &harts));
}

static long syscalls(long n) {
    while (n--)
        syscall(SYS_getppid);
    return 0;
}

static long page_faults(long n) {
    char *p = mmap(NULL, n * 4096, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(p != MAP_FAILED);
    for (long i = 0; i < n; i++)
        p[i * 4096] = 1;
    return munmap(p, n * 4096);
}

static long forks(long n) {
    while (n--) {
        if (!fork())
            _exit(0);
        wait_all(1);
    }
    return 0;
}

static long execs(long n) {
    while (n--) {
        if (!vfork())
            _exit(execl("/bench", "bench", NULL));
        wait_all(1);
    }
    return 0;
}

// A byte goes to another process, on OTHER harts, and comes back.
static void ping(long n, unsigned long other) {
    int there[2], back[2];
    char c = 0;
    must(!pipe(there) && !pipe(back));
    if (!fork()) {
        run_on(other);
        for (long i = 0; i < n; i++)
            must(read(there[0], &c, 1) == 1 && write(back[1], &c, 1) == 1);
        _exit(0);
    }
    for (long i = 0; i < n; i++)
        must(write(there[1], &c, 1) == 1 && read(back[0], &c, 1) == 1);
    wait_all(1);
    for (int i = 0; i < 2; i++)
        close(there[i]), close(back[i]);
}

static long ping_here(long n) { return ping(n, 1), 0; }
static long ping_there(long n) { return ping(n, 2), 0; }

// About N messages, from each of five processes to each of five others.
static long messages(long n) {
    int pipes[TALKERS][2];
    long each = n / (TALKERS * TALKERS) + 1;
    for (int p = 0; p < TALKERS; p++)
        must(!pipe(pipes[p]));
    for (int p = 0; p < 2 * TALKERS; p++) {
        if (fork())
            continue;
        int in = pipes[p % TALKERS][0];
        for (long left = each * TALKERS * MESSAGE; p < TALKERS && left;) {
            long got = read(in, buffer, left < MESSAGE ? left : MESSAGE);
            must(got > 0);
            left -= got;
        }
        for (long i = 0; p >= TALKERS && i < each * TALKERS; i++)
            must(write(pipes[i % TALKERS][1], buffer, MESSAGE) == MESSAGE);
        _exit(0);
    }
    wait_all(2 * TALKERS);
    for (int p = 0; p < TALKERS; p++)
        close(pipes[p][0]), close(pipes[p][1]);
    return 0;
}

// --- Time and console --------------------------------------------------------

static long sleeps(long n) {
    while (n--)
        nanosleep(&(struct timespec){0, 100000}, NULL);
    return 0;
}

// Wakes up each millisecond; returns how late in all, and notes the worst.
static long worst;
static long wake_ups(long n) {
    long late = 0, next = ns();
    worst = 0;
    while (n--) {
        next += 1000000;
        struct timespec t = {next / 1000000000, next % 1000000000};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
        long by = ns() - next;
        worst = by > worst ? by : worst;
        late += by;
    }
    return late;
}

static long worst_wake_up(long n) {
    wake_ups(n);
    return worst * n;
}

static long console(long n) {
    char line[LINE];
    memset(line, '.', LINE);
    line[LINE - 1] = '\n';
    for (long i = 0; i < n; i += LINE)
        must(write(1, line, LINE) == LINE);
    tcdrain(1);
    return 0;
}

// --- Disk --------------------------------------------------------------------

// N blocks of SIZE bytes, each to or from its own part of TO, always with DEPTH
// of them on their way.
static long blocks(long n, int opcode, char *to, long size, int depth) {
    aio_context_t context = 0;
    struct io_event events[depth];
    must(!syscall(SYS_io_setup, depth, &context));
    long start = ns(), took;
    for (long done = 0, begun = 0; done < n;) {
        for (; begun < n && begun - done < depth; begun++) {
            struct iocb io = {.aio_lio_opcode = opcode, .aio_fildes = disk};
            io.aio_buf = (long)to + begun % depth * size;
            io.aio_nbytes = size;
            io.aio_offset = begun * size % DISK;
            must(syscall(SYS_io_submit, context, 1, &(struct iocb *){&io}) ==
                 1);
        }
        long got = syscall(SYS_io_getevents, context, 1, depth, events, NULL);
        must(got > 0);
        for (long i = 0; i < got; i++)
            must(events[i].res == size);
        done += got;
    }
    took = ns() - start;
    must(!syscall(SYS_io_destroy, context)); // which waits for the next tick
    return took;
}

enum { READ = IOCB_CMD_PREAD, WRITE = IOCB_CMD_PWRITE };
static long read_4k(long n) { return blocks(n, READ, buffer, 4 * KIB, 1); }
static long write_4k(long n) { return blocks(n, WRITE, buffer, 4 * KIB, 1); }
static long read_4(long n) { return blocks(n, READ, buffer, 4 * KIB, 4); }
static long read_16(long n) { return blocks(n, READ, buffer, 4 * KIB, 16); }
static long write_16(long n) { return blocks(n, WRITE, buffer, 4 * KIB, 16); }
static long read_1m(long n) { return blocks(n, READ, buffer, MIB, 1); }
static long read_pages(long n) { return blocks(n, READ, scattered, MIB, 4); }

// SIZE bytes, no two pages side by side: Linux gives out pages in the order in
// which they are first touched.
static char *scatter(long size) {
    char *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(p != MAP_FAILED);
    for (long i = 0; i < 2 * size; i += 8 * KIB)
        p[i % size + i / size * 4 * KIB] = 1;
    return p;
}

// --- Network -----------------------------------------------------------------

static struct sockaddr_in address(const char *ip, int port) {
    return (struct sockaddr_in){AF_INET, htons(port), {inet_addr(ip)}, {0}};
}

static void network_up(void) {
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    struct ifreq r = {.ifr_name = "eth0"};
    *(struct sockaddr_in *)&r.ifr_addr = address("10.0.2.15", 0);
    must(!ioctl(s, SIOCSIFADDR, &r));
    r.ifr_flags = IFF_UP | IFF_RUNNING;
    must(!ioctl(s, SIOCSIFFLAGS, &r));
    close(s);
}

// KIND tells the server what to do.
static int connection(char kind) {
    struct sockaddr_in to = address("10.0.2.2", port);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    must(!connect(s, (struct sockaddr *)&to, sizeof to));
    must(write(s, &kind, 1) == 1);
    return s;
}

static long echo(long n) {
    int s = connection('e');
    for (long i = 0; i < n; i++)
        must(write(s, buffer, 1) == 1 && read(s, buffer, 1) == 1);
    return close(s);
}

static long send_1m(long n) {
    int s = connection('s');
    for (long i = 0; i < n; i++)
        must(write(s, buffer, MIB) == MIB);
    shutdown(s, SHUT_WR);
    must(read(s, buffer, 1) == 0); // the server has it all
    return close(s);
}

static long receive_1m(long n) {
    int s = connection('r');
    for (long left = n * MIB, got; left; left -= got)
        must((got = read(s, buffer, left < MIB ? left : MIB)) > 0);
    return close(s);
}

// Linux would go on asking the source of entropy for more, now and then.
static void no_entropy(void) {
    int unbind;
    mkdir("/sys", 0755);
    must(!mount("sys", "/sys", "sysfs", 0, NULL));
    unbind = open("/sys/bus/virtio/drivers/virtio_rng/unbind", O_WRONLY);
    for (char name[] = "virtio0"; name[6] <= '9'; name[6]++)
        write(unbind, name, sizeof name - 1); // it is one of these
}

int main(int argc, char **argv) {
    if (argc < 2)
        return 0; // what execs() wants
    long ticks, clock = ns();
    asm volatile("rdtime %0" : "=r"(ticks));
    printf("bench start to init: %ld\nbench entry to init: %ld\n", ticks * 100,
           clock);
    times = argc > 2 ? atoi(argv[2]) : 1;
    port = argc > 3 ? atoi(argv[3]) : 0;
    buffer = mmap(NULL, MIB, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    mount("dev", "/dev", "devtmpfs", 0, NULL);
    no_entropy();
    run_on(1);
    if (!strcmp(argv[1], "one")) {
        must((disk = open("/dev/vda", O_RDWR | O_DIRECT)) >= 0);
        figure("system call", syscalls, 20000);
        figure("page fault", page_faults, 2000);
        figure("fork and exit", forks, 200);
        figure("fork and exec", execs, 50);
        figure("pipe round trip", ping_here, 2000);
        figure("message, ten processes", messages, 5000);
        figure("nanosleep 100 us", sleeps, 500);
        figure("late after a timed wait", wake_ups, 200);
        figure("the latest of 200", worst_wake_up, 200);
        figure("console: a character", console, 8 * KIB);
        figure("disk: read 4 KiB", read_4k, 1000);
        figure("disk: write 4 KiB", write_4k, 1000);
        figure("disk: read 4 KiB, depth 4", read_4, 2000);
        figure("disk: read 4 KiB, depth 16", read_16, 2000);
        figure("disk: write 4 KiB, depth 16", write_16, 2000);
        figure("disk: read 1 MiB", read_1m, 64);
        scattered = scatter(4 * MIB);
        figure("disk: read 1 MiB, scattered, depth 4", read_pages, 64);
    }
    if (port) {
        network_up();
        figure("network: round trip, TCP", echo, 500);
        figure("network: send 1 MiB, TCP", send_1m, 8);
        figure("network: receive 1 MiB, TCP", receive_1m, 8);
    }
    if (!strcmp(argv[1], "two")) {
        figure("pipe round trip, two harts", ping_there, 500);
        run_on(1 | 2);
        figure("message, ten processes, two harts", messages, 5000);
    }
    printf("bench done\n");
    pause();
}
