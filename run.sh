#!/bin/bash
# ./run.sh: boots Linux to a shell in the virtual machine.
set -euo pipefail

usage() {
	cat <<'END'
usage: ./run.sh [options]
  -k, --kernel FILE[@ADDRESS]
                         boot this kernel instead of our own: a RISC-V Linux
                         Image, an ELF file, or any other binary, which is put
                         at 0x80200000 or ADDRESS and entered there.  Each may
                         be gzipped.  A kernel for 0x80000000 begins in M-mode
  -i, --initrd FILE      with this initramfs; without it an Image gets our own
  -p, --params "ARGS"    more boot arguments for the kernel
  -m, --mem MIB          the guest's RAM (1024)
  -c, --cpus N           the guest's harts, 1 to 8 (1)
  -d, --disk FILE[,ro]   give the guest this disk image; repeatable.  Without it,
                         disk.img, which is made if it is missing (64 MiB, ext4)
      --no-disk          no disk
  -n, --net              a network card, on QEMU's user network
      --share DIR        show the guest this folder of yours, on /mnt
      --bare             the same guest on QEMU without the hypervisor
      --gdb[=tmux]       start stopped and wait for gdb: from another terminal,
                         or in a split of this tmux window
      --stats            print at the end where the VM exits went
      --trace FILE       write every VM exit to FILE, for ui.perfetto.dev
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

# Prints the full path of the file that an option names.
file() { # option file
	[ -f "$2" ] && [ -r "$2" ] || die "$1: cannot read $2"
	realpath "$2"
}

number() { # option value least most
	[[ $2 =~ ^[0-9]{1,6}$ ]] && ((10#$2 >= $3 && 10#$2 <= $4)) ||
		die "$1 takes a number from $3 to $4, not '$2'"
	echo $((10#$2))
}

kernel='' at='' initrd='' params='' mem=1024 cpus=1 bare='' dry_run='' net='' share='' disks=() no_disk='' gdb='' stats=()
while [ $# -gt 0 ]; do
	takes=1 # words
	case $1 in
	-k | --kernel | -i | --initrd | -p | --params | -m | --mem | -c | --cpus | -d | --disk | --share | --trace)
		[ $# -ge 2 ] || die "$1 needs a value (see --help)"
		takes=2
		;;
	esac
	case $1 in
	-k | --kernel)
		if [[ ! -e $2 && $2 =~ ^(.*)@(0x[0-9a-fA-F]{1,12})$ ]]; then
			kernel=$(file "$1" "${BASH_REMATCH[1]}") at=$((BASH_REMATCH[2]))
		else
			kernel=$(file "$1" "$2") at=''
		fi
		;;
	-i | --initrd) initrd=$(file "$1" "$2") ;;
	-p | --params) params=$2 ;;
	-m | --mem) mem=$(number "$1" "$2" 16 65536) ;;
	-c | --cpus) cpus=$(number "$1" "$2" 1 8) ;;
	-d | --disk)
		disk=$(file "$1" "${2%,ro}")
		[[ $2 = *,ro ]] || [ -w "$disk" ] || die "$1: cannot write to $disk (try $2,ro)"
		disks+=("$disk${2#"${2%,ro}"}")
		;;
	--no-disk) no_disk=1 ;;
	-n | --net) net=1 ;;
	--share)
		[ -d "$2" ] || die "$1: $2 is not a folder"
		share=$(realpath "$2")
		;;
	--gdb | --gdb=tmux) gdb=$1 ;;
	--stats) stats+=(--stats) ;;
	--trace)
		[ ! -d "$2" ] && { [ -w "$2" ] || { [ ! -e "$2" ] && [ -w "$(dirname "$2")/." ]; }; } ||
			die "$1: cannot write to $2"
		stats+=(--trace "$(realpath "$2")")
		;;
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
[ "$gdb" != --gdb=tmux ] || [ -n "${TMUX:-}" ] || die "--gdb=tmux: this is not a tmux window"
[ -z "$bare" ] || [ ${#stats[@]} = 0 ] || die "--bare and ${stats[0]} do not go together"
cd "$(dirname "$0")"
O=${O:-build}
qemu=${QEMU:-qemu-system-riscv64}

cross=${CROSS:-riscv64-linux-gnu-}
[ -z "${QEMU:-}" ] || command -v "$qemu" >/dev/null || die "QEMU: there is no command $qemu"
# Print what is at an offset in the kernel's file: bytes as digits, or a number.
bytes_at() { od -An -v -t x1 -j "$1" -N "$2" "$kernel" | tr -d ' \n'; }
number_at() { od -An -v -t "u$2" -j "$1" -N "$2" "$kernel" | tr -d ' '; }

form='' own=("$kernel" "$initrd")
if [ -n "$kernel" ]; then
	[ -s "$kernel" ] || die "-k: $kernel is empty"
	if [ "$(bytes_at 0 2)" = 1f8b ]; then
		unzipped=$(mktemp)
		trap 'rm -f "$unzipped"' EXIT
		gzip -dc "$kernel" >"$unzipped" 2>/dev/null || die "$kernel is not a whole gzip file"
		kernel=$unzipped
	fi
	case $(bytes_at 0 4)-$(bytes_at 56 4 2>/dev/null) in
	*-52534305) form=Image ;; # "RSC\5" in the header
	7f454c46-*)
		form=ELF
		[ "$(bytes_at 4 1)$(bytes_at 18 2)" = 02f300 ] || die "${own[0]} is an ELF file, but not for 64-bit RISC-V"
		;;
	*) form=flat ;;
	esac
	[ "$form" = flat ] || [ -z "$at" ] || die "-k: an $form says by itself where it belongs"
