#!/usr/bin/env bash
# Shows backy at work on a real Ceph cluster, step by step, and fails if a step
# is not as it should be. `make demo` builds backy, starts a cluster, runs this
# with it (in CEPH_CONF) and takes the cluster down.
set -euo pipefail
cd "$(dirname "$0")/.."
[[ ${CEPH_CONF:-} ]] || exec docker/cluster.sh with -- docker/demo.sh
exec 2>&1

WORK=$(mktemp -d -t backy-demo.XXXXXX)
trap 'rm -rf "$WORK"' EXIT
PATH=${BACKY_BIN:-$PWD/bin}:$PATH:/usr/sbin:/sbin
export XDG_CACHE_HOME=$WORK/cache # where backy keeps what it can do without
BACKUPS=$WORK/backups
NAME=$BACKUPS/vm
IMAGE=rbd:rbd/vm

title() { if [[ -t 1 ]]; then printf '\n\033[1m%s\033[0m\n' "$*"; else printf '\n%s\n' "$*"; fi; }
say() { printf '%s\n' "$*"; }

die() {
	printf 'demo: %s\n' "$*" >&2
	exit 1
}

# shown CODE COMMAND... shows a command as one types it, runs it, and insists on its exit code.
shown() {
	local want=$1 code=0
	shift
	printf '$ %s\n' "${*//$WORK/…}"
	"$@" || code=$?
	((code == want)) || die "this ended with exit code $code, it should be $want: $*"
}

# le64 NUMBER writes it as 8 bytes, the lowest first.
le64() {
	local i byte bytes=
	for ((i = 0; i < 64; i += 8)); do
		printf -v byte '\\x%02x' $(($1 >> i & 255))
		bytes+=$byte
	done
	printf '%b' "$bytes"
}

# changed OLD NEW prints the runs of 4 KiB blocks in which two files of one size differ:
# the first block and how many.
changed() {
	{ cmp -l "$1" "$2" || (($? == 1)); } | awk '
		{ b = int(($1 - 1) / 4096) }
		NR > 1 && b > last + 1 { print first, last - first + 1 }
		NR == 1 || b > last + 1 { first = b }
		{ last = b }
		END { if (NR) print first, last - first + 1 }'
}

# write_changes OLD NEW IMAGE writes to an RBD image what differs between two files, and
# no more, as a virtual machine would have done: as an incremental diff of the rbd command
# (version 1 in doc/dev/rbd-diff.rst of Ceph).
write_changes() {
	local block count
	{
		printf 'rbd diff v1\n'
		changed "$1" "$2" | while read -r block count; do
			printf w
			le64 $((block * 4096))
			le64 $((count * 4096))
			dd if="$2" bs=4096 skip="$block" count="$count" status=none
		done
		printf e
	} | rbd import-diff --no-progress - "$3"
}

# texts is a folder with many small files, that is everywhere.
texts() { if [[ -d /usr/include/linux ]]; then echo /usr/include; else echo /usr/share/perl5; fi; }

make_image() {
	title '1. An RBD image with a file system and files in it'
	local tree=$WORK/tree
	mkdir -p "$tree/home" "$tree/src"
	echo 'Buy milk.' >"$tree/home/notes.txt"
	cp -r LICENSE Makefile cmd engine store hints rbd docker "$tree/src/"
	cp -r "$(texts)" "$tree/texts"
	head -c 64M /dev/urandom >"$tree/home/video.bin"
	truncate -s 1G "$WORK/disk"
	mke2fs -q -t ext4 -d "$tree" "$WORK/disk"
	rbd import --no-progress --sparse-size 4K "$WORK/disk" rbd/vm
	rbd snap create --no-progress rbd/vm@monday
	say "rbd/vm: 1 GiB, ext4, $(find "$tree" -type f | wc -l) files; the snapshot @monday is for comparing at the end."
}

