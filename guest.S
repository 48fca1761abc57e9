// The guest's files, as they are when this is built, and where in its RAM each
// belongs.  The Makefile passes the names of the files and all the numbers.
// The device tree and the initramfs begin in the middle of the RAM.  Some
// kernels copy them to just after their own end, and that copy must not reach
// into the original.

        .section .guest, "a"
        .macro  embed symbol, file
        .balign 8                       // load() copies eight bytes at a time
\symbol:
        .incbin "\file"
\symbol\()_end:
        .endm

        embed   kernel, KERNEL
        embed   initrd, INITRD
        embed   dtb, DTB

        .balign 8
        .globl  guest
guest:  .dword  KERNEL_AT, kernel, kernel_end   // struct guest (hv.h)
        .dword  DTB_AT, dtb, dtb_end
        .dword  INITRD_AT, initrd, initrd_end
        .dword  GUEST_MIB << 20, CPUS
