#!/bin/sh
# Installs the Debian packages that are missing, and does nothing when none is.
# Debian's Ceph packages make no cluster and start no daemon of one by themselves.
set -eu

usage='usage: deps.sh build   what building backy needs besides Go: a C compiler and the headers of librbd
       deps.sh all     and what the tests and the demo need: the daemons of a cluster
       deps.sh tests   that alone, for tests that were built elsewhere
       deps.sh bench   and the peers that the bench measures, those of Debian
       deps.sh deb     what making and checking a Debian package needs besides
       deps.sh other   what docker/other.sh needs to make a root of another Debian'

build='ca-certificates gcc make libc6-dev librbd-dev librados-dev'
cluster='ca-certificates ceph-mon ceph-mgr ceph-osd ceph-common rbd-mirror bash e2fsprogs mount procps util-linux'
bench='restic borgbackup qemu-utils qemu-block-extra zstd time'
deb='dpkg-dev lintian mandoc systemd'

case ${1:-} in
build) packages=$build ;;
all) packages="$build $cluster" ;;
tests) packages=$cluster ;;
bench) packages="$build $cluster $bench" ;;
deb) packages="$build $deb" ;;
other) packages='debootstrap debian-archive-keyring util-linux mount' ;;
*)
	echo "$usage" >&2
	exit 2
	;;
esac

if ! command -v dpkg-query >/dev/null; then
	echo "deps.sh: this is no Debian; taking it that there is what these packages of Debian bring: $packages" >&2
	exit
fi
missing=
for package in $packages; do
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
done
[ "$missing" ] || exit 0

root=
if [ "$(id -u)" != 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "deps.sh: missing:$missing; as root, run: apt-get install --no-install-recommends$missing" >&2
		exit 1
	fi
	root=sudo
fi
echo "deps.sh: installing$missing" >&2
# stdin is closed to apt-get, since a package that asks must not wait for an answer.
$root apt-get -q update </dev/null
# shellcheck disable=SC2086 # one word per package
$root env DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends $missing </dev/null
