//go:build cgo

package main

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// states are the rows of TestStates.
var states = []state{
	{name: "nothing special", enter: func(r *stateRow) { r.write(r.image, 1<<20, 5000) }},
	{
		name: "migration prepared",
		enter: func(r *stateRow) {
			r.migrate()
			r.write(r.image, 1<<20, 5000)
		},
		want: migrating,
		after: func(r *stateRow) {
			r.write(r.image, 2<<20, 5000)
			r.rbd("migration", "execute", "--no-progress", r.image)
			r.rbd("migration", "commit", "--no-progress", r.image)
			r.tidied()
		},
	},
	{
		name: "migration executing",
		create: func(r *stateRow) {
			r.rbd("create", "--size", fmt.Sprintf("%dB", stateSize), "--object-size", "8K", r.image)
			r.write(r.image, 0, 6<<20)
		},
		enter: func(r *stateRow) {
			r.migrate()
			r.write(r.image, 1<<20, 5000)
			r.slowly("migration", "execute", "--no-progress", "--rbd-concurrent-management-ops", "1", r.image)
			r.until("migration", func() bool { return strings.Contains(r.rbd("status", r.image), "executing") })
		},
		want: migrating,
		after: func(r *stateRow) {
			r.write(r.image, 2<<20, 5000)
			r.finish()
			r.rbd("migration", "commit", "--no-progress", r.image)
			r.tidied()
		},
	},
	{
		name: "migration executed",
		enter: func(r *stateRow) {
			r.migrate()
			r.write(r.image, 1<<20, 5000)
			r.rbd("migration", "execute", "--no-progress", r.image)
		},
		want: migrating,
		after: func(r *stateRow) {
			r.rbd("migration", "commit", "--no-progress", r.image)
			r.tidied()
		},
	},
	{
		name: "migration committed",
		enter: func(r *stateRow) {
			r.migrate()
			r.rbd("migration", "execute", "--no-progress", r.image)
			r.rbd("migration", "commit", "--no-progress", r.image)
			r.write(r.image, 1<<20, 5000)
		},
		after: (*stateRow).tidied,
	},
	{
		name: "migration aborted",
		enter: func(r *stateRow) {
			was := r.image
			r.migrate()
			r.write(r.image, 1<<20, 5000)
			r.rbd("migration", "abort", "--no-progress", r.image)
			r.image = was
		},
		after: (*stateRow).tidied,
	},
	{
		name: "import prepared",
		enter: func(r *stateRow) {
			r.rbd("snap", "create", "--no-progress", r.image+"@s")
			source := fmt.Sprintf(`{"type":"native","pool_name":%q,"image_name":%q,"snap_name":"s"}`, r.pool, path.Base(r.image))
			r.image += "-imported"
			r.rbd("migration", "prepare", "--import-only", "--source-spec", source, r.image)
		},
		want: map[string]cell{
			colIncrement: {1, "which still exists with the id .*--adopt"}, colBackup: migrating[colBackup], colPool: migrating[colPool],
			colStatus: {1, "1 stray snapshot"}, colClean: migrating[colClean], colRestore: migrating[colRestore],
		},
		after: func(r *stateRow) {
			r.rbd("migration", "execute", "--no-progress", r.image)
			r.rbd("migration", "commit", "--no-progress", r.image)
		},
	},
	{
		name:  "in the trash",
		enter: func(r *stateRow) { r.rbd("trash", "mv", r.image) },
		want: map[string]cell{
			colIncrement: {1, "no such image"}, colBackup: {1, "no such image"}, colScrub: {1, "no such image"}, colStatus: {1, "1 gone"},
		},
	},
	{
		name: "back from the trash",
		enter: func(r *stateRow) {
			id := r.imageID()
			r.rbd("trash", "mv", r.image)
			r.rbd("trash", "restore", r.pool+"/"+id)
			r.write(r.image, 1<<20, 5000)
		},
	},
	{
		name: "member of a group",
		enter: func(r *stateRow) {
			r.rbd("group", "create", r.pool+"/g")
			r.rbd("group", "image", "add", r.pool+"/g", r.image)
			r.rbd("group", "snap", "create", r.pool+"/g@together")
			r.write(r.image, 1<<20, 5000)
		},
		after: func(r *stateRow) {
			r.rbd("group", "snap", "create", r.pool+"/g@again")
			r.rbd("group", "snap", "rm", r.pool+"/g@together")
		},
	},
	mirrored("journal", false), mirrored("journal", true), mirrored("snapshot", false), mirrored("snapshot", true),
	{
		name: "LUKS",
		create: func(r *stateRow) {
			r.rbd("create", "--size", "32M", r.image)
			path := filepath.Join(r.TempDir(), "passphrase")
			if err := os.WriteFile(path, []byte("correct horse"), 0o600); err != nil {
				r.Fatal(err)
			}
			r.rbd("encryption", "format", r.image, "luks1", path)
		},
	},
	{
		name:   "format 1",
		create: func(r *stateRow) { r.oldFormat(r.image) },
		enter:  func(r *stateRow) { r.write(r.image, 1<<20, 5000) },
	},
	{
		name:   "journaling",
		create: func(r *stateRow) { r.create(r.image, "--image-feature", "exclusive-lock,journaling") },
		enter:  func(r *stateRow) { r.write(r.image, 1<<20, 5000) },
	},
	{
		name: "object map invalid",
		enter: func(r *stateRow) {
			r.rbd("feature", "disable", r.image, "fast-diff", "object-map")
			r.write(r.image, 1<<20, 5000)
			r.rbd("feature", "enable", r.image, "object-map", "fast-diff")
		},
		want: map[string]cell{colIncrement: {says: "marked invalid"}},
	},
	{
		name:   "object map absent",
		create: func(r *stateRow) { r.create(r.image, "--image-feature", "layering") },
		enter:  func(r *stateRow) { r.write(r.image, 1<<20, 5000) },
	},
	{
		name: "locked by a live client",
		enter: func(r *stateRow) {
			r.background("bench", "--io-type", "write", "--io-size", "4K", "--io-threads", "1", "--io-pattern", "rand", "--io-total", "100G", r.image)
			r.until("lock", func() bool { return strings.Contains(r.rbd("lock", "ls", r.image), "auto") })
		},
		want: map[string]cell{colRestore: {1, "in use"}},
		after: func(r *stateRow) {
			if !strings.Contains(r.rbd("lock", "ls", r.image), "auto") {
				r.Error("the client has lost its lock")
			}
		},
	},
	{
		name: "locked by a dead client",
		enter: func(r *stateRow) {
			cmd := r.background("bench", "--io-type", "write", "--io-size", "4K", "--io-threads", "1", "--io-pattern", "rand", "--io-total", "100G", r.image)
			r.until("lock", func() bool { return strings.Contains(r.rbd("lock", "ls", r.image), "auto") })
			if err := cmd.Process.Kill(); err != nil {
				r.Fatal(err)
			}
		},
	},
	{
		name: "locked by hand",
		enter: func(r *stateRow) {
			r.rbd("feature", "disable", r.image, "fast-diff", "object-map", "exclusive-lock")
			r.rbd("lock", "add", r.image, "mine")
		},
		want: map[string]cell{colRestore: {1, "in use"}},
	},
	clone(1), clone(2),
	{
		name:   "being flattened",
		create: func(r *stateRow) { r.cloned(2) },
		enter:  func(r *stateRow) { r.background("flatten", "--no-progress", r.image) },
	},
	{
		name:  "snapshot limit reached",
		enter: func(r *stateRow) { r.rbd("snap", "limit", "set", r.image, "--limit", "1") },
		want: map[string]cell{
			colIncrement: {1, "rbd snap limit"}, colBackup: {1, "rbd snap limit"}, colPool: {6, "rbd snap limit"},
		},
	},
	{
		name: "pool over quota",
		enter: func(r *stateRow) {
			r.cluster.Run(r, "ceph", "osd", "pool", "set-quota", r.pool, "max_objects", "1")
			r.until("full pool", func() bool {
				return strings.Contains(r.cluster.Run(r, "ceph", "health", "detail"), fmt.Sprintf("pool '%s' is full", r.pool))
			})
		},
		// client.admin may write there; to lock an image takes a new object.
		want: map[string]cell{
			colIncrement: {0, ""}, colPool: {6, "no space left: the pool's quota is used up"}, colStatus: {0, "all backed up, 1 new"},
		},
	},
	{
		name: "header lost",
		enter: func(r *stateRow) {
			r.cluster.Run(r, "rados", "-p", r.pool, "rm", "rbd_header."+r.imageID())
		},
		want: map[string]cell{
			colIncrement: {1, "its header object is lost"}, colBackup: {1, "its header object is lost"}, colPool: {6, "its header object is lost"},
			colScrub: {1, "its header object is lost"}, colStatus: {3, "1 unknown"}, colClean: {1, "its header object is lost"},
			colRestore: {1, "its header object is lost"},
		},
	},
	{
		name:  "shrunk",
		enter: func(r *stateRow) { r.rbd("resize", "--no-progress", "--allow-shrink", "--size", "4M", r.image) },
		want:  map[string]cell{colRestore: {1, "too small"}},
	},
	{
		name: "shrunk and grown",
		enter: func(r *stateRow) {
			r.rbd("resize", "--no-progress", "--allow-shrink", "--size", "1M", r.image)
			r.rbd("snap", "create", "--no-progress", r.image+"@theirs")
			r.rbd("resize", "--no-progress", "--size", "8M", r.image)
		},
	},
	{
		name:  "grown",
		enter: func(r *stateRow) { r.rbd("resize", "--no-progress", "--size", "16M", r.image) },
		want:  map[string]cell{colRestore: {0, "what lies beyond is left as it is"}},
	},
	{
		name: "rolled back",
		enter: func(r *stateRow) {
			r.rbd("snap", "create", "--no-progress", r.image+"@theirs")
			r.write(r.image, 1<<20, 5000)
			r.rbd("snap", "rollback", "--no-progress", r.image+"@theirs")
		},
	},
	{
		name: "renamed",
		enter: func(r *stateRow) {
			r.rbd("rename", r.image, r.pool+"/j")
			r.image = r.pool + "/j"
			r.write(r.image, 1<<20, 5000)
		},
	},
	{
		name: "copied to another pool, and removed here",
		enter: func(r *stateRow) {
			to := r.secondPool() + "/i"
			r.rbd("deep", "cp", "--no-progress", r.image, to)
			r.rbd("snap", "purge", "--no-progress", r.image)
			r.rbd("rm", "--no-progress", r.image)
			r.image = to
			r.write(r.image, 1<<20, 5000)
		},
	},
	{
		name: "deep-copied",
		enter: func(r *stateRow) {
			r.rbd("deep", "cp", "--no-progress", r.image, r.pool+"/j")
			r.image = r.pool + "/j"
			r.write(r.image, 1<<20, 5000)
		},
		want: map[string]cell{colIncrement: {1, "which still exists with the id .*--adopt"}},
	},
	{
		name: "made again under its name",
		enter: func(r *stateRow) {
			r.rbd("snap", "purge", "--no-progress", r.image)
			r.rbd("rm", "--no-progress", r.image)
			r.create(r.image)
		},
	},
}

