#!/bin/bash
# tools/debian13.sh [FOLDER]: follows the README on a fresh Debian 13, as a new
# user there would: ./run.sh to a prompt, then make check, on that system's QEMU.
# Then, on another fresh one, it does what Containerfile and .devcontainer say.
# FOLDER, by default build/debian13, is made anew, gets the systems and copies of
# this tree, and is removed if all is well.  It needs root and Debian, and installs
# debootstrap.  PARTS="readme container" says what to do, both or one of them.
set -euo pipefail
say() { echo "debian13: $*"; }
die() { say "$*" >&2 && exit 2; }

cd "$(dirname "$0")/.."
dir=${1:-build/debian13} suite=trixie
[ "$(id -u)" = 0 ] || die "only root can make a system and enter it"
[ "$(. /etc/os-release && echo "${ID:-}")" = debian ] || die "this needs Debian's archive, and so a Debian"

# Run in a namespace of its own: all that is mounted and started ends with this
# script, however it ends, and nobody else sees the mounts.
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

# The machine's settings for the network.
cp -L /etc/resolv.conf /etc/hosts /etc/hostname "$dir/etc/"
{
	apt-config dump | grep -E '^Acquire::(https?::.*Proxy|Check-|Retries)' || true
	[ -z "${http_proxy:-}" ] || echo "Acquire::http::Proxy \"$http_proxy\";"
} >"$dir/etc/apt/apt.conf.d/99machine"
# Copies the tree as it is now.
copy_tree() { # folder
	mkdir -p "$1"
	git ls-files -z --cached --others --exclude-standard |
		tar -cf - --null --files-from=- | tar -xf - -C "$1"
}

# Runs ./run.sh to its prompt and powers the guest off.
boots() { # command...
	coproc { "$@" 2>&1; }
	exec 5<&"${COPROC[0]}" 6>&"${COPROC[1]}"
	pid=$COPROC_PID # bash forgets it when the process ends
	line='' output=''
	while [[ $line != *guest:~# ]] && IFS= read -r -n 1 -d '' -t 1800 -u 5 c; do
		printf %s "$c"
		output+=$c
		[ "$c" = $'\n' ] && line= || line+=$c
	done
	[[ $line = *guest:~# ]] || die "./run.sh did not reach a prompt"
	echo poweroff >&6
	cat <&5
	wait "$pid" || die "./run.sh ended with status $?"
}

parts=${PARTS:-readme container}
[[ $parts != *container* ]] || cp -a "$dir" "$dir.container"
mount -t proc proc "$dir/proc"
mount --rbind /dev "$dir/dev"

if [[ $parts = *readme* ]]; then
	# The user, who may use sudo.
	chroot "$dir" useradd --create-home --shell /bin/bash user
	echo 'user ALL=(ALL) NOPASSWD: ALL' >"$dir/etc/sudoers.d/user"
	copy_tree "$dir/home/user/hv"
	chroot "$dir" chown -R user: /home/user/hv
	user() { # command
		chroot --userspec=user "$dir" env -i HOME=/home/user USER=user \
			PATH=/usr/local/bin:/usr/bin:/bin TERM=linux ${CI:+CI=$CI} sh -c "cd ~/hv && $1"
	}
	say "./run.sh"
	boots user ./run.sh
	# With that system's QEMU; the others are the same as everywhere.
	say "make check"
	user 'make check QEMU=qemu-system-riscv64'
	say "both pass on Debian $(cat "$dir/etc/debian_version"): gcc" \
		"$(user 'riscv64-linux-gnu-gcc -dumpfullversion'), $(user 'ls /usr/src' | head -n 1)"
fi

# What an engine would do with Containerfile: COPY and each RUN, as root.  Then what
# VS Code does: the tree in a folder of its own, the devcontainer's command, and a
# boot, without a network and without building the guest again.
if [[ $parts = *container* ]]; then
	grep -qx "FROM debian:13" Containerfile || die "Containerfile is not from this Debian"
	umount -R "$dir/dev" "$dir/proc"
	dir=$dir.container
	mount -t proc proc "$dir/proc"
	mount --rbind /dev "$dir/dev"
	inside() { # folder, command
		chroot "$dir" env -i HOME=/root PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
			TERM=linux DEBIAN_FRONTEND=noninteractive sh -c "cd $1 && $2"
	}
	copy_tree "$dir/opt/hv"
	sed -n 's/^RUN //p' Containerfile | while IFS= read -r step; do
		say "Containerfile: $step"
		inside /opt/hv "$step" </dev/null || die "failed: $step"
	done
	copy_tree "$dir/workspaces/hv"
	inside /workspaces/hv "$(sed -n 's/.*"postCreateCommand": "\(.*\)",/\1/p' .devcontainer/devcontainer.json)"
	say "the container's ./run.sh, without a network"
	boots unshare --net chroot "$dir" sh -c 'cd /workspaces/hv && ./run.sh'
	[[ $output != *"is built now"* ]] || die "the guest was built again"
	say "the container works: $(du -shx "$dir" | cut -f 1) in all"
fi
cd /
umount -R "$dir/dev" "$dir/proc"
dir=${dir%.container}
rm -rf "$dir" "$dir.container" "$dir.log"
