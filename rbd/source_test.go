package rbd

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ceph/go-ceph/rbd"

	"backy/rbd/clustertest"
	"backy/store"
)

// What may have happened to an image between two backups, the way that is then
// right and cheapest, and the level that it is compared with.
func TestSecondBackup(t *testing.T) {
	const size = 10*object + 12345
	for _, c := range []struct {
		name   string
		create func(*lab) Spec // nil: an image with something in it
		change func(*series, Spec) Spec
		diff   string
		base   store.LevelNumber
		most   int64 // bytes to be read; 0: any number
	}{
		{
			name: "nothing", diff: store.DiffFast, base: 1,
			change: func(_ *series, s Spec) Spec { return s },
			most:   1,
		},
		{
			name: "a small write", diff: store.DiffFast, base: 1,
			change: func(t *series, s Spec) Spec { t.write(s, object+4096, 4096); return s },
			most:   4096,
		},
		{
			name: "a discard and zeroing", diff: store.DiffFast, base: 1,
			change: func(t *series, s Spec) Spec {
				t.with(s, func(i *rbd.Image) error { _, err := i.Discard(0, 2*object); return err })
				t.with(s, func(i *rbd.Image) error {
					_, err := i.WriteSame(3*object, object/2, make([]byte, 512), 0)
					return err
				})
				return s
			},
			most: object,
		},
		{
			name: "the base's snapshot removed", diff: store.DiffAllocated, base: 1,
			change: func(t *series, s Spec) Spec {
				t.unsnap(s, t.levels[0].Origin.RBD.Snapshot)
				t.write(s, 5*object, 100)
				return s
			},
		},
		{
			name: "the base's snapshot made anew by that name", diff: store.DiffAllocated, base: 1,
			change: func(t *series, s Spec) Spec {
				name := t.levels[0].Origin.RBD.Snapshot
				t.unsnap(s, name)
				t.write(s, 5*object, 100)
				t.snap(s, name)
				return s
			},
		},
		{
			name: "the image made anew by that name", diff: store.DiffAllocated, base: 1,
			change: func(t *series, s Spec) Spec {
				name := t.levels[0].Origin.RBD.Snapshot
				t.unsnap(s, name)
				t.rbd("rm", "--no-progress", path(s))
				t.create(s.Image, size)
				t.write(s, 0, object)
				t.snap(s, name)
				return s
			},
		},
		{
			name: "renamed", diff: store.DiffFast, base: 1,
			change: func(t *series, s Spec) Spec {
				t.rbd("rename", path(s), t.pool+"/another")
				t.write(t.spec("another"), 2*object, 10)
				return t.spec("another")
			},
		},
		{
			name: "grown", diff: store.DiffFast, base: 1,
			change: func(t *series, s Spec) Spec {
				t.resize(s, 20*object+1)
				t.write(s, 20*object, 1)
				return s
			},
			most: 1,
		},
		{
			name: "shrunk", diff: store.DiffExact, base: 1,
			change: func(t *series, s Spec) Spec { t.resize(s, 3*object+777); return s },
		},
		{
			name: "shrunk and grown", diff: store.DiffFast, base: 1,
			change: func(t *series, s Spec) Spec {
				t.resize(s, 2*object+100)
				t.resize(s, size)
				t.write(s, 5*object+5, 5)
				return s
			},
		},
		{
			name: "shrunk, somebody's snapshot, grown", diff: store.DiffExact, base: 1,
			change: func(t *series, s Spec) Spec {
				t.resize(s, object)
				t.snap(s, "theirs")
				t.resize(s, size)
				t.write(s, 4*object, 2*object)
				return s
			},
		},
		{
			name: "shrunk to nothing", diff: store.DiffExact, base: 1,
			change: func(t *series, s Spec) Spec { t.resize(s, 0); return s },
		},
		{
			name: "without object map", diff: store.DiffExact, base: 1,
			create: func(l *lab) Spec { return l.create("image", size, "--image-feature", "layering") },
			change: func(t *series, s Spec) Spec { t.write(s, 9*object, object); return s },
			most:   object,
		},
		{
			name: "the object map invalid", diff: store.DiffExact, base: 1,
			change: func(t *series, s Spec) Spec {
				t.rbd("feature", "disable", path(s), "fast-diff", "object-map")
				t.write(s, 7*object, 3)
				t.rbd("feature", "enable", path(s), "object-map", "fast-diff")
				return s
			},
		},
		{
			name: "the object map rebuilt", diff: store.DiffFast, base: 1,
			change: func(t *series, s Spec) Spec {
				t.rbd("feature", "disable", path(s), "fast-diff", "object-map")
				t.write(s, 7*object, 3)
				t.rbd("feature", "enable", path(s), "object-map", "fast-diff")
				t.rbd("object-map", "rebuild", "--no-progress", path(s))
				t.rbd("object-map", "rebuild", "--no-progress", path(s.at(t.levels[0].Origin.RBD.Snapshot)))
				return s
			},
		},
		{
			name: "rolled back", diff: store.DiffFast, base: 1,
			change: func(t *series, s Spec) Spec {
				t.write(s, 0, 3*object)
				t.rollback(s, t.levels[0].Origin.RBD.Snapshot)
				return s
			},
		},
		{
			name: "rolled back to before the base", diff: store.DiffExact, base: 1,
			create: func(l *lab) Spec { return l.withOlder(l.create("image", size)) },
			change: func(t *series, s Spec) Spec { t.rollback(s, "older"); return s },
			most:   3 * object,
		},
		{
			name: "rolled back to before the base, the snapshot removed", diff: store.DiffExact, base: 1,
			create: func(l *lab) Spec { return l.withOlder(l.create("image", size)) },
			change: func(t *series, s Spec) Spec {
				t.rollback(s, "older")
				t.unsnap(s, "older")
				t.unsnap(s, "oldest")
				return s
			},
			most: 3 * object,
		},
		{
			name: "striped and in a namespace with a data pool, rolled back to before the base", diff: store.DiffExact, base: 1,
			create: func(l *lab) Spec {
				l.rbd("namespace", "create", l.pool+"/tenant")
				return l.withOlder(l.create("tenant/image", size, "--data-pool", l.cluster.Pool(l), "--stripe-unit", "4096", "--stripe-count", "3"))
			},
			change: func(t *series, s Spec) Spec { t.rollback(s, "older"); return s },
			most:   4 * object,
		},
		{
			name: "with older snapshots", diff: store.DiffFast, base: 1,
			create: func(l *lab) Spec { return l.withOlder(l.create("image", size)) },
			change: func(t *series, s Spec) Spec { t.write(s, 5*object, 9); return s },
			most:   9,
		},
		{
			name: "striped", diff: store.DiffFast, base: 1,
			create: func(l *lab) Spec { return l.striped() },
			change: func(t *series, s Spec) Spec { t.write(s, 5*object+4096, 6000); return s },
			most:   8192,
		},
		{
			name: "striped, without object map", diff: store.DiffExact, base: 1,
			create: func(l *lab) Spec { return l.striped("--image-feature", "layering") },
			change: func(t *series, s Spec) Spec { t.write(s, 5*object+4096, 6000); return s },
			most:   8192,
		},
		{
			name: "with a data pool", diff: store.DiffFast, base: 1,
			create: func(l *lab) Spec { return l.create("image", size, "--data-pool", l.cluster.Pool(l)) },
			change: func(t *series, s Spec) Spec { t.write(s, 1, 1); return s },
			most:   2, // of a new object, from its beginning
		},
		{
			name: "in a namespace", diff: store.DiffFast, base: 1,
			create: func(l *lab) Spec {
				l.rbd("namespace", "create", l.pool+"/tenant")
				return l.create("tenant/image", size)
			},
			change: func(t *series, s Spec) Spec { t.write(s, 1, 1); return s },
		},
		{
			name: "of the old format", diff: store.DiffExact, base: 1,
			create: func(l *lab) Spec {
				l.as(clustertest.RestoreRights(l.pool)) // its header has a name of its own
				return l.oldFormat("image", size)
			},
			change: func(t *series, s Spec) Spec { t.write(s, 1, 1); return s },
		},
		{
			name: "empty", diff: store.DiffFast, base: 1,
			create: func(l *lab) Spec { return l.create("image", 0) },
			change: func(t *series, s Spec) Spec { t.resize(s, object); t.write(s, 1, 1); return s },
		},
		{
			name: "100 MiB and 12345 bytes", diff: store.DiffFast, base: 1,
			create: func(l *lab) Spec {
				s := l.create("image", 100*mib+12345, "--object-size", "4M")
				l.write(s, 100*mib+12344, 1)
				l.write(s, 50*mib, 3*mib)
				return s
			},
			change: func(t *series, s Spec) Spec { t.write(s, 100*mib+1, 1000); return s },
			most:   4096,
		},
		{
			name: "a clone", diff: store.DiffFast, base: 1,
			create: func(l *lab) Spec { return l.clone() },
			change: func(t *series, s Spec) Spec { t.write(s, 2*object+5, 5); return s },
		},
		{
			name: "a clone flattened", diff: store.DiffFast, base: 1,
			create: func(l *lab) Spec { return l.clone() },
			change: func(t *series, s Spec) Spec {
				t.write(s, 2*object+5, 5)
				t.rbd("flatten", "--no-progress", path(s))
				return s
			},
		},
		{
			name: "a clone discarded and grown", diff: store.DiffFast, base: 1,
			create: func(l *lab) Spec { return l.clone() },
			change: func(t *series, s Spec) Spec {
				t.with(s, func(i *rbd.Image) error { _, err := i.Discard(0, 4*object); return err })
				t.resize(s, 20*object)
				return s
			},
		},
		{
			name: "a clone without object map", diff: store.DiffExact, base: 1,
			create: func(l *lab) Spec { return l.clone("--image-feature", "layering") },
			change: func(t *series, s Spec) Spec { t.write(s, 2*object+5, 5); return s },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			var spec Spec
			if c.create == nil {
				spec = l.create("image", size)
				l.write(spec, 0, 2*object)
				l.write(spec, 4*object+1000, 3*object)
				l.write(spec, size-1, 1)
			} else {
				spec = c.create(l)
			}
			s := l.series("vm")
			first := s.backup(spec, DiffAuto)
			if first.Origin.Diff != store.DiffAllocated || first.Base != 0 {
				t.Errorf("first backup: by %s from level %d", first.Origin.Diff, first.Base)
			}
			spec = c.change(s, spec)
			second := s.backup(spec, DiffAuto)
			if second.Origin.Diff != c.diff || second.Base != c.base {
				t.Errorf("second backup: by %s from level %d, want by %s from level %d", second.Origin.Diff, second.Base, c.diff, c.base)
			}
			if c.most > 0 && second.Stats.Read > c.most {
				t.Errorf("second backup: %d bytes read, want %d at most", second.Stats.Read, c.most)
			}
			third := s.backup(spec, DiffExact)
			if third.Origin.Diff != store.DiffExact || third.Base != 2 {
				t.Errorf("third backup: by %s from level %d", third.Origin.Diff, third.Base)
			}
			fourth := s.backup(spec, DiffNone)
			if fourth.Origin.Diff != store.DiffNone || fourth.Base != 3 {
				t.Errorf("fourth backup: by %s from level %d", fourth.Origin.Diff, fourth.Base)
			}
			theirs := func(n string) bool { return n == "theirs" || n == "older" || n == "oldest" }
			if ours := slices.DeleteFunc(l.snaps(spec), theirs); len(ours) != 1 || ours[0] != fourth.Origin.RBD.Snapshot {
				t.Errorf("snapshots %v are left, want %s alone", ours, fourth.Origin.RBD.Snapshot)
			}
		})
	}
}

