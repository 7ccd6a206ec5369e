#!/usr/bin/env bash
# Runs a command on another Debian release, and so with another Ceph: see usage
# below. The release's root is made once by debootstrap and kept; mounts and
# processes live in namespaces of their own and are gone when the command is,
# however it ends.
set -euo pipefail

usage() {
	cat <<'END'
usage: other.sh RELEASE COMMAND [ARGUMENT]...   run it in this checkout, as root, in a root of
                                                bookworm (Ceph 16.2), trixie (18.2) or forky (20.2)

It has this machine's Go and Go modules, the checkout, read-only, and what docker/deps.sh installs
for OTHER_DEPS. It needs root or sudo, and the right to mount: a container needs --privileged.
Exit code 69: there is no such root, as the mirror lacks the release, or the release lacks Ceph.

environment: OTHER_ROOT     where the root is kept (default: .cache/RELEASE in the checkout)
             OTHER_MIRROR   where its packages come from (default: where this machine's do)
             OTHER_DEPS     build, tests (default) or all: see docker/deps.sh
             OTHER_WRITE    a folder of the checkout that the command may write to
END
}

CHECKOUT=$(dirname "$(dirname "$(realpath "$0")")")
readonly CHECKOUT
. "$CHECKOUT/docker/debian.sh"

note() { printf 'other.sh: %s\n' "$*" >&2; }

die() {
	note "$*"
	exit 1
}

# --- outside -----------------------------------------------------------------

# outside finds out, as the caller, what the root is to have, and goes on
# within namespaces of its own as root.
outside() {
	local release=$1 mirror=${OTHER_MIRROR:-} go root archive sudo=() namespaces=(--mount --pid --fork --kill-child --mount-proc)
	shift
	root=$(realpath -m -- "${OTHER_ROOT:-$CHECKOUT/.cache/$release}")
	go=$(command -v go || echo /usr/local/go/bin/go)
	archive=$(clean_debian "$release" "$mirror") || unavailable "no root of $release can be made"
	(cd "$CHECKOUT" && "$go" mod download)
	if ((UID)); then sudo=(sudo); fi
	# Without a process namespace, which some sandboxes refuse, nobody but the
	# command itself ends what it left running.
	if ! "${sudo[@]}" unshare "${namespaces[@]}" true 2>/dev/null; then namespaces=(--mount); fi
	"${sudo[@]}" unshare "${namespaces[@]}" true ||
		die 'no right to mount here: in a container, it needs --privileged'
	exec "${sudo[@]}" unshare "${namespaces[@]}" "$0" --inside "$root" "$archive" "${OTHER_DEPS:-tests}" "${OTHER_WRITE:-}" \
		"$("$go" env GOROOT)" "$("$go" env GOMODCACHE)" "$@"
}

unavailable() {
	note "$*"
	exit 69
}

# --- in a mount namespace of our own, as root ----------------------------------

inside() {
	local root=$1 archive=$2 deps=$3 write=$4 goroot=$5 modules=$6 file
	shift 6
	trap 'exit 130' INT TERM
	proxies
	mkdir -p "$root"
	exec 9<"$root"
	flock 9 # two that make one root
	if [[ ! -e $root/.made ]]; then make_root "$root" "$archive"; fi

	# A root that is no mount of its own would not let a command in it make namespaces.
	mount --bind "$root" "$root"
	# The names of machines and the certificates of a proxy are this machine's.
	for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs; do
		if [[ -e $file ]]; then share "$(realpath "$file")" "$root$file"; fi
	done
	share "$goroot" "$root/usr/local/go"
	share "$modules" "$root/var/cache/modules"
	share "$CHECKOUT" "$root/backy"
	if [[ $write ]]; then mount --bind "$CHECKOUT/$write" "$root/backy/$write"; fi
	mount --rbind /dev "$root/dev"
	mount --rbind /proc "$root/proc"
	mount --rbind /sys "$root/sys"
	mount -t tmpfs backy "$root/tmp"
	within "$root" docker/deps.sh "$deps" || unavailable "the packages of Ceph cannot be installed in $root: does this release have them? docker/deps.sh $deps"
	flock -u 9
	within "$root" "$@"
}

# make_root unpacks a small Debian.
make_root() {
	local root=$1 archive=$2
	[[ ! $(ls -A "$root") || -e $root/.unpacking ]] || die "$root has other things in it; want a new or an empty folder"
	touch "$root/.unpacking" # what lies here is ours, and not whole
	find "$root" -mindepth 1 -maxdepth 1 ! -name .unpacking -exec rm -rf {} +
	tar -C "$root" --numeric-owner -xf "$archive"
	mkdir -p "$root/backy" "$root/usr/local/go" "$root/var/cache/modules"
	touch "$root/.made"
	rm "$root/.unpacking"
}

# share shows a file or a folder at another place, read-only.
share() {
	[[ -e $2 ]] || touch "$2"
	mount --bind "$1" "$2"
	mount -o remount,bind,ro "$2"
}

# within runs a command in the checkout as the root shows it.
within() {
	# The build cache does not know when the headers of C are others: it is the root's own.
	# Whoever is started in the background ignores Ctrl-C, and so would all that tests start.
	chroot "$1" env -i --default-signal=INT PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		HOME=/root LANG=C.UTF-8 TERM="${TERM:-dumb}" ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
		GOTOOLCHAIN=local GOPROXY=off GOFLAGS=-buildvcs=false GOMODCACHE=/var/cache/modules GOCACHE=/var/cache/go-build \
		sh -c 'cd /backy && exec "$@"' sh "${@:2}" 9<&-
}

case ${1:-} in
--inside) inside "${@:2}" ;;
help | -h | --help) usage ;;
'' | -*)
	usage >&2
	exit 2
	;;
*)
	(($# > 1)) || {
		usage >&2
		exit 2
	}
	outside "$@"
	;;
esac