fi
tools/need.sh run $([ -n "$kernel" ] && [ "$form$initrd" != Image ] || echo guest) ${gdb:+gdb} ${stats:+stats}

# lpj, "loops per jiffy", is the number of timebase ticks in one timer tick of
# Linux, and udelay() counts by it.  If we don't say it, the kernel measures it at
# boot, which takes time and goes wrong on a busy machine.  HZ is that of our own
# kernel, so another kernel has to measure.
timebase=10000000 hz=250
append="console=ttyS0"
[ -n "$kernel" ] || append+=" lpj=$((timebase / hz))"
if [ -t 0 ] && size=$(stty size) && [ "$size" != "0 0" ]; then
	# for init: a serial line can't tell how large the terminal is
	append+=" LINES=${size% *} COLUMNS=${size#* }"
fi
append+="${params:+ $params}"

build() {
	make --no-print-directory -s O="$O" "$@"
}

if [ -z "$kernel" ]; then
	kernel=build/linux/arch/riscv/boot/Image
	[ -e $kernel ] || echo "run.sh: the guest's kernel is built now, once, which takes minutes. Meanwhile" \
		"you could begin to read: boot.S, hv.c, mem.c, ... README.md has the whole order." >&2
	build $kernel
fi
case $form$initrd in
'' | Image) build "${initrd:=build/rootfs/initramfs.cpio.gz}" ;;
esac

# Where the kernel begins, which is where it is entered, and where it ends, with its
# .bss.  We don't use the entry point of an ELF file, and neither does QEMU: in many
# it is a virtual address, and they begin at their lowest physical one.
ram=$((0x80000000))
case $form in
flat)
	at=${at:-$((ram + 0x200000))} end=$((at + $(stat -Lc %s "$kernel")))
	;;
ELF)
	at='' end=0
	segments=$("${cross}readelf" -lW "$kernel" | grep '^ *LOAD ') || :
	while read -r _ _ _ address _ size _; do
		((at = ${at:-address} < address ? ${at:-address} : address)) || :
		((end = end > address + size ? end : address + size)) || :
	done <<<"${segments:-_ _ _ 0 0 0}"
	;;
*) at=$((ram + $(number_at 8 8))) end=$((at + $(number_at 16 8))) ;;
esac

# The kernel gets one half of the RAM, and the initramfs the other (guest.S).
fits() { # file begin end least most
	(($2 >= $4 && $3 >= $2 && $3 <= $5)) ||
		die "$1 is for addresses $(printf '0x%x to 0x%x, not within 0x%x to 0x%x' "$2" "$3" "$4" "$5"), half of the guest's RAM: try a larger --mem"
}
read -r middle initrd_at < <(build MEM="$mem" where)
fits "${own[0]:-our kernel}" $((at)) $end $ram "$middle"
[ -z "$initrd" ] || fits "${own[1]:-our initramfs}" "$initrd_at" \
	$((initrd_at + $(stat -Lc %s "$initrd"))) "$middle" $((ram + (mem << 20)))

# All is well.  From here on we leave files behind.
mkdir -p "$O"
[ -n "$initrd" ] || { initrd=$O/empty && : >>"$initrd"; } # an old one keeps its date
[ "${unzipped:-}" != "$kernel" ] || { kernel=$O/kernel.unzipped && mv "$unzipped" "$kernel"; }
binary=$kernel
if [ "$form" = ELF ]; then
	binary=$O/kernel.binary
	rm -f "$binary"
	truncate -s $((end - at)) "$binary" # zeros, where nothing else comes: .bss
	while read -r _ offset _ address size _; do
		dd if="$kernel" of="$binary" bs=1M iflag=skip_bytes,count_bytes oflag=seek_bytes conv=notrunc \
			status=none skip=$((offset)) count=$((size)) seek=$((address - at))
	done <<<"$segments"
fi
[ "$at" = $ram ] && mode=M || mode=S
[ -z "$form" ] || printf 'run.sh: %s (%s) is entered at 0x%x in %s-mode\n' \
	"${own[0]}" "${form/flat/neither an Image nor ELF: flat}" "$at" $mode >&2
