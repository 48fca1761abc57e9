#!/bin/bash
# Gets packages from any suite of this machine's own distribution without
# touching the machine: apt runs with folders, lists and sources of its own, and
# nothing is installed.  Needs no root.
set -euo pipefail
export LC_ALL=C

usage() {
	cat >&2 <<-EOF
		usage: $0 source PACKAGE DIR          get PACKAGE's upstream tarball, print its path
		       $0 unpack SUITE DIR PACKAGE... unpack packages and all they depend on;
		                                      then DIR/run PROGRAM starts one of them.
		                                      SUITE:ARCHITECTURE takes another machine's,
		                                      without DIR/run: for a root file system
		       $0 qemu SUITE DIR              the suite's QEMU: DIR/qemu-system-riscv64
	EOF
	exit 2
}
say() { echo "debian: $*" >&2; }
die() { say "$*" && exit 2; }
why() { sed -n 's/^[EW]: //p' "$apt/log" | head -n 1; } # in apt's own words

# The machine's own entry for the archive's main suite, with another type and
# other suites.  All else in it is kept (mirror, keyring, components), except
# the architectures, which begin() sets.  Writes own.sources or, from an old
# one-line file, own.list; fails if there is no entry.  Targets keeps apt from
# fetching other indices that the machine may want.
entry() { # type suites
	local code files=()
	code=$(. /etc/os-release && echo "${VERSION_CODENAME:-sid}")
	for f in /etc/apt/sources.list.d/*.sources; do [ ! -r "$f" ] || files+=("$f"); done
	[ ${#files[@]} = 0 ] || awk -v type="$1" -v suites="$2" -v code="$code" '
		function flush(   v, n, w, i, hit) {
			n = split(val["suites"], w)
			for (i = 1; i <= n; i++) if (w[i] ~ main) hit = 1
			if (hit && !done && (" " val["types"] " ") ~ / deb / &&
			    val["enabled"] !~ /no|false/ && val["uris"] !~ /cdrom:/) {
				print "Types: " type "\nSuites: " suites "\nTargets: Packages Sources" rest
				done = 1
			}
			split("", val); rest = field = ""
		}
		BEGIN { main = "^(" code "|stable|oldstable|testing|unstable|sid)/?$" }
		FNR == 1 || /^[ \t]*$/ { flush() }
		/^#/ || /^[ \t]*$/ { next }
		/^[^ \t]/ { field = tolower($0); sub(/:.*/, "", field) }
		field ~ /^(types|suites|enabled|targets|architectures)$/ {
			line = $0; sub(/^[^ \t][^:]*:/, "", line); gsub(/\t/, " ", line)
			val[field] = val[field] " " line; next
		}
		field == "uris" { val[field] = val[field] $0 }
		{ rest = rest "\n" $0 }
		END { flush() }' "${files[@]}" >"$apt/etc/own.sources"
	[ ! -s "$apt/etc/own.sources" ] || return 0
	rm -f "$apt/etc/own.sources"
	sed -n 's/^[ \t]*deb[ \t]\{1,\}//p' /etc/apt/sources.list /etc/apt/sources.list.d/*.list \
		2>/dev/null | awk -v type="$1" -v suites="$2" -v code="$code" '
		{
			opts = ""
			if (match($0, /^\[[^\]]*\][ \t]*/)) {
				opts = substr($0, 2); sub(/\].*/, "", opts)
				$0 = substr($0, RLENGTH + 1)
				gsub(/(^|[ \t])arch[-+]?=[^ \t]*/, "", opts)
			}
			if ($1 ~ /^cdrom:/ || $2 !~ "^(" code "|stable|oldstable|testing|unstable|sid)/?$") next
			sub(/#.*/, "")
			comps = ""
			for (i = 3; i <= NF; i++) comps = comps " " $i
			n = split(suites, w, " ")
			for (i = 1; i <= n; i++)
				print type " [" opts " target=Packages,Sources] " $1 " " w[i] comps
			exit
		}' >"$apt/etc/own.list"
	[ -s "$apt/etc/own.list" ]
}

