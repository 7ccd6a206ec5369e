#!/usr/bin/env bash
# Tests on the Ceph of other Debian releases: see usage below.
set -euo pipefail

usage() {
	cat <<'END'
usage: test-other.sh            the tests of rbd, those of the command line that want a cluster, and the demo, on
                                each of bookworm, trixie and forky that this machine is not; then all --clients
       test-other.sh RELEASE    those tests on one release
       test-other.sh --clients  backups and restores of each release's cluster with each release's librados,
                                with keys of each type that the cluster has

What is tested is built once, on bookworm: such binaries run on the others, too. A release that cannot be
had, or has no Ceph, fails, and keeps none of the others from being tested.
END
}

CHECKOUT=$(dirname "$(dirname "$(realpath "$0")")")
readonly CHECKOUT
readonly RELEASES=(bookworm trixie forky) # of Debian, with Ceph 16.2, 18.2 and 20.2
readonly BUILT=.cache/tests               # in the checkout: what is tested
readonly SHARED=.cache/clients            # likewise: what clusters of all releases tell their clients
. "$CHECKOUT/docker/held.sh"

note() { printf 'test-other.sh: %s\n' "$*" >&2; }

# build makes the test binaries and backy.
build() {
	mkdir -p "$CHECKOUT/$BUILT"
	OTHER_DEPS=build OTHER_WRITE=$BUILT on bookworm make --no-print-directory test-binaries
}

# --- the tests, in one release ---------------------------------------------------

# cluster_tests are the names of the command line's tests that want a cluster.
cluster_tests() {
	# shellcheck disable=SC2046 # one word per file
	sed -n 's/^func \(Test[A-Za-z0-9_]*\)(.*/\1/p' $(grep -l 'clustertest\.\(Get\|New\)(' cmd/backy/*_test.go) | paste -sd '|'
}

# within_cluster runs them all, also when some fail.
within_cluster() {
	local bin=$CHECKOUT/$BUILT failed=()
	ceph --version
	tests rbd "$bin/rbd.test"
	tests rbd/clustertest "$bin/clustertest.test"
	# What becomes of a crash at each call is tried at home: here at some of them.
	tests cmd/backy "$bin/backy.test" -test.short -test.run "^($(cluster_tests))\$"
	SECONDS=0
	BACKY_BIN=$bin docker/demo.sh || failed+=(demo)
	note "demo: $SECONDS s"
	((${#failed[@]} == 0)) || {
		note "failed: ${failed[*]}"
		return 1
	}
}

# tests PACKAGE COMMAND... runs a package's tests and adds it to what failed.
tests() {
	SECONDS=0
	(cd "$1" && "${@:2}" -test.timeout 40m) || failed+=("$1")
	note "$1: $SECONDS s"
}

# --- clients and clusters of different releases ----------------------------------

# clients starts a cluster of each release and tries each with each release's librados.
clients() {
	local release cluster refused=0 code=0
	rm -rf "$SHARED"
	for release in "${RELEASES[@]}"; do
		hold "$release" "$SHARED/$release" || {
			note "there is no cluster on $release, so no client was tried on it"
			code=1
		}
	done
	for release in "${RELEASES[@]}"; do on "$release" docker/test-other.sh --client || code=1; done
	for cluster in "${!HELD[@]}"; do
		if [[ -e $cluster/ceph.client.aes256k.keyring ]]; then refuse_aes "$cluster" && refused=1; fi
	done
	if ((refused)); then
		for release in "${RELEASES[@]}"; do on "$release" docker/test-other.sh --client refused || code=1; done
	else
		note 'there is no cluster with keys of type aes256k'
		code=1
	fi
	for cluster in "${!HELD[@]}"; do let_go "$cluster" || code=1; done
	return "$code"
}

# client backs up and restores from each cluster with this release's librados,
# as each of its clients; with an argument, from those that refuse aes keys, with one.
client() {
	local backy=$CHECKOUT/$BUILT/backy tmp librados cluster key failed=0
	tmp=$(mktemp -d)
	# shellcheck disable=SC2064 # now
	trap "rm -rf '$tmp'" EXIT
	export XDG_CACHE_HOME=$tmp/cache
	unset CEPH_ARGS CEPH_CONF
	librados=$("$backy" version | sed -n 's/^librbd 1\.\([0-9]*\).*/\1/p')
	for cluster in "$CHECKOUT/$SHARED"/*/; do
		cluster=${cluster%/}
		for key in "$cluster"/ceph.client.*.keyring; do
			if [[ ! -e $key ]]; then continue; fi
			key=${key#*/ceph.client.} key=${key%.keyring}
			if [[ ${1:-} && ! (-e $cluster/refused && $key == aes) ]]; then continue; fi
			if one_client >"$tmp/log" 2>&1; then
				note "librados of Ceph $librados, $(cat "$cluster/version"), key of type $key: $(tail -n 1 "$tmp/log")"
			else
				note "librados of Ceph $librados, $(cat "$cluster/version"), key of type $key: failed:"
				cat "$tmp/log" >&2
				failed=1
			fi
		done
	done
	return "$failed"
}