version=$("$qemu" --version) || : # if it can't run, it says so below
if [ $mode = M ] && [ -z "$bare" ] && [[ $version =~ version\ (10\.0\.13|11\.1\.) ]]; then
	echo "run.sh: a kernel that begins in M-mode hangs on this QEMU, see \"What it does not do\" in the README" >&2
fi

# make can't take a name with a space in it, but it can take a link to that file.
link() { # name file
	ln -sfn "$2" "$O/$1"
	echo "$O/$1"
}

# Our own kernel uses three levels of page tables where QEMU lets us say so, because
# each level costs a guest one more walk of the second stage (docs/bench.md).
# Another kernel may want more.
cpu=rv64,h=true
[ -n "$form" ] || [[ $version =~ version\ [0-9]\. ]] || cpu+=,sv48=off,sv57=off
command=("$qemu" -M virt -cpu "$cpu" -nographic -smp "$cpus")
if [ -n "$bare" ]; then
	# QEMU puts whatever is not ELF at one address.  For any other address, wrap it
	# into an ELF file.
	if [ "$form" != ELF ] && ((at != ram && at != ram + 0x200000)); then
		"${cross}ld" -N -e 0 -b binary -Tdata="$(printf 0x%x "$at")" -o "$O/kernel.elf" "$kernel"
		kernel=$O/kernel.elf
	fi
	command+=(-m "$mem" -kernel "$kernel" -append "$append")
	[ ! -s "$initrd" ] || command+=(-initrd "$initrd")
	[ $mode = S ] || command+=(-bios none)
else
	build KERNEL="$(link kernel "$(realpath "$binary")")" KERNEL_AT="$at" \
		INITRD="$(link initrd "$(realpath "$initrd")")" MEM="$mem" CPUS="$cpus" BOOTARGS="$append"
	# One GiB more than the guest's RAM.  The firmware and we need a little of it, and
	# the rest lets the guest's RAM begin at a multiple of 1 GiB: one PTE maps it.
	command+=(-m $((mem + 1024)) -kernel "$O/hv.elf")
fi

# The devices, in virtio-mmio slots: one disk or more, and always some entropy.  QEMU
# has version 2 of virtio-mmio, the one in virtio 1.2, only if we ask for it.  A
# comma in a file's name is doubled for QEMU.
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
	# The slot matters.  Some kernels know one disk only, in the first slot.  Linux
	# names disks in the order of the device tree, which has the last slot first.
	bus=virtio-mmio-bus.$((${#disks[@]} - 1 - i))
	disk=${disks[i]%,ro}
	[ "$disk" = "${disks[i]}" ] && ro=off || ro=on
	command+=(-drive "file=${disk//,/,,},format=raw,if=none,id=disk$i,readonly=$ro"
		-device "virtio-blk-device,drive=disk$i,bus=$bus")
done
[ -z "$net" ] || command+=(-netdev user,id=net -device virtio-net-device,netdev=net)
[ -z "$share" ] || command+=(-fsdev "local,id=share,path=${share//,/,,},security_model=none"
	-device virtio-9p-device,fsdev=share,mount_tag=share)
command+=(${QEMU_ARGS:-})
if [ ${#stats[@]} -gt 0 ]; then # exits.py runs QEMU and reads its memory
	[ -n "$form" ] || stats+=(--map build/linux/System.map)
	command=(/usr/bin/python3 -B tools/exits.py "${stats[@]}" --harts "$cpus" --mib $((mem + 1024))
		--hv "$O/hv.sym" -- "${command[@]}")
fi

# Find a free port, and write a file with all that gdb has to know.
if [ -n "$gdb" ]; then
	debugger=$(command -v gdb-multiarch || echo gdb)
	port=$("$debugger" -nx -batch -ex 'python import socket; s = socket.socket()' \
		-ex 'python s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
	command+=(-gdb "tcp:127.0.0.1:$port" -S)
	{
		[ -n "$bare" ] || echo "file \"$(realpath "$O")/hv.elf\""
		[ -n "${own[0]}" ] || echo "add-symbol-file \"$PWD/build/linux/vmlinux\""
		echo "set architecture riscv:rv64"
		[ -n "$bare" ] || echo "source $PWD/gdb/hv.py"
		echo "target remote 127.0.0.1:$port"
	} >"$O/hv.gdb"
	attach="${debugger##*/} -q -x $(printf '%q' "$(realpath "$O/hv.gdb")")"
	if [ "$gdb$dry_run" = --gdb=tmux ]; then
		tmux split-window -h "$attach"
	else
		echo "run.sh: QEMU waits for gdb; in another terminal: $attach" >&2
	fi
fi

if [ -n "$dry_run" ]; then
	printf '%q ' "${command[@]}"
	echo
	exit
fi
exec "${command[@]}"
