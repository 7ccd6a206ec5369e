package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"

	"backy/engine"
	"backy/hints"
	"backy/store"

	"pgregory.net/rapid"
)

const chunk = 16 << 10

func fill(r *rand.Rand, p []byte) {
	for i := range p {
		p[i] = byte(r.Uint32())
	}
}

// Sizes at the edges of chunks, units and map nodes restore bit for bit.
func TestSizes(t *testing.T) {
	sizes := []int{0, 1, chunk - 1, chunk, chunk + 1, 64*chunk - 1, 64 * chunk, 64*chunk + 1, 256*chunk + 7, 4097*chunk + 12345}
	for _, size := range sizes {
		r, _ := newRepository(t, chunk)
		data := make([]byte, size)
		fill(rand.New(rand.NewPCG(1, uint64(size))), data[:size/2])
		l := mustBackup(t, r, "image", &image{data: data})
		checkLevel(t, r, l, data)
		old := bytes.Repeat([]byte{0xff}, size)
		if got := restored(t, r, l, old); !bytes.Equal(got, data) {
			t.Errorf("size %d: restored over an old target, bytes differ at %s", size, firstDifference(got, data))
		}
	}
}

// Any history of writes, discards and resizes, backed up as a diff names it or
// compared whole, with removals in between, restores bit for bit at every
// level.
func TestHistory(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r, _ := newRepository(t, chunk)
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		data := make([]byte, rapid.IntRange(0, 80*chunk).Draw(rt, "size"))
		want := map[store.LevelNumber][]byte{}
		for range rapid.IntRange(1, 8).Draw(rt, "levels") {
			changed := []hints.Extent{}
			for range rapid.IntRange(0, 6).Draw(rt, "changes") {
				data, changed = change(rt, rnd, data, changed)
			}
			src := &image{data: data}
			switch rapid.IntRange(0, 2).Draw(rt, "way") {
			case 0: // compare everything
			case 1:
				if len(want) > 0 {
					src.changed, src.outside = clip(changed, len(data)), engine.Unchanged
				}
			case 2: // what is allocated
				src.changed, src.outside = allocated(data), engine.Hole
				src.full = rapid.Bool().Draw(rt, "full")
			}
			before, err := r.Levels(context.Background(), "image")
			if err != nil {
				rt.Fatal(err)
			}
			var warned []string
			l, err := engine.Backup(context.Background(), r, "image", src, engine.BackupOptions{
				Warn: func(f string, a ...any) { warned = append(warned, fmt.Sprintf(f, a...)) },
			})
			if err != nil {
				rt.Fatal(err)
			}
			// Any other would mean that an honest diff was taken for a lie.
			var honest []string
			if n := len(before); n > 0 && before[n-1].Size > 0 && len(data) == 0 {
				honest = append(honest, fmt.Sprintf("the source of image is empty, and level %s was not: is it the right one?", before[n-1].Number))
			}
			for _, u := range engine.FindUnusual(l, before) {
				honest = append(honest, fmt.Sprintf("%s level %s: %s", l.Name, l.Number, u))
			}
			if !slices.Equal(warned, honest) {
				rt.Fatalf("warned of %q instead of %q", warned, honest)
			}
			want[l.Number] = bytes.Clone(data)
			if src.outcome != engine.Committed || src.ended != 1 {
				rt.Fatalf("the source ended %d times, with %d", src.ended, src.outcome)
			}
			if rapid.IntRange(0, 3).Draw(rt, "rm") == 0 && len(want) > 1 {
				for n := range want {
					if n == l.Number {
						continue // it would change what the next diff is from
					}
					if err := engine.Remove(context.Background(), r, "image", []store.LevelNumber{n}); err != nil {
						rt.Fatal(err)
					}
					delete(want, n)
					break
				}
			}
		}
		levels, err := r.Levels(context.Background(), "image")
		if err != nil || len(levels) != len(want) {
			rt.Fatalf("%d levels instead of %d, %v", len(levels), len(want), err)
		}
		for _, l := range levels {
			checkLevel(t, r, l, want[l.Number])
			if report, err := engine.Scrub(context.Background(), r, l, engine.ScrubOptions{}); err != nil {
				rt.Fatalf("scrub: %v, %+v", err, report)
			}
		}
	})
}

