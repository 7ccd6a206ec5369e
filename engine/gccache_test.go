package engine_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"backy/engine"
	"backy/store"
	"backy/store/mem"
)

// counting counts the objects below a prefix that are read.
type counting struct {
	*mem.Mem
	mu   sync.Mutex
	gets map[string]int // by folder
}

func (c *counting) Get(ctx context.Context, key string, p []byte, off int64) (int, error) {
	folder, _, _ := strings.Cut(key, "/")
	c.mu.Lock()
	c.gets[folder]++
	c.mu.Unlock()
	return c.Mem.Get(ctx, key, p, off)
}

// cached opens a repository with a cache folder, and counts.
func cached(t testing.TB, b *mem.Mem, cache string) (*store.Repository, *counting) {
	t.Helper()
	c := &counting{Mem: b, gets: map[string]int{}}
	r, err := store.Open(context.Background(), c, cache)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r, c
}

// A gc reads each distinct live map node once; with the cache of the gc before it
// new ones only; and no data pack that stays.
func TestGCReadsNodesOnce(t *testing.T) {
	ctx := context.Background()
	cache := t.TempDir()
	r, b := newRepository(t, chunk)
	rnd := rand.New(rand.NewPCG(41, 42))
	data := make([]byte, 64*40*chunk)
	fill(rnd, data)
	for range 5 {
		fill(rnd, data[7*chunk:8*chunk])
		mustBackup(t, r, "image", &image{data: data})
	}
	const leaves, height2 = 40, 1
	repo, c := cached(t, b, cache)
	report := mustGC(t, repo)
	// The first level has all nodes, each of the others a leaf and a root.
	if want := int64(leaves + height2 + 4*(1+height2)); report.Nodes != want || report.Known != 0 {
		t.Errorf("read %d nodes and knew %d, of %d", report.Nodes, report.Known, want)
	}
	if n := c.gets["maps2"]; n > 0 {
		t.Errorf("%d reads of second copies", n)
	}

	repo, c = cached(t, b, cache)
	if report := mustGC(t, repo); report.Nodes != 0 || report.Known == 0 {
		t.Errorf("again: %+v", report)
	}
	packs := len(keys(t, b, "maps/")) + len(keys(t, b, "data/"))
	if c.gets["maps"]+c.gets["data"] > packs {
		t.Errorf("again: %v, more than the headers of %d packs", c.gets, packs)
	}

	fill(rnd, data[100*chunk:101*chunk])
	mustBackup(t, r, "image", &image{data: data})
	if err := engine.Remove(ctx, r, "image", []store.LevelNumber{1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	repo, _ = cached(t, b, cache)
	report = mustGC(t, repo)
	if report.Nodes != 1+height2 || report.Freed == 0 {
		t.Errorf("after one more backup: %+v", report)
	}
	h, err := r.History(ctx, "image")
	if err != nil {
		t.Fatal(err)
	}
	checkLevel(t, reopen(t, b), h.Levels[len(h.Levels)-1], data)
	// What no level needs any more is forgotten.
	if files, err := filepath.Glob(filepath.Join(cache, r.ID.String(), "nodes/*")); err != nil || len(files) != len(keys(t, b, "maps/")) {
		t.Errorf("%d files of %d map packs: %v", len(files), len(keys(t, b, "maps/")), err)
	}
}

// Whatever a cache holds, a gc keeps what the levels need; and it condemns
// nothing while a map pack is missing, though it knows what was in there.
func TestGCBadCache(t *testing.T) {
	ctx := context.Background()
	for i, harm := range []func(p, other []byte) []byte{
		func(p, _ []byte) []byte { return nil },
		func(p, _ []byte) []byte { return p[:len(p)/2] },
		func(p, _ []byte) []byte { return append(bytes.Clone(p), 0) },
		func(p, _ []byte) []byte { p = bytes.Clone(p); p[len(p)/2] ^= 1; return p },
		func(p, _ []byte) []byte { p = bytes.Clone(p); p[20] ^= 1; return p },
		func(_, other []byte) []byte { return other },
	} {
		cache := t.TempDir()
		r, b := newRepository(t, chunk)
		rnd := rand.New(rand.NewPCG(51, 52))
		data := make([]byte, 200*chunk)
		var levels []store.Level
		var want [][]byte
		for range 4 {
			fill(rnd, data[rnd.IntN(100)*chunk:])
			levels = append(levels, mustBackup(t, r, "image", &image{data: data}))
			want = append(want, bytes.Clone(data))
		}
		repo, _ := cached(t, b, cache)
		mustGC(t, repo)
		files, err := filepath.Glob(filepath.Join(cache, r.ID.String(), "nodes/*"))
		if err != nil || len(files) < 2 {
			t.Fatal(files, err)
		}
		var contents [][]byte
		for _, f := range files {
			p, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			contents = append(contents, p)
		}
		for j, f := range files {
			if err := os.WriteFile(f, harm(contents[j], contents[(j+1)%len(files)]), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := engine.Remove(ctx, r, "image", []store.LevelNumber{1, 3}); err != nil {
			t.Fatal(err)
		}
		repo, _ = cached(t, b, cache)
		report := mustGC(t, repo)
		if report.Known != 0 || report.Nodes == 0 {
			t.Errorf("harm %d: %+v", i, report)
		}
		for _, n := range []int{1, 3} {
			checkLevel(t, reopen(t, b), levels[n], want[n])
		}
		repo, _ = cached(t, b, cache)
		if report := mustGC(t, repo); report.Known == 0 || report.Nodes != 0 {
			t.Errorf("harm %d, mended: %+v", i, report)
		}

		if err := engine.Remove(ctx, r, "image", []store.LevelNumber{2}); err != nil {
			t.Fatal(err)
		}
		for _, folder := range []string{"maps/", "maps2/"} {
			if err := b.Delete(ctx, folder+levels[3].Root.Pack.String()); err != nil {
				t.Fatal(err)
			}
		}
		before := len(keys(t, b, "data/"))
		repo, _ = cached(t, b, cache)
		if report, err := repo.GC(ctx, store.GCOptions{}); err == nil || len(keys(t, b, "data/")) != before {
			t.Errorf("without a map pack: %+v, %v", report, err)
		}
	}
}
