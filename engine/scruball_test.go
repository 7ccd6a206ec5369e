package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"backy/engine"
	"backy/store"
	"backy/store/faulty"
	"backy/store/mem"
)

// storied makes a repository with what time leaves in one: shared chunks, a
// removed level, a pack written anew, a protected level.
func storied(t testing.TB) (b *mem.Mem, a, c []byte) {
	t.Helper()
	ctx := context.Background()
	r, b := newRepository(t, chunk)
	rnd := rand.New(rand.NewPCG(31, 32))
	a = make([]byte, 150*chunk)
	fill(rnd, a[:100*chunk])
	copy(a[100*chunk:], bytes.Repeat([]byte("compressible"), 20*chunk/12))
	first := mustBackup(t, r, "a", &image{data: a})
	a = bytes.Clone(a)
	fill(rnd, a[30*chunk:95*chunk])
	mustBackup(t, r, "a", &image{data: a})
	c = bytes.Clone(a[:120*chunk])
	fill(rnd, c[:3*chunk])
	mustBackup(t, r, "c/d", &image{data: c})
	if err := engine.Remove(ctx, r, "a", []store.LevelNumber{first.Number}); err != nil {
		t.Fatal(err)
	}
	if report := mustGC(t, r); report.Rewritten == 0 {
		t.Fatalf("nothing was written anew: %+v", report)
	}
	if err := r.Protect(ctx, "a", 2); err != nil {
		t.Fatal(err)
	}
	return b, a, c
}

func scrubAll(t testing.TB, r *store.Repository, o engine.ScrubAllOptions) (engine.ScrubAllReport, *engine.DamagedRepositoryError) {
	t.Helper()
	report, err := engine.ScrubAll(context.Background(), r, o)
	var bad *engine.DamagedRepositoryError
	if err != nil && !errors.As(err, &bad) {
		t.Fatal(err)
	}
	return report, bad
}

// Whichever byte goes bad, a scrub of all finds it, a quick one too; and of a
// pack, the next backups make it whole again.
func TestScrubAllFindsEveryByte(t *testing.T) {
	for _, quick := range []bool{false, true} {
		b, a, c := storied(t)
		o := engine.ScrubAllOptions{Quick: quick}
		if report, bad := scrubAll(t, reopen(t, b), o); bad != nil || report.Packs == 0 || report.Levels != 2 || report.Unused != 0 {
			t.Fatalf("a sound repository: %+v", report)
		}
		for _, key := range keys(t, b, "") {
			if key == "reserve.json" {
				continue // its bytes mean nothing
			}
			_, whole := object(t, b, key)
			step := max(1, len(whole)/25)
			for at := 0; at < len(whole); at += step {
				bad := bytes.Clone(whole)
				bad[at] ^= 0xff
				damaged := b.At(len(b.Log()))
				overwrite(t, damaged, key, bad)
				checkFound(t, damaged, fmt.Sprintf("%s at %d", key, at), o, map[store.Name][]byte{"a": a, "c/d": c})
			}
		}
	}
}

// checkFound checks that damage is found and, in packs, mended.
func checkFound(t *testing.T, b *mem.Mem, what string, o engine.ScrubAllOptions, images map[store.Name][]byte) {
	t.Helper()
	r, err := store.Open(context.Background(), b, "")
	if err != nil {
		return // backy.json
	}
	report, found := scrubAll(t, r, o)
	if found == nil && report.Unused == 0 {
		t.Errorf("%s: not found", what)
		return
	}
	if strings.HasPrefix(what, "levels/") || strings.HasPrefix(what, "marks/") {
		if len(report.Bad) != 1 {
			t.Errorf("%s: %+v", what, report)
		}
		return
	}
	for name, data := range images {
		mustBackup(t, r, name, &image{data: data})
	}
	if again, found := scrubAll(t, reopen(t, b), o); found != nil || again.Unused > 0 {
		t.Errorf("%s: found %+v; after the next backups still %+v", what, report, again)
	}
}

// A pack that is missing is found, and the levels that need it are named; a
// missing copy of a map pack is made anew.
func TestScrubAllFindsMissingPacks(t *testing.T) {
	b, a, c := storied(t)
	for _, prefix := range []string{"data/", "maps/", "maps2/"} {
		for _, key := range keys(t, b, prefix) {
			damaged := b.At(len(b.Log()))
			if err := damaged.Delete(context.Background(), key); err != nil {
				t.Fatal(err)
			}
			r := reopen(t, damaged)
			report, found := scrubAll(t, r, engine.ScrubAllOptions{})
			if found == nil || prefix == "data/" != (len(report.Damaged) > 0) {
				t.Errorf("%s: %+v", key, report)
			}
			for name, data := range map[store.Name][]byte{"a": a, "c/d": c} {
				mustBackup(t, r, name, &image{data: data})
			}
			if again, found := scrubAll(t, reopen(t, damaged), engine.ScrubAllOptions{}); found != nil {
				t.Errorf("%s: found %+v; after the next backups still %+v", key, report, again)
			}
		}
	}
}