func change(rt *rapid.T, rnd *rand.Rand, data []byte, changed []hints.Extent) ([]byte, []hints.Extent) {
	kind := rapid.IntRange(0, 4).Draw(rt, "kind")
	if kind == 4 {
		size := rapid.IntRange(0, 80*chunk).Draw(rt, "new size")
		if size <= len(data) {
			// What is cut off is zeros, should the image grow again.
			return data[:size:size], append(changed, hints.Extent{Offset: int64(size), Length: int64(len(data) - size)})
		}
		return append(data[:len(data):len(data)], make([]byte, size-len(data))...), changed
	}
	if len(data) == 0 {
		return data, changed
	}
	off := rapid.IntRange(0, len(data)-1).Draw(rt, "off")
	n := rapid.IntRange(1, min(len(data)-off, 3*chunk)).Draw(rt, "length")
	if kind == 0 { // a discard, named as a hole
		clear(data[off : off+n])
		return data, append(changed, hints.Extent{Offset: int64(off), Length: int64(n)})
	}
	fill(rnd, data[off:off+n])
	return data, append(changed, hints.Extent{Offset: int64(off), Length: int64(n), Exists: true})
}

// clip cuts extents to an image that has shrunk; what was a hole and has been
// written since counts as data, which Normalize sees to.
func clip(extents []hints.Extent, size int) []hints.Extent {
	out := []hints.Extent{}
	for _, e := range extents {
		e.Length = min(e.Length, int64(size)-e.Offset)
		if e.Length > 0 {
			// A later change may lie on an earlier one: read all of it.
			e.Exists = true
			out = append(out, e)
		}
	}
	return out
}

func allocated(data []byte) []hints.Extent {
	out := []hints.Extent{}
	for off := 0; off < len(data); off += chunk / 2 {
		p := data[off:min(off+chunk/2, len(data))]
		if !bytes.Equal(p, make([]byte, len(p))) {
			out = append(out, hints.Extent{Offset: int64(off), Length: int64(len(p)), Exists: true})
		}
	}
	return out
}

// A source that fails makes no level, and the next run goes on.
func TestSourceFails(t *testing.T) {
	r, _ := newRepository(t, chunk)
	data := make([]byte, 100*chunk)
	fill(rand.New(rand.NewPCG(1, 2)), data)
	mustBackup(t, r, "image", &image{data: data})
	for _, src := range []*image{
		{data: data, failAt: 50 * chunk},
		{data: data, recheck: errors.New("snapshot is gone")},
	} {
		_, err := engine.Backup(context.Background(), r, "image", src, engine.BackupOptions{})
		if err == nil || src.outcome != engine.Failed || src.ended != 1 {
			t.Fatalf("got %v, outcome %d, ended %d", err, src.outcome, src.ended)
		}
	}
	levels, err := r.Levels(context.Background(), "image")
	if err != nil || len(levels) != 1 {
		t.Fatalf("%d levels, %v", len(levels), err)
	}
	checkLevel(t, r, mustBackup(t, r, "image", &image{data: data}), data)
}

// An extent left out is noticed where the sample hits it, and mended by
// comparing everything.
func TestSampleFindsALie(t *testing.T) {
	r, _ := newRepository(t, chunk)
	rnd := rand.New(rand.NewPCG(3, 4))
	data := make([]byte, 64*chunk)
	fill(rnd, data)
	mustBackup(t, r, "image", &image{data: data})
	fill(rnd, data) // everything changes, nothing is named
	l := mustBackup(t, r, "image", &image{data: data, changed: []hints.Extent{}, outside: engine.Unchanged})
	checkLevel(t, r, l, data)
	if l.Origin.Diff != store.DiffNone {
		t.Errorf("diff %q", l.Origin.Diff)
	}
	clear(data[:len(data)-1]) // one byte is left, in the last chunk, which is always looked at
	l = mustBackup(t, r, "image", &image{data: data, changed: []hints.Extent{}, outside: engine.Hole})
	checkLevel(t, r, l, data)
}

