package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"backy/engine"
	"backy/hints"
	"backy/store"
	"backy/store/mem"
)

// loseObjects deletes objects below a prefix, as a file system may.
func loseObjects(t *testing.T, b *mem.Mem, prefixes ...string) {
	t.Helper()
	for _, prefix := range prefixes {
		lost := keys(t, b, prefix)
		if len(lost) == 0 {
			t.Fatalf("nothing below %s", prefix)
		}
		for _, key := range lost {
			if err := b.Delete(context.Background(), key); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// warned makes a backup and returns its warnings.
func warned(t *testing.T, r *store.Repository, name store.Name, src engine.Source) (store.Level, string) {
	t.Helper()
	var said []string
	l, err := engine.Backup(context.Background(), r, name, src, engine.BackupOptions{
		Warn: func(f string, a ...any) { said = append(said, fmt.Sprintf(f, a...)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return l, strings.Join(said, "\n")
}

// Whatever packs are missing, and however little a backup reads: its level is
// whole, or there is none.
func TestMissingPacks(t *testing.T) {
	data := make([]byte, 200*chunk)
	fill(rand.New(rand.NewPCG(31, 32)), data)
	changed := bytes.Clone(data)
	fill(rand.New(rand.NewPCG(33, 34)), changed[60*chunk:63*chunk])
	later := bytes.Clone(changed)
	fill(rand.New(rand.NewPCG(35, 36)), later[140*chunk:141*chunk])
	diff := func(from, count int) []hints.Extent {
		return []hints.Extent{{Offset: int64(from) * chunk, Length: int64(count) * chunk, Exists: true}}
	}
	for _, lost := range []struct {
		name     string
		prefixes func(levels []store.Level) []string
		warning  string
	}{
		{"data of the newest", func(l []store.Level) []string { return []string{"data/" + l[1].Run.String()} }, "missing (data/"},
		{"data of the first", func(l []store.Level) []string { return []string{"data/" + l[0].Run.String()} }, "missing (data/"},
		{"all data", func([]store.Level) []string { return []string{"data/"} }, "2 data packs are missing"},
		{"maps of the newest", func(l []store.Level) []string {
			return []string{"maps/" + l[1].Run.String(), "maps2/" + l[1].Run.String()}
		}, "is damaged"},
		{"maps of the first", func(l []store.Level) []string {
			return []string{"maps/" + l[0].Run.String(), "maps2/" + l[0].Run.String()}
		}, "is damaged"},
		{"twins", func([]store.Level) []string { return []string{"maps2/"} }, "one of the two copies of 2 map packs is missing"},
		{"first copies", func([]store.Level) []string { return []string{"maps/"} }, "one of the two copies of 2 map packs is missing"},
		{"all of the newest", func(l []store.Level) []string {
			run := l[1].Run.String()
			return []string{"data/" + run, "maps/" + run, "maps2/" + run}
		}, "is damaged"},
		{"all packs", func([]store.Level) []string { return []string{"data/", "maps/", "maps2/"} }, "is damaged"},
	} {
		for _, next := range []struct {
			name string
			src  func() *image
			want []byte
		}{
			{"all is read", func() *image { return &image{data: changed} }, changed},
			{"nothing is read", func() *image { return &image{data: changed, changed: []hints.Extent{}, outside: engine.Unchanged} }, changed},
			{"a diff", func() *image { return &image{data: later, changed: diff(140, 1), outside: engine.Unchanged} }, later},
			{"holes outside", func() *image {
				return &image{data: later, changed: diff(0, 200), outside: engine.Hole}
			}, later},
		} {
			for _, opened := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/opened=%v", lost.name, next.name, opened), func(t *testing.T) {
					r, b := newRepository(t, chunk)
					levels := []store.Level{
						mustBackup(t, r, "image", &image{data: data}),
						mustBackup(t, r, "image", &image{data: changed, changed: diff(60, 3), outside: engine.Unchanged}),
					}
					loseObjects(t, b, lost.prefixes(levels)...)
					if !opened { // a process that has read nothing
						r = reopen(t, b)
					}
					l, said := warned(t, r, "image", next.src())
					if !strings.Contains(said, lost.warning) {
						t.Errorf("warned of %q", said)
					}
					r = reopen(t, b)
					checkLevel(t, r, l, next.want)
					if _, err := engine.Scrub(context.Background(), r, l, engine.ScrubOptions{}); err != nil {
						t.Errorf("the level is damaged: %v", err)
					}
				})
			}
		}
	}
}

// A pack of a run that no level of the name is of any more is missed by what is
// read: then the whole map is looked through.
func TestMissingPackOfRemovedLevel(t *testing.T) {
	data := make([]byte, 200*chunk)
	fill(rand.New(rand.NewPCG(37, 38)), data)
	r, b := newRepository(t, chunk)
	first := mustBackup(t, r, "image", &image{data: data})
	mustBackup(t, r, "image", &image{data: data, changed: []hints.Extent{}, outside: engine.Unchanged})
	if err := r.Remove(context.Background(), "image", []store.LevelNumber{first.Number}); err != nil {
		t.Fatal(err)
	}
	loseObjects(t, b, "data/")
	r = reopen(t, b)
	l, said := warned(t, r, "image", &image{data: data, changed: []hints.Extent{}, outside: engine.Unchanged})
	if !strings.Contains(said, "a data pack is missing (data/"+first.Run.String()) {
		t.Errorf("warned of %q", said)
	}
	checkLevel(t, reopen(t, b), l, data)
}

// short reports what Presence says of levels, and how many copies they lack.
func short(t *testing.T, r *store.Repository, levels []store.Level) (any bool, copies int) {
	t.Helper()
	for i := range levels {
		short, lacking, err := r.Presence().Short(context.Background(), &levels[i])
		if err != nil {
			t.Fatal(err)
		}
		any, copies = any || short, copies+len(lacking)
	}
	return any, copies
}

// Each pack that goes is missed, and none is of levels that are whole, before and
// after a gc: else each backup would walk their maps.
func TestPresence(t *testing.T) {
	ctx := context.Background()
	data := make([]byte, 40<<20/chunk*chunk)
	rnd := rand.New(rand.NewPCG(39, 40))
	fill(rnd, data)
	r, b := newRepository(t, chunk)
	var levels []store.Level
	for i := range 4 {
		fill(rnd, data[i*100*chunk:(i*100+50)*chunk])
		l, said := warned(t, r, "image", &image{data: data})
		if levels = append(levels, l); said != "" {
			t.Errorf("level %s: warned of %s", l.Number, said)
		}
	}
	if any, copies := short(t, r, levels); any || copies > 0 {
		t.Errorf("of whole levels something is missing: %v, %d copies", any, copies)
	}
	packs := slices.Concat(keys(t, b, "data/"), keys(t, b, "maps/"))
	if len(packs) < 9 {
		t.Fatalf("only %d packs", len(packs))
	}
	for _, key := range packs {
		without := b.At(len(b.Log()))
		loseObjects(t, without, key)
		twin, isMap := strings.CutPrefix(key, "maps/")
		if any, copies := short(t, reopen(t, without), levels); any == isMap || (copies == 1) != isMap {
			t.Errorf("without %s: missing %v, %d copies", key, any, copies)
		}
		if !isMap {
			continue
		}
		loseObjects(t, without, "maps2/"+twin)
		if any, copies := short(t, reopen(t, without), levels); !any || copies > 0 {
			t.Errorf("without %s and its twin: missing %v, %d copies", key, any, copies)
		}
	}
	if err := r.Remove(ctx, "image", []store.LevelNumber{1, 3}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.GC(ctx, store.GCOptions{}); err != nil {
		t.Fatal(err)
	}
	left, err := r.Levels(ctx, "image")
	if err != nil || len(left) != 2 {
		t.Fatal(left, err)
	}
	if any, copies := short(t, reopen(t, b), left); any || copies > 0 {
		t.Errorf("after a gc something is missing: %v, %d copies", any, copies)
	}
}
