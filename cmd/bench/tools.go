//go:build cgo

package main

import "os/exec"

// The work, of which each tool has a script where it can do it.
const (
	prepare     = "prepare" // not measured
	first       = "first backup"
	increment   = "increment"
	unchanged   = "nothing changed"
	toRBD       = "restore to a new RBD image"
	toFile      = "restore to a file"
	scrub       = "scrub"
	own         = "increment, snapshots included"
	fileFirst   = "first backup of a file"
	fileChanged = "increment of a file"
	fileSame    = "unchanged file, compared whole"
)

// tool is something that backs up. Its scripts are what its users type; they
// find in their environment: BACKY, the binary; REPO, the tool's folder; IMAGE and
// SNAP, what is backed up (SNAP is the prefix s and a number); PREV, the snapshot of the backup
// before; FILE, the raw image; N, the number of the last snapshot; OUT, the file
// to restore to, and NEW, the image.
type tool struct {
	name    string
	needs   []string // programs
	scripts map[string]string
}

func (t *tool) installed() bool {
	for _, program := range t.needs {
		if _, err := exec.LookPath(program); err != nil {
			return false
		}
	}
	return true
}

const (
	pipe = "rbd export-diff to zstd -1"
	qemu = "qemu-img with zstd"
	rbdX = "rbd import of the raw file"
	cp   = "cp --sparse=always"

	toQcow2 = `qemu-img convert -c -O qcow2 -o compression_type=zstd`

	quick   = "backy scrub --all --quick"
	reading = "reading the packs"
)

