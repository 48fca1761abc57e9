#!/bin/bash
# ./run.sh: boots Linux to a shell, in a virtual machine of the hypervisor.
set -euo pipefail

usage() {
	cat <<'END'
usage: ./run.sh [options]
  -k, --kernel FILE      boot this RISC-V Linux Image instead of our own
  -i, --initrd FILE      with this initramfs instead of our own
  -p, --params "ARGS"    more boot arguments for the kernel
  -m, --mem MIB          the guest's RAM (1024)
  -c, --cpus N           the guest's harts (1; more are not there yet)
  -d, --disk FILE[,ro]   give the guest this disk image; repeatable.  Without it,
                         disk.img, which is made (64 MiB, ext4) if it is missing
      --no-disk          no disk
  -n, --net              a network card, on QEMU's user network
      --share DIR        this folder of the host's, on /mnt in the guest
      --bare             the same guest on QEMU without the hypervisor
      --gdb              start stopped, and wait for gdb (not there yet)
      --stats            print where the exits went (not there yet)
      --dry-run          build, and print the QEMU command instead of running it
  -h, --help             this text
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

kernel='' initrd='' params='' mem=1024 bare='' dry_run='' net='' share='' disks=() no_disk=''
while [ $# -gt 0 ]; do
	takes=1 # words
	case $1 in
	-k | --kernel | -i | --initrd | -p | --params | -m | --mem | -c | --cpus | -d | --disk | --share)
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
	-d | --disk)
		disk=$(file "$1" "${2%,ro}")
		[[ $2 = *,ro ]] || [ -w "$disk" ] || die "$1: cannot write to $disk (try $2,ro)"
		disks+=("$disk${2#"${2%,ro}"}")
		;;
	--no-disk) no_disk=1 ;;
	-n | --net) net=1 ;;
	--share)
		[ -d "$2" ] || die "$1: $2 is no folder"
		share=$(realpath "$2")
		;;
	--gdb | --stats) die "$1 is not there yet" ;;
	--bare) bare=1 ;;
	--dry-run) dry_run=1 ;;
	-h | --help) usage && exit ;;
	*) die "unknown option '$1' (see --help)" ;;
	esac
	shift $takes
done
[[ $params != *[\"\'\\\$[:cntrl:]]* ]] || die "--params: no quotes, backslashes, dollars or control characters, please"

[ ${#disks[@]} -le 5 ] || die "-d: at most five disks, please"
[ -z "$no_disk" ] || [ ${#disks[@]} = 0 ] || die "--no-disk and -d do not go together"
cd "$(dirname "$0")"
O=${O:-build}
qemu=${QEMU:-qemu-system-riscv64}

[ -z "${QEMU:-}" ] || command -v "$qemu" >/dev/null || die "QEMU: there is no command $qemu"
tools/need.sh run $([ -n "$kernel" ] && [ -n "$initrd" ] || echo guest)

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

# The devices, in virtio-mmio slots: a disk or more, and always some entropy.
# Version 2 of the interface, the one that virtio 1.2 describes, is an option.
# A comma in a file's name is doubled for QEMU.
command+=(-global virtio-mmio.force-legacy=false -device virtio-rng-device)
if [ ${#disks[@]} = 0 ] && [ -z "$no_disk" ]; then
	if [ ! -e disk.img ]; then
		truncate -s 64M disk.img.new
		PATH=$PATH:/sbin:/usr/sbin mkfs.ext4 -q -F -L data disk.img.new
		mv disk.img.new disk.img
	fi
	disks=(disk.img)
fi
for i in "${!disks[@]}"; do
	disk=${disks[i]%,ro}
	[ "$disk" = "${disks[i]}" ] && ro=off || ro=on
	command+=(-drive "file=${disk//,/,,},format=raw,if=none,id=disk$i,readonly=$ro"
		-device "virtio-blk-device,drive=disk$i")
done
[ -z "$net" ] || command+=(-netdev user,id=net -device virtio-net-device,netdev=net)
[ -z "$share" ] || command+=(-fsdev "local,id=share,path=${share//,/,,},security_model=none"
	-device virtio-9p-device,fsdev=share,mount_tag=share)
command+=(${QEMU_ARGS:-})

if [ -n "$dry_run" ]; then
	printf '%q ' "${command[@]}"
	echo
	exit
fi
exec "${command[@]}"