// clone makes a parent with something in it and a clone of it.
func (l *lab) clone(args ...string) Spec {
	l.Helper()
	parent := l.create("parent", 10*object+12345)
	l.write(parent, 100, 3*object)
	l.write(parent, 8*object, object)
	l.snap(parent, "golden")
	child := l.spec("image")
	args = append([]string{"clone", path(parent.at("golden")), path(child), "--rbd-default-clone-format", "2", "--object-size", fmt.Sprint(object)}, args...)
	l.rbd(args...)
	l.write(child, 5*object, 10)
	return child
}

// striped makes an image with something in it, striped over 4 objects.
func (l *lab) striped(args ...string) Spec {
	l.Helper()
	s := l.create("image", 10*object+12345, append(args, "--stripe-unit", "4096", "--stripe-count", "4")...)
	l.write(s, 4*object, 4*object)
	return s
}

// oldFormat makes an image of format 1, by hand since librbd only opens them:
// struct rbd_obj_header_ondisk of Ceph's src/include/rbd_types.h.
func (l *lab) oldFormat(name string, size int64) Spec {
	l.Helper()
	header := make([]byte, 112)
	copy(header, "<<< Rados Block Device Image >>>\n")
	copy(header[40:], fmt.Sprintf("rb.0.%x.%x", rand.Uint32(), rand.Uint32()))
	copy(header[64:], "RBD\x00001.005\x00")
	header[76] = objectOrder
	binary.LittleEndian.PutUint64(header[80:], uint64(size))
	s := l.spec(name)
	io := l.ioctx(s)
	defer io.Destroy()
	l.must(io.WriteFull(name+".rbd", header))
	return s
}
