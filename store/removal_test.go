package store

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"testing"
	"time"
)

// removedBefore makes a removed level 1 of a name, loses the name as a whole, and
// makes a level that has the number now. It returns both and the removal of the first,
// which does not stand.
func (x *halting) removedBefore(h *host, r *Repository) (old, now Level, removal []byte) {
	x.t.Helper()
	ctx := context.Background()
	old = x.write(h, r, "a", 1, 2, 3)
	if err := r.Remove(ctx, "a", []LevelNumber{1}); err != nil {
		x.t.Fatal(err)
	}
	removal, err := readAll(ctx, x.disk, removedKey("a", 1), maxJSON)
	if err != nil {
		x.t.Fatal(err)
	}
	x.lose("levels/a/")
	now = x.write(h, r, "a", 4, 5, 6)
	if now.Number != 1 {
		x.t.Fatalf("the new level is %s", now.Number)
	}
	return old, now, removal
}

func encoded(t *testing.T, typ string, body any) []byte {
	t.Helper()
	p, err := encodeObject(typ, body)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A removal takes away the level of the run that it names, and no other that has
// the number; one that cannot be read takes nothing away that can be read. That holds
// for all who obey removals, and recover puts such removals right.
func TestRemovalIsOfARun(t *testing.T) {
	ctx := context.Background()
	for name, forge := range map[string]func(old, now *Level, p []byte) []byte{
		"of the run before": func(_, _ *Level, p []byte) []byte { return p },
		"empty":             func(_, _ *Level, _ []byte) []byte { return []byte{} },
		"flipped":           func(_, _ *Level, p []byte) []byte { p[len(p)/2] ^= 4; return p },
		"of no run, before": func(_, now *Level, _ []byte) []byte {
			return encoded(t, "removed", &removal{Name: "a", Number: 1, Time: now.Committed.Add(-time.Second)})
		},
		"of another name": func(_, now *Level, _ []byte) []byte {
			return encoded(t, "removed", &removal{Name: "b", Number: 1, Run: now.Run})
		},
		"of another number": func(_, now *Level, _ []byte) []byte {
			return encoded(t, "removed", &removal{Name: "a", Number: 2, Run: now.Run})
		},
		"another object": func(_, now *Level, _ []byte) []byte {
			return encoded(t, "tombstone", &tombstone{Name: "a", Number: 1, Run: now.Run})
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := newHalting(t)
			h, _, r := x.host(1)
			old, now, p := x.removedBefore(h, r)
			if err := r.abandon(ctx, old.Run, 9); err != nil { // this test is not about its maps
				t.Fatal(err)
			}
			overwrite(t, x.disk, removedKey("a", 1), forge(&old, &now, p))
			check := func(bad int) {
				t.Helper()
				h, err := r.History(ctx, "a")
				if err != nil || len(h.Levels) != 1 || h.Levels[0].Run != now.Run || len(h.Bad) > 0 {
					t.Errorf("levels %v, bad %v: %v", h.Levels, h.Bad, err)
				}
				var record *BadRecordError
				if len(h.BadRemovals) != bad || bad > 0 && (h.BadRemovals[0].Number != 1 || !errors.As(h.BadRemovals[0].Err, &record)) {
					t.Errorf("bad removals: %v", h.BadRemovals)
				}
				if levels, err := r.Levels(ctx, "a"); err != nil || len(levels) != 1 {
					t.Errorf("levels %v: %v", levels, err)
				}
				if names, err := r.Names(ctx); err != nil || !slices.Equal(names, []Name{"a"}) {
					t.Errorf("names %v: %v", names, err)
				}
				if err := r.CheckRemoved(ctx, &now); err != nil {
					t.Error(err)
				}
				if s, err := r.Survey(ctx, nil); err != nil || len(s.Levels) != 1 || s.Levels[0].Run != now.Run {
					t.Errorf("survey of %v: %v", s.Levels, err)
				}
				if found, err := r.listRoots(ctx); err != nil || len(found.removed) > 0 {
					t.Errorf("roots %v: %v", found, err)
				}
				if lost, err := r.LostLevels(ctx, nil); err != nil || lost != nil {
					t.Errorf("lost: %v, %v", lost, err)
				}
				if report, err := r.GC(ctx, GCOptions{DryRun: true}); err != nil || report.Levels != 1 {
					t.Errorf("dry run: %v, %v", report, err)
				}
				for range 2 {
					if err := <-x.gc(r); err != nil {
						t.Error(err)
					}
				}
				x.whole("a")
			}
			check(1)
			if recovered, err := r.Recover(ctx); err != nil || len(recovered) > 0 {
				t.Errorf("recovered %v: %v", recovered, err)
			}
			check(0)
			x.w.checkStock(ctx, r)
		})
	}
}

