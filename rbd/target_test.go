package rbd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/ceph/go-ceph/rbd"

	"backy/engine"
	"backy/rbd/clustertest"
	"backy/store"
)

// from is a level of an image: its layout and size.
func (s *series) from(spec Spec) store.Level {
	s.Helper()
	return s.backup(spec, DiffAuto)
}

// P14: what is created is read back and compared with what was recorded.
func TestP14TargetLayout(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	data := l.cluster.Pool(t)
	l.rbd("namespace", "create", l.pool+"/tenant")
	caps := clustertest.BackupRights(l.pool, data)
	caps[3] += ", allow rwx pool=" + l.pool + " object_prefix journal"
	l.as(caps)
	for name, args := range map[string][]string{
		"default":     nil,
		"large":       {"--object-size", "32M"},
		"striped":     {"--stripe-unit", "8192", "--stripe-count", "3"},
		"bare":        {"--image-feature", "layering"},
		"journaled":   {"--image-feature", "exclusive-lock,journaling"},
		"data pool":   {"--data-pool", data},
		"everything":  {"--data-pool", data, "--stripe-unit", "16384", "--stripe-count", "5", "--object-size", "128K"},
		"tenant/home": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := (&lab{TB: t, cluster: l.cluster, pool: l.pool, conn: l.conn, restorer: l.restorer, other: l.other}).series(name)
			source := s.create(name, 3*object+12345, args...)
			level := s.from(source)
			spec := s.spec(name + "-restored")
			target := l.restorer.Target(spec, TargetOptions{Warn: s.warn})
			zeroed, err := target.Prepare(t.Context(), level)
			s.must(err)
			if !zeroed {
				t.Error("a new image is not taken for zeroed")
			}
			_, err = target.WriteAt([]byte("the end"), level.Size-7)
			s.must(err)
			s.must(target.Finish(t.Context()))
			s.warned()
			got := s.lab.series(name + "-restored").from(spec)
			if want := level.Origin.RBD.Layout; fmt.Sprint(got.Origin.RBD.Layout) != fmt.Sprint(want) {
				t.Errorf("layout %+v, want %+v", got.Origin.RBD.Layout, want)
			}
			if p := s.lab.content(spec); int64(len(p)) != level.Size || !bytes.HasSuffix(p, []byte("the end")) {
				t.Errorf("%d bytes, ending in %q", len(p), p[len(p)-7:])
			}
		})
	}
}

func TestTargetWithoutItsDataPool(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := l.series("vm")
	level := s.from(l.create("image", object, "--data-pool", l.cluster.Pool(t)))
	level.Origin.RBD.Layout.DataPool = "nowhere"
	target := l.restorer.Target(l.spec("restored"), TargetOptions{Warn: s.warn})
	_, err := target.Prepare(t.Context(), level)
	l.must(err)
	l.must(target.Finish(t.Context()))
	s.warned("nowhere")
	if features := l.series("restored").from(l.spec("restored")).Origin.RBD.Layout.Features; slices.Contains(features, "data-pool") {
		t.Errorf("features %v", features)
	}
}

func TestTargetOfALevelFromAFile(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for _, size := range []int64{0, 1, 4*mib + 1} {
		spec := l.spec(fmt.Sprint("size-", size))
		target := l.restorer.Target(spec, TargetOptions{})
		zeroed, err := target.Prepare(t.Context(), l.series("file").level(size))
		l.must(err)
		l.must(target.Finish(t.Context()))
		if n := len(l.content(spec)); int64(n) != size || !zeroed {
			t.Errorf("%d bytes, zeroed %t, want %d bytes", n, zeroed, size)
		}
	}
}

