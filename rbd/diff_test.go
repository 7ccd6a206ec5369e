package rbd

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rbd"
	"pgregory.net/rapid"

	"backy/store"
)

// The windows are the set's periods and no others, in order, up to the image's
// end.
func TestUnits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		period := rapid.Int64Range(1, 100).Draw(t, "period")
		size := rapid.Int64Range(0, 20000).Draw(t, "size")
		set := newUnits(size, period)
		want := make([]bool, size)
		for range rapid.IntRange(0, 20).Draw(t, "extents") {
			off := rapid.Int64Range(0, size+200).Draw(t, "offset")
			length := rapid.Int64Range(0, 500).Draw(t, "length")
			set.add(off, length)
			if end := min(off+length, size); off < end {
				for i := off / period * period; i < min((end+period-1)/period*period, size); i++ {
					want[i] = true
				}
			}
		}
		limit := rapid.Int64Range(0, 1000).Draw(t, "limit")
		got := make([]bool, size)
		last := int64(0)
		for w := range set.windows(limit) {
			if w.start < last || w.end <= w.start || w.start%period != 0 || w.end%period != 0 && w.end != size {
				t.Fatalf("window %d–%d after %d, period %d, size %d", w.start, w.end, last, period, size)
			}
			if w.end-w.start > max(limit, period) {
				t.Fatalf("window %d–%d, limit %d, period %d", w.start, w.end, limit, period)
			}
			last = w.end
			for i := w.start; i < w.end; i++ {
				got[i] = true
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("windows cover other bytes than were added")
		}
		periods := int64(0)
		for i := int64(0); i < size; i += period {
			if want[i] {
				periods++
			}
		}
		if set.count() != periods {
			t.Fatalf("count %d, want %d", set.count(), periods)
		}
		if n := all(size, period).count(); n != (size+period-1)/period {
			t.Fatalf("all: count %d", n)
		}
	})
}

// Fast diff leaves out what was taken away by shrinking an image, where a snapshot
// was made before it grew again, and what a rollback to an older snapshot than
// the one it starts from brings back: on each release. One that does otherwise
// fails here, so that distrustFast and checkRollback can take account of it. The
// exact diff is right in all of these.
func TestFastDiffTrap(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	const size = 10 * object
	for _, c := range []struct {
		name   string
		change func(Spec)
		exact  []int64 // the objects that changed
		fast   []int64 // the objects that fast diff names
	}{
		{
			"shrunk, grown",
			func(s Spec) { l.resize(s, object); l.resize(s, size) },
			[]int64{1, 2, 3, 4, 5, 6, 7, 8, 9},
			[]int64{1, 2, 3, 4, 5, 6, 7, 8, 9},
		},
		{
			"shrunk, snapshot, grown",
			func(s Spec) { l.resize(s, object); l.snap(s, "mid"); l.resize(s, size) },
			[]int64{1, 2, 3, 4, 5, 6, 7, 8, 9},
			nil,
		},
		{
			"shrunk, snapshot, grown, snapshot, written",
			func(s Spec) {
				l.resize(s, object)
				l.snap(s, "mid")
				l.resize(s, size)
				l.snap(s, "late")
				l.write(s, 5*object, object)
			},
			[]int64{1, 2, 3, 4, 5, 6, 7, 8, 9},
			[]int64{5},
		},
		{
			"shrunk for good, snapshot, written",
			func(s Spec) { l.resize(s, 8*object); l.snap(s, "mid"); l.write(s, 5*object, object) },
			[]int64{5},
			[]int64{5},
		},
		{
			"rolled back to the base",
			func(s Spec) { l.write(s, 5*object, object); l.rollback(s, "base") },
			[]int64{5}, // written twice
			[]int64{2, 3},
		},
		{
			"rolled back to before the base",
			func(s Spec) { l.write(s, 7*object, object); l.rollback(s, "older") },
			[]int64{2, 3, 7},
			nil,
		},
	} {
		s := l.create("image", size)
		l.write(s, 0, size)
		l.snap(s, "first")
		l.snap(s, "older")
		l.write(s, 2*object, 2*object)
		l.snap(s, "base")
		c.change(s)
		im, err := l.conn.open(t.Context(), l.snap(s, "now"), "", readOnly)
		l.must(err)
		set, err := im.fast(t.Context(), "base", im.at.size, object)
		l.must(err)
		if got := objects(set); !slices.Equal(got, c.fast) {
			t.Errorf("%s: fast diff names the objects %v, known are %v", c.name, got, c.fast)
		}
		extents, err := im.exact(t.Context(), "base", window{0, im.at.size})
		l.must(err)
		exact := newUnits(im.at.size, object)
		for _, e := range extents {
			exact.add(e.Offset, e.Length)
		}
		if got := objects(exact); !slices.Equal(got, c.exact) {
			t.Errorf("%s: exact diff names the objects %v, want %v", c.name, got, c.exact)
		}
		l.covers(im, "base", exact)
		l.must(im.close())
		l.rbd("snap", "purge", "--no-progress", path(s))
		l.rbd("rm", "--no-progress", path(s))
	}
}

