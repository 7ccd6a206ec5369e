#!/usr/bin/env bash
# A Ceph cluster on one machine, from Debian's packages, in a folder of its own:
# see usage below. For tests and for trying things out: it keeps one copy of
# everything, so it is no place for data.
set -euo pipefail
unset CEPH_ARGS CEPH_CONF CEPH_KEYRING

usage() {
	cat <<'END'
usage: cluster.sh up DIR [OPTION]...     make a cluster in DIR, or start the one that is there
       cluster.sh down DIR [--rm]        stop it; with --rm remove its files too
       cluster.sh env DIR                print the shell exports that a client needs
       cluster.sh status DIR             print how it is; exit 0 only if all its daemons run
       cluster.sh pool DIR NAME [PGS]    make a pool for RBD images (of 4 placement groups)
       cluster.sh key DIR NAME [CAPS]... make client.NAME (default: mon 'profile rbd' osd 'profile
                                         rbd') and print its keyring's path; --id NAME finds it
       cluster.sh with [OPTION]... -- COMMAND [ARGUMENT]...
                                         run COMMAND with a cluster of its own (in CEPH_CONF, and its
                                         folder in BACKY_TEST_CLUSTER) that goes down with it
       cluster.sh hold DIR [OPTION]...   up, print the exports, and down --rm when stdin ends, so that
                                         the cluster does not outlive the program that holds it
       cluster.sh start|stop|kill|pause|resume DIR DAEMON
                                         one daemon: mon.a, mgr.x, osd.0, osd.1 …; a stopped OSD
                                         keeps its data, a killed one keeps it on bluestore only

options of up, with and hold, with the environment variables that stand for them:
  --store memstore|bluestore   CLUSTER_STORE: in memory, gone when it goes down (default), or in
                               a sparse file, there again at the next up
  --size SIZE                  CLUSTER_SIZE: of each OSD, such as 512M or 6G (default 4G)
  --osds N                     CLUSTER_OSDS: how many OSDs (default 1)
  --port PORT                  CLUSTER_PORT: of the monitor on 127.0.0.1 (default: a free one)
  --pools 'NAME...'            CLUSTER_POOLS: pools to make (default: rbd)

Several clusters can run at a time, each in its own DIR. All daemons run as the user who calls.
END
}

TEMPLATE=$(dirname "$(realpath "$0")")/ceph.conf.in
readonly START_TIMEOUT=60 # seconds that a daemon or a command may take
readonly STOP_TIMEOUT=30  # seconds that a daemon may take to end before it is killed

note() { printf 'cluster.sh: %s\n' "$*" >&2; }

die() {
	note "$*"
	exit 1
}

# --- daemons -----------------------------------------------------------------

# lock makes calls that start and stop daemons of one cluster wait for each other.
lock() {
	exec 9<"$DIR"
	flock -w "$((2 * START_TIMEOUT))" 9 || die "$DIR: another cluster.sh is at work on it and does not end"
}

# pids [NAME] prints the process ids of this cluster's daemons, or of one. They
# are known by their command line, which names this cluster's ceph.conf, and by
# the root folder they see: a pid file may be stale or missing, and the same
# path in a container or chroot is another cluster.
pids() {
	local proc args
	for proc in /proc/[0-9]*; do
		{ mapfile -t -d '' args <"$proc/cmdline"; } 2>/dev/null || continue
		case "${args[*]} " in
		"ceph-"???" --name ${1:-}"*" --conf $CONF "*)
			if [[ $proc/root/. -ef /. ]]; then echo "${proc#/proc/}"; fi
			;;
		esac
	done
}

# end SIGNAL [NAME] ends all daemons or one: asks with SIGNAL, waits, then kills.
# A paused one is woken up to hear it.
end() {
	local signal=$1 deadline=$((SECONDS + STOP_TIMEOUT)) list
	while list=$(pids "${2:-}") && [[ $list ]]; do
		if ((SECONDS > deadline + 10)); then die "processes that do not end even when killed: ${list//$'\n'/ }"; fi
		if ((SECONDS > deadline)); then signal=KILL; fi
		# shellcheck disable=SC2086 # one word per process
		if [[ $signal ]]; then
			kill -s "$signal" $list 2>/dev/null || true
			kill -s CONT $list 2>/dev/null || true
			signal=
		fi
		sleep 0.05
	done
}