// A removal of no run takes away what was there before it, as it comes back.
func TestRemovalOfNoRun(t *testing.T) {
	ctx := context.Background()
	x := newHalting(t)
	h, _, r := x.host(1)
	l := x.write(h, r, "a", 1)
	m := removal{Name: "a", Number: 1, Time: l.Committed}
	if err := r.putObject(ctx, removedKey("a", 1), "removed", &m); err != nil {
		t.Fatal(err)
	}
	if h, err := r.History(ctx, "a"); err != nil || len(h.Levels)+len(h.BadRemovals) > 0 {
		t.Errorf("%v: %v", h, err)
	}
	if err := r.CheckRemoved(ctx, &l); !errors.Is(err, ErrRemoved) {
		t.Error(err)
	}
}

// A verdict that stands names records by their numbers. What has such a number now,
// and was not removed, stays.
func TestVerdictLeavesWhatIsNotRemoved(t *testing.T) {
	ctx := context.Background()
	for _, back := range []bool{true, false} {
		x := newHalting(t)
		h, _, r := x.host(1)
		_, now, p := x.removedBefore(h, r)
		if back {
			overwrite(t, x.disk, removedKey("a", 1), p)
		}
		gone := x.write(h, r, "a", 7)
		if err := r.Remove(ctx, "a", []LevelNumber{gone.Number}); err != nil {
			t.Fatal(err)
		}
		g := &gc{repo: r, o: GCOptions{Beat: defaultBeat, Progress: &GCProgress{}}}
		err := g.hold(ctx, func(ctx context.Context) (bool, error) {
			return false, g.execute(ctx, &verdict{Run: g.run, Records: []string{levelKey("a", 1), levelKey("a", 2)}}, nil)
		})
		if err != nil {
			t.Fatal(err)
		}
		if c, err := r.readCommit(ctx, "a", 1); err != nil || c.run() != now.Run {
			t.Errorf("removal put back %t: the record that nobody removed: %v", back, err)
		}
		if _, err := r.readCommit(ctx, "a", 2); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the record that was removed stands: %v", err)
		}
	}
}

// Whoever removes a level at whose number another's removal stands, or one that
// cannot be read, does remove it, and those that were removed before stay known as over.
func TestRemoveOverAnotherRemoval(t *testing.T) {
	ctx := context.Background()
	for _, readable := range []bool{true, false} {
		for _, crash := range []bool{true, false} {
			x := newHalting(t)
			h, b, r := x.host(1)
			old, now, p := x.removedBefore(h, r)
			if !readable {
				p = []byte{}
				if err := r.abandon(ctx, old.Run, 9); err != nil {
					t.Fatal(err)
				}
			}
			overwrite(t, x.disk, removedKey("a", 1), p)
			if crash {
				dies := errors.New("dies")
				failing := &failingPut{stopper: b, key: removedKey("a", 1), after: 1, err: dies}
				r.backend = failing
				if err := r.Remove(ctx, "a", []LevelNumber{1}); !errors.Is(err, dies) {
					t.Errorf("remove: %v", err)
				}
				r.backend = b
				if levels, err := r.Levels(ctx, "a"); err != nil || len(levels) != 1 {
					t.Errorf("levels after a remove that failed: %v, %v", levels, err)
				}
				if lost, err := r.LostLevels(ctx, nil); err != nil || lost != nil {
					t.Errorf("readable %t: after a remove that failed, lost: %v, %v", readable, lost, err)
				}
			}
			if err := r.Remove(ctx, "a", []LevelNumber{1}); err != nil {
				t.Fatal(err)
			}
			got, err := r.History(ctx, "a")
			if err != nil || len(got.Levels)+len(got.Bad)+len(got.BadRemovals) > 0 || !got.Over(now.Run) {
				t.Errorf("readable %t: after the remove: %v, %v", readable, got, err)
			}
			if readable && !crash && !got.Over(old.Run) {
				t.Error("the run that was removed before is not known as over")
			}
			if err := r.CheckRemoved(ctx, &now); !errors.Is(err, ErrRemoved) {
				t.Error(err)
			}
			if readable && !crash {
				if err := r.CheckRemoved(ctx, &old); !errors.Is(err, ErrRemoved) {
					t.Errorf("the level that was removed before: %v", err)
				}
			}
			if recovered, err := r.Recover(ctx); err != nil || len(recovered) > 0 {
				t.Errorf("recovered %v: %v", recovered, err)
			}
			for range 2 {
				if err := <-x.gc(r); err != nil {
					t.Error(err)
				}
			}
			if _, err := r.readCommit(ctx, "a", 1); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the record stands: %v", err)
			}
			x.w.checkStock(ctx, r)
		}
	}
}