// covers checks that what a backup would look at has all of a set.
func (l *lab) covers(im *image, from string, changed *units) {
	l.Helper()
	_, handle, err := im.identity(l.Context())
	l.must(err)
	layout, err := im.layout(l.Context())
	l.must(err)
	list, err := im.snapshots(l.Context())
	l.must(err)
	base, ok := named(list, from)
	if !ok {
		l.Fatalf("no snapshot %s", from)
	}
	set, _, err := im.candidates(l.Context(), newSpan(handle, layout, list, base, im.at), DiffAuto, l.Errorf)
	l.must(err)
	for _, n := range objects(changed) {
		if !set.has(n) {
			l.Errorf("%s: object %d is left out", im.spec, n)
		}
	}
}

// A rollback that was killed has rolled back some objects, and not the object
// map: nothing but the objects themselves tell.
func TestKilledRollback(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	const size = 600 * object
	s := l.create("image", size)
	l.write(s, 0, size)
	l.snap(s, "older")
	l.write(s, 0, size/2)
	l.snap(s, "base")
	rollback := l.cluster.Command("rbd", "snap", "rollback", "--no-progress", path(s.at("older")))
	l.must(rollback.Start())
	time.Sleep(time.Duration(40+rand.IntN(250)) * time.Millisecond)
	l.must(rollback.Process.Kill())
	_ = rollback.Wait()
	im, err := l.conn.open(t.Context(), l.snap(s, "now"), "", readOnly)
	l.must(err)
	exact := newUnits(size, object)
	for off := int64(0); off < size; off += 100 * object {
		extents, err := im.exact(t.Context(), "base", window{off, off + 100*object})
		l.must(err)
		for _, e := range extents {
			exact.add(e.Offset, e.Length)
		}
	}
	t.Logf("%d of %d objects were rolled back", exact.count(), size/object/2)
	l.covers(im, "base", exact)
	l.must(im.close())
}

// objects are the numbers of the periods in a set.
func objects(u *units) (list []int64) {
	for w := range u.windows(u.period) {
		list = append(list, w.start/u.period)
	}
	return list
}

// A disk that is wiped by discards has changed.
func TestDiscardCounts(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := newShelf(l)
	for _, features := range []string{"layering", "layering,exclusive-lock,object-map,fast-diff"} {
		spec := l.create(strings.ReplaceAll(features, ",", "-"), 64*object, "--image-feature", features)
		l.write(spec, object, 40*object)
		name := store.Name(spec.Image)
		first := s.backup(spec, name)
		if first.Stats.Changed != 40*object || first.Stats.Data != 40*object {
			t.Errorf("%s: the first level: %+v", features, first.Stats)
		}
		l.with(spec, func(i *rbd.Image) error {
			_, err := i.Discard(0, 64*object)
			return err
		})
		level, warnings, err := s.take(l.conn.Source(spec, SourceOptions{}), name)
		l.must(err)
		if level.Stats.Changed != 40*object || level.Stats.Emptied != 40*object || level.Stats.Data != 0 || len(warnings) != 1 {
			t.Errorf("%s, by %s: %+v, warnings %q", features, level.Origin.Diff, level.Stats, warnings)
		}
		s.holds(level, make([]byte, 64*object))
	}
}
