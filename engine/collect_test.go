package engine_test

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"backy/engine"
	"backy/store"
	"backy/store/mem"
)

// collected has a new process collect, and finds that it leaves what the levels
// reach, and nothing else.
func (l *ledger) collected(t testing.TB, b *mem.Mem) {
	t.Helper()
	if _, err := reopen(t, b).GC(context.Background(), store.GCOptions{}); err != nil {
		t.Fatalf("gc: %v", err)
	}
	l.check(t, b)
	again, err := reopen(t, b).GC(context.Background(), store.GCOptions{DryRun: true})
	if err != nil || again.Deleted+again.Rewritten > 0 {
		t.Fatalf("after a gc there is more to collect: %+v, %v", again, err)
	}
	left := slices.DeleteFunc(keys(t, b, "work/"), func(key string) bool { return strings.HasPrefix(key, "work/verdict.") })
	if len(left) > 0 {
		t.Fatalf("after a gc there are %q", left)
	}
	// A pack is of a run whose level stands, or stood when others took over its
	// chunks: of a run that made no level, nothing is left.
	for _, key := range append(keys(t, b, "data/"), keys(t, b, "maps/")...) {
		run, err := store.ParseRunID(strings.Split(key, "/")[1])
		if err != nil || l.of(run) == nil {
			t.Fatalf("after a gc there is %s, of no run that we know: %v", key, err)
		}
	}
}

// deed is something whose every step may be its last.
type deed struct {
	name    string
	before  func(s *story)
	do      func(s *story)
	damaged bool // levels may not be whole before the end
}

var deeds = []deed{
	{"backup", nil, func(s *story) {
		s.write("a", 5*chunk, 9*chunk)
		s.backup("a", byDiff)
	}, false},
	{"first backup", nil, func(s *story) {
		s.images["c"] = changedAt(s.images["b"], 3, 2*chunk)
		s.backup("c", asStream)
	}, false},
	{"rm", nil, func(s *story) { s.remove("a", 1, 3) }, false},
	{"forget", nil, func(s *story) {
		if _, err := engine.Forget(context.Background(), reopen(s.t, s.b), "a", engine.Keep{Last: 1, Now: levelTime}, engine.ForgetOptions{}); err != nil {
			s.t.Fatal(err)
		}
	}, false},
	{"gc", func(s *story) { s.remove("a", 1, 2) }, func(s *story) {
		report, err := reopen(s.t, s.b).GC(context.Background(), store.GCOptions{})
		if err != nil || report.Deleted == 0 || report.Rewritten == 0 {
			s.t.Fatalf("the gc is to delete and to write anew: %+v, %v", report, err)
		}
	}, false},
	{"mend", func(s *story) {
		both(flip("data/", 500), flip("maps/", 500)).do(s.t, s.b)
		s.scrub(s.t, s.b)
	}, func(s *story) { s.backup("b", compareAll) }, true},
}

// After every prefix of the changes that a backup, rm, forget, gc or mend makes,
// a new process finds every level that was committed bit for bit, and a gc takes
// away all the rest.
func TestEveryPrefix(t *testing.T) {
	before := newStory(t, 17)
	before.write("a", 2*chunk)
	before.backup("a", byAllocated)
	before.backup("b", byAllocated)
	for i := range 3 {
		before.write("a", 3*chunk, (5+i)*chunk, 16*chunk)
		before.backup("a", byDiff)
	}
	for _, d := range deeds {
		t.Run(d.name, func(t *testing.T) {
			s := *before
			s.t, s.b, s.images = t, before.b.At(len(before.b.Log())), map[store.Name][]byte{}
			for name, data := range before.images {
				s.images[name] = data
			}
			if d.before != nil {
				d.before(&s)
			}
			first := len(s.b.Log())
			d.do(&s)
			log := s.b.Log()
			for n := first; n <= len(log); n++ {
				past := s.b.At(n)
				if d.damaged && n < len(log) {
					s.tolerate(t, past)
					s.scrub(t, past)
					if _, err := engine.Backup(context.Background(), reopen(t, past), "b",
						&honest{image: image{data: s.images["b"]}, ledger: s.ledger, way: compareAll}, engine.BackupOptions{}); err != nil {
						t.Fatalf("after change %d: %v", n-first, err)
					}
				}
				s.check(t, past)
				s.collected(t, past)
				if t.Failed() {
					t.Fatalf("after change %d, %+v", n-first, log[n-1].Key)
				}
			}
			t.Logf("%d prefixes", len(log)-first+1)
		})
	}
}

// A gc in trouble loses nothing that a level reaches, and the next one takes away
// what it left, whenever late calls land.
func TestTroubledGC(t *testing.T) {
	s := newStory(t, 17)
	s.backup("a", byAllocated)
	s.backup("b", byAllocated)
	for i := range 3 {
		s.write("a", 3*chunk, (5+i)*chunk, 16*chunk)
		s.backup("a", byDiff)
	}
	s.remove("a", 1, 2)
	var n atomic.Int32
	each(t, s.b, 1, func(ctx context.Context, t *testing.T, w *world, tr trouble) {
		variant := n.Add(1) % 3
		ledger := s.ledgerFor(tr)
		r, err := store.Open(ctx, w, "")
		if err != nil {
			return
		}
		_, err = r.GC(ctx, store.GCOptions{})
		if err == nil && tr.once {
			ledger.check(t, w.below)
		}
		if variant == 0 {
			_ = w.Land(context.Background())
		}
		ledger.check(t, w.below)
		if variant == 1 {
			ledger.collected(t, w.below)
			_ = w.Land(context.Background())
		}
		ledger.next(t, w.below, "a", changedAt(s.images["a"], byte(variant), 9*chunk), byDiff)
		_ = w.Land(context.Background())
		ledger.collected(t, w.below)
	})
}

// A forget in trouble keeps what its policy keeps, and removes nothing that it
// does not say.
func TestTroubledForget(t *testing.T) {
	s := newStory(t, 17)
	for range 4 {
		s.backup("a", byDiff)
		s.write("a", 8*chunk)
	}
	if err := reopen(t, s.b).Protect(context.Background(), "a", 2); err != nil {
		t.Fatal(err)
	}
	each(t, s.b, 1, func(ctx context.Context, t *testing.T, w *world, tr trouble) {
		r, err := store.Open(ctx, w, "")
		if err == nil {
			_, err = engine.Forget(ctx, r, "a", engine.Keep{Last: 1, Now: levelTime}, engine.ForgetOptions{})
		}
		left := standing(t, w.below)["a"]
		if err == nil && !slices.Equal(left, []store.LevelNumber{2, 4}) {
			t.Errorf("without an error, %v are left", left)
		}
		if !slices.Contains(left, 2) || !slices.Contains(left, 4) {
			t.Errorf("%v are left: %v", left, err)
		}
		s.afterwards(t, w, tr, 0, err, len(left))
	})
}