// The same bytes anywhere in the repository are stored once.
func TestDedup(t *testing.T) {
	r, b := newRepository(t, chunk)
	data := make([]byte, 640*chunk)
	fill(rand.New(rand.NewPCG(5, 6)), data[:320*chunk])
	copy(data[320*chunk:], data[:320*chunk])
	l := mustBackup(t, r, "one", &image{data: data})
	if l.Stats.Chunks != 320 {
		t.Errorf("%d chunks stored instead of 320", l.Stats.Chunks)
	}
	other := mustBackup(t, r, "two", &image{data: data})
	if other.Stats.Chunks != 0 || other.Stats.Reused != int64(len(data)) {
		t.Errorf("stored again: %+v", other.Stats)
	}
	checkLevel(t, r, other, data)
	_ = b
}

// pipe is a source that is read front to back.
type pipe struct {
	image
	r io.Reader
}

func (p *pipe) Begin(ctx context.Context, run engine.Run) (*engine.State, error) {
	st, err := p.image.Begin(ctx, run)
	st.Reader, st.Size, st.Stream = nil, -1, p.r
	return st, err
}

// A pipe's level has the size of what arrived, whatever the base's was.
func TestStream(t *testing.T) {
	r, _ := newRepository(t, chunk)
	rnd := rand.New(rand.NewPCG(7, 8))
	for _, size := range []int{0, 1, chunk, 300*chunk + 1, 5000 * chunk, 300 * chunk, 64 * chunk, 63*chunk + 5} {
		data := make([]byte, size)
		fill(rnd, data[size/3:])
		l := mustBackup(t, r, "pipe", &pipe{r: iotest.HalfReader(bytes.NewReader(data))})
		if l.Size != int64(size) {
			t.Errorf("size %d instead of %d", l.Size, size)
		}
		checkLevel(t, r, l, data)
	}
	same := mustBackup(t, r, "pipe", &pipe{r: bytes.NewReader(restored(t, r, mustLevel(t, r, "pipe"), nil))})
	if same.Stats.Changed != 0 || same.Root != mustLevel(t, r, "pipe").Root {
		t.Errorf("an unchanged input changed the map: %+v", same.Stats)
	}
	broken := io.MultiReader(bytes.NewReader(make([]byte, chunk)), iotest.ErrReader(errors.New("producer failed")))
	if _, err := engine.Backup(context.Background(), r, "pipe", &pipe{r: broken}, engine.BackupOptions{}); err == nil {
		t.Error("an input that fails made a level")
	}
}

func mustLevel(t testing.TB, r *store.Repository, name store.Name) store.Level {
	t.Helper()
	levels, err := r.Levels(context.Background(), name)
	if err != nil || len(levels) == 0 {
		t.Fatalf("%d levels, %v", len(levels), err)
	}
	return levels[len(levels)-1]
}

// What an interrupted run has stored is not stored again, on whatever host the
// next one runs.
func TestInterruptedRunIsPickedUp(t *testing.T) {
	r, b := newRepository(t, chunk)
	data := make([]byte, 6000*chunk)
	fill(rand.New(rand.NewPCG(27, 28)), data)
	if _, err := engine.Backup(context.Background(), r, "image", &image{data: data, failAt: 5900 * chunk}, engine.BackupOptions{}); err == nil {
		t.Fatal("no error")
	}
	before := size(t, b, "data/")
	if before == 0 {
		t.Fatal("nothing had been stored yet")
	}
	l := mustBackup(t, reopen(t, b), "image", &image{data: data})
	if after := size(t, b, "data/"); after > int64(len(data))+before/10 {
		t.Errorf("%d bytes had been stored, and now %d, for an image of %d", before, after, len(data))
	}
	checkLevel(t, r, l, data)
}

// What a unit stores is kept in the unit's own memory, wherever chunks that
// shrink lie beside others that do not.
func TestMixedUnits(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r, _ := newRepository(t, chunk)
		rnd := rand.NewChaCha8([32]byte{byte(rapid.Uint64().Draw(rt, "seed"))})
		data := make([]byte, rapid.IntRange(1, 300*chunk).Draw(rt, "size"))
		share := rapid.IntRange(0, 100).Draw(rt, "percentage of chunks that do not shrink")
		for at := 0; at < len(data); at += chunk {
			p := data[at:min(at+chunk, len(data))]
			if int(rnd.Uint64()%100) >= share {
				p = p[:rnd.Uint64()%uint64(len(p)+1)] // zeros behind
			}
			rnd.Read(p)
		}
		checkLevel(t, r, mustBackup(t, r, "image", &image{data: data}), data)
	})
}