# start NAME [ARGUMENT]... runs a daemon, which goes to the background once it works.
# It keeps none of our files open: who reads our output waits for their end. Debian's 18.2.7
# looks for the OSD's classes below its current folder, so that is the root. Memory comes from
# tcmalloc, where that is, as in the packages of the Ceph project: told so, it gives all back that
# is freed, while libc keeps half of what an OSD in memory held.
start() {
	local name=$1 malloc
	if [[ $(pids "$name") ]]; then return; fi
	malloc=$(PATH=$PATH:/sbin ldconfig -p | awk '/libtcmalloc\.so\.4 / { path = $NF } END { print path }')
	(cd / && LD_PRELOAD=$malloc TCMALLOC_AGGRESSIVE_DECOMMIT=1 exec timeout --kill-after=5 "$START_TIMEOUT" \
		"ceph-${name%%.*}" --name "$name" --conf "$CONF" "${@:2}") \
		</dev/null >>"$DIR/log/$name.out" 2>&1 9<&- && return
	note "$name did not come up; the end of its log:"
	tail -n 25 "$DIR/log/$name".* >&2 || true
	return 1
}

# client COMMAND... runs ceph or rbd as client.admin; a cluster that hangs does not hang us.
client() { timeout --kill-after=5 "$START_TIMEOUT" "$1" --conf "$CONF" "${@:2}" 9<&-; }

# names prints the cluster's daemons.
names() {
	local path
	for path in "$DIR"/{mon,mgr,osd}.*; do
		if [[ -d $path ]]; then basename "$path"; fi
	done
}

# ours tells whether the folder's ceph.conf is one that we made.
ours() { [[ $(head -n 1 "$CONF" 2>/dev/null) == "$(head -n 1 "$TEMPLATE")" ]]; }

# keeps_data tells whether the OSDs' stores outlive them.
keeps_data() { grep -qs '^osd objectstore = bluestore' "$CONF"; }

# all_run tells whether the cluster is complete and each of its daemons runs.
all_run() {
	local name
	[[ -e $DIR/made ]] || return
	for name in $(names); do [[ $(pids "$name") ]] || return; done
}

# --- a new cluster -----------------------------------------------------------

uuid() { cat /proc/sys/kernel/random/uuid; }

