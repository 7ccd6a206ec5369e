#!/usr/bin/env bash
# Functions for scripts that want clusters of several Debian releases, and so of
# several Ceph, at a time: source it. Clients anywhere on this machine reach them on
# 127.0.0.1. They end with the script, however that ends.
set -euo pipefail
. "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/debian.sh"

declare -A HELD=() # the file descriptors that hold the clusters, by folder

# hold RELEASE DIR starts a cluster with the image vms/web1, and returns when it is
# up. DIR is a new folder of the checkout, as seen from there, for what a client
# needs: ceph.conf; ceph.client.TYPE.keyring of a client for each type of key that
# the cluster has, aes or aes256k; sum, the image's SHA-256; version. Exit code 69:
# there is no such release, or no Ceph in it.
hold() {
	local dir=$2 fd code=0
	rm -rf "$dir"
	mkdir -p "$dir"
	mkfifo "$dir/asked"
	OTHER_WRITE=$dir on "$1" docker/cluster.sh with --size 512M -- docker/held.sh "$dir" <"$dir/asked" >"$dir/log" 2>&1 &
	echo $! >"$dir/holder"
	exec {fd}>"$dir/asked"
	while [[ ! -e $dir/up ]]; do
		if ! kill -0 "$(cat "$dir/holder")" 2>/dev/null; then
			wait "$(cat "$dir/holder")" || code=$?
			tail -n 20 "$dir/log" >&2
			exec {fd}>&-
			return "$((code ? code : 1))"
		fi
		sleep 0.2
	done
	HELD[$dir]=$fd
}

# refuse_aes DIR makes the cluster take aes256k keys only.
refuse_aes() {
	echo refuse >&"${HELD[$1]}"
	while [[ ! -e $1/refused ]]; do
		kill -0 "$(cat "$1/holder")" || return
		sleep 0.2
	done
}

# let_go DIR takes the cluster down. Its folder stays.
let_go() {
	local fd=${HELD[$1]}
	echo end >&"$fd" # those that were started later have the descriptor, too: closing it would not do
	exec {fd}>&-
	unset "HELD[$1]"
	wait "$(cat "$1/holder")"
}

# --- within the cluster ------------------------------------------------------------

# key TYPE [OPTION]... makes a client for all images.
key() {
	(umask 077 && ceph auth get-or-create "client.$1" mon 'profile rbd' osd 'profile rbd' "${@:2}" >"$DIR/ceph.client.$1.keyring")
}

# inside makes the image and the keys, and does as it is asked until it is to end, or
# there is nobody to ask.
inside() {
	DIR=$1
	docker/cluster.sh pool "$BACKY_TEST_CLUSTER" vms
	head -c 20M /dev/urandom >"$BACKY_TEST_CLUSTER/content"
	rbd import --no-progress "$BACKY_TEST_CLUSTER/content" vms/web1
	sha256sum <"$BACKY_TEST_CLUSTER/content" >"$DIR/sum"
	rm "$BACKY_TEST_CLUSTER/content"
	grep -v '^keyring' "$CEPH_CONF" >"$DIR/ceph.conf"
	ceph --version | cut -d ' ' -f 1-3 >"$DIR/version"
	if ceph mon dump 2>/dev/null | grep -q '^auth_allowed_ciphers'; then
		key aes256k --key_type aes256k
		# As in the README.
		ceph mon set auth_allowed_ciphers aes,aes256k
		ceph config set mon mon_auth_allow_insecure_key true
		key aes --key_type aes
		ceph config set mon mon_auth_allow_insecure_key false
	else
		key aes
	fi
	touch "$DIR/up"
	while read -r what && [[ $what == refuse ]]; do
		ceph mon set auth_allowed_ciphers aes256k
		touch "$DIR/refused"
	done
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then inside "$@"; fi