// Refused before anything is written, and the image is as it was.
func TestTargetRefuses(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := l.series("vm")
	spec := l.create("image", 2*object)
	l.write(spec, 0, 2*object)
	before := l.content(spec)
	refused := func(what string, spec Spec, o TargetOptions, size int64, is error, says ...string) {
		t.Helper()
		_, err := l.restorer.Target(spec, o).Prepare(t.Context(), s.level(size))
		if err == nil || is != nil && !errors.Is(err, is) {
			t.Errorf("%s: %v, want %v", what, err, is)
			return
		}
		for _, text := range says {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v, want %q in it", what, err, text)
			}
		}
	}
	// Who uses an image, from where, and what to do.
	other := fmt.Sprintf("client.%d at 127.0.0.1:0/", l.other.GetInstanceID())
	force := TargetOptions{Force: true}
	refused("exists", spec, TargetOptions{}, object, ErrExists)
	refused("a snapshot", spec.at("snap"), force, object, nil)
	refused("one byte too small", spec, force, 2*object+1, ErrTooSmall)
	l.rbd("lock", "add", path(spec), "mine")
	refused("a lock", spec, force, object, ErrInUse, ` at 127.0.0.1:0/`, ` with the lock "mine"`, "rbd lock rm "+path(spec))
	locker := strings.Fields(strings.Split(strings.TrimSpace(l.rbd("lock", "ls", path(spec))), "\n")[2])[0]
	l.rbd("lock", "rm", path(spec), "mine", locker)
	l.with(spec, func(*rbd.Image) error {
		refused("a watcher", spec, force, object, ErrInUse, other, "restore to another image")
		return nil
	})
	if !bytes.Equal(l.content(spec), before) {
		t.Error("the image was changed")
	}

	// Nobody uses it now; the target keeps others from writing.
	target := l.restorer.Target(spec, force)
	zeroed, err := target.Prepare(t.Context(), s.level(2*object))
	l.must(err)
	if zeroed {
		t.Error("an image with something in it is taken for zeroed")
	}
	refused("another restore", spec, force, object, ErrInUse)
	l.with(spec, func(i *rbd.Image) error {
		if err := i.LockAcquire(rbd.LockModeExclusive); err == nil {
			t.Error("another client got the lock")
		}
		return nil
	})
	l.must(target.Finish(t.Context()))
	l.write(spec, 0, 1) // and lets go of it
}

func TestMirroredCopy(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.rbd("mirror", "pool", "enable", l.pool, "image")
	spec := l.create("image", object)
	l.snap(spec, "user")
	l.rbd("mirror", "image", "enable", path(spec), "snapshot")
	s := l.series("vm")
	s.backup(spec, DiffAuto)
	l.rbd("mirror", "image", "demote", path(spec))
	if _, err := s.try(t.Context(), spec, DiffAuto); !errors.Is(err, ErrNotPrimary) {
		t.Errorf("backup of a copy: %v, want ErrNotPrimary", err)
	}
	s.backup(spec.at("user"), DiffAuto)
	if _, err := l.restorer.Target(spec, TargetOptions{Force: true}).Prepare(t.Context(), s.level(object)); !errors.Is(err, ErrNotPrimary) {
		t.Errorf("restore to a copy: %v, want ErrNotPrimary", err)
	}
	// P8: the snapshots that mirroring makes have no names of ours to give.
	names := slices.DeleteFunc(l.snaps(spec), func(n string) bool { return !strings.HasPrefix(n, ".mirror") })
	if len(names) == 0 {
		t.Error("mirroring made no snapshots")
	}
	for _, name := range names {
		if _, err := s.try(t.Context(), spec.at(name), DiffAuto); !errors.Is(err, ErrNoSnapshot) {
			t.Errorf("backup of %s: %v, want ErrNoSnapshot", name, err)
		}
	}
}

