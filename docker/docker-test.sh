#!/usr/bin/env bash
# Builds the image of docker/Dockerfile and backs up, scrubs and restores with it
# on a cluster of its own: see usage below.
set -euo pipefail

usage() {
	cat <<'END'
usage: docker-test.sh   build the image, and run it as the README says: as its numeric user, read-only,
                        without capabilities, with keys of the least rights; stop it in the middle; back
                        up a cluster of Ceph 20 with it; then the same image on the other bases

It needs a Docker engine. Where no registry is reachable, the base images are made here: by debootstrap,
and with this machine's Go; that needs root or sudo. They stay, as backy-test/debian and backy-test/go. Go
modules come from this machine. The cluster of Ceph 20 takes root or sudo, too.
END
}

CHECKOUT=$(dirname "$(dirname "$(realpath "$0")")")
readonly CHECKOUT
readonly LABEL=backy.docker-test
. "$CHECKOUT/docker/held.sh"
. "$CHECKOUT/docker/rights.sh"

note() { printf 'docker-test.sh: %s\n' "$*" >&2; }

die() {
	note "$*"
	exit 1
}

# --- the image ---------------------------------------------------------------

# given NAME is what the Dockerfile's argument is by default.
given() { sed -n "s/^ARG $1=//p" "$CHECKOUT/docker/Dockerfile"; }

