// The machine around the hypervisor's files when they run as an ordinary
// program.  Its RAM and its devices' registers are plain memory.  Its firmware
// records what it is asked for, and gives the answers that the test wants.
#pragma once
#include "../../hv.h"
#include <setjmp.h>
#undef main
#undef memcpy
#undef memset
#undef printf

// The guest has these at other addresses, so an address that nobody translated
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
extern struct sbiret answer; // given by the default firmware

extern char said[1024]; // what printf has printed

// The guest that is built in.  Only tests may change it.
extern struct guest *const built;

// The bits that henvcfg has on this hart, and whether the hart lacks Sv39x4, or
// leaves htval as it was.
extern uint64_t henvcfg_has;
extern bool lacks_sv39x4, leaves_htval;

// Each fence(), hfence_gvma() and wfi calls these, if a test has set them. Then
// come the numbers of fence() and fence_i() so far.
extern void (*at_fence)(void), (*at_hfence)(void), (*at_wfi)(void);
extern unsigned fences, fences_i;

// how_ends() runs code that may not return, and tells how it ended: in
// enter_guest(), in shut_down(), or asleep in the wfi of a hart that waits to
// be started.
enum how { RETURNED, ENTERED, DIED, ASLEEP };
extern jmp_buf end;
extern struct vcpu *entered; // the last vcpu to enter the guest
extern uint32_t ended;       // what shut_down() was last told
extern uint64_t this_hart;   // the hart that runs now
#define how_ends(...)                                                          \
    ({                                                                         \
        volatile enum how how_ = setjmp(end);                                  \
        if (how_ == RETURNED)                                                  \
            __VA_ARGS__;                                                       \
        how_;                                                                  \
    })

// Call this once, before anything else.
void make_machine(void);
// Sets memory, CSRs and vcpus to what they are when a guest begins to run.
void reset_machine(void);
void reset_harts(void); // without memory, which takes longer

// The guest's hart 0 leaves because of CAUSE.  Its pc is PC.
enum { PC = GUEST_RAM_SIZE / 2 };
void leave(uint64_t cause, uint64_t tval, gpa_t gpa, uint64_t htinst);

// The guest loads or stores register x5, as htinst says.  Returns false if that
// faults.
enum { LB, LH, LW, LD, LBU, LHU, LWU };
bool load(unsigned funct3, gpa_t gpa);
bool store(unsigned width, gpa_t gpa, uint64_t value);

// The host's view of guest RAM.
void *ram(gpa_t gpa);

#define check(condition)                                                       \
    ((condition) ? (void)0 : failed(__FILE__, __LINE__, #condition))
void failed(const char *file, int line, const char *what);