func TestTargetLargerThanTheLevel(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := l.series("vm")
	spec := l.create("image", 3*object)
	l.write(spec, 0, 3*object)
	before := l.content(spec)
	target := l.restorer.Target(spec, TargetOptions{Force: true, Warn: s.warn})
	_, err := target.Prepare(t.Context(), s.level(object+1))
	l.must(err)
	l.must(target.Zero(0, object+1))
	l.must(target.Finish(t.Context()))
	s.warned("left as it is")
	clear(before[:object+1])
	if i := firstDifference(l.content(spec), before); i != len(before) {
		t.Errorf("differs at %d", i)
	}
}

func TestAbort(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := l.series("vm")
	spec := l.spec("new")
	target := l.restorer.Target(spec, TargetOptions{})
	_, err := target.Prepare(t.Context(), s.level(object))
	l.must(err)
	l.must(target.Abort(t.Context()))
	if _, _, err := l.conn.View(t.Context(), spec); !errors.Is(err, ErrNoImage) {
		t.Errorf("after the abort: %v, want no image", err)
	}
	spec = l.create("old", object)
	ctx, cancel := context.WithCancel(t.Context())
	target = l.restorer.Target(spec, TargetOptions{Force: true})
	_, err = target.Prepare(ctx, s.level(object))
	l.must(err)
	cancel()
	if _, err := target.WriteAt([]byte{1}, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("write after an interruption: %v", err)
	}
	l.must(target.Abort(context.WithoutCancel(ctx)))
	if n := len(l.content(spec)); n != object {
		t.Errorf("%d bytes are left of an image that was there before", n)
	}
}

// P13: whatever the edges, and whatever a clone's parent has there.
func TestP13Zero(t *testing.T) {
	t.Parallel()
	const size = 12*object + 777
	l := newLab(t)
	s := l.series("vm")
	parent := l.create("parent", size)
	l.write(parent, 0, size)
	l.snap(parent, "golden")
	for name, make := range map[string]func(spec Spec){
		"plain": func(spec Spec) { l.create(spec.Image, size); l.write(spec, 0, size) },
		"bare":  func(spec Spec) { l.create(spec.Image, size, "--image-feature", "layering"); l.write(spec, 0, size) },
		"striped": func(spec Spec) {
			l.create(spec.Image, size, "--stripe-unit", "4096", "--stripe-count", "3")
			l.write(spec, 0, size)
		},
		"clone": func(spec Spec) {
			l.rbd("clone", path(parent.at("golden")), path(spec), "--rbd-default-clone-format", "2", "--object-size", fmt.Sprint(object))
			l.write(spec, 5*object, object)
		},
		"with a snapshot": func(spec Spec) { l.create(spec.Image, size); l.write(spec, 0, size); l.snap(spec, "snap") },
	} {
		spec := l.spec(name)
		make(spec)
		want := l.content(spec)
		target := l.restorer.Target(spec, TargetOptions{Force: true})
		_, err := target.Prepare(t.Context(), s.level(size))
		l.must(err)
		for range 40 {
			off := rand.Int64N(size)
			length := 1 + rand.Int64N([]int64{100, 5000, object, 3 * object}[rand.IntN(4)])
			if rand.IntN(3) == 0 {
				off, length = off/object*object, (length+object-1)/object*object
			}
			length = min(length, size-off)
			l.must(target.Zero(off, length))
			clear(want[off : off+length])
		}
		l.must(target.Zero(size-777, 777))
		clear(want[size-777:])
		l.must(target.Zero(0, 0))
		l.must(target.Finish(t.Context()))
		if i := firstDifference(l.content(spec), want); i != size {
			t.Errorf("%s: differs at %d", name, i)
		}
	}
}

// Zero frees what it can, and takes ranges that librbd refuses in one call.
func TestZeroFreesSpace(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	const size = 5 << 30
	spec := l.create("image", size, "--object-size", "4M")
	l.write(spec, 0, 8*mib)
	l.write(spec, size-1, 1)
	target := l.restorer.Target(spec, TargetOptions{Force: true})
	_, err := target.Prepare(t.Context(), l.series("x").level(size))
	l.must(err)
	l.must(target.Zero(0, size))
	l.must(target.Finish(t.Context()))
	objects := 0
	io := l.ioctx(spec)
	defer io.Destroy()
	l.must(io.ListObjects(func(oid string) {
		if strings.HasPrefix(oid, "rbd_data.") {
			objects++
		}
	}))
	if objects != 0 {
		t.Errorf("%d objects are left", objects)
	}
}

