package engine_test

import (
	"context"
	"math/rand/v2"
	"testing"

	"backy/engine"
	"backy/store"

	"pgregory.net/rapid"
)

// What a level or a name takes alone is what a gc gives back when it goes, but
// for what that leaves in packs of which most is needed; and all parts add up.
func TestUsage(t *testing.T) {
	ctx := context.Background()
	rapid.Check(t, func(rt *rapid.T) {
		r, b := newRepository(t, chunk)
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		data := make([]byte, 80*chunk)
		fill(rnd, data)
		names := []store.Name{"a", "b", "c/d"}
		for range rapid.IntRange(1, 6).Draw(rt, "backups") {
			name := rapid.SampledFrom(names).Draw(rt, "name")
			if rapid.Bool().Draw(rt, "change") {
				// Whole packs, so that what goes is given back at once.
				fill(rnd, data)
			}
			mustBackup(t, r, name, &image{data: data})
		}
		u, err := r.Usage(ctx, nil)
		if err != nil {
			rt.Fatal(err)
		}
		sum := u.Shared + u.Unused
		for _, n := range u.Names {
			sum += n.Alone
			levels := n.Shared
			for _, l := range n.Levels {
				levels += l.Alone
			}
			if levels != n.Alone || n.Shared < 0 {
				rt.Fatalf("%+v", n)
			}
		}
		if sum != u.Total || u.Total != size(t, b, "data/", "maps") {
			rt.Fatalf("%d of %d bytes: %+v", sum, u.Total, u)
		}
		n := rapid.SampledFrom(u.Names).Draw(rt, "gone")
		gone, want := n.Levels, n.Alone
		if rapid.Bool().Draw(rt, "one level") {
			i := rapid.IntRange(0, len(n.Levels)-1).Draw(rt, "level")
			gone, want = n.Levels[i:i+1], n.Levels[i].Alone
		}
		for _, l := range gone {
			if err := engine.Remove(ctx, r, n.Name, []store.LevelNumber{l.Number}); err != nil {
				rt.Fatal(err)
			}
		}
		before := size(t, b, "data/", "maps")
		mustGC(rt, r)
		// A level's record lies in its map pack and counts with what is left of it.
		if freed := before - size(t, b, "data/", "maps"); freed < want-200 || freed > want+u.Unused+8000 {
			rt.Fatalf("%s without %v: gave back %d, not %d: %+v", n.Name, gone, freed, want, u)
		}
	})
}

// Shared and partly shared packs, to the byte of their frames.
func TestUsageOfParts(t *testing.T) {
	ctx := context.Background()
	r, b := newRepository(t, chunk)
	rnd := rand.New(rand.NewPCG(61, 62))
	data := make([]byte, 50*chunk)
	fill(rnd, data)
	mustBackup(t, r, "a", &image{data: data})
	fill(rnd, data[:10*chunk])
	mustBackup(t, r, "a", &image{data: data})
	mustBackup(t, r, "b", &image{data: data[5*chunk : 30*chunk]})
	const frame = chunk + 24 + 56
	cache := t.TempDir()
	for range 2 {
		repo, c := cached(t, b, cache)
		u, err := repo.Usage(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		between := func(got, least, most int64) bool { return least*frame <= got && got < most*frame }
		if len(u.Names) != 2 || !between(u.Names[0].Levels[0].Alone, 10, 11) || !between(u.Names[0].Levels[1].Alone, 5, 6) ||
			!between(u.Names[0].Shared, 20, 21) || !between(u.Shared, 25, 26) || !between(u.Names[1].Alone, 0, 1) {
			t.Errorf("%+v", u)
		}
		t.Logf("%+v: %v", u, c.gets)
	}
}