// migrating is what comes of an image in a live migration.
var migrating = map[string]cell{
	colIncrement: {0, "everything is read, twice, and compared"}, colBackup: {0, "everything is read, twice, and compared"},
	colPool: {0, "everything is read, twice, and compared"}, colStatus: {1, "1 never scrubbed, 1 stray snapshot"},
	colClean: {1, "is not removed: .*in a live migration"}, colRestore: {1, "in a live migration"},
}

// migrate prepares a migration to another image of the pool.
func (r *stateRow) migrate() {
	r.Helper()
	to := r.image + "-moved"
	r.rbd("migration", "prepare", r.image, to)
	r.image = to
}

// tidied makes sure that the next backup and the next --clean leave of ours only
// what levels need.
func (r *stateRow) tidied() {
	r.Helper()
	if code, said := r.backup("rbd:"+r.image, r.name); code != 0 {
		r.Errorf("the backup afterwards: exit code %d\n%s", code, said)
	}
	if _, code, said := r.backy("snapshots", "--clean", "rbd:"+r.pool); code != 0 {
		r.Errorf("snapshots --clean afterwards: exit code %d\n%s", code, said)
	}
	doc, _, _ := r.backy("snapshots", "rbd:"+r.pool)
	for _, s := range doc.Snapshots {
		if s.Kind != "level" {
			r.Errorf("%s is left: %s", s.Snapshot, s.Kind)
		}
	}
}