# bases makes sure of the base images: those of the Dockerfile, or stand-ins that
# are named for what they are. It sets GO and BASE, and OTHERS for the other bases.
bases() {
	GO=$(given GO) BASE=$(given BASE) OTHERS=(debian:bookworm-slim debian:trixie-slim)
	if ! has "$GO" || ! has "$BASE"; then
		note 'no registry: making the base images from Debian'"'"'s packages'
		GO=backy-test/go:bookworm BASE=backy-test/debian:forky OTHERS=(backy-test/debian:bookworm backy-test/debian:trixie)
		stand_in bookworm
		stand_in trixie
		has_own "$GO" || go_base bookworm
	fi
	if has_ceph forky; then
		if [[ $BASE == backy-test/* ]]; then stand_in forky; fi
	else
		note "NOT TESTED ON forky, the default, which has no Ceph today: of that, make test-other fails"
		BASE=${OTHERS[0]} OTHERS=("${OTHERS[@]:1}")
	fi
}

# stand_in makes a base image of a release.
stand_in() {
	has_own "backy-test/debian:$1" ||
		docker import --change "LABEL $LABEL=1" "$(clean_debian "$1")" "backy-test/debian:$1" >/dev/null
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

# context makes what is built from: what git knows of the checkout, as `make image`
# has it, and this machine's modules.
context() {
	local go
	go=$(command -v go || echo /usr/local/go/bin/go)
	mkdir "$TMP/context"
	(cd "$CHECKOUT" && git ls-files -z | tar -c --null --files-from -) | tar -x -C "$TMP/context"
	(cd "$CHECKOUT" && GOFLAGS=-mod=mod "$go" mod vendor -o "$TMP/context/vendor")
}

# build NAME BASE makes an image on a base.
build() {
	local target
	# The first stage has a name, so that it can be removed.
	for target in "--target build --tag ${IMAGE%-other}-build" "--tag $1"; do
		# shellcheck disable=SC2086 # words
		docker build --build-arg "GO=$GO" --build-arg "BASE=$2" --build-arg VERSION=test --label "$LABEL=1" $target \
			-f "$TMP/context/docker/Dockerfile" "$TMP/context" >"$TMP/build.log" 2>&1 || {
			tail -n 30 "$TMP/build.log" >&2
			die "the image cannot be built on $2"
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

# librados NAME is the release of Ceph whose librados is in an image.
librados() { docker run --rm "$1" version | sed -n 's/^librbd 1\.\([0-9]*\)\..*/\1/p'; }

test_image() {
	[[ $(docker image inspect -f '{{.Config.User}}' "$IMAGE") == 10001:10001 ]] || die 'the image runs as another user'
	[[ $(librados "$IMAGE") ]] || die 'backy version tells of no librbd'
	if docker run --rm "$IMAGE" backup - x </dev/null 2>/dev/null; then die 'it backs up into a container without a mount'; fi
	note "image: $(size "$IMAGE"), of which the base image $(size "$BASE"), with librados of Ceph $(librados "$IMAGE")"
}

size() { docker image inspect -f '{{.Size}}' "$1" | numfmt --to=iec; }

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

# test_newest backs up and restores the image of a cluster of Ceph 20 with each of
# its types of keys.
test_newest() {
	local held=.cache/docker-test key
	if [[ $(librados "$IMAGE") -lt 20 ]]; then return; fi # said already
	hold forky "$held"
	for key in aes256k aes; do
		rm -rf "$TMP/newest"
		mkdir -p "$TMP/newest/ceph" "$TMP/newest/backups"
		cp "$held/ceph.conf" "$held/ceph.client.$key.keyring" "$TMP/newest/ceph/"
		own newest
		newest() {
			docker run --rm --label "$LABEL=1" --network host --read-only --cap-drop ALL --security-opt no-new-privileges -e "CEPH_ARGS=--id $key" \
				-v "$TMP/newest/ceph:/etc/ceph:ro" -v "$TMP/newest/backups:/backups" "$IMAGE" "$@"
		}
		newest backup rbd:vms/web1 vms/web1
		[[ $(newest restore vms/web1 - | sha256sum) == "$(cat "$held/sum")" ]] || die "vms/web1 differs ($(cat "$held/version"), $key)"
		newest restore vms/web1 "rbd:vms/$key"
		own_back newest
		note "$(cat "$held/version"), key of type $key: ok"
	done
	let_go "$held"
}

# own_back gives files back to who runs this.
own_back() { docker run --rm --user 0:0 --entrypoint chown -v "$TMP:/own" "$IMAGE" -R "$UID:$(id -g)" "${@/#//own/}"; }

# test_others tries the image on the other bases.
test_others() {
	local base first=$IMAGE
	for base in "${OTHERS[@]}"; do
		IMAGE=$first-other
		build "$IMAGE" "$base"
		backy --rm -e 'CEPH_ARGS=--id backup' -- backup --min-age 0 rbd:vms
		backy --rm -e 'CEPH_ARGS=--id restore' -- restore -f vms/web1 rbd:restored/web1
		same vms/web1 restored/web1
		note "on $base: ok, with librados of Ceph $(librados "$IMAGE")"
		docker image rm "$IMAGE" >/dev/null
	done
	IMAGE=$first
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
	test_others
	test_newest
}

# clean removes what was made, and gives the backups' folder back.
clean() {
	local left
	left=$(docker ps -aq --filter "label=$LABEL=1")
	# shellcheck disable=SC2086 # one word per container
	if [[ $left ]]; then docker rm -f $left >/dev/null; fi
	if [[ -d $TMP/backups ]]; then docker run --rm --user 0:0 --entrypoint sh -v "$TMP:/own" "$IMAGE" -c 'rm -rf /own/backups /own/ceph /own/newest'; fi
	docker image rm -f "$IMAGE" "$IMAGE-build" "$IMAGE-other" >/dev/null 2>&1 || true
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
	context
	build "$IMAGE" "$BASE"
	export TMP IMAGE GO BASE OTHERS_TEXT="${OTHERS[*]}"
	"$CHECKOUT/docker/cluster.sh" with --size 2G -- "$0" --inside
}

case ${1:-} in
--inside)
	read -r -a OTHERS <<<"$OTHERS_TEXT"
	inside
	;;
'') outside ;;
help | -h | --help) usage ;;
*)
	usage >&2
	exit 2
	;;
esac