change_files() {
	title '3. Files change: one is rewritten, one is new, some are removed'
	cp --sparse=always "$WORK/disk" "$WORK/disk.new"
	echo 'Buy milk. Feed the cat.' >"$WORK/notes"
	head -c 2M /dev/urandom >"$WORK/photo"
	debugfs -w -f /dev/stdin "$WORK/disk.new" >/dev/null 2>&1 <<-END
		rm /home/notes.txt
		write $WORK/notes /home/notes.txt
		write $WORK/photo /home/photo.jpg
		rm /src/LICENSE
		rm /src/Makefile
	END
	write_changes "$WORK/disk" "$WORK/disk.new" rbd/vm
	rbd snap create --no-progress rbd/vm@tuesday
	rbd export --no-progress rbd/vm "$WORK/disk.vm"
	cmp "$WORK/disk.new" "$WORK/disk.vm" || die 'the changes did not reach rbd/vm'
	rm "$WORK"/disk*
	say "$(rbd diff --whole-object --from-snap monday rbd/vm@tuesday | grep -c data) of its objects of 4 MiB have changed since @monday."
}

# damage flips all bits of the byte in the middle of the largest pack of chunks.
damage() {
	title '6. One byte of the repository goes bad'
	local pack at byte
	pack=$(find "$BACKUPS/data" -type f -printf '%s %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2-)
	at=$(($(stat -c %s "$pack") / 2))
	byte=$(od -An -tu1 -j "$at" -N 1 "$pack")
	printf '%b' "\\x$(printf %02x $((byte ^ 255)))" | dd of="$pack" bs=1 seek="$at" conv=notrunc status=none
	say "Byte $at of ${pack#"$WORK"/} was $((byte)), now it is $((byte ^ 255))."
}

# proven IMAGE SNAPSHOT NOTES insists that a restored image holds the same bytes as the
# snapshot, that its file system is clean and what is in home/notes.txt.
proven() {
	local notes
	rbd export --no-progress "$1" "$WORK/restored"
	rbd export --no-progress "$2" "$WORK/snapshot"
	cmp "$WORK/restored" "$WORK/snapshot" || die "$1 and $2 differ"
	e2fsck -fn "$WORK/restored" &>/dev/null || die "the file system in $1 is not clean"
	notes=$(debugfs -R 'cat /home/notes.txt' "$WORK/restored" 2>/dev/null)
	[[ $notes == "$3" ]] || die "home/notes.txt in $1 should say: $3; it says: $notes"
	rm "$WORK/restored" "$WORK/snapshot"
	say "$1 is the same as $2, byte by byte. Its file system is clean; home/notes.txt says: $notes"
}

title "A cluster of Ceph $(ceph --version | cut -d ' ' -f 3) on this machine, and $(backy version | head -n 1)"
make_image

title '2. The first backup: a full one, of what is allocated'
shown 0 backy backup "$IMAGE" "$NAME"
first=$(du -sm "$BACKUPS" | cut -f 1)

change_files

title '4. The second backup: what has changed since'
shown 0 backy backup "$IMAGE" "$NAME"
both=$(du -sm "$BACKUPS" | cut -f 1)
say "The repository takes $both MiB now, $((both - first)) more than before."
shown 0 backy ls "$NAME"

title '5. Scrub: every chunk against its checksum'
shown 0 backy scrub -l 1 "$NAME"
shown 0 backy scrub -l 2 "$NAME"

damage
say 'Scrub finds it, and ends with exit code 3; both levels share that chunk.'
shown 3 backy scrub -l 1 "$NAME"
shown 3 backy scrub -l 2 "$NAME"

title '7. The next backup reads the damaged place again and mends it for all levels'
shown 0 backy backup "$IMAGE" "$NAME"
for level in 1 2 3; do shown 0 backy scrub -l "$level" "$NAME"; done

title '8. Restore both levels to new images, and compare'
shown 0 backy restore -l 1 "$NAME" rbd:rbd/monday
shown 0 backy restore -l 2 "$NAME" rbd:rbd/tuesday
proven rbd/monday rbd/vm@monday 'Buy milk.'
proven rbd/tuesday rbd/vm@tuesday 'Buy milk. Feed the cat.'

title 'Done'
cat <<END
An image with a real file system was backed up from a real Ceph cluster, once in full ($first MiB) and
once by what had changed ($((both - first)) MiB). One byte of the repository was damaged; scrub found it, and the
next backup mended it. Both states were restored to new images; each is the same as its snapshot,
byte by byte, its file system is clean and its files are as they were.
END
