// What the guest is booted with, as it stands in the files, and where in its
// RAM each of them belongs.  The Makefile gives names and numbers.
//
// Device tree and initramfs begin in the middle of the RAM, far behind the
// kernel, because some kernels move them to just behind their own end.

#define MIDDLE (0x80000000 + (GUEST_MIB << 19))

        .section .guest, "a"
        .macro  embed symbol, file
        .balign 8                       // load() goes by eight bytes
\symbol:
        .incbin "\file"
\symbol\()_end:
        .endm

        embed   kernel, KERNEL
        embed   initrd, INITRD
        embed   dtb, DTB

        .balign 8
        .globl  guest
guest:  .dword  KERNEL_AT, kernel, kernel_end           // struct guest
        .dword  MIDDLE, dtb, dtb_end
        .dword  MIDDLE + 0x10000, initrd, initrd_end    // guest.dts says so
        .dword  GUEST_MIB << 20, CPUS
