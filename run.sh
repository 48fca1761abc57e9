#!/bin/bash
# ./run.sh: boots Linux to a shell, in a virtual machine of the hypervisor.
set -euo pipefail

usage() {
	cat <<'END'
usage: ./run.sh [options]
  -k, --kernel FILE    boot this RISC-V Linux Image instead of our own
  -i, --initrd FILE    with this initramfs instead of our own
  -p, --params "ARGS"  more boot arguments for the kernel
  -m, --mem MIB        the guest's RAM (1024)
  -c, --cpus N         the guest's harts (1; more are not there yet)
  -d, --disk FILE      give the guest this disk (not there yet)
  -n, --net            give the guest a network card (not there yet)
      --bare           the same guest on QEMU without the hypervisor
      --gdb            start stopped, and wait for gdb (not there yet)
      --stats          print where the exits went (not there yet)
      --dry-run        build, and print the QEMU command instead of running it
  -h, --help           this text
environment: QEMU=command (qemu-system-riscv64), QEMU_ARGS="more arguments",
             O=folder to build the hypervisor in (build)
In the guest, `poweroff` or leaving the shell ends it; Ctrl-a x ends QEMU.
END
}

die() {
	echo "run.sh: $*" >&2
	exit 2
}

# The file that an option names, as seen from where run.sh was called.
file() { # option file
	[ -f "$2" ] && [ -r "$2" ] || die "$1: cannot read $2"
	realpath "$2"
}

number() { # option value least most
	[[ $2 =~ ^[0-9]{1,6}$ ]] && ((10#$2 >= $3 && 10#$2 <= $4)) ||
		die "$1 takes a number from $3 to $4, not '$2'"
	echo $((10#$2))
}

kernel='' initrd='' params='' mem=1024 bare='' dry_run=''
while [ $# -gt 0 ]; do
	takes=1 # words
	case $1 in
	-k | --kernel | -i | --initrd | -p | --params | -m | --mem | -c | --cpus)
		[ $# -ge 2 ] || die "$1 needs a value (see --help)"
		takes=2
		;;
	esac
	case $1 in
	-k | --kernel) kernel=$(file "$1" "$2") ;;
	-i | --initrd) initrd=$(file "$1" "$2") ;;
	-p | --params) params=$2 ;;
	-m | --mem) mem=$(number "$1" "$2" 16 65536) ;;
	-c | --cpus)
		cpus=$(number "$1" "$2" 1 8)
		[ "$cpus" = 1 ] || die "$1 $2: more than one hart is not there yet"
		;;
	-d | --disk | -n | --net | --gdb | --stats) die "$1 is not there yet" ;;
	--bare) bare=1 ;;
	--dry-run) dry_run=1 ;;
	-h | --help) usage && exit ;;
	*) die "unknown option '$1' (see --help)" ;;
	esac
	shift $takes
done
[[ $params != *[\"\'\\\$]* ]] || die "--params: no quotes, backslashes or dollars, please"

cd "$(dirname "$0")"
O=${O:-build}
qemu=${QEMU:-qemu-system-riscv64}

tools/need.sh run

# lpj, "loops per jiffy", is how many ticks udelay() takes for one timer tick of
# Linux.  It is the timebase divided by HZ; said here, the kernel neither
# measures it, which under a hypervisor on a busy machine goes wrong, nor needs
# the time to.  HZ is our own kernel's, so another one finds out for itself.
timebase=10000000 hz=250
append="console=ttyS0"
[ -n "$kernel" ] || append+=" lpj=$((timebase / hz))"
if [ -t 0 ] && size=$(stty size) && [ "$size" != "0 0" ]; then
	# for init: a serial line does not know how large the terminal is
	append+=" LINES=${size% *} COLUMNS=${size#* }"
fi
append+="${params:+ $params}"

build() {
	make --no-print-directory -s O="$O" "$@"
}

# make can't take a name with a space in it, but a link of ours can point there.
link() { # name file
	mkdir -p "$O"
	ln -sfn "$2" "$O/$1"
	echo "$O/$1"
}
[ -n "$kernel" ] || build "${kernel:=build/linux/arch/riscv/boot/Image}"
[ -n "$initrd" ] || build "${initrd:=build/rootfs/initramfs.cpio.gz}"

# The header of an Image has its size, .bss included, at 16 and its magic number
# at 56.  Kernel and initramfs each get a half of the RAM (load_guest in hv.c).
[ "$(dd if="$kernel" bs=1 skip=56 count=4 status=none | tr -d '\0')" = $'RSC\x05' ] ||
	die "$kernel is no RISC-V Linux Image"
fits() { # bytes file
	(($1 < mem << 19)) ||
		die "$2 needs $(($1 >> 10)) KiB, half of the guest's RAM is $((mem << 9)) KiB: try a larger --mem"
}
fits $((0x200000 + $(od -An -t u8 -j 16 -N 8 "$kernel"))) "$kernel"
fits $((0x10000 + $(stat -c %s "$initrd"))) "$initrd"

command=("$qemu" -M virt -cpu rv64,h=true -nographic)
if [ -n "$bare" ]; then
	command+=(-m "$mem" -kernel "$kernel" -initrd "$initrd" -append "$append")
else
	build KERNEL="$(link kernel "$(realpath "$kernel")")" \
		INITRD="$(link initrd "$(realpath "$initrd")")" MEM="$mem" BOOTARGS="$append"
	# The guest's RAM and a GiB for the firmware, for us, and so that the
	# guest's can begin at a multiple of 1 GiB: then one entry maps it.
	command+=(-m $((mem + 1024)) -kernel "$O/hv.elf")
fi
command+=(${QEMU_ARGS:-})

if [ -n "$dry_run" ]; then
	printf '%q ' "${command[@]}"
	echo
	exit
fi
exec "${command[@]}"
