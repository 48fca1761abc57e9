// Load for several harts; runs in the guest.
//
//   harts ping A B N        N round trips of a byte between a process on hart A
//                           and one on hart B
//   harts messages G P N    in each of G groups, P processes send N messages of
//                           100 bytes to each of P others, through pipes
//   harts fork N            N times: fork, and wait for the child's end
//   harts spin H N          H processes count to N million, each on its own
//   hart
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 100 };

static void pin(int hart) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(hart, &set);
    if (sched_setaffinity(0, sizeof set, &set))
        exit(3);
}

static void must(int ok) {
    if (!ok) {
        perror("harts");
        exit(1);
    }
}

static long ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000l + t.tv_nsec;
}

static void wait_all(int n) {
    for (int status; n--;)
        must(wait(&status) > 0 && status == 0);
}

static void ping(int a, int b, int n) {
    int there[2], back[2];
    char c = 0;
    must(!pipe(there) && !pipe(back));
    if (!fork()) {
        pin(b);
        for (int i = 0; i < n; i++)
            must(read(there[0], &c, 1) == 1 && write(back[1], &c, 1) == 1);
        exit(0);
    }
    pin(a);
    long start = ns();
    for (int i = 0; i < n; i++)
        must(write(there[1], &c, 1) == 1 && read(back[0], &c, 1) == 1);
    long each = (ns() - start) / n;
    wait_all(1);
    printf("%d round trips, %ld ns each\n", n, each);
}

static void messages(int groups, int processes, int n) {
    char text[SIZE];
    memset(text, 'x', SIZE);
    for (int g = 0; g < groups; g++) {
        int pipes[processes][2];
        for (int p = 0; p < processes; p++)
            must(!pipe(pipes[p]));
        for (int p = 0; p < processes; p++) {
            if (!fork()) { // receives from all senders
                for (int i = 0; i < processes * n; i++)
                    for (int got = 0; got < SIZE;) {
                        int more = read(pipes[p][0], text + got, SIZE - got);
                        must(more > 0);
                        got += more;
                    }
                exit(0);
            }
            if (!fork()) { // sends to all receivers
                for (int i = 0; i < n; i++)
                    for (int to = 0; to < processes; to++)
                        must(write(pipes[to][1], text, SIZE) == SIZE);
                exit(0);
            }
        }
        for (int p = 0; p < processes; p++)
            close(pipes[p][0]), close(pipes[p][1]);
    }
    wait_all(2 * groups * processes);
    printf("%d messages\n", groups * processes * processes * n);
}

int main(int argc, char **argv) {
    int n[3] = {0};
    for (int i = 2; i < argc && i < 5; i++)
        n[i - 2] = atoi(argv[i]);
    const char *what = argc > 1 ? argv[1] : "";
    long start = ns();
    if (!strcmp(what, "ping")) {
        ping(n[0], n[1], n[2]);
    } else if (!strcmp(what, "messages")) {
        messages(n[0], n[1], n[2]);
    } else if (!strcmp(what, "fork")) {
        for (int i = 0; i < n[0]; i++) {
            if (!fork())
                _exit(0);
            wait_all(1);
        }
        printf("%d forks\n", n[0]);
    } else if (!strcmp(what, "spin")) {
        for (int h = 0; h < n[0]; h++)
            if (!fork()) {
                pin(h);
                for (volatile long i = 0; i < n[1] * 1000000l; i++)
                    ;
                exit(0);
            }
        wait_all(n[0]);
        printf("%d harts counted\n", n[0]);
    } else {
        return 2;
    }
    fprintf(stderr, "%ld us\n", (ns() - start) / 1000);
    return 0;
}