# Set up the private apt and read the suites' lists.
begin() { # folder type suites [architecture]
	apt=$1
	rm -rf "$apt"
	mkdir -p "$apt/etc" "$apt/state/lists/partial" "$apt/cache/archives/partial"
	apt=$(cd "$apt" && pwd)
	trap 'rm -rf "$apt" "${dir:-$apt}.part"' EXIT
	: >"$apt/state/status" # as if nothing were installed
	local arch
	arch=${4:-$(dpkg --print-architecture)}
	cat >"$apt/conf" <<-EOF
		Dir::Etc::sourcelist "/dev/null";
		Dir::Etc::sourceparts "$apt/etc";
		Dir::Etc::preferences "/dev/null";
		Dir::Etc::preferencesparts "/dev/null";
		Dir::State "$apt/state";
		Dir::State::status "$apt/state/status";
		Dir::Cache "$apt/cache";
		Dir::Log "$apt";
		#clear APT::Architectures;
		APT::Architectures { "$arch"; };
		APT::Architecture "$arch";
		APT::Default-Release "";
		APT::Sandbox::User "root"; # _apt may not enter this folder
		APT::Install-Recommends "false";
		APT::Update::Error-Mode "any";
		Acquire::Languages "none";
		Acquire::Retries "3";
		# what the machine does after its own updates is not wanted here
		#clear APT::Update::Pre-Invoke;
		#clear APT::Update::Post-Invoke;
		#clear APT::Update::Post-Invoke-Success;
		#clear DPkg::Pre-Install-Pkgs;
	EOF
	entry "$2" "$3" || die "no entry for the distribution's main suite in /etc/apt"
	say "reading the package lists of $3"
	apt-get -c "$apt/conf" -qq update >"$apt/log" 2>&1 ||
		die "cannot read the lists of $3${4:+ for $4}: $(why)"
}

# Shows apt's "Get:12 ..." lines as one line that counts, on stderr.
progress() {
	local total='?' size='' n=0 next=20 line
	while IFS= read -r line; do
		echo "$line" >>"$apt/log"
		case $line in
		*" newly installed"*) total=${line%% newly installed*} total=${total##* } ;;
		"Need to get "*) size=${line#Need to get } size=${size%% of *} ;;
		Get:*)
			n=$((n + 1))
			if [ -t 2 ]; then
				printf '\r  debian: package %s of %s (%s in all)' $n "$total" "$size" >&2
			elif [ $SECONDS -ge $next ]; then
				echo "  debian: package $n of $total ($size in all)" >&2
				next=$((SECONDS + 20))
			fi
			;;
		esac
	done
	[ ! -t 2 ] || printf '\r\033[K' >&2
}

get_source() { # package dir
	local tarball
	mkdir -p "$2"
	for tarball in "$2/$1"_*.orig.tar.*; do
		[ ! -e "$tarball" ] || { echo "$tarball" && return; }
	done
	begin "$2/.apt" deb-src "$(. /etc/os-release && echo "${VERSION_CODENAME:-sid}")"
	say "downloading the source of $1"
	(cd "$apt" && apt-get -c "$apt/conf" -qq source --download-only --tar-only "$1") \
		>"$apt/log" 2>&1 || die "cannot get the source of $1: $(why)"
	for tarball in "$apt/$1"_*.orig.tar.*[!c]; do # not the signature, .asc
		[ -e "$tarball" ] || die "the source package $1 has no upstream tarball"
		mv "$tarball" "$2/"
		echo "$2/${tarball##*/}"
	done
}

# Is the folder there and complete?  It gets its name only then.
complete() { # dir
	[ ! -e "$1/.complete" ] || return 0
	[ ! -e "$1" ] || rmdir "$1" 2>/dev/null || die "$1 is there, but this script did not make it"
	return 1
}

suites() { # suite: what must be in the sources for it
	case $1 in *-backports) echo "${1%-backports} $1" ;; *) echo "$1" ;; esac
}

