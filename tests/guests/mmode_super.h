// What mmode_clint.c and mmode_sstc.c tell the part that runs in S-mode, and
// what its C and its assembly share.
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

// Called in S-mode by the trap handler: the scause of a tick, and what is to be
// done for the next one to come.
extern const uint64_t tick_cause;
void tick_acknowledge(void);

// Does the driver of the UART read ISR?  xv6's does since 2024.
extern const bool uart_reads_isr;

// When this hart's first tick was due.
extern uint64_t first_tick[MAX_HARTS];

void super_main(void);
#endif
