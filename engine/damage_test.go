package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"backy/engine"
	"backy/hints"
	"backy/store"
	"backy/store/mem"
)

// object returns an object's key below a prefix, and its bytes.
func object(t testing.TB, b *mem.Mem, prefix string) (string, []byte) {
	t.Helper()
	var key string
	var size int64
	err := b.List(context.Background(), prefix, func(k string, n int64) error {
		key, size = k, n
		return nil
	})
	if err != nil || key == "" {
		t.Fatalf("no object below %s: %v", prefix, err)
	}
	p := make([]byte, size)
	if _, err := b.Get(context.Background(), key, p, 0); err != nil {
		t.Fatal(err)
	}
	return key, p
}

// overwrite does what a failing disk does.
func overwrite(t testing.TB, b *mem.Mem, key string, p []byte) {
	t.Helper()
	if err := b.Delete(context.Background(), key); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(context.Background(), key, p); err != nil {
		t.Fatal(err)
	}
}

func keys(t testing.TB, b *mem.Mem, prefix string) (list []string) {
	t.Helper()
	if err := b.List(context.Background(), prefix, func(k string, _ int64) error {
		list = append(list, k)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

// reopen forgets what has been read.
func reopen(t testing.TB, b *mem.Mem) *store.Repository {
	t.Helper()
	r, err := store.Open(context.Background(), b, "")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Whatever byte of a data pack is bad: a restore gives the right bytes or
// refuses; where it refuses, a scrub finds the chunk, the next backup mends
// it, and every level that has it is whole again.
func TestDamagedDataPack(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 10))
	data := make([]byte, 20*chunk)
	fill(rnd, data[:5*chunk])
	copy(data[5*chunk:], bytes.Repeat([]byte("backy"), 10*chunk/5))
	_, clean := newRepository(t, chunk)
	r := reopen(t, clean)
	mustBackup(t, r, "image", &image{data: data})
	mustBackup(t, r, "image", &image{data: data})
	_, pack := object(t, clean, "data/")
	for _, damage := range []struct {
		name string
		at   []int
	}{
		{"header", []int{0, 9, 30, 50, 70}},
		{"table", []int{72, 72 + 32, 72 + 40, 72 + 48, 72 + 52, 72 + 56*3 + 33}},
		{"frame header", []int{72 + 56*6, 72 + 56*6 + 5, 72 + 56*6 + 8, 72 + 56*6 + 22}},
		{"stored bytes", []int{72 + 56*6 + 24, len(pack) - 1, len(pack) / 2}},
	} {
		for _, at := range damage.at {
			t.Run(fmt.Sprintf("%s/%d", damage.name, at), func(t *testing.T) {
				b := clean.At(len(clean.Log()))
				key, p := object(t, b, "data/")
				p[at] ^= 0x10
				overwrite(t, b, key, p)
				checkMends(t, b, data)
			})
		}
	}
	t.Run("gone", func(t *testing.T) {
		b := clean.At(len(clean.Log()))
		key, _ := object(t, b, "data/")
		if err := b.Delete(context.Background(), key); err != nil {
			t.Fatal(err)
		}
		checkMends(t, b, data)
	})
	for _, n := range []int{0, 10, 72, 200, len(pack) / 2, len(pack) - 1} {
		t.Run(fmt.Sprintf("cut/%d", n), func(t *testing.T) {
			b := clean.At(len(clean.Log()))
			key, p := object(t, b, "data/")
			overwrite(t, b, key, p[:n])
			checkMends(t, b, data)
		})
	}
}

func checkMends(t *testing.T, b *mem.Mem, data []byte) {
	t.Helper()
	ctx := context.Background()
	r := reopen(t, b)
	level := mustLevel(t, r, "image")
	d := &disk{}
	_, restoreErr := engine.Restore(ctx, r, level, d, engine.RestoreOptions{})
	var damaged *engine.DamagedError
	switch {
	case restoreErr == nil && !bytes.Equal(d.data, data):
		t.Fatal("wrong bytes were restored without an error")
	case restoreErr != nil && (!errors.As(restoreErr, &damaged) || !d.aborted):
		t.Fatalf("the restore failed otherwise: %v", restoreErr)
	}
	report, scrubErr := engine.Scrub(ctx, r, level, engine.ScrubOptions{})
	if (scrubErr != nil) != (restoreErr != nil) {
		t.Fatalf("restore: %v, but scrub: %v", restoreErr, scrubErr)
	}
	if scrubErr == nil {
		return
	}
	if len(report.Damaged) == 0 {
		t.Fatalf("the scrub says %v and names nothing", scrubErr)
	}
	d = &disk{}
	if _, err := engine.Restore(ctx, reopen(t, b), level, d, engine.RestoreOptions{}); !errors.As(err, &damaged) || d.aborted {
		t.Fatalf("known damage is not refused before the target is touched: %v", err)
	}
	r = reopen(t, b)
	l := mustBackup(t, r, "image", &image{data: data, changed: []hints.Extent{}, outside: engine.Unchanged})
	if l.Stats.Mended == 0 {
		t.Fatalf("nothing mended: %+v", l.Stats)
	}
	if left := keys(t, b, "damaged/"); len(left) > 0 {
		t.Errorf("noted as damaged still: %s", left)
	}
	r = reopen(t, b)
	levels, err := r.Levels(ctx, "image")
	if err != nil || len(levels) != 3 {
		t.Fatalf("%d levels, %v", len(levels), err)
	}
	for _, l := range levels {
		checkLevel(t, r, l, data)
		if _, err := engine.Scrub(ctx, r, l, engine.ScrubOptions{}); err != nil {
			t.Errorf("level %s is bad still: %v", l.Number, err)
		}
	}
}

// A map pack is read from its twin where one is bad, which a scrub notes and
// the next backup mends.
func TestDamagedMapPack(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 12))
	data := make([]byte, 200*chunk)
	fill(rnd, data)
	r, clean := newRepository(t, chunk)
	mustBackup(t, r, "image", &image{data: data})
	for _, folder := range []string{"maps/", "maps2/"} {
		b := clean.At(len(clean.Log()))
		key, p := object(t, b, folder)
		p[len(p)/2] ^= 1
		overwrite(t, b, key, p)
		r := reopen(t, b)
		l := mustLevel(t, r, "image")
		checkLevel(t, r, l, data)
		report, err := engine.Scrub(context.Background(), reopen(t, b), l, engine.ScrubOptions{})
		var damaged *engine.DamagedError
		if !errors.As(err, &damaged) || report.MapNodes != 1 {
			t.Errorf("%s: scrub says %v, %+v", folder, err, report)
		}
		r = reopen(t, b)
		mustBackup(t, r, "image", &image{data: data})
		r = reopen(t, b)
		if _, err := engine.Scrub(context.Background(), r, l, engine.ScrubOptions{}); err != nil {
			t.Errorf("%s: not mended: %v", folder, err)
		}
		if left := keys(t, b, "damaged/"); len(left) > 0 {
			t.Errorf("noted as damaged still: %s", left)
		}
	}
}

