# Builds build/hv.elf, the hypervisor with a guest inside it.  Beside it are hv.asm,
# what the compiler made of it, and hv.sym, where everything is.  ./run.sh calls
# this and sets the variables to what its options say.

CROSS   ?= riscv64-linux-gnu-
O        = build
LINUX    = build/linux/arch/riscv/boot/Image
ROOTFS   = build/rootfs/initramfs.cpio.gz

KERNEL   = $(LINUX)
INITRD   = $(ROOTFS)
MEM      = 1024
CPUS     = 1
BOOTARGS = console=ttyS0
# Where in the guest's RAM its files begin (guest.S).  The kernel is entered there, too.
# The device tree is in the middle of the RAM, and the initramfs 64 KiB above it.
KERNEL_AT = 0x80200000
DTB_AT    = $(shell echo $$((0x80000000 + ($(MEM) << 19))))
INITRD_AT = $(shell echo $$(($(DTB_AT) + 0x10000)))

# What is not obvious about these:
# -march                no floating point and no vectors: those registers stay the
#                       guest's while we run
# -mno-relax            no addresses relative to gp: gp is still the guest's, too
# -fno-jump-tables      a switch jumps without a table; that would be one more page
#                       to look up in each exit
# -fno-tree-loop-...    no loop becomes a call to memcpy, or memcpy would call itself
# -f...-sections        so that hv.ld can put what an exit needs close together
CFLAGS   = -I. -march=rv64imac_zicsr_zifencei -mabi=lp64 -mcmodel=medany -mno-relax \
           -std=gnu11 -O2 -g -ffreestanding -fno-pic -fno-stack-protector \
           -fno-tree-loop-distribute-patterns -fno-jump-tables -ffunction-sections -fdata-sections \
           -Wall -Wextra -Wno-unused-parameter $(if $(CI),-Werror)

sources := $(wildcard *.c *.S)
objects := $(sources:%=$(O)/%.o)

.PHONY: all where check check-book check-debian13 site site-serve site-pdf slides bench fuzz-host fuzz-guest mutants soak plot readme FORCE
all: $(O)/hv.elf

$(O)/hv.elf: $(objects) hv.ld
	$(CROSS)ld -nostdlib --gc-sections -T hv.ld -o $@ $(objects)
	$(CROSS)objdump -d $@ >$(O)/hv.asm
	$(CROSS)nm -n $@ >$(O)/hv.sym

$(O)/%.o: % hv.h csr.h Makefile | $(O)
	$(CROSS)gcc $(CFLAGS) -c -o $@ $<

# The guest's files are named on the command line.  guest.options says what they were
# last time, and it changes only when they do.  Their dates would not be enough, because
# a file may be replaced by an older one.  So it has their sizes, their inodes, and the
# times when those changed, which nobody can set back.
$(O)/guest.options: $(KERNEL) $(INITRD) FORCE | $(O)
	@readlink -f '$(KERNEL)' '$(INITRD)' >$@.new
	@stat -Lc '%s %i %z' '$(KERNEL)' '$(INITRD)' >>$@.new
	@printf '%s\n' '$(MEM)' '$(CPUS)' '$(BOOTARGS)' $(KERNEL_AT) >>$@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

$(O)/guest.S.o: CFLAGS += -DKERNEL='"$(KERNEL)"' -DINITRD='"$(INITRD)"' \
                          -DDTB='"$(O)/guest.dtb"' -DGUEST_MIB=$(MEM) \
                          -DCPUS=$(CPUS) -DKERNEL_AT=$(KERNEL_AT) -DDTB_AT=$(DTB_AT) \
                          -DINITRD_AT=$(INITRD_AT)
$(O)/guest.S.o: $(O)/guest.dtb $(O)/guest.options

$(O)/guest.dtb: guest.dts $(O)/guest.options Makefile
	cpp -nostdinc -undef -x assembler-with-cpp -P -DGUEST_MIB=$(MEM) -DINITRD_AT=$(INITRD_AT) \
	  -DINITRD_SIZE=$$(stat -Lc %s '$(INITRD)') -DBOOTARGS='"$(BOOTARGS)"' \
	  -D'EACH_HART(x)=$(shell seq -f 'x(%g)' 0 $$(($(CPUS) - 1)))' \
	  $< | dtc -q -p 4096 -O dtb -o $@ -

# For run.sh, which checks whether the files fit.
where:
	@echo $(DTB_AT) $(INITRD_AT)

$(O):
	mkdir -p $@

$(LINUX): linux/config linux/build.sh
	@linux/build.sh build/linux
	@touch $@

$(ROOTFS): rootfs/config rootfs/build.sh rootfs/init
	@rootfs/build.sh build/rootfs
	@touch $@

check:
	@tests/run

# The tests of the book alone: each step builds, each run shows what its chapter says.
check-book:
	@tests/run -k test_book

# The book as a site, in build/site, with its slides: see site/README.md.
site: slides
	@tools/need.sh site
	@site/build

site-serve: site
	@node site/serve.mjs build/site $(or $(PORT),8000)

# The whole book as build/book.pdf, printed by Chromium.
site-pdf: site
	@tools/need.sh site-pdf
	@cd build/site-node && node ../../site/pdf.mjs ../site ../book.pdf

# Slides for each chapter of the book, in build/slides.
slides:
	@tools/need.sh site
	@site/slides/make $(O)/slides

# All tests in a folder with a fresh Debian 13.  It needs root.
check-debian13:
	@tools/debian13.sh

# Compares the hypervisor with the bare machine, N times each, or its deterministic
# figures with those of the revision BASE: see docs/bench.md.
bench:
	@tests/bench.py

# Runs the fuzzers of the hypervisor's files on this machine, for SECONDS each.
fuzz-host:
	FUZZ_SECONDS=$(or $(SECONDS),60) /usr/bin/python3 -B -m pytest -q -p no:cacheprovider \
	  tests/test_host.py -k fuzz

# Boots once and draws the picture of the exits in the README.
plot:
	@tools/need.sh run guest stats plot
	@/usr/bin/python3 -B tools/plot.py $(O)/exits.json docs/exits.svg

# Puts what the last `make check` tested into the README.
readme:
	sed -i -e '/^<!-- tested /r build/tested.md' -e '/^<!-- tested /,/^<!-- end /{//!d}' README.md

# Runs tests/guests/fuzz.c on each QEMU, for SECONDS in all.  SEED is where its random
# numbers begin.
fuzz-guest:
	@FUZZ_SECONDS='$(SECONDS)' FUZZ_SEED='$(SEED)' tests/run -k test_fuzz

# Puts one fault after another into the code: do the tests notice?
mutants:
	@tests/mutants.py

# Boots N machines chosen at random.
soak:
	@BOOTS=$(or $(N),200) tests/run -k soak
