# Builds the hypervisor with a guest inside it: build/hv.elf, and beside it
# hv.asm (what the compiler made of it) and hv.sym (where everything is).
# ./run.sh calls this with the variables that its options stand for.

CROSS   ?= riscv64-linux-gnu-
O        = build
LINUX    = build/linux/arch/riscv/boot/Image
ROOTFS   = build/rootfs/initramfs.cpio.gz

KERNEL   = $(LINUX)
INITRD   = $(ROOTFS)
MEM      = 1024
CPUS     = 1
BOOTARGS = console=ttyS0
# Where the kernel belongs in the guest's RAM, and is entered.
AT       = 0x80200000

# No floating point and no vectors, so that those registers are the guest's
# alone; no loop is turned into a call of memcpy, or memcpy would call itself.
CFLAGS   = -I. -march=rv64imac_zicsr_zifencei -mabi=lp64 -mcmodel=medany -mno-relax \
           -std=gnu11 -O2 -g -ffreestanding -fno-pic -fno-stack-protector \
           -fno-tree-loop-distribute-patterns -fno-jump-tables -ffunction-sections -fdata-sections \
           -Wall -Wextra -Wno-unused-parameter $(if $(CI),-Werror)

sources := $(wildcard *.c *.S)
objects := $(sources:%=$(O)/%.o)

.PHONY: all check check-debian13 bench fuzz-host fuzz-guest mutants soak plot readme FORCE
all: $(O)/hv.elf

$(O)/hv.elf: $(objects) hv.ld
	$(CROSS)ld -nostdlib --gc-sections -T hv.ld -o $@ $(objects)
	$(CROSS)objdump -d $@ >$(O)/hv.asm
	$(CROSS)nm -n $@ >$(O)/hv.sym

$(O)/%.o: % hv.h csr.h Makefile | $(O)
	$(CROSS)gcc $(CFLAGS) -c -o $@ $<

# The guest's files are named on the command line, so what they were last time
# is kept in a file that changes only when they do.  Their time alone does not
# tell: a file may be replaced by one that is older.  So their size is in there,
# too, the inode, and when that changed, which nobody can set back.
$(O)/guest.options: $(KERNEL) $(INITRD) FORCE | $(O)
	@readlink -f '$(KERNEL)' '$(INITRD)' >$@.new
	@stat -Lc '%s %i %z' '$(KERNEL)' '$(INITRD)' >>$@.new
	@printf '%s\n' '$(MEM)' '$(CPUS)' '$(BOOTARGS)' $(AT) >>$@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

$(O)/guest.S.o: CFLAGS += -DKERNEL='"$(KERNEL)"' -DINITRD='"$(INITRD)"' \
                          -DDTB='"$(O)/guest.dtb"' -DGUEST_MIB=$(MEM) \
                          -DCPUS=$(CPUS) -DKERNEL_AT=$(AT)
$(O)/guest.S.o: $(O)/guest.dtb $(O)/guest.options

$(O)/guest.dtb: guest.dts $(O)/guest.options Makefile
	cpp -nostdinc -undef -x assembler-with-cpp -P -DGUEST_MIB=$(MEM) \
	  -DINITRD_SIZE=$$(stat -Lc %s '$(INITRD)') -DBOOTARGS='"$(BOOTARGS)"' \
	  -D'EACH_HART(x)=$(shell seq -f 'x(%g)' 0 $$(($(CPUS) - 1)))' \
	  $< | dtc -q -p 4096 -O dtb -o $@ -

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

# The same on a fresh Debian 13, in a folder; needs root.
check-debian13:
	@tools/debian13.sh

# The hypervisor against the bare machine, N times each, or the deterministic
# figures against those of the revision BASE; see docs/bench.md.
bench:
	@tests/bench.py

# The fuzzers of the hypervisor's files on this machine, for SECONDS each.
fuzz-host:
	FUZZ_SECONDS=$(or $(SECONDS),60) /usr/bin/python3 -B -m pytest -q -p no:cacheprovider \
	  tests/test_host.py -k fuzz

# The picture in the README: boots once, and draws the exits.
plot:
	@tools/need.sh run guest stats plot
	@/usr/bin/python3 -B tools/plot.py $(O)/exits.json docs/exits.svg

# Puts what the last `make check` tested into the README.
readme:
	sed -i -e '/^<!-- tested /r build/tested.md' -e '/^<!-- tested /,/^<!-- end /{//!d}' README.md

# tests/guests/fuzz.c on each QEMU, for SECONDS in all, with random numbers
# that begin with SEED.
fuzz-guest:
	@FUZZ_SECONDS='$(SECONDS)' FUZZ_SEED='$(SEED)' tests/run -k test_fuzz

# Do the tests notice a fault?  N boots of machines chosen at random.
mutants:
	@tests/mutants.py
soak:
	@BOOTS=$(or $(N),200) tests/run -k soak