// The extents of each level that are reported are those that cannot be restored.
func TestScrubAllNamesExtents(t *testing.T) {
	r, b := newRepository(t, chunk)
	data := make([]byte, 10*chunk)
	fill(rand.New(rand.NewPCG(1, 2)), data)
	mustBackup(t, r, "a", &image{data: data})
	mustBackup(t, r, "b", &image{data: data[4*chunk:]})
	key, p := object(t, b, "data/")
	p[len(p)-1] ^= 1
	overwrite(t, b, key, p)
	report, found := scrubAll(t, reopen(t, b), engine.ScrubAllOptions{})
	if found == nil || len(report.Damaged) != 2 {
		t.Fatalf("%+v", report)
	}
	for i, want := range []engine.LevelDamage{{Name: "a", Level: 1}, {Name: "b", Level: 1}} {
		got := report.Damaged[i]
		off := int64(9-4*i) * chunk
		if got.Name != want.Name || got.Level != 1 || len(got.Extents) != 1 || got.Extents[0].Offset != off || got.Extents[0].Length != chunk {
			t.Errorf("%+v", got)
		}
	}
}

// What fails for a while is no damage; what fails for good is.
func TestScrubAllReadsTwice(t *testing.T) {
	b, _, _ := storied(t)
	o := engine.ScrubAllOptions{Readers: 1}
	for i := 0; ; i++ {
		f := faulty.New(b.At(len(b.Log())), faulty.Plan{{Call: faulty.Get, Prefix: "data/", At: i, Err: errors.New("medium error")}})
		r, err := store.Open(context.Background(), f, "")
		if err != nil {
			t.Fatal(err)
		}
		if report, bad := scrubAll(t, r, o); bad != nil || report.Unused > 0 {
			t.Errorf("read %d failed once: %+v", i, report)
		}
		if f.Struck() == 0 {
			return
		}
	}
}

// What is removed, collected and written beside a scrub is no damage.
func TestScrubAllBesideOthers(t *testing.T) {
	ctx := context.Background()
	b, a, c := storied(t)
	rnd := rand.New(rand.NewPCG(7, 8))
	done := make(chan struct{})
	r := reopen(t, b)
	go func() {
		defer close(done)
		for i := range 20 {
			data := bytes.Clone(a)
			fill(rnd, data[:40*chunk])
			name := store.Name([]string{"a", "c/d"}[i%2])
			l, err := engine.Backup(ctx, r, name, &image{data: data}, engine.BackupOptions{})
			if err != nil {
				t.Error(err)
				return
			}
			if err := r.Remove(ctx, name, []store.LevelNumber{l.Number}); err != nil {
				t.Error(err)
			}
			if _, err := r.GC(ctx, store.GCOptions{}); err != nil {
				t.Error(err)
			}
		}
	}()
	for open := true; open; {
		select {
		case <-done:
			open = false
		default:
		}
		if report, bad := scrubAll(t, reopen(t, b), engine.ScrubAllOptions{}); bad != nil || report.Unused > 0 {
			t.Fatalf("%+v: %v", report, bad)
		}
	}
	_ = c
}

// Scrubs that have no time for all packs take the longest unchecked ones, and
// so go round; once all have been checked, so have the levels.
func TestScrubAllGoesRound(t *testing.T) {
	ctx := context.Background()
	b, a, _ := storied(t)
	packs := int64(len(keys(t, b, "data/")) + len(keys(t, b, "maps")))
	r := reopen(t, b)
	for left := packs - 1; left >= 0; left-- {
		if times, err := r.Scrubbed(ctx, "a"); err != nil || len(times["a"]) != 0 {
			t.Fatalf("with packs unchecked: %v, %v", times, err)
		}
		report, bad := scrubAll(t, r, engine.ScrubAllOptions{MaxDuration: 1, Readers: 1})
		if bad != nil || report.Packs != 1 || report.Left != packs-1 || (left == 0) != !report.Oldest.IsZero() {
			t.Fatalf("with %d unchecked: %+v", left, report)
		}
	}
	times, err := r.Scrubbed(ctx, "a")
	levels, levelsErr := r.Levels(ctx, "a")
	if err != nil || levelsErr != nil || len(times["a"]) != 1 || time.Since(times.Of(&levels[0])) > time.Hour {
		t.Fatalf("after a round: %v, %v", times, err)
	}
	if n := len(keys(t, b, "marks/checked.")) + len(keys(t, b, "marks/scrubbed")); n > 4 {
		t.Errorf("%d marks are left", n)
	}
	// A level whose packs are new is not vouched for by the old ones.
	fill(rand.New(rand.NewPCG(3, 4)), a)
	l := mustBackup(t, r, "a", &image{data: a})
	if times, err := r.Scrubbed(ctx, "a"); err != nil || !times.Of(&l).IsZero() {
		t.Errorf("a new level: %v, %v", times, err)
	}
	if _, err := engine.Scrub(ctx, r, l, engine.ScrubOptions{}); err != nil {
		t.Fatal(err)
	}
	if times, err := r.Scrubbed(ctx, "a"); err != nil || times.Of(&l).IsZero() {
		t.Errorf("a level that was scrubbed: %v, %v", times, err)
	}
	if _, bad := scrubAll(t, r, engine.ScrubAllOptions{}); bad != nil {
		t.Error(bad)
	}
	if times, err := r.Scrubbed(ctx, "a"); err != nil || len(times["a"]) != 2 {
		t.Errorf("after a scrub of all: %v, %v", times, err)
	}
}