// Where both copies of a node are bad, the level says which bytes are lost,
// and the next backup reads everything and stands on its own.
func TestLostMap(t *testing.T) {
	rnd := rand.New(rand.NewPCG(13, 14))
	data := make([]byte, 200*chunk)
	fill(rnd, data)
	r, b := newRepository(t, chunk)
	mustBackup(t, r, "image", &image{data: data})
	for _, folder := range []string{"maps/", "maps2/"} {
		key, p := object(t, b, folder)
		overwrite(t, b, key, p[:100])
	}
	r = reopen(t, b)
	l := mustLevel(t, r, "image")
	var damaged *engine.DamagedError
	if _, err := engine.Restore(context.Background(), r, l, &disk{}, engine.RestoreOptions{}); !errors.As(err, &damaged) {
		t.Errorf("restore says %v", err)
	}
	if _, err := engine.Scrub(context.Background(), r, l, engine.ScrubOptions{}); !errors.As(err, &damaged) || len(damaged.Extents) != 1 || damaged.Extents[0].Length != int64(len(data)) {
		t.Errorf("scrub says %v", err)
	}
	r = reopen(t, b)
	next := mustBackup(t, r, "image", &image{data: data, changed: []hints.Extent{}, outside: engine.Unchanged})
	checkLevel(t, r, next, data)
}

// A deep scrub finds what differs, holes included, and the next backup is told
// not to trust the levels so far.
func TestDeepScrub(t *testing.T) {
	rnd := rand.New(rand.NewPCG(15, 16))
	data := make([]byte, 100*chunk+77)
	fill(rnd, data[:50*chunk])
	r, _ := newRepository(t, chunk)
	l := mustBackup(t, r, "image", &image{data: data})
	view := func(p []byte) *engine.View {
		return &engine.View{Reader: bytes.NewReader(p), Size: int64(len(p)), Extents: hints.Of(allocated(p))}
	}
	scrub := func(p []byte) (engine.ScrubReport, error) {
		return engine.Scrub(context.Background(), r, l, engine.ScrubOptions{Source: view(p)})
	}
	if report, err := scrub(data); err != nil || report.Compared < 50*chunk {
		t.Fatalf("the same bytes: %v, %+v", err, report)
	}
	if n, err := r.Distrusted(context.Background(), "image", nil); n != 0 || err != nil {
		t.Fatalf("distrusted up to %d, %v", n, err)
	}
	for _, at := range []int{0, 10*chunk + 5, 50*chunk - 1, 70 * chunk, len(data) - 1} {
		other := bytes.Clone(data)
		other[at] ^= 1
		report, err := scrub(other)
		var different *engine.DifferentError
		if !errors.As(err, &different) || len(report.Different) != 1 || report.Different[0].Offset != int64(at/chunk*chunk) {
			t.Errorf("byte %d differs: %v, %+v", at, err, report)
		}
	}
	for _, other := range [][]byte{data[:len(data)-1], append(bytes.Clone(data), 0)} {
		var different *engine.DifferentError
		if _, err := scrub(other); !errors.As(err, &different) {
			t.Errorf("size %d instead of %d: %v", len(other), len(data), err)
		}
	}
	if n, err := r.Distrusted(context.Background(), "image", nil); n != l.Number || err != nil {
		t.Errorf("distrusted up to %d, %v", n, err)
	}
}

// A percentage checks about that share, and always something.
func TestScrubPercent(t *testing.T) {
	rnd := rand.New(rand.NewPCG(17, 18))
	data := make([]byte, 1000*chunk)
	fill(rnd, data)
	r, _ := newRepository(t, chunk)
	l := mustBackup(t, r, "image", &image{data: data})
	for _, c := range []struct{ percent, least, most float64 }{{0.0001, 1, 10}, {10, 40, 200}, {50, 400, 600}, {100, 1000, 1000}} {
		report, err := engine.Scrub(context.Background(), r, l, engine.ScrubOptions{Percent: c.percent})
		if err != nil || float64(report.Checked) < c.least || float64(report.Checked) > c.most {
			t.Errorf("%v %%: %d chunks, %v", c.percent, report.Checked, err)
		}
	}
}