// failingPut fails to put a key once some puts of it have been tried.
type failingPut struct {
	*stopper
	key   string
	after int
	err   error
}

func (f *failingPut) Put(ctx context.Context, key string, parts ...[]byte) error {
	if key == f.key {
		if f.after--; f.after < 0 {
			return f.err
		}
	}
	return f.stopper.Put(ctx, key, parts...)
}

// A removal that cannot be read, of a level that was collected long ago, keeps
// nobody from anything. Recover puts it right, and its number stays used.
func TestUnreadableRemovalOfNothing(t *testing.T) {
	ctx := context.Background()
	for _, n := range []LevelNumber{1, 3} { // the newest, too
		x := newHalting(t)
		h, _, r := x.host(1)
		var levels []Level
		for i := range 3 {
			levels = append(levels, x.write(h, r, "a", byte(i+1)))
		}
		if err := r.Remove(ctx, "a", []LevelNumber{n}); err != nil {
			t.Fatal(err)
		}
		if err := <-x.gc(r); err != nil {
			t.Fatal(err)
		}
		p, err := readAll(ctx, x.disk, removedKey("a", n), maxJSON)
		if err != nil {
			t.Fatal(err)
		}
		p = bytes.Clone(p)
		p[40] ^= 1
		overwrite(t, x.disk, removedKey("a", n), p)
		check := func(bad int) {
			t.Helper()
			got, err := r.History(ctx, "a")
			if err != nil || len(got.Levels) != 2 || len(got.Bad) > 0 || len(got.BadRemovals) != bad || got.Last != 3 {
				t.Errorf("level %s: %+v, %v", n, got, err)
			}
			if _, err := r.Levels(ctx, "a"); err != nil {
				t.Errorf("level %s: %v", n, err)
			}
			if err := <-x.gc(r); err != nil {
				t.Error(err)
			}
			x.whole("a")
		}
		check(1)
		if err := r.CheckRemoved(ctx, &levels[n-1]); !errors.Is(err, ErrRemoved) {
			t.Errorf("level %s, which was collected: %v", n, err)
		}
		if recovered, err := r.Recover(ctx); err != nil || len(recovered) > 0 {
			t.Errorf("recovered %v: %v", recovered, err)
		}
		check(0)
		if l := x.write(h, r, "a", 9); l.Number != 4 {
			t.Errorf("level %s was removed, and the next one has number %s", n, l.Number)
		}
		x.w.checkStock(ctx, r)
	}
}

// Of a level whose record and removal are both unreadable nothing is collected,
// until it is recovered or given up.
func TestUnreadableRecordAndRemoval(t *testing.T) {
	ctx := context.Background()
	for _, copies := range []bool{true, false} {
		x := newHalting(t)
		h, _, r := x.host(1)
		l := x.write(h, r, "a", 1, 2)
		x.write(h, r, "a", 3)
		overwrite(t, x.disk, levelKey("a", 1), []byte("garbage"))
		overwrite(t, x.disk, removedKey("a", 1), []byte{})
		if !copies {
			for _, folder := range foldersOf(KindMap) {
				x.lose(folder + l.Run.String())
			}
		}
		var bad *BadRecordError
		if err := <-x.gc(r); !errors.As(err, &bad) {
			t.Errorf("gc: %v", err)
		}
		if got, err := r.History(ctx, "a"); err != nil || len(got.Bad) != 1 {
			t.Errorf("%+v: %v", got, err)
		}
		recovered, err := r.Recover(ctx)
		if copies && (err != nil || len(recovered) != 1 || recovered[0].Run != l.Run) {
			t.Errorf("recovered %v: %v", recovered, err)
		}
		if !copies {
			if given, err := r.Abandon(ctx); err != nil || len(given) != 1 {
				t.Errorf("given up %v: %v", given, err)
			}
		}
		for range 2 {
			if err := <-x.gc(r); err != nil {
				t.Errorf("copies %t: gc afterwards: %v", copies, err)
			}
		}
		if got, err := r.History(ctx, "a"); err != nil || len(got.Bad)+len(got.BadRemovals) > 0 {
			t.Errorf("afterwards: %+v, %v", got, err)
		}
		x.whole("a")
	}
}

