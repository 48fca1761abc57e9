#!/bin/bash
# tools/need.sh PURPOSE...: installs what is missing on this system.
#   run    to build and run the hypervisor
#   guest  to build the guest's kernel and initramfs
#   check  to run the tests
#   gdb    to look into it with gdb (the tests do, too)
#   stats  for ./run.sh --stats and --trace
#   plot   for make plot and make bench
#   site   for make site: the book as a site, and its slides
#   site-pdf  to print it, and to test it
# With apt it installs (as root, or through sudo after saying what and why);
# elsewhere it says what to install, and exits with 2.
set -euo pipefail

# A line for each: command or file, package for apt, dnf, pacman, brew, purposes.
table() {
	cat <<-'END'
	make                     make                   make                     make                  make                        run
	gcc                      gcc                    gcc                      gcc                   gcc                         guest
	/usr/include/stdlib.h    libc6-dev              glibc-devel              glibc                 -                           guest
	riscv64-linux-gnu-gcc    gcc-riscv64-linux-gnu  gcc-riscv64-linux-gnu    riscv64-linux-gnu-gcc riscv64-elf-gcc             run
	/usr/riscv64-linux-gnu/lib/libc.a libc6-dev-riscv64-cross - riscv64-linux-gnu-glibc - guest
	cpp                      cpp                    cpp                      gcc                   gcc                         run
	dtc                      device-tree-compiler   dtc                      dtc                   dtc                         run
	qemu-system-riscv64      QEMU                   qemu-system-riscv        qemu-system-riscv     qemu                        run
	/usr/src/linux-source-*  linux-source           -                        -                     -                           guest
	flex                     flex                   flex                     flex                  flex                        guest
	bison                    bison                  bison                    bison                 bison                       guest
	bc                       bc                     bc                       bc                    bc                          guest
	xz                       xz-utils               xz                       xz                    xz                          guest
	bzip2                    bzip2                  bzip2                    bzip2                 bzip2                       guest
	/sbin/mkfs.ext4          e2fsprogs              e2fsprogs                e2fsprogs             e2fsprogs                   run
	gdb-multiarch            gdb-multiarch          gdb                      gdb                   gdb                         gdb
	/usr/bin/python3         python3                python3                  python                python                      stats
	gnuplot                  gnuplot-nox            gnuplot                  gnuplot               gnuplot                     plot
	clang-format             clang-format           clang-tools-extra        clang                 clang-format                check
	cloc                     cloc                   cloc                     cloc                  cloc                        check
	/usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin u-boot-qemu - - - check
	git                      git                    git                      git                   git                         check
	clang                    clang                  clang                    clang                 llvm                        check site
	llvm-cov                 llvm                   llvm                     llvm                  llvm                        check
	/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a libclang-rt-dev compiler-rt compiler-rt - check
	/usr/include/cmocka.h    libcmocka-dev          libcmocka-devel          cmocka                cmocka                      check
	node                     nodejs                 nodejs                   nodejs                node                        site
	npm                      npm                    nodejs-npm               npm                   -                           site
	wasm-ld                  lld                    lld                      lld                   lld                         site
	chromium                 chromium               chromium                 chromium              -                           site-pdf
	/usr/lib/python3/dist-packages/pytest  python3-pytest  python3-pytest    python-pytest         pytest                      check
	/usr/lib/python3/dist-packages/pexpect python3-pexpect python3-pexpect   python-pexpect        pexpect                     check
	/usr/lib/python3/dist-packages/xdist   python3-pytest-xdist python3-pytest-xdist python-pytest-xdist -                     check
	END
}

has() {
	case $1 in
	/*) compgen -G "$1" >/dev/null ;;
	riscv64-linux-gnu-gcc) command -v "${CROSS:-riscv64-linux-gnu-}gcc" >/dev/null ;;
	# Outside Debian, plain gdb knows RISC-V, too.
	gdb-multiarch) command -v "$1" >/dev/null || { ! command -v apt-get && command -v gdb; } >/dev/null ;;
	qemu-system-riscv64) command -v "${QEMU:-$1}" >/dev/null ;;
	*) command -v "$1" >/dev/null ;;
	esac
}

missing() { # what, apt, dnf, pacman or brew
	local use uses
	while read -r what apt dnf pacman brew uses; do
		for use in $uses; do
			[[ " $purposes " = *" $use "* ]] || continue
			has "$what" || echo "${!1}"
			break
		done
	done < <(table)
}

purposes=$*
[ -n "$(missing what)" ] || exit 0

if ! command -v apt-get >/dev/null; then
	{
		echo "missing: $(missing what | xargs)"
		echo "install: dnf: $(missing dnf | grep -vx - | xargs)"
		echo "      pacman: $(missing pacman | grep -vx - | xargs)"
		echo "        brew: $(missing brew | grep -vx - | xargs)"
		echo "If the compiler has another prefix, for example: CROSS=riscv64-elf- ./run.sh ..."
		echo "Options -k and -i take a guest kernel and an initramfs made elsewhere."
	} >&2
	exit 2
fi

packages=$(missing apt | sort -u | xargs)
case $packages in
*QEMU*) # its package was split after Debian 12
	split=$(apt-cache pkgnames qemu-system-riscv | grep -x qemu-system-riscv || true)
	packages=${packages/QEMU/${split:-qemu-system-misc}}
esac
sudo=
if [ "$(id -u)" != 0 ]; then
	sudo=sudo
	echo "To build and run the guest, these packages are needed; sudo installs them:"
	echo "  $packages"
fi
echo "installing: $packages"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
apt_get() {
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q "$@"
}
# Says nothing; if it fails, the last lines of the log.
if ! { apt_get update && apt_get install -y --no-install-recommends $packages; } >"$log" 2>&1; then
	tail -n 20 "$log" >&2
	echo "apt could not install: $packages" >&2
	exit 2
fi
still=$(missing what | xargs)
[ -z "$still" ] || { echo "still missing after the installation: $still" >&2; exit 2; }