func TestViewOfAHeadAndASnapshot(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", 5*object+1)
	l.write(spec, object, object)
	snap := l.snap(spec, "snap")
	l.write(spec, 5*object, 1)
	for _, s := range []Spec{spec, snap} {
		view, closer, err := l.conn.View(t.Context(), s)
		l.must(err)
		got := make([]byte, view.Size)
		for e, err := range view.Extents {
			l.must(err)
			_, err := view.Reader.ReadAt(got[e.Offset:e.End()], e.Offset)
			l.must(err)
		}
		l.must(closer.Close())
		if i := firstDifference(got, l.content(s)); i != 5*object+1 {
			t.Errorf("%s: differs at %d", s, i)
		}
	}
	view, closer, err := l.conn.View(t.Context(), snap)
	l.must(err)
	l.unsnap(spec, "snap")
	var last error
	for _, err := range view.Extents {
		last = err
	}
	if !errors.Is(last, ErrSnapshotGone) {
		t.Errorf("extents of a removed snapshot end with %v, want ErrSnapshotGone", last)
	}
	if err := closer.Close(); !errors.Is(err, ErrSnapshotGone) {
		t.Errorf("close of a removed snapshot: %v, want ErrSnapshotGone", err)
	}
}

// An image that cannot be locked is not restored to beside somebody else, be he
// there at the end, during a write, or gone again.
func TestTargetThatOthersWriteTo(t *testing.T) {
	t.Parallel()
	const size = 4 * object
	l := newLab(t)
	s := l.series("vm")
	begin := func(name string) (Spec, *Target) {
		spec := l.create(name, size, "--image-feature", "layering")
		target := l.restorer.Target(spec, TargetOptions{Force: true})
		_, err := target.Prepare(t.Context(), s.level(size))
		l.must(err)
		return spec, target
	}
	restore := func(target *Target) {
		t.Helper()
		for off := int64(0); off < size; off += object {
			_, err := target.WriteAt(bytes.Repeat([]byte{byte(off / object), 7}, object/2), off)
			l.must(err)
		}
	}
	fails := func(spec Spec, err, want error) {
		t.Helper()
		if !errors.Is(err, want) || !strings.Contains(err.Error(), spec.String()) {
			t.Errorf("%s: %v, want %v", spec, err, want)
		}
	}
	spec, target := begin("stays")
	restore(target)
	l.with(spec, func(*rbd.Image) error {
		fails(spec, target.Finish(t.Context()), ErrInUse)
		return nil
	})

	spec, target = begin("locks")
	restore(target)
	l.rbd("lock", "add", path(spec), "mine")
	fails(spec, target.Finish(t.Context()), ErrInUse)

	spec, target = begin("comes and goes")
	restore(target)
	l.write(spec, 0, size)
	fails(spec, target.Finish(t.Context()), engine.ErrOverwritten)

	spec, target = begin("during")
	l.with(spec, func(*rbd.Image) error {
		target.others.looked.Store(0)
		_, err := target.WriteAt([]byte("x"), 0)
		fails(spec, err, ErrInUse)
		return nil
	})
	l.must(target.Abort(t.Context()))

	spec, target = begin("alone")
	restore(target)
	l.must(target.Finish(t.Context()))

	// Another image of the name.
	spec, target = begin("replaced")
	restore(target)
	l.rbd("rename", path(spec), path(l.spec("away")))
	l.create("replaced", size)
	fails(spec, target.Finish(t.Context()), ErrInUse)
}
