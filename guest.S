// What the guest is booted with, as it stands in the files.  The Makefile gives
// the names.

        .section .guest, "a"
        .macro  embed symbol, file
        .balign 8                       // memcpy goes by eight bytes
        .globl  \symbol, \symbol\()_end
\symbol:
        .incbin "\file"
\symbol\()_end:
        .endm

        embed   guest_kernel, KERNEL
        embed   guest_initrd, INITRD
        embed   guest_dtb, DTB