fetch() { # suite dir package...
	local suite=$1 dir=$2 deb
	shift 2
	say "downloading $* from $suite, with all dependencies"
	apt-get -c "$apt/conf" -q -y --download-only -t "$suite" install "$@" 2>&1 | progress ||
		die "cannot get $* of $suite: $(why)"
	# In newer suites /lib and its like are part of /usr, and packages of both
	# kinds must meet in one place.  tar is told to keep such a link when an
	# archive has a folder of that name.
	mkdir -p "$dir"/usr/{bin,sbin,lib,lib64}
	for d in bin sbin lib lib64; do ln -s usr/$d "$dir/$d"; done
	for deb in "$apt"/cache/archives/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" | tar -xf - -C "$dir" --keep-directory-symlink \
			--no-same-owner --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' \
			--exclude='./usr/share/locale/*' || die "cannot unpack $deb"
		echo "$(dpkg-deb -f "$deb" Package) $(dpkg-deb -f "$deb" Version)"
	done >"$dir/.packages"
}

# DIR/run, for programs of the machine's own architecture.
make_run() { # dir
	local dir=$1 libs loader
	# The loader of this folder, with this folder's libraries and no others.  It
	# stands beside the programs because it is what /proc/self/exe will name, and
	# some programs find their data from there.
	loader=$(find "$dir/usr/lib" -type f -name 'ld-linux*.so*' | head -n 1)
	[ -n "$loader" ] || die "no C library among the packages"
	ln "$loader" "$dir/usr/bin/.loader"
	libs=$(cd "$dir" && find usr/lib \( -name '*.so' -o -name '*.so.*' \) \
		! -path '*/gconv/*' -printf '%h\n' | sort -u)
	cat >"$dir/run" <<-EOF
		#!/bin/sh
		# Starts a program of this folder with the folder's own loader and libraries,
		# whatever C library the machine has.  Made by tools/debian.sh.
		here=\$(dirname "\$(readlink -f "\$0")")
		[ \$# -gt 0 ] || { echo "usage: \$0 PROGRAM ARGUMENT..." >&2; exit 2; }
		program=\$1
		shift
		for d in bin sbin usr/games; do
		        [ ! -x "\$here/\$d/\$program" ] || { program=\$here/\$d/\$program; break; }
		done
		libs=
		for d in $(echo $libs); do libs=\$libs:\$here/\$d; done
		exec "\$here/usr/bin/.loader" --inhibit-cache --library-path "\${libs#:}" "\$program" "\$@"
	EOF
	chmod +x "$dir/run"
}

finish() { # dir: give the folder its name
	touch "$1.part/.complete"
	mv "$1.part" "$1"
}

case ${1:-} in
source)
	[ $# = 3 ] || usage
	get_source "$2" "${3%/}"
	;;
unpack)
	[ $# -ge 4 ] || usage
	suite=${2%:*} dir=${3%/} arch=${2#"${2%:*}"}
	shift 3
	! complete "$dir" || exit 0
	rm -rf "$dir.part"
	begin "$dir.apt" deb "$(suites "$suite")" "${arch#:}"
	fetch "$suite" "$dir.part" "$@"
	[ -n "$arch" ] || make_run "$dir.part"
	finish "$dir"
	;;
qemu)
	[ $# = 3 ] || usage
	suite=$2 dir=${3%/}
	! complete "$dir" || exit 0
	rm -rf "$dir.part"
	begin "$dir.apt" deb "$(suites "$suite")"
	package=qemu-system-riscv # a package of its own since QEMU 9.2 or so
	apt-cache -c "$apt/conf" show $package >/dev/null 2>&1 || package=qemu-system-misc
	fetch "$suite" "$dir.part" $package
	make_run "$dir.part"
	# QEMU takes a folder of this name beside itself for /, so it loads neither
	# firmware nor modules of the machine's own QEMU.
	ln -s ../.. "$dir.part/usr/bin/qemu-bundle"
	cat >"$dir.part/qemu-system-riscv64" <<-'EOF'
		#!/bin/sh
		# The QEMU of this folder, with the firmware of this folder.
		here=$(dirname "$(readlink -f "$0")")
		exec "$here/run" qemu-system-riscv64 -L "$here/usr/share/qemu" "$@"
	EOF
	chmod +x "$dir.part/qemu-system-riscv64"
	finish "$dir"
	;;
*) usage ;;
esac
