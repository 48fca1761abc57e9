#!/bin/bash
# linux/build.sh OUT: builds the guest's kernel from the distribution's package
# linux-source, with everything off that linux/config does not name.  Everything
# it writes is below OUT; the tools' output is in OUT/build.log.
set -euo pipefail
unset O MAKEFLAGS MAKEOVERRIDES # from our own make; the kernel's would obey them

[ $# = 1 ] || { echo "usage: $0 OUT" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
log=$out/build.log
source=$out/source
exec 9>"$out/.lock"
flock 9 # two builds at once in one folder would spoil it
: >"$log"

echo "linux: building the guest's kernel, which takes minutes (log: $1/build.log)"

fail() {
	[ ! -t 1 ] || echo
	tail -n 20 "$log" >&2
	echo "linux: $1; the whole log is $log" >&2
	exit 1
}

# Debian has the tarball in /usr/src itself, Ubuntu in a folder there.
shopt -s nullglob
tarball=$(printf '%s\n' /usr/src/linux-source-*.tar.* /usr/src/linux-source-*/*.tar.* |
	sort -V | tail -n 1)
[ -n "$tarball" ] || fail "no linux-source package in /usr/src"

# If the folder exists it is complete, because it gets its name last.  Most of the
# kernel is drivers that we do not build; leaving out the largest saves a gigabyte.
version=$(stat -Lc '%n %s %Y' "$tarball") # an update of the package keeps the name
if [ "$(cat "$out/source.of" 2>/dev/null)" != "$version" ]; then
	rm -rf "$source" "$source.new" "$out/source.of"
	mkdir "$source.new"
	tar -xf "$tarball" -C "$source.new" --strip-components=1 \
		--exclude='*/drivers/gpu/*.[ch]' --exclude='*/drivers/net/*/*/*.[ch]' \
		--exclude='*/drivers/media/*.[ch]' --exclude='*/sound/*.[ch]' >>"$log" 2>&1 || fail "cannot unpack $tarball"
	mv "$source.new" "$source"
	echo "$version" >"$out/source.of"
fi

# Nothing about this machine goes into the kernel: the same source gives the same
# bytes.
export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970' KBUILD_BUILD_VERSION=1
export KBUILD_BUILD_USER=hv KBUILD_BUILD_HOST=hv LOCALVERSION=
# The compiler spends 7 % of its time on remembering which macro each token came
# from, for messages that nobody reads here.  Without that the code is the same.
kernel_make() {
	make -C "$source" O="$out" ARCH=riscv CROSS_COMPILE=riscv64-linux-gnu- \
		KCFLAGS=-ftrack-macro-expansion=0 "$@"
}
kernel_make KCONFIG_ALLCONFIG="$here/config" allnoconfig >>"$log" 2>&1 || fail "make allnoconfig failed"

# The kernel's configuration must have what linux/config asks for.  A name that
# this kernel does not know at all belongs to an older or newer one.
missing=$(grep -xE 'CONFIG_[A-Z0-9_]+=.*' "$here/config" | while IFS= read -r line; do
	name=${line%%=*}
	grep -qxF "$line" "$out/.config" ||
		! grep -rqxE "(menu)?config ${name#CONFIG_}" --include='Kconfig*' "$source" ||
		echo "$name"
done | xargs)
[ -z "$missing" ] || fail "not taken from linux/config: $missing"

# Show one line that counts files; make's output itself goes to the log.
count=0 next=20
kernel_make -j"$(nproc)" Image 2>&1 | while IFS= read -r line; do
	printf '%s\n' "$line" >>"$log"
	case $line in *" CC "* | *" AS "*) count=$((count + 1)) ;; *) continue ;; esac
	if [ -t 1 ]; then
		printf '\r  linux: %d of about 745 files' "$count"
	elif [ "$SECONDS" -ge "$next" ]; then
		echo "  linux: $count of about 745 files"
		next=$((SECONDS + 20))
	fi
done || fail "the kernel did not build"
[ ! -t 1 ] || printf '\r\033[K'