// tools are backy and its peers.
var tools = []*tool{
	{"backy", nil, map[string]string{
		prepare:     `mkdir $REPO`,
		first:       `$BACKY backup rbd:$IMAGE@$SNAP $REPO/image`,
		increment:   `$BACKY backup rbd:$IMAGE@$SNAP $REPO/image`,
		unchanged:   `$BACKY backup rbd:$IMAGE@$SNAP $REPO/image`,
		own:         `$BACKY backup rbd:$IMAGE $REPO/own`,
		toRBD:       `$BACKY restore $REPO/image rbd:$NEW`,
		toFile:      `$BACKY restore $REPO/image $OUT`,
		scrub:       `$BACKY scrub $REPO/image`,
		fileFirst:   `$BACKY backup $FILE $REPO/file`,
		fileChanged: `$BACKY backup $FILE $REPO/file`,
		fileSame:    `$BACKY backup $FILE $REPO/file`,
	}},
	{pipe, []string{"rbd", "zstd"}, map[string]string{
		prepare:   `mkdir $REPO`,
		first:     `rbd export-diff --no-progress $IMAGE@$SNAP - | zstd -1 -T0 -q -o $REPO/$SNAP.zst`,
		increment: `rbd export-diff --no-progress --from-snap $PREV $IMAGE@$SNAP - | zstd -1 -T0 -q -o $REPO/$SNAP.zst`,
		unchanged: `rbd export-diff --no-progress --from-snap $SNAP $IMAGE@$SNAP - | zstd -1 -T0 -q -f -o $REPO/none.zst`,
		own: `rbd snap create --no-progress $IMAGE@pipe-new
rbd export-diff --no-progress --from-snap pipe-old $IMAGE@pipe-new - | zstd -1 -T0 -q -f -o $REPO/own.zst
rbd snap rm --no-progress $IMAGE@pipe-old`,
		toRBD: `rbd create --size 8G $NEW
for n in $(seq 0 $N); do zstd -dcq $REPO/s$n.zst | rbd import-diff --no-progress - $NEW; done`,
		scrub: `zstd -tq $REPO/*.zst`,
	}},
	{"restic", []string{"restic", "rbd"}, map[string]string{
		prepare:     `restic -q init`,
		first:       `rbd export --no-progress $IMAGE@$SNAP - | restic -q backup --stdin --stdin-filename image`,
		increment:   `rbd export --no-progress $IMAGE@$SNAP - | restic -q backup --stdin --stdin-filename image`,
		unchanged:   `rbd export --no-progress $IMAGE@$SNAP - | restic -q backup --stdin --stdin-filename image`,
		toRBD:       `restic -q dump latest image | rbd import --no-progress - $NEW`,
		toFile:      `restic -q dump latest image > $OUT`,
		scrub:       `restic -q check --read-data`,
		fileFirst:   `restic -q backup $FILE`,
		fileChanged: `restic -q backup $FILE`,
		fileSame:    `restic -q backup --force $FILE`,
	}},
	{"borg", []string{"borg", "rbd"}, map[string]string{
		prepare:     `borg init -e none $REPO`,
		first:       `rbd export --no-progress $IMAGE@$SNAP - | borg create -C zstd,1 --chunker-params fixed,4194304 $REPO::{now:%s%f} -`,
		increment:   `rbd export --no-progress $IMAGE@$SNAP - | borg create -C zstd,1 --chunker-params fixed,4194304 $REPO::{now:%s%f} -`,
		unchanged:   `rbd export --no-progress $IMAGE@$SNAP - | borg create -C zstd,1 --chunker-params fixed,4194304 $REPO::{now:%s%f} -`,
		toRBD:       `borg extract --stdout $REPO::$(borg list --last 1 --short $REPO) | rbd import --no-progress - $NEW`,
		toFile:      `borg extract --stdout $REPO::$(borg list --last 1 --short $REPO) | cp --sparse=always /dev/stdin $OUT`,
		scrub:       `borg check --verify-data $REPO`,
		fileFirst:   `borg create -C zstd,1 --chunker-params fixed,4194304 $REPO::{now:%s%f} $FILE`,
		fileChanged: `borg create -C zstd,1 --chunker-params fixed,4194304 $REPO::{now:%s%f} $FILE`,
		fileSame:    `borg create -C zstd,1 --chunker-params fixed,4194304 --files-cache disabled $REPO::{now:%s%f} $FILE`,
	}},
	{qemu, []string{"qemu-img"}, map[string]string{
		prepare: `mkdir $REPO`,
		first:   toQcow2 + ` rbd:$IMAGE@$SNAP $REPO/image.qcow2`,
		toRBD:   `qemu-img convert -O raw $REPO/image.qcow2 rbd:$NEW`,
		toFile:  `qemu-img convert -O raw $REPO/image.qcow2 $OUT`,
	}},
	{"kopia", []string{"kopia", "rbd"}, map[string]string{
		prepare:     `kopia repository create filesystem --path $REPO --object-splitter FIXED-4M; kopia policy set --global --compression zstd-fastest`,
		first:       `rbd export --no-progress $IMAGE@$SNAP - | kopia snapshot create --stdin-file image /image`,
		increment:   `rbd export --no-progress $IMAGE@$SNAP - | kopia snapshot create --stdin-file image /image`,
		unchanged:   `rbd export --no-progress $IMAGE@$SNAP - | kopia snapshot create --stdin-file image /image`,
		scrub:       `kopia snapshot verify --verify-files-percent=100`,
		fileFirst:   `kopia snapshot create $FILE`,
		fileChanged: `kopia snapshot create $FILE`,
	}},
	// The limits: what no backup can be faster than, or a simpler tool takes.
	{"reading the extents, 12 readers", nil, map[string]string{first: `$BENCH -limit read:rbd:$IMAGE@$SNAP`}},
	{"the same and BLAKE3", nil, map[string]string{first: `$BENCH -limit sum:rbd:$IMAGE@$SNAP`}},
	{"rbd diff --whole-object", nil, map[string]string{
		increment: `rbd diff --whole-object --from-snap $PREV $IMAGE@$SNAP --format json > $OUT; rm $OUT`,
	}},
	{"backy scrub --all", nil, map[string]string{scrub: `$BACKY scrub --all $WITH`}},
	{quick, nil, map[string]string{scrub: `$BACKY scrub --all --quick $WITH`}},
	{"rbd info", nil, map[string]string{unchanged: `rbd info $IMAGE > /dev/null`}},
	{reading, nil, map[string]string{scrub: `cat $WITH/data/*/* $WITH/maps/*/* >/dev/null`}},
	{rbdX, nil, map[string]string{toRBD: `rbd import --no-progress $FILE $NEW`}},
	{cp, nil, map[string]string{toFile: `cp --sparse=always $FILE $OUT`, fileFirst: `cp --sparse=always $FILE $OUT; rm $OUT`}},
	{"reading and BLAKE3, all cores", nil, map[string]string{fileSame: `$BENCH -limit sum:$FILE`}},
	{"zstd -1 -T0", []string{"zstd"}, map[string]string{prepare: `mkdir $REPO`, fileFirst: `zstd -1 -T0 -q -f $FILE -o $REPO/file.zst`}},
}

func toolNamed(name string) *tool {
	for _, t := range tools {
		if t.name == name {
			return t
		}
	}
	return nil
}
