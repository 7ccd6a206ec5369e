#!/usr/bin/env bash
# Runs a command on the other Debian release, and so with the other Ceph: see
# usage below. The release's root is made once by debootstrap and kept; mounts
# and processes live in namespaces of their own and are gone when the command
# is, however it ends.
set -euo pipefail

usage() {
	cat <<'END'
usage: other.sh COMMAND [ARGUMENT]...   run it in this checkout, as root, in a root of the other
                                        release: trixie (Ceph 18.2) where this is bookworm
                                        (Ceph 16.2), and bookworm on any other

It has this machine's Go and Go modules, the checkout, read-only, and what docker/deps.sh
installs. It needs root or sudo, and the right to mount: a container needs --privileged.

environment: OTHER_RELEASE   the release (bookworm, trixie)
             OTHER_ROOT      where its root is kept (default: .cache/RELEASE in the checkout)
             OTHER_MIRROR    where its packages come from (default: where this machine's do)
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
	local release=${OTHER_RELEASE:-} mirror=${OTHER_MIRROR:-} go root sudo=() namespaces=(--mount --pid --fork --kill-child --mount-proc)
	if [[ ! $release && $(this_release) == bookworm ]]; then release=trixie; fi
	release=${release:-bookworm}
	root=$(realpath -m -- "${OTHER_ROOT:-$CHECKOUT/.cache/$release}")
	go=$(command -v go || echo /usr/local/go/bin/go)
	"$CHECKOUT/docker/deps.sh" other
	mirror=${mirror:-$(this_mirror)}
	(cd "$CHECKOUT" && "$go" mod download)
	if ((UID)); then sudo=(sudo); fi
	# Without a process namespace, which some sandboxes refuse, nobody but the
	# command itself ends what it left running.
	if ! "${sudo[@]}" unshare "${namespaces[@]}" true 2>/dev/null; then namespaces=(--mount); fi
	"${sudo[@]}" unshare "${namespaces[@]}" true ||
		die 'no right to mount here: in a container, it needs --privileged'
	exec "${sudo[@]}" unshare "${namespaces[@]}" "$0" --inside "$release" "$root" "$mirror" \
		"$("$go" env GOROOT)" "$("$go" env GOMODCACHE)" "$@"
}

# --- in a mount namespace of our own, as root ----------------------------------

inside() {
	local release=$1 root=$2 mirror=$3 goroot=$4 modules=$5
	shift 5
	trap 'exit 130' INT TERM
	proxies
	mkdir -p "$root"
	exec 9<"$root"
	flock 9 # two that make one root
	if [[ $(cat "$root/.made" 2>/dev/null) != "$release" ]]; then make_root "$release" "$root" "$mirror"; fi

	# The names of machines and the certificates of a proxy are this machine's.
	for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs; do
		if [[ -e $file ]]; then share "$(realpath "$file")" "$root$file"; fi
	done
	share "$goroot" "$root/usr/local/go"
	share "$modules" "$root/var/cache/modules"
	share "$CHECKOUT" "$root/backy"
	mount --rbind /dev "$root/dev"
	mount --rbind /proc "$root/proc"
	mount -t tmpfs backy "$root/tmp"
	within "$root" docker/deps.sh all
	flock -u 9
	within "$root" "$@"
}

# make_root makes a small Debian.
make_root() {
	local release=$1 root=$2 mirror=$3
	[[ ! $(ls -A "$root") || -e $root/.debootstrap ]] || die "$root has other things in it; want a new or an empty folder"
	touch "$root/.debootstrap" # what lies here is ours, and not whole
	find "$root" -mindepth 1 -maxdepth 1 ! -name .debootstrap -exec rm -rf {} +
	note "making a root of $release in $root from $mirror"
	bootstrap "$release" "$root" "$mirror" ca-certificates,make || die 'debootstrap failed'
	mkdir -p "$root/backy" "$root/usr/local/go" "$root/var/cache/modules"
	echo "$release" >"$root/.made"
	rm "$root/.debootstrap"
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
	chroot "$1" env -i PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
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
*) outside "$@" ;;
esac
