// What mmode_clint.c and mmode_sstc.c do for mmode_super.c, and what its C and
// its assembly share.
#pragma once
// struct trapframe, behind the 32 registers
#define FRAME_SP 256
#define FRAME_TP 264
#define FRAME_TRAP 272
#define FRAME_SATP 280
// calls of the program, in a7
#define SYS_WRITE 1
#define SYS_ADD 2
#define SYS_CHECK 3
#define SYS_EXIT 4

#ifndef __ASSEMBLER__
#include "mmode_lib.h"

// Called in M-mode on each hart, last before mret.  It notes when the first
// tick is due, and parks the hart if it has no such timer.
void start_timer(const void *dtb);
extern uint64_t first_tick[MAX_HARTS];

// For the trap handler in S-mode: the scause of a tick, and what it has to do
// so that the next one comes.
extern const uint64_t tick_cause;
bool tick_acknowledge(void); // returns false if the tick is none

// Does the driver of the UART read ISR?  xv6's does since 2024.
extern const bool uart_reads_isr;
#endif
