#!/usr/bin/env bash
# Builds the image of docker/Dockerfile and backs up, scrubs and restores with it
# on a cluster of its own: see usage below.
set -euo pipefail

usage() {
	cat <<'END'
usage: docker-test.sh   build the image, and run it as the README says: as its numeric user, read-only,
                        without capabilities, with keys of the least rights; stop it in the middle

It needs a Docker engine. Where no registry is reachable, the two base images are made here: by
debootstrap, and with this machine's Go; that needs root or sudo. They stay, as backy-test/debian and
backy-test/go. Go modules come from this machine.
END
}

CHECKOUT=$(dirname "$(dirname "$(realpath "$0")")")
readonly CHECKOUT
readonly LABEL=backy.docker-test
. "$CHECKOUT/docker/debian.sh"
. "$CHECKOUT/docker/rights.sh"

note() { printf 'docker-test.sh: %s\n' "$*" >&2; }

die() {
	note "$*"
	exit 1
}

# --- the image ---------------------------------------------------------------

# given NAME is what the Dockerfile's argument is by default.
given() { sed -n "s/^ARG $1=//p" "$CHECKOUT/docker/Dockerfile"; }

# bases sets BASES, the build arguments for the base images: those of the
# Dockerfile, or stand-ins that are named for what they are.
bases() {
	local go base release
	go=$(given GO) base=$(given BASE)
	BASES=()
	if has "$go" && has "$base"; then return; fi
	release=$(this_release)
	release=${release:-bookworm}
	note "no registry: making the base images from Debian's packages ($release)"
	BASES=(--build-arg "BASE=backy-test/debian:$release" --build-arg "GO=backy-test/go:$release")
	has_own "backy-test/debian:$release" ||
		docker import --change "LABEL $LABEL=1" "$(clean_debian "$release")" "backy-test/debian:$release" >/dev/null
	has_own "backy-test/go:$release" || go_base "$release"
}

has() { docker image inspect "$1" >/dev/null 2>&1 || docker pull --quiet "$1" >/dev/null 2>&1; }

has_own() { docker image inspect "$1" >/dev/null 2>&1; }

# go_base puts this machine's Go into the base image, and what the Go images bring besides.
go_base() {
	local go root
	go=$(command -v go || echo /usr/local/go/bin/go)
	root=$(GOTOOLCHAIN=local "$go" env GOROOT)
	cat >"$TMP/Dockerfile" <<END
FROM backy-test/debian:$1
RUN apt-get -q update && apt-get -qy install --no-install-recommends make && rm -rf /var/lib/apt/lists/*
COPY go /usr/local/go
ENV PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin GOTOOLCHAIN=local
END
	tar -c -C "$TMP" Dockerfile -C "$(dirname "$root")" --exclude "*/test" --exclude "*/testdata" \
		--exclude "*/api" --exclude "*/doc" --transform "s,^$(basename "$root")\($\|/\),go\1," "$(basename "$root")" |
		docker build --quiet --tag "backy-test/go:$1" - >/dev/null
}

# build makes the image from what git knows of the checkout, as `make image`
# does, and from this machine's modules.
build() {
	local go target
	go=$(command -v go || echo /usr/local/go/bin/go)
	mkdir "$TMP/context"
	(cd "$CHECKOUT" && git ls-files -z | tar -c --null --files-from -) | tar -x -C "$TMP/context"
	(cd "$CHECKOUT" && GOFLAGS=-mod=mod "$go" mod vendor -o "$TMP/context/vendor")
	# The first stage has a name, so that it can be removed.
	for target in "--target build --tag $1-build" "--tag $1"; do
		# shellcheck disable=SC2086 # words
		docker build "${BASES[@]}" --build-arg VERSION=test --label "$LABEL=1" $target -f "$TMP/context/docker/Dockerfile" "$TMP/context" \
			>"$TMP/build.log" 2>&1 || {
			tail -n 30 "$TMP/build.log" >&2
			die 'the image cannot be built'
		}
	done
}

# --- the tests, with a cluster -------------------------------------------------

# backy [OPTION]... -- ARGUMENT... runs backy in a container.
backy() {
	local options=()
	while [[ $1 != -- ]]; do
		options+=("$1")
		shift
	done
	docker run --label "$LABEL=1" --network host --read-only --cap-drop ALL --security-opt no-new-privileges \
		-v "$TMP/ceph:/etc/ceph:ro" -v "$TMP/backups:/backups" "${options[@]}" "$IMAGE" "${@:2}"
}

# own gives files to the user of the image, which needs no root here.
own() { docker run --rm --user 0:0 --entrypoint chown -v "$TMP:/own" "$IMAGE" -R 10001:10001 "${@/#//own/}"; }

# snapshots are those of an image that backy made.
snapshots() { rbd snap ls "$1" --format json | grep -o '"backy-[^"]*"' || true; }

same() { [[ $(rbd export --no-progress "$1" - | sha256sum) == $(rbd export --no-progress "$2" - | sha256sum) ]] || die "$1 and $2 differ"; }

prepare() {
	unset CEPH_ARGS
	"$CHECKOUT/docker/cluster.sh" pool "$BACKY_TEST_CLUSTER" vms
	"$CHECKOUT/docker/cluster.sh" pool "$BACKY_TEST_CLUSTER" restored
	mkdir -m 755 "$TMP/ceph"
	mkdir -m 700 "$TMP/backups"
	# As on a node: no word of where the keys are.
	grep -v '^keyring' "$CEPH_CONF" >"$TMP/ceph/ceph.conf"
	chmod 644 "$TMP/ceph/ceph.conf"
	readme_key backup "$TMP/ceph"
	readme_key restore "$TMP/ceph" restored
	own ceph/ceph.client.backup.keyring ceph/ceph.client.restore.keyring backups
	head -c 24M /dev/urandom >"$TMP/content"
	rbd import --no-progress "$TMP/content" vms/web1
	rbd create --size 64M vms/empty
	rbd create --size 256M vms/large
}