# one_client is one cell of the README's table.
one_client() {
	local options=(--ceph-conf "$cluster/ceph.conf" --id "$key" --keyring "$cluster/ceph.client.$key.keyring" --ceph-timeout 60s)
	local repo code=0 cell
	cell=$(basename "$cluster")-$key
	repo=$tmp/$cell
	"$backy" backup "${options[@]}" rbd:vms/web1 "$repo/web1" || code=$?
	if ((librados < 20)) && [[ $key == aes256k ]]; then
		((code == 1)) && grep -q "of type aes256k, which the librados that is installed, of Ceph $librados, cannot read" "$tmp/log" &&
			! grep -q "$(sed -n 's/.*key = //p' "$cluster/ceph.client.$key.keyring")" "$tmp/log" && echo 'refused with the reason'
		return
	fi
	if [[ -e $cluster/refused ]]; then
		((code == 1)) && grep -q 'permission denied: .* it is of type aes and the cluster allows aes256k only$' "$tmp/log" &&
			echo 'refused, as the cluster allows aes256k only'
		return
	fi
	((code == 0)) && [[ $("$backy" restore "$repo/web1" - 2>/dev/null | sha256sum) == "$(cat "$cluster/sum")" ]] || return 1
	"$backy" restore "${options[@]}" "$repo/web1" "rbd:vms/$(this_release)-$key" &&
		"$backy" scrub --ceph-conf "$cluster/ceph.conf" "${options[@]:2}" -s "rbd:vms/$(this_release)-$key" "$repo/web1" && echo 'ok'
}

# --- all of it -------------------------------------------------------------------

# release_tests runs the tests on one release, and says what came of it.
release_tests() {
	local code=0 start=$SECONDS
	on "$1" docker/cluster.sh with --size 8G -- docker/test-other.sh --within-cluster || code=$?
	case $code in
	0) note "$1: ok, in $((SECONDS - start)) s" ;;
	69) note "$1: there is no root of it with Ceph in it, so nothing was tested on it" ;;
	*) note "$1: failed, exit code $code" ;;
	esac
	return "$code"
}

main() {
	local release failed=()
	build
	for release in "${RELEASES[@]}"; do
		if [[ $release == "$(this_release)" ]]; then continue; fi
		release_tests "$release" || failed+=("$release")
	done
	SECONDS=0
	clients || failed+=(--clients)
	note "clients and clusters of all releases: $SECONDS s"
	((${#failed[@]} == 0)) || {
		note "failed: ${failed[*]}"
		exit 1
	}
	note 'ok'
}

cd "$CHECKOUT"
case ${1:-} in
'') main ;;
--within-cluster) within_cluster ;;
--client) client "${2:-}" ;;
--clients) build && clients ;;
help | -h | --help) usage ;;
-*)
	usage >&2
	exit 2
	;;
*) build && release_tests "$1" ;;
esac
