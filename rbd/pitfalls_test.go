package rbd

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ceph/go-ceph/rbd"

	"backy/engine"
	"backy/hints"
	"backy/store"
)

// opened opens an image as the client under test.
func (l *lab) opened(s Spec) *image {
	l.Helper()
	im, err := l.conn.open(l.Context(), s, "", readOnly)
	l.must(err)
	l.Cleanup(func() { l.must(im.close()) })
	return im
}

// P1: only a negative number ends a diff, and a few calls still come.
func TestP1StopADiff(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	const objects = 1000
	spec := l.create("image", objects*object)
	l.with(spec, func(i *rbd.Image) error {
		for n := int64(0); n < objects; n += 2 {
			if _, err := i.WriteAt([]byte{1}, n*object); err != nil {
				return err
			}
		}
		return nil
	})
	im := l.opened(l.snap(spec, "snap"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var calls atomic.Int64
	count := func(hints.Extent) {
		calls.Add(1)
		cancel()
	}
	_, err := diff(ctx, im, asked{length: objects * object}, count, func() int { return 0 })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's error", err)
	}
	if !im.calls.settle(grace) {
		t.Error("the diff goes on")
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("%d extents were taken after the end of the first", n-1)
	}
}

// P2: a panic in the callback would abort the process.
func TestP2PanicInADiff(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", object)
	l.write(spec, 0, 1)
	im := l.opened(l.snap(spec, "snap"))
	_, err := diff(t.Context(), im, asked{length: object}, func(hints.Extent) { panic("boom") }, func() int { return 0 })
	if err == nil || !strings.Contains(err.Error(), "boom") {
		t.Errorf("%v, want the panic", err)
	}
}

// P4: librbd's reads at and across the end are no io.ReaderAt's.
func TestP4ReadAtTheEnd(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	const size = object + 100
	spec := l.create("image", size)
	l.write(spec, 0, size)
	whole := l.content(spec)
	r := &reader{ctx: t.Context(), im: l.opened(spec), size: size}
	for _, c := range []struct {
		off, length int64
		n           int
		err         error
	}{
		{0, 0, 0, nil},
		{size, 0, 0, nil},
		{0, size, size, nil},
		{size - 1, 1, 1, nil},
		{size - 1, 2, 1, io.EOF},
		{size, 1, 0, io.EOF},
		{size + 1, 1, 0, io.EOF},
		{0, size + object, size, io.EOF},
	} {
		p := make([]byte, c.length)
		n, err := r.ReadAt(p, c.off)
		if n != c.n || err != c.err {
			t.Errorf("ReadAt %d+%d: %d, %v, want %d, %v", c.off, c.length, n, err, c.n, c.err)
		}
		if n > 0 && string(p[:n]) != string(whole[c.off:c.off+int64(n)]) {
			t.Errorf("ReadAt %d+%d: other bytes", c.off, c.length)
		}
	}
	if _, err := r.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("ReadAt -1 succeeded")
	}
}

// P5, P6: reads from under which the snapshot or the image is pulled give zeros
// and no error. No level must come of it.
func TestP5SnapshotRemovedMeanwhile(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for name, pull := range map[string]func(spec Spec, base, now string){
		"the snapshot": func(spec Spec, _, now string) { l.unsnap(spec, now) },
		"the base":     func(spec Spec, base, _ string) { l.unsnap(spec, base) },
		"the snapshot, made anew": func(spec Spec, _, now string) {
			l.unsnap(spec, now)
			l.snap(spec, now)
		},
		"the image (P6)": func(spec Spec, base, now string) {
			l.unsnap(spec, now)
			l.unsnap(spec, base)
			l.rbd("rm", "--no-progress", path(spec))
		},
	} {
		for _, when := range []string{"before the diff", "after the diff"} {
			spec := l.create("image", 4*object)
			l.write(spec, 0, 4*object)
			s := l.series(name)
			base := s.backup(spec, DiffAuto)
			l.write(spec, object, object)
			source := l.conn.Source(spec, SourceOptions{})
			state, err := source.Begin(t.Context(), s.run())
			l.must(err)
			if when == "before the diff" {
				pull(spec, ownName(base), state.Origin.RBD.Snapshot)
			}
			_, err = hints.Collect(state.Extents)
			if when == "before the diff" != errors.Is(err, ErrSnapshotGone) {
				t.Errorf("%s removed %s: the extents end with %v", name, when, err)
			}
			if when == "after the diff" {
				pull(spec, ownName(base), state.Origin.RBD.Snapshot)
			}
			if err := source.Recheck(t.Context()); !errors.Is(err, ErrSnapshotGone) {
				t.Errorf("%s removed %s: Recheck gives %v, want ErrSnapshotGone", name, when, err)
			}
			l.must(source.End(t.Context(), engine.Failed))
			if !strings.Contains(name, "P6") {
				l.rbd("snap", "purge", "--no-progress", path(spec))
				l.rbd("rm", "--no-progress", path(spec))
			}
		}
	}
}

