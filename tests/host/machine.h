// The machine around the hypervisor's files when they run as an ordinary
// program: its RAM and its devices' registers are plain memory, its firmware
// notes what it was asked and answers what the test wants.
#pragma once
#include "../../hv.h"
#include <setjmp.h>
#undef main
#undef memcpy
#undef memset
#undef printf

// Not where the guest has its own, so that an address that nobody translated
// hits nothing.  All are below 2 GiB, where AddressSanitizer leaves room.
#define HOST_RAM 0x40000000ul
#define HOST_PLIC 0x20000000ul
#define HOST_UART 0x30000000ul
#define HOST_TEST 0x30001000ul
enum { HOST_RAM_SIZE = 0x1fff000, GUEST_RAM_SIZE = 0x10000 };

extern struct vcpu vcpus[MAX_HARTS];
extern const uint32_t host_fdt[];
void handle_exit(struct vcpu *v);
_Noreturn void hv_main(uint64_t hart, const uint32_t *fdt);

// The firmware: what it was asked for, and what it answers.
extern struct call { uint64_t id, function, a[5]; } calls[1024];
extern unsigned calls_made;
extern struct sbiret (*the_firmware)(const struct call *call);
extern struct sbiret answer; // of the one that is there at first

extern char said[1024]; // by printf

// What was built in, which is constant for all but the tests.
extern struct guest *const built;

// What the hart keeps of what is written to henvcfg, and whether it lacks
// Sv39x4, or leaves htval as it was.
extern uint64_t henvcfg_has;
extern bool lacks_sv39x4, leaves_htval;

// Called by each fence(), hfence_gvma() and wfi, if there is one; and how many
// fence() and fence_i() there were.
extern void (*at_fence)(void), (*at_hfence)(void), (*at_wfi)(void);
extern unsigned fences, fences_i;

// Ends here what does not return: enter_guest(), shut_down(), and a wfi of a
// hart that waits to be started.
enum how { RETURNED, ENTERED, DIED, ASLEEP };
extern jmp_buf end;
extern struct vcpu *entered; // the last one
extern uint32_t ended;       // what shut_down() was told, the last time
extern uint64_t this_hart;   // that sleeps in a wfi
#define how_ends(...)                                                          \
    ({                                                                         \
        volatile enum how how_ = setjmp(end);                                  \
        if (how_ == RETURNED)                                                  \
            __VA_ARGS__;                                                       \
        how_;                                                                  \
    })

// Before anything else, once.
void make_machine(void);
// Memory, CSRs and vcpus as they are when a guest begins to run.
void reset_machine(void);
void reset_harts(void); // no memory: that takes its time

// The guest's hart 0 leaves for CAUSE; its pc is PC.
enum { PC = GUEST_RAM_SIZE / 2 };
void leave(uint64_t cause, uint64_t tval, gpa_t gpa, uint64_t htinst);

// Loads and stores of register x5, as htinst tells them; false: they fault.
enum { LB, LH, LW, LD, LBU, LHU, LWU };
bool load(unsigned funct3, gpa_t gpa);
bool store(unsigned width, gpa_t gpa, uint64_t value);

// The host's view of guest RAM.
void *ram(gpa_t gpa);

#define check(condition)                                                       \
    ((condition) ? (void)0 : failed(__FILE__, __LINE__, #condition))
void failed(const char *file, int line, const char *what);