test_image() {
	[[ $(docker image inspect -f '{{.Config.User}}' "$IMAGE") == 10001:10001 ]] || die 'the image runs as another user'
	docker run --rm "$IMAGE" version | grep -q '^librbd 1\.' || die 'backy version tells of no librbd'
	if docker run --rm "$IMAGE" backup - x </dev/null 2>/dev/null; then die 'it backs up into a container without a mount'; fi
	note "image: $(docker image inspect -f '{{.Size}}' "$IMAGE" | numfmt --to=iec), of which the base image $(docker image inspect -f '{{.Size}}' "$(base_image)" | numfmt --to=iec)"
}

base_image() {
	local a
	for a in "${BASES[@]}"; do case $a in BASE=*) echo "${a#*=}" && return ;; esac done
	given BASE
}

test_backup_scrub_restore() {
	backy --rm -e 'CEPH_ARGS=--id backup' -- backup rbd:vms
	backy --rm -- scrub --all
	backy --rm -- ls vms/web1 | grep -q 'rbd:vms/web1' || die 'no level of vms/web1'
	backy --rm -e 'CEPH_ARGS=--id restore' -- restore vms/web1 rbd:restored/web1
	same vms/web1 restored/web1
	if backy --rm -e 'CEPH_ARGS=--id backup' -- restore vms/web1 rbd:vms/new 2>/dev/null; then
		die 'the key for backups may make images'
	fi
}

# test_stop stops a backup in its middle, as the engine does: with SIGTERM, and with SIGKILL later.
test_stop() {
	local before id code
	head -c 256M /dev/urandom >"$TMP/content"
	rbd import-diff --no-progress <(whole "$TMP/content") vms/large
	before=$(snapshots vms/large)
	id=$(backy -d -e 'CEPH_ARGS=--id backup' -- backup --limit 16MiB/s rbd:vms/large vms/large)
	for ((i = 0; ; i++)); do
		[[ $(snapshots vms/large | wc -l) -lt 2 ]] || break
		if ((i > 300)); then die "no snapshot was made: $(docker logs "$id" 2>&1)"; fi
		sleep 0.2
	done
	sleep 1 # some of it is read
	docker stop -t 60 "$id" >/dev/null
	code=$(docker inspect -f '{{.State.ExitCode}}' "$id")
	[[ $code == 130 ]] || die "stopped, it exits with $code: $(docker logs "$id" 2>&1)"
	docker logs "$id" 2>&1 | grep -q 'ended by SIGTERM' || die "it does not tell that it was ended: $(docker logs "$id" 2>&1)"
	docker rm "$id" >/dev/null
	[[ $(snapshots vms/large) == "$before" ]] || die "its snapshot is still there: $(snapshots vms/large)"
	[[ $(backy --rm -- ls vms/large | grep -c rbd:) == 1 ]] || die 'a level of a run that was ended is listed'
	SECONDS=0
	backy --rm -e 'CEPH_ARGS=--id backup' -- backup rbd:vms/large vms/large
	((SECONDS < 45)) || die "the next run waited for the one that was ended: $SECONDS s"
	backy --rm -e 'CEPH_ARGS=--id restore' -- restore vms/large rbd:restored/large
	same vms/large restored/large
}

# whole FILE is a diff that writes all of it: see Ceph's doc/dev/rbd-diff.rst.
whole() {
	local size
	size=$(stat -c %s "$1")
	printf 'rbd diff v1\n'
	printf 's' && le64 "$size"
	printf 'w' && le64 0 && le64 "$size"
	cat "$1"
	printf 'e'
}

le64() {
	local n=$1 i
	for ((i = 0; i < 8; i++)); do
		# shellcheck disable=SC2059 # the format is the byte
		printf "\\x$(printf %02x $((n & 255)))"
		n=$((n >> 8))
	done
}

inside() {
	prepare
	test_image
	test_backup_scrub_restore
	test_stop
	note 'backup, scrub, restore and stop: ok'
}

# clean removes what was made, and gives the backups' folder back.
clean() {
	local left
	left=$(docker ps -aq --filter "label=$LABEL=1")
	# shellcheck disable=SC2086 # one word per container
	if [[ $left ]]; then docker rm -f $left >/dev/null; fi
	if [[ -d $TMP/backups ]]; then docker run --rm --user 0:0 --entrypoint sh -v "$TMP:/own" "$IMAGE" -c 'rm -rf /own/backups /own/ceph'; fi
	docker image rm -f "$IMAGE" "$IMAGE-build" >/dev/null 2>&1 || true
	rm -rf "$TMP"
}

outside() {
	docker version >/dev/null 2>"${TMPDIR:-/tmp}/docker-test.$$" || {
		note "no Docker engine answers: $(cat "${TMPDIR:-/tmp}/docker-test.$$")"
		rm "${TMPDIR:-/tmp}/docker-test.$$"
		exit 1
	}
	rm "${TMPDIR:-/tmp}/docker-test.$$"
	TMP=$(mktemp -d)
	chmod 755 "$TMP"
	IMAGE=backy-test/backy:$$
	trap clean EXIT
	trap 'exit 130' INT TERM
	bases
	build "$IMAGE"
	export TMP IMAGE BASES_TEXT="${BASES[*]}"
	"$CHECKOUT/docker/cluster.sh" with --size 2G -- "$0" --inside
}

case ${1:-} in
--inside)
	read -r -a BASES <<<"$BASES_TEXT"
	inside
	;;
'') outside ;;
help | -h | --help) usage ;;
*)
	usage >&2
	exit 2
	;;
esac
