#!/usr/bin/env bash
# Checks the Debian package, and uses it in a clean root: see usage below. The
# root's mounts and processes live in namespaces of their own and are gone with it.
set -euo pipefail

usage() {
	cat <<'END'
usage: test.sh BUILD   check BUILD/*.deb: lintian, man pages, units; install it in a clean root of each release of
                       Debian that it is for, back up a file and, as its unit does, a pool of a cluster; purge it

A package made on bookworm is for bookworm, trixie and forky, one made elsewhere for that release alone.
It needs root or sudo, and the right to mount: a container needs --privileged.
END
}

CHECKOUT=$(dirname "$(dirname "$(dirname "$(realpath "$0")")")")
readonly CHECKOUT
readonly UNIT=/usr/lib/systemd/system/backy@.service
. "$CHECKOUT/docker/debian.sh"
. "$CHECKOUT/docker/rights.sh"

note() { printf 'deb/test.sh: %s\n' "$*" >&2; }

die() {
	note "$*"
	exit 1
}

# --- outside -----------------------------------------------------------------

outside() {
	local build deb release releases archive sudo=()
	build=$(realpath "$1")
	deb=$(echo "$build"/*.deb)
	[[ -e $deb ]] || die "$build: want one package in it; make it with: make deb"
	if ((UID)); then sudo=(sudo); fi
	lintian --fail-on error,warning --suppress-tags initial-upload-closes-no-bugs,maintainer-script-calls-systemctl \
		--allow-root "$deb" || die 'lintian finds faults'
	for page in "$build"/docs/*.[0-9]; do
		mandoc -T lint -W warning "$page" || die "$page: mandoc finds faults"
	done
	releases=("$(this_release)")
	if [[ ${releases[0]} == bookworm ]]; then releases+=(trixie forky); fi
	proxies
	for release in "${releases[@]}"; do
		if ! has_ceph "$release"; then
			note "NOT TESTED ON $release, which has no Ceph today: of that, make test-other fails"
			continue
		fi
		archive=$(clean_debian "$release")
		"$CHECKOUT/docker/cluster.sh" with --size 1G -- "$0" --cluster "$deb" "$archive" "$release"
		note "on $release: ok"
	done
	note 'the package is ok'
}

# with_cluster makes a pool and what a node has in /etc/ceph, and goes on as root.
with_cluster() {
	local deb=$1 archive=$2 release=$3 namespaces=(--mount --pid --fork --kill-child --mount-proc)
	SUDO=()
	if ((UID)); then SUDO=(sudo); fi
	TMP=$(mktemp -d)
	trap '"${SUDO[@]}" rm -rf --one-file-system "$TMP"' EXIT
	mkdir -m 755 "$TMP/root" "$TMP/ceph"
	"$CHECKOUT/docker/cluster.sh" pool "$BACKY_TEST_CLUSTER" vms
	head -c 20M /dev/urandom >"$TMP/content"
	rbd import --no-progress "$TMP/content" vms/web1
	grep -v '^keyring' "$CEPH_CONF" >"$TMP/ceph/ceph.conf"
	readme_key backup "$TMP/ceph"
	if ! "${SUDO[@]}" unshare "${namespaces[@]}" true 2>/dev/null; then namespaces=(--mount); fi
	"${SUDO[@]}" unshare "${namespaces[@]}" "$0" --inside "$TMP" "$archive" "$deb" "$release" "${http_proxy:-}" "${https_proxy:-}"
}

# --- in namespaces of our own, as root -----------------------------------------

inside() {
	local tmp=$1 archive=$2 deb=$3 release=$4 http=$5 https=$6 file
	ROOT=$tmp/root
	PROXIES=(${http:+"http_proxy=$http"} ${https:+"https_proxy=$https"})
	tar -C "$ROOT" --numeric-owner -xf "$archive"
	for file in /etc/resolv.conf /etc/hosts; do cp -L "$file" "$ROOT$file"; done
	mount --rbind /dev "$ROOT/dev"
	mount --rbind /proc "$ROOT/proc"
	cp -r "$tmp/ceph" "$ROOT/etc/"
	cp "$deb" "$ROOT/backy.deb"
	test_install
	test_units
	if [[ $release == "$(this_release)" ]]; then test_docs; fi # the same files, and long to install what reads them
	test_file
	test_pool "$tmp/content"
	test_purge
}

within() {
	chroot "$ROOT" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
		DEBIAN_FRONTEND=noninteractive "${PROXIES[@]}" "$@" </dev/null
}

quietly() { "$@" >"$ROOT/.log" 2>&1 || {
	tail -n 20 "$ROOT/.log" >&2
	die "failed: $*"
}; }

# As its unit runs it: an ordinary user without any capability.
as_backy() { within setpriv --reuid backy --regid backy --clear-groups --no-new-privs --bounding-set -all --inh-caps -all "$@"; }

test_install() {
	quietly within apt-get -q update
	within dpkg -i /backy.deb >"$ROOT/.log" 2>&1 || true # what it depends on is missing
	quietly within apt-get -qy --no-install-recommends -f install
	within dpkg -s backy | grep -qx 'Status: install ok installed' || die 'it is not installed'
	within backy version | grep -q '^librbd 1\.' || die 'backy version tells of no librbd'
	within id backy >/dev/null || die 'there is no user backy'
}

test_units() {
	local unit
	unit=$ROOT/etc/systemd/system
	mkdir -p "$unit/timers.target.wants"
	systemd-analyze verify --recursive-errors=no --man=no --root="$ROOT" "$ROOT$UNIT" "${ROOT}${UNIT%.service}.timer" ||
		die 'the units have faults'
	systemd-analyze security --offline=true --threshold=20 --no-pager "$ROOT$UNIT" >"$ROOT/.log" ||
		die "the service is exposed: $(tail -n 1 "$ROOT/.log")"
	tail -n 1 "$ROOT/.log"
}

test_docs() {
	local page text
	quietly within apt-get -qy --no-install-recommends install bash-completion man-db zsh fish
	for page in backy backy-backup backy-restore backy-ceph; do
		text=$(within man --warnings "$page" 2>"$ROOT/.log")
		[[ $text == *'SEE ALSO'* && ! -s $ROOT/.log ]] || die "man $page: $(cat "$ROOT/.log") $text"
	done
	within bash -euc '. /usr/share/bash-completion/bash_completion || true
		_completion_loader backy || true
		complete -p backy | grep -q _backy
		COMP_WORDS=(backy res) COMP_CWORD=1; _backy; [[ ${COMPREPLY[*]} == restore ]]' || die 'bash does not complete'
	within zsh -fc 'autoload -U compinit && compinit -u -D && [[ $_comps[backy] == _backy ]] && autoload +X _backy' || die 'zsh does not complete'
	within fish -c 'complete -C "backy res"' | grep -q ^restore || die 'fish does not complete'
}

test_file() {
	mkdir "$ROOT/srv/backups" "$ROOT/srv/files"
	within chown backy: /srv/backups /srv/files
	head -c 5M /dev/urandom >"$ROOT/srv/files/a"
	as_backy backy backup /srv/files/a /srv/backups/a
	as_backy backy restore /srv/backups/a /srv/files/b
	cmp "$ROOT/srv/files/a" "$ROOT/srv/files/b"
}

# test_pool runs the unit's command with the example's settings, as the README sets them up.
test_pool() {
	local content=$1 command
	within cp /usr/share/doc/backy/examples/pool.env /etc/backy/vms.env
	within chown backy: /etc/ceph/ceph.client.backup.keyring
	within chmod 600 /etc/ceph/ceph.client.backup.keyring
	command=$(sed -n 's/^ExecStart=//p; s/^Environment=/export /p' "$ROOT$UNIT" |
		sed 's/%C/\/var\/cache/; s/%i/vms/')
	within install -d -o backy -g backy -m 700 /var/cache/backy
	# shellcheck disable=SC2016 # that shell's own
	as_backy bash -euc 'set -a; eval "${1%$'"'\n'"'*}"; while IFS="=" read -r name value; do
			case $name in [A-Z]*) export "$name=$value" ;; esac
		done </etc/backy/vms.env; set +a; eval "exec ${1##*$'"'\n'"'}"' bash "$command"
	as_backy backy -b /srv/backups ls vms/web1 | grep -q rbd:vms/web1 || die 'no level of vms/web1'
	as_backy backy -b /srv/backups restore vms/web1 - | cmp - "$content" || die 'vms/web1 differs'
	[[ -n $(ls -A "$ROOT/var/cache/backy") ]] || die 'it uses no cache'
}

test_purge() {
	quietly within apt-get -qy purge backy
	[[ ! -e $ROOT/usr/bin/backy && ! -e $ROOT$UNIT && ! -e $ROOT/var/cache/backy ]] || die 'purged, it is still there'
	[[ -e $ROOT/srv/backups/backy.json ]] || die 'the backups are gone with it'
}

case ${1:-} in
--cluster) with_cluster "${@:2}" ;;
--inside) inside "${@:2}" ;;
help | -h | --help) usage ;;
'' | -*)
	usage >&2
	exit 2
	;;
*) outside "$1" ;;
esac
