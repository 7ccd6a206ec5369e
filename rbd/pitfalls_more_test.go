package rbd

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rbd"

	"backy/engine"
	"backy/hints"
	"backy/store"
)

// P3: whoever takes the extents may call librbd meanwhile; in the diff's callback
// that would hang for ever.
func TestP3WorkBesideADiff(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", 300*object)
	for n := int64(0); n < 300; n += 7 {
		l.write(spec, n*object, 10)
	}
	source := l.conn.Source(spec, SourceOptions{})
	state, err := source.Begin(t.Context(), l.series("vm").run())
	l.must(err)
	n := 0
	for e, err := range state.Extents {
		l.must(err)
		n++
		_, err = state.Reader.ReadAt(make([]byte, 10), e.Offset)
		l.must(err)
	}
	if n == 0 {
		t.Error("no extents")
	}
	l.must(source.End(t.Context(), engine.Failed))
}

// P6: an image that is removed under a read-only handle reads as zeros, and says
// nothing.
func TestP6ImageRemovedMeanwhile(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", 4*object)
	l.write(spec, 0, 4*object)
	im := l.opened(spec)
	l.rbd("rm", "--no-progress", path(spec))
	p := make([]byte, object)
	if _, err := (&reader{ctx: t.Context(), im: im, size: 4 * object}).ReadAt(p, 0); err != nil {
		t.Logf("this librbd tells: %v", err)
	} else if p[0] != 0 {
		t.Error("there are bytes still") // then TestP5 tests nothing
	}
	id, handle, err := im.identity(t.Context())
	l.must(err)
	if err := l.conn.verify(t.Context(), spec, id, handle, false); !errors.Is(err, ErrSnapshotGone) {
		t.Errorf("verify: %v, want ErrSnapshotGone", err)
	}
}

// P9: what librbd's diff answers at its edges.
func TestP9DiffEdges(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", 4*object)
	l.write(spec, 0, 4*object)
	old, now := l.snap(spec, "old"), l.snap(spec, "now")
	ask := func(at Spec, from string, length int64) (found []hints.Extent, err error) {
		return diff(t.Context(), l.opened(at), asked{from: from, length: length},
			func(e hints.Extent) { found = append(found, e) }, func() []hints.Extent { return hints.Normalize(found) })
	}
	if _, err := ask(old, "now", 4*object); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("from a newer snapshot: %v, want EINVAL", err)
	}
	if _, err := ask(now, "missing", 4*object); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("from no snapshot: %v, want ENOENT", err)
	}
	l.with(spec, func(i *rbd.Image) error { _, err := i.Discard(object, object); return err })
	found, err := ask(spec, "now", 4*object)
	l.must(err)
	if len(found) != 1 || found[0] != (hints.Extent{Offset: object, Length: object}) {
		t.Errorf("a discard gives %v, want a hole", found)
	}
	l.resize(spec, object)
	if found, err = ask(spec, "now", object); err != nil || len(found) != 0 {
		t.Errorf("a shrink gives %v, %v, want nothing", found, err)
	}
}

// P12: a lock that another one has is no Go error of librados.
func TestP12LockAnswers(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec, repository := l.create("image", object), store.NewRepositoryID()
	first, err := l.conn.Lock(t.Context(), spec, repository, time.Minute)
	l.must(err)
	if _, err := l.conn.Lock(t.Context(), spec, repository, time.Minute); !errors.Is(err, ErrLocked) {
		t.Errorf("a second lock: %v, want ErrLocked", err)
	}
	l.must(first.Release(t.Context()))
	again, err := l.conn.Lock(t.Context(), spec, repository, time.Minute)
	l.must(err)
	l.must(again.Release(t.Context()))
}

// P23: what carries snapshots of ours along: they are a base only for the image
// that they were made of.
func TestP23CarriedSnapshots(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		carry func(l *lab, s Spec) Spec
		diff  string
	}{
		{"rename", func(l *lab, s Spec) Spec {
			l.rbd("rename", path(s), l.pool+"/j")
			return l.spec("j")
		}, store.DiffFast},
		{"trash", func(l *lab, s Spec) Spec {
			id := ""
			l.look(s, func(i *rbd.Image) (err error) { id, err = i.GetId(); return err })
			l.rbd("trash", "mv", path(s))
			l.rbd("trash", "restore", l.pool+"/"+id)
			return s
		}, store.DiffFast},
		{"deep cp", func(l *lab, s Spec) Spec {
			l.rbd("deep", "cp", "--no-progress", path(s), l.pool+"/j")
			l.rbd("snap", "purge", "--no-progress", path(s))
			l.rbd("rm", "--no-progress", path(s))
			return l.spec("j")
		}, store.DiffAllocated},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			spec := l.create("image", 4*object)
			l.write(spec, 0, 3*object)
			s := l.series("vm")
			first := s.backup(spec, DiffAuto)
			spec = c.carry(l, spec)
			if names := l.snaps(spec); len(names) != 1 || names[0] != ownName(first) {
				t.Fatalf("snapshots %q: ours was not carried along", names)
			}
			l.write(spec, 0, 10)
			if second := s.backup(spec, DiffAuto); second.Origin.Diff != c.diff || second.Base != 1 {
				t.Errorf("by %s from level %d, want %s", second.Origin.Diff, second.Base, c.diff)
			}
		})
	}
}

// P25: a group's snapshots are among an image's, under names of Ceph's own. None
// is taken for one of ours, or for a user's.
func TestP25GroupSnapshotsAreListed(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", object)
	l.rbd("group", "create", l.pool+"/group")
	l.rbd("group", "image", "add", l.pool+"/group", path(spec))
	l.rbd("group", "snap", "create", l.pool+"/group@together")
	list, err := l.opened(spec).snapshots(t.Context())
	l.must(err)
	if len(list) != 1 || !strings.HasPrefix(list[0].name, ".group.") || list[0].user {
		t.Fatalf("snapshots %+v, want a group's", list)
	}
	if _, ok := parseOwn(list[0]); ok {
		t.Error("it is taken for one of ours")
	}
	s := l.series("vm")
	s.backup(spec, DiffAuto)
	s.backup(spec, DiffAuto)
	if names := l.snaps(spec); len(names) != 2 || names[0] != list[0].name {
		t.Errorf("snapshots %q: the group's was to stay", names)
	}
}