// A lost level whose number another has is not taken for removed by a removal that
// was there before it, nor is one that stands for removed by what cannot be read.
func TestLostBesideAnotherRemoval(t *testing.T) {
	ctx := context.Background()
	x := newHalting(t)
	h, _, r := x.host(1)
	old := x.write(h, r, "a", 1, 2, 3)
	overwrite(t, x.disk, removedKey("a", 1), []byte{})
	if others, stands, err := r.takenByAnother(ctx, &old); others || !stands || err != nil {
		t.Errorf("beside an unreadable removal: taken %t, stands %t: %v", others, stands, err)
	}
	x.lose("levels/a/")
	now := x.write(h, r, "a", 4, 5, 6)
	m := removal{Name: "a", Number: 1, Time: old.Committed.Add(-time.Hour)}
	if err := r.putObject(ctx, removedKey("a", 1), "removed", &m); err != nil {
		t.Fatal(err)
	}
	lost, err := r.LostLevels(ctx, nil)
	if err != nil || lost == nil || len(lost.Levels) != 1 || lost.Levels[0].Run != old.Run || !lost.Levels[0].Taken {
		t.Errorf("lost %v: %v", lost, err)
	}
	if recovered, err := r.Recover(ctx); err != nil || len(recovered) != 1 || recovered[0].Run != old.Run {
		t.Errorf("recovered %v: %v", recovered, err)
	}
	if got, err := r.History(ctx, "a"); err != nil || len(got.Levels) != 2 || got.Levels[0].Run != now.Run || len(got.BadRemovals) > 0 {
		t.Errorf("%+v: %v", got, err)
	}
	x.whole("a")
}

// What a run that gave itself up has put is taken away whatever removal stands there.
func TestDiscardedBesideAnotherRemoval(t *testing.T) {
	ctx := context.Background()
	x := newHalting(t)
	h, _, r := x.host(1)
	_, now, p := x.removedBefore(h, r)
	overwrite(t, x.disk, removedKey("a", 1), p)
	if err := r.abandon(ctx, now.Run, now.Run); err != nil {
		t.Fatal(err)
	}
	if gone, err := r.discarded(ctx, &now, PackID{Run: now.Run}); !gone || err != nil {
		t.Errorf("discarded %t: %v", gone, err)
	}
	if err := r.CheckRemoved(ctx, &now); !errors.Is(err, ErrRemoved) {
		t.Error(err)
	}
	if got, err := r.History(ctx, "a"); err != nil || len(got.Levels) > 0 {
		t.Errorf("%+v: %v", got, err)
	}
}

// A record that was listed and is gone when it is marked was another gc's to delete,
// if its removal says so; else it is lost.
func TestMarkTellsLostFromRemoved(t *testing.T) {
	ctx := context.Background()
	x := newHalting(t)
	h, _, r := x.host(1)
	x.write(h, r, "a", 1)
	if err := r.Remove(ctx, "a", []LevelNumber{1}); err != nil {
		t.Fatal(err)
	}
	x.lose(levelKey("a", 1))
	if err := newMarker(r, &GCProgress{}).mark(ctx, []string{levelKey("a", 1)}, nil); err != nil {
		t.Error(err)
	}
	overwrite(t, x.disk, removedKey("a", 1), []byte{})
	if err := newMarker(r, &GCProgress{}).mark(ctx, []string{levelKey("a", 1)}, nil); lostOf(err) == nil {
		t.Errorf("beside a removal that cannot be read: %v", err)
	}
}
