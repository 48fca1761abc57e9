#!/bin/bash
# rootfs/build.sh OUT: builds BusyBox from the distribution's source package and
# packs OUT/initramfs.cpio.gz.  Everything it writes is below OUT; the tools'
# output is in OUT/build.log.
set -euo pipefail
unset O MAKEFLAGS MAKEOVERRIDES # from our own make; BusyBox's would obey them

[ $# = 1 ] || { echo "usage: $0 OUT" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
bb=$out/busybox
log=$out/build.log
mk() { make -C "$bb" ARCH=riscv CROSS_COMPILE=riscv64-linux-gnu- "$@"; }

echo "rootfs: building BusyBox and the initramfs (log: $1/build.log)"
exec 9>"$out/.lock"
flock 9 # two builds at once in one folder would spoil it
exec 3>"$log"

fail() {
	[ ! -t 1 ] || echo
	tail -n 20 "$log" >&2
	echo "rootfs: $1; the whole log is $log" >&2
	exit 1
}

# Show one line that counts files; make's output itself goes to the log.
progress() { # about-how-many-files
	local n=0 next=20 line
	while IFS= read -r line; do
		printf '%s\n' "$line" >&3
		case $line in *"  CC  "* | *"  AS  "*) n=$((n + 1)) ;; *) continue ;; esac
		if [ -t 1 ]; then
			printf '\r  rootfs: %d of about %d files' "$n" "$1"
		elif [ "$SECONDS" -ge "$next" ]; then
			echo "  rootfs: $n of about $1 files"
			next=$((SECONDS + 20))
		fi
	done
	[ ! -t 1 ] || printf '\r\033[K'
}

# The source.  If the folder exists it is complete, because it gets its name last.
if [ ! -d "$bb" ]; then
	tarball=$("$here/../tools/debian.sh" source busybox "$out/source" 2>&3) ||
		fail "cannot get BusyBox's source package"
	rm -rf "$bb.new"
	mkdir "$bb.new"
	tar -xf "$tarball" -C "$bb.new" --strip-components=1 2>&3 ||
		fail "cannot unpack $tarball"
	mv "$bb.new" "$bb"
fi

# The same source gives the same bytes.
export KCONFIG_NOTIMESTAMP=1 SOURCE_DATE_EPOCH=0

# The configuration: everything is off except what rootfs/config names.  BusyBox's
# kconfig ignores KCONFIG_ALLCONFIG.  But it takes the first of two lines about a
# symbol, so rootfs/config goes in front of what allnoconfig wrote.
if ! cmp -s "$here/config" "$out/config.used"; then
	rm -f "$out/config.used"
	mk allnoconfig >&3 2>&3 || fail "make allnoconfig failed"
	mv "$bb/.config" "$out/config.none"
	cat "$here/config" "$out/config.none" >"$bb/.config"
	{ yes "" 2>/dev/null || true; } | mk oldconfig >&3 2>&3 || fail "make oldconfig failed"
	missing=
	while IFS= read -r line; do
		name=${line%%=*}
		# allnoconfig mentions every symbol that this version has
		grep -q "${name}[= ]" "$out/config.none" || continue
		grep -qxF -- "$line" "$bb/.config" || missing="$missing $name"
	done < <(grep '^CONFIG_' "$here/config")
	[ -z "$missing" ] || fail "rootfs/config names what it cannot have:$missing"
	cp "$here/config" "$out/config.used"
fi

mk -j"$(nproc)" busybox busybox.links 2>&1 | progress 280 || fail "BusyBox did not build"

# The archive, written by hand: a header of 110 characters and the name, then the
# data, both parts padded to four bytes.  That way we can make device nodes without
# being root, every owner is root, and every date is 0.
ino=0
entry() { # name mode size [major minor]
	ino=$((ino + 1))
	printf '070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\000' \
		$ino "$2" 0 0 1 0 "$3" 0 0 "${4:-0}" "${5:-0}" $((${#1} + 1)) 0 "$1"
	pad $((110 + ${#1} + 1))
}
pad() { head -c $((-$1 & 3)) /dev/zero; }
dir() { entry "$1" 0040755 0; }
node() { entry "$1" 0020600 0 "$2" "$3"; }
link() { entry "$1" 0120777 ${#2}; printf %s "$2"; pad ${#2}; }
file() { # name source
	local size
	size=$(wc -c <"$2")
	entry "$1" 0100755 "$size"
	cat "$2"
	pad "$size"
}
archive() {
	for d in . bin dev etc mnt proc root run sbin sys tmp usr usr/bin usr/sbin \
		usr/share usr/share/udhcpc; do
		dir $d
	done
	node dev/console 5 1
	node dev/null 1 3
	file init "$here/init"
	file bin/busybox "$bb/busybox"
	while read -r path; do
		case $path in
		*/poweroff | */halt | */reboot) link "${path#/}" /init ;;
		*) link "${path#/}" /bin/busybox ;;
		esac
	done <"$bb/busybox.links"
	link usr/share/udhcpc/default.script /init
	entry 'TRAILER!!!' 0 0
}
archive | gzip -9n >"$out/initramfs.new"
mv "$out/initramfs.new" "$out/initramfs.cpio.gz"