// mirrored is a state of mirroring.
func mirrored(mode string, demoted bool) state {
	s := state{name: "mirrored by " + mode + ", primary"}
	s.create = func(r *stateRow) {
		if mode == "journal" {
			r.create(r.image, "--image-feature", "exclusive-lock,journaling")
		} else {
			r.create(r.image)
		}
		r.rbd("mirror", "pool", "enable", r.pool, "image")
		if mode == "snapshot" {
			r.rbd("mirror", "pool", "peer", "add", r.pool, "client.admin@elsewhere") // or there is nobody to make snapshots for
		}
		r.rbd("mirror", "image", "enable", r.image, mode)
	}
	s.enter = func(r *stateRow) {
		r.write(r.image, 1<<20, 5000)
		if demoted {
			r.rbd("mirror", "image", "demote", r.image)
		}
	}
	s.after = func(r *stateRow) {
		if demoted {
			r.rbd("mirror", "image", "promote", r.image)
		} else if mode == "snapshot" {
			r.rbd("mirror", "image", "snapshot", r.image)
		}
	}
	if demoted {
		s.name = "mirrored by " + mode + ", demoted"
		s.want = map[string]cell{
			colIncrement: {1, "not the primary one"}, colBackup: {1, "not the primary one"}, colPool: {6, "not the primary one"},
			colRestore: {1, "not the primary one"},
		}
		if mode == "journal" { // no rbd-mirror says that this one never was a copy
			s.want[colScrub] = cell{1, "not known to have been copied whole"}
		}
	}
	return s
}

// cloned makes the image a clone with something of its own.
func (r *stateRow) cloned(format int) {
	r.Helper()
	parent := r.pool + "/parent"
	r.create(parent)
	r.rbd("snap", "create", "--no-progress", parent+"@golden")
	if format == 1 {
		r.rbd("snap", "protect", parent+"@golden")
	}
	r.rbd("clone", "--rbd-default-clone-format", fmt.Sprint(format), "--object-size", "1M", parent+"@golden", r.image)
	r.write(r.image, 1<<20, 5000)
	if format == 2 {
		r.rbd("snap", "rm", "--no-progress", parent+"@golden") // to the trash, for as long as it has clones
	}
}

func clone(format int) state {
	s := state{name: fmt.Sprintf("clone v%d", format)}
	if format == 2 {
		s.name += ", its parent's snapshot in the trash"
	}
	s.create = func(r *stateRow) { r.cloned(format) }
	s.enter = func(r *stateRow) { r.write(r.image, 2<<20, 5000) }
	return s
}