// P7: the parent of a clone may have lost its snapshot to the trash.
func TestP7CloneOfATrashedSnapshot(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	child := l.clone()
	l.rbd("snap", "rm", "--no-progress", path(l.spec("parent@golden")))
	s := l.series("vm")
	if first := s.backup(child, DiffAuto); first.Stats.Read < 4*object {
		t.Errorf("%d bytes read: the parent's are missing", first.Stats.Read)
	}
	l.write(child, 0, 1)
	s.backup(child, DiffAuto)
}

// P8: a group's snapshot opens by its id only, and cannot be named.
func TestP8GroupSnapshot(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", 4*object)
	s := l.series("vm")
	s.backup(spec, DiffAuto)
	l.write(spec, 0, object)
	l.rbd("group", "create", l.pool+"/group")
	l.rbd("group", "image", "add", l.pool+"/group", path(spec))
	l.rbd("group", "snap", "create", l.pool+"/group@together")
	l.write(spec, object, object)
	second := s.backup(spec, DiffAuto)
	if second.Origin.Diff != store.DiffFast {
		t.Errorf("across a group's snapshot by %s", second.Origin.Diff)
	}
	for _, name := range l.snaps(spec) {
		if name == ownName(second) {
			continue
		}
		if _, err := s.try(t.Context(), spec.at(name), DiffAuto); !errors.Is(err, ErrNoSnapshot) || !strings.Contains(err.Error(), "group") {
			t.Errorf("backup of the group's snapshot %s: %v, want ErrNoSnapshot", name, err)
		}
	}
}

// P10: closing in another order than image, pool, connection hangs for ever.
func TestP10CloseOrder(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", object)
	conn, err := Connect(t.Context(), Config{Conf: l.cluster.Conf(), ID: l.cluster.Backup(t)})
	l.must(err)
	_, closer, err := conn.View(t.Context(), spec)
	l.must(err)
	l.must(closer.Close())
	l.must(conn.Close())
	if conn.leaked.Load() {
		t.Error("the connection was left open")
	}
}

// P15: an encrypted image is backed up as it lies.
func TestP15Encrypted(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", 32*mib, "--object-size", "4M")
	passphrase := filepath.Join(t.TempDir(), "passphrase")
	l.must(os.WriteFile(passphrase, []byte("correct horse"), 0o600))
	l.rbd("encryption", "format", path(spec), "luks1", passphrase)
	s := l.series("vm")
	s.backup(spec, DiffAuto)
	if p := s.content[1]; string(p[:4]) != "LUKS" {
		t.Errorf("the level begins with %q", p[:4])
	}
}

// P18: a cache of librbd's has no place on either side.
func TestP18NoCache(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	if v, err := l.conn.rados.GetConfigOption("rbd_cache"); err != nil || v != "false" {
		t.Errorf("rbd_cache is %q, %v", v, err)
	}
}

// P3, P9: extents come unsorted, reach across windows, and never beyond the
// image's end: TestSecondBackup and TestHistories hold them against the bytes.

// A view or a snapshot of no bytes, and one without a single object.
func TestNothingAllocated(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for name, size := range map[string]int64{"none": 0, "sparse": 100 * object} {
		view, closer, err := l.conn.View(t.Context(), l.create(name, size))
		l.must(err)
		extents, err := hints.Collect(view.Extents)
		if err != nil || len(extents) != 0 || view.Size != size {
			t.Errorf("%s: %v, %v of %d bytes", name, extents, err, view.Size)
		}
		l.must(closer.Close())
	}
}