# free_port picks a port that nobody listens at, below the range that the kernel
# gives to outgoing connections.
free_port() {
	local port
	while port=$((20000 + RANDOM % 10000)); (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
	echo "$port"
}

# make_cluster writes the files of a cluster: configuration, keys, the monitor's
# and the OSDs' stores.
make_cluster() {
	local fsid i
	fsid=$(uuid)
	sed -e "s|@DIR@|$DIR|; s|@FSID@|$fsid|; s|@PORT@|${PORT:-$(free_port)}|; s|@STORE@|$STORE|; s|@SIZE@|$SIZE|" \
		"$TEMPLATE" >"$CONF"
	mkdir "$DIR/log" "$DIR/run" "$DIR/mon.a" "$DIR/mgr.x"
	new_key mon.a mon. --cap mon 'allow *'
	new_key mgr.x mgr.x --cap mon 'allow profile mgr' --cap osd 'allow *' --cap mds 'allow *'
	new_key client.admin client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *' --cap mds 'allow *'
	for ((i = 0; i < OSDS; i++)); do
		mkdir "$DIR/osd.$i"
		new_key "osd.$i" "osd.$i" --cap mon 'allow profile osd' --cap mgr 'allow profile osd' --cap osd 'allow *'
	done
	cat "$DIR"/*.keyring >"$DIR/run/keyring"
	monmaptool --create --clobber --fsid "$fsid" \
		--addv a "$(sed -n 's/^mon host = //p' "$CONF")" "$DIR/run/monmap" >/dev/null
	start mon.a --mkfs --monmap "$DIR/run/monmap" --keyring "$DIR/run/keyring"
	for ((i = 0; i < OSDS; i++)); do
		start "osd.$i" --mkfs --no-mon-config --monmap "$DIR/run/monmap" --osd-uuid "$(uuid)"
	done
	rm "$DIR/run/keyring" "$DIR/run/monmap"
}

# new_key NAME ENTITY CAPS... makes a keyring where ceph.conf says.
new_key() { ceph-authtool -C "$DIR/$1.keyring" -n "$2" --gen-key "${@:3}" >/dev/null; }

# remove_cluster removes what make_cluster and the daemons wrote, and nothing else.
remove_cluster() {
	rm -rf "$DIR"/{mon,mgr,osd}.* "$DIR"/client.*.keyring "$DIR/log" "$DIR/run" "$DIR/made" "$CONF"
}

# start_cluster starts all daemons and waits until the OSDs are up.
start_cluster() {
	local name osds=0 up deadline=$((SECONDS + START_TIMEOUT))
	start mon.a
	for name in $(names); do
		if [[ $name == osd.* ]]; then
			# It returns the same id when it is asked again.
			client ceph osd new "$(cat "$DIR/$name/fsid")" "${name#osd.}" >/dev/null
			osds=$((osds + 1))
		fi
		start "$name"
	done
	while up=$(client ceph osd stat --format json | sed 's/.*"num_up_osds":\([0-9]*\).*/\1/') && ((up < osds)); do
		if ((SECONDS > deadline)); then
			note "only $up of $osds OSDs are up after $START_TIMEOUT seconds; the end of the logs:"
			tail -n 25 "$DIR"/log/osd.*.log >&2
			exit 1
		fi
		sleep 0.1
	done
}

# --- verbs -------------------------------------------------------------------

up() {
	STORE=${CLUSTER_STORE:-memstore} SIZE=${CLUSTER_SIZE:-4G} OSDS=${CLUSTER_OSDS:-1}
	PORT=${CLUSTER_PORT:-} POOLS=${CLUSTER_POOLS-rbd}
	while (($#)); do
		if (($# < 2)); then wrong "up: $1 wants a value, or is no option"; fi
		case $1 in
		--store) STORE=$2 ;;
		--size) SIZE=$2 ;;
		--osds) OSDS=$2 ;;
		--port) PORT=$2 ;;
		--pools) POOLS=$2 ;;
		*) wrong "up: no option $1" ;;
		esac
		shift 2
	done
	[[ $STORE == memstore || $STORE == bluestore ]] || wrong "store $STORE: want memstore or bluestore"
	[[ $SIZE =~ ^[1-9][0-9]*[MGT]?$ ]] || wrong "size $SIZE: want a number and M, G or T"
	[[ $OSDS =~ ^[1-9][0-9]*$ ]] || wrong "osds $OSDS: want a number, 1 or more"
	[[ $PORT =~ ^[0-9]*$ ]] || wrong "port $PORT: want a number"
	SIZE=$(numfmt --from=iec "$SIZE")
	# Its own sockets have 108 bytes for their path.
	((${#DIR} <= 80)) || die "$DIR: the path is too long for a socket in it; want 80 characters at most"

	(umask 077 && mkdir -p "$DIR")
	lock
	if all_run; then
		note "$DIR is up already"
		return
	fi
	if ! ours && [[ $(ls -A "$DIR") ]]; then
		die "$DIR has other things in it; want a new or an empty folder"
	fi
	# A low limit on open files breaks a daemon late, in the middle of a test.
	ulimit -Sn "$(ulimit -Hn)"
	ulimit -c 0
	trap failed EXIT
	trap 'exit 130' INT TERM
	end KILL
	if [[ ! -e $DIR/made ]] || ! keeps_data; then
		remove_cluster
		make_cluster
	fi
	start_cluster
	if [[ ! -e $DIR/made ]]; then
		local name
		for name in $POOLS; do pool "$name"; done
		client ceph health mute MGR_MODULE_ERROR --sticky 2>/dev/null
		touch "$DIR/made"
	fi
	trap - EXIT
	note "$DIR is up: eval \"\$($0 env $DIR)\""
}

# failed takes down what up could not finish; the logs stay.
failed() {
	local code=$?
	trap - EXIT
	note "$DIR did not come up; its logs are in $DIR/log"
	end KILL
	exit "$code"
}

down() {
	[[ $# == 0 || $* == --rm ]] || wrong "down: $*: want --rm or nothing"
	if [[ -d $DIR ]]; then lock; fi
	if keeps_data && ! (($#)); then end TERM; else end KILL; fi
	if ! ours; then return; fi
	rm -rf "$DIR/run"
	if (($#)); then
		remove_cluster
		rmdir "$DIR" 2>/dev/null || note "$DIR has other things in it; they stay"
	fi
}

env() { printf 'export CEPH_CONF=%s\nunset CEPH_ARGS CEPH_KEYRING\n' "$CONF"; }

status() {
	all_run || die "not all daemons of $DIR run"
	client ceph status
}

pool() {
	client ceph osd pool create "$1" "${2:-4}" 2>&1 | grep -v created >&2 || true
	client rbd pool init "$1"
}

key() {
	local keyring=$DIR/client.$1.keyring text
	if (($# == 1)); then set -- "$1" mon 'profile rbd' osd 'profile rbd'; fi
	text=$(client ceph auth get-or-create "client.$1" "${@:2}")
	# Whoever has the key already may read it at this moment.
	(umask 077 && echo "$text" >"$keyring.$BASHPID" && mv "$keyring.$BASHPID" "$keyring")
	echo "$keyring"
}

# hold is not ended by Ctrl-C, which its holder gets too, nor by a holder that reads no more.
hold() {
	trap '' INT
	"$0" up "$DIR" "$@"
	trap '"$0" down "$DIR" --rm' EXIT
	trap exit TERM HUP
	env
	exec >/dev/null 2>&1
	while read -r _; do :; done
}

with() {
	local options=() code=0 holder _
	while (($#)) && [[ $1 != -- ]]; do
		options+=("$1")
		shift
	done
	(($# > 1)) || wrong "with: wants -- and a command"
	DIR=$(mktemp -d -t backy-cluster.XXXXXX)
	CONF=$DIR/ceph.conf
	coproc HOLD { exec "$0" hold "$DIR" "${options[@]}"; }
	holder=$HOLD_PID
	read -r _ <&"${HOLD[0]}" || wait "$holder"
	trap : INT
	CEPH_CONF=$CONF BACKY_TEST_CLUSTER=$DIR "${@:2}" || code=$?
	eval "exec ${HOLD[1]}>&-"
	wait "$holder"
	return "$code"
}

# one VERB DAEMON
one() {
	local all
	if [[ $1 != pause && $1 != resume ]]; then lock; fi
	all=$(names)
	grep -Fqx -- "$2" <<<"$all" || wrong "$1: no daemon $2; there are ${all//$'\n'/ }"
	case $1 in
	start) start "$2" ;;
	stop) end TERM "$2" ;;
	kill) end KILL "$2" ;;
	pause) pause "$2" ;;
	resume) signal CONT "$2" ;;
	esac
}

signal() {
	local list
	list=$(pids "$2")
	[[ $list ]] || die "$2 does not run"
	kill -s "$1" "$list"
}

# pause returns when each thread of the daemon has stopped: that takes until the
# one that got the signal has its turn, and on a busy machine the others would
# answer until then.
pause() {
	local pid deadline=$((SECONDS + STOP_TIMEOUT))
	signal STOP "$1"
	for pid in $(pids "$1"); do
		while [[ $(grep -hs '^State:' "/proc/$pid/task/"*/status | grep -v 'T (stopped)') ]]; do
			if ((SECONDS > deadline)); then die "$1 does not stop"; fi
			sleep 0.02
		done
	done
}

wrong() {
	note "$*; see: $0 help"
	exit 2
}

main() {
	case ${1:-} in
	with)
		with "${@:2}"
		return
		;;
	up | hold | down | env | status | pool | key | start | stop | kill | pause | resume) ;;
	help | -h | --help)
		usage
		return
		;;
	*) wrong "no verb ${1:-given}" ;;
	esac
	local verb=$1
	[[ ${2:-} && $2 != -* ]] || wrong "$verb: wants a folder"
	DIR=$(realpath -m -- "$2")
	CONF=$DIR/ceph.conf
	shift 2
	[[ $DIR =~ ^[A-Za-z0-9._/@+-]+$ ]] || die "$DIR: ceph.conf cannot hold this path; want letters, digits and ._/@+- only"
	[[ $verb =~ ^(up|hold|down)$ ]] || ours || die "$DIR: no cluster here; make one with: $0 up $DIR"
	case $verb in
	start | stop | kill | pause | resume)
		(($# == 1)) || wrong "$verb: wants a daemon's name"
		one "$verb" "$1"
		;;
	pool | key)
		(($# > 0)) || wrong "$verb: wants a name"
		"$verb" "$@"
		;;
	*) "$verb" "$@" ;;
	esac
}

main "$@"
