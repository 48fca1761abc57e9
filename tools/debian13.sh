#!/bin/bash
# tools/debian13.sh [FOLDER]: does what the README says on a fresh Debian 13, as
# a new user there: ./run.sh to a prompt, then make check, on the QEMU of that
# system.  FOLDER, build/debian13
# otherwise, is made anew, gets the system and a copy of this tree, and is
# removed if all is well.  Needs root, Debian, and debootstrap, which it installs.
set -euo pipefail
say() { echo "debian13: $*"; }
die() { say "$*" >&2 && exit 2; }

cd "$(dirname "$0")/.."
dir=${1:-build/debian13} suite=trixie
[ "$(id -u)" = 0 ] || die "to make a system and to enter it needs root"
[ "$(. /etc/os-release && echo "${ID:-}")" = debian ] || die "a Debian's archive is needed"

# In a namespace of its own: what is mounted and started ends with this script,
# however it ends, and nobody else sees the mounts.
[ -n "${HV_NAMESPACE:-}" ] || HV_NAMESPACE=1 exec unshare --mount --propagation private \
	--pid --fork --kill-child tools/debian13.sh "$dir"

command -v debootstrap >/dev/null || { apt-get -q update && apt-get -q -y install debootstrap; }
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=$(apt-get indextargets --format '$(SITE)' "Release: $codename" "Created-By: Packages" |
	head -n 1)
[ -n "$mirror" ] || die "no mirror for $codename in /etc/apt"

say "a fresh $suite in $dir"
rm -rf "$dir"
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
debootstrap --variant=minbase --include=sudo "$suite" "$dir" "$mirror" >"$dir.log" 2>&1 ||
	{ tail -n 5 "$dir.log" >&2 && die "debootstrap failed; see $dir.log"; }

# The machine's way to the net.
cp -L /etc/resolv.conf /etc/hosts /etc/hostname "$dir/etc/"
{
	apt-config dump | grep -E '^Acquire::(https?::.*Proxy|Check-|Retries)' || true
	[ -z "${http_proxy:-}" ] || echo "Acquire::http::Proxy \"$http_proxy\";"
} >"$dir/etc/apt/apt.conf.d/99machine"
mount -t proc proc "$dir/proc"
mount --rbind /dev "$dir/dev"

# The user, who may use sudo, and a copy of the tree as it is now.
chroot "$dir" useradd --create-home --shell /bin/bash user
echo 'user ALL=(ALL) NOPASSWD: ALL' >"$dir/etc/sudoers.d/user"
mkdir "$dir/home/user/hv"
git ls-files -z --cached --others --exclude-standard |
	tar -cf - --null --files-from=- | tar -xf - -C "$dir/home/user/hv"
chroot "$dir" chown -R user: /home/user/hv
user() { # command
	chroot --userspec=user "$dir" env -i HOME=/home/user USER=user \
		PATH=/usr/local/bin:/usr/bin:/bin TERM=linux ${CI:+CI=$CI} sh -c "cd ~/hv && $1"
}

say "./run.sh"
coproc { user ./run.sh 2>&1; }
exec 5<&"${COPROC[0]}" 6>&"${COPROC[1]}"
pid=$COPROC_PID # bash forgets it when the process ends
line=
while [[ $line != *guest:~# ]] && IFS= read -r -n 1 -d '' -t 1800 -u 5 c; do
	printf %s "$c"
	[ "$c" = $'\n' ] && line= || line+=$c
done
[[ $line = *guest:~# ]] || die "./run.sh came to no prompt"
echo poweroff >&6
cat <&5
wait "$pid" || die "./run.sh ended with status $?"

# With that system's QEMU; the others are the same as everywhere.
say "make check"
user 'make check QEMU=qemu-system-riscv64'
say "both pass on Debian $(cat "$dir/etc/debian_version"): gcc" \
	"$(user 'riscv64-linux-gnu-gcc -dumpfullversion'), $(user 'ls /usr/src' | head -n 1)"
cd /
umount -R "$dir/dev" "$dir/proc"
rm -rf "$dir" "$dir.log"
