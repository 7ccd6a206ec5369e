package rbd

import (
	"context"
	"maps"
	"slices"
	"testing"
	"time"

	"backy/engine"
	"backy/store"
)

// Images that are renamed, copied, restored from the trash or made again carry
// snapshots of ours along. What no backup needs any more is a stray, the next backup of
// the image removes it, and RemoveStray does; what is a base is neither.
func TestCarriedSnapshots(t *testing.T) {
	t.Parallel()
	// p has a level under the name p, and one under the name other; both have a
	// snapshot on it.
	for _, tt := range []struct {
		what string
		do   func(l *lab, p Spec) (q Spec)
		name store.Name // under which q is backed up
		want []SnapshotKind
	}{
		{"as it was", func(l *lab, p Spec) Spec { return p }, "p", []SnapshotKind{OfLevel, OfLevel}},
		{"renamed", func(l *lab, p Spec) Spec {
			l.rbd("rename", path(p), path(l.spec("q")))
			return l.spec("q")
		}, "q", []SnapshotKind{Stray, Stray}},
		{"renamed, under its old name", func(l *lab, p Spec) Spec {
			l.rbd("rename", path(p), path(l.spec("q")))
			return l.spec("q")
		}, "p", []SnapshotKind{OfLevel, Stray}},
		{"renamed there and back", func(l *lab, p Spec) Spec {
			l.rbd("rename", path(p), path(l.spec("q")))
			l.rbd("rename", path(l.spec("q")), path(p))
			return p
		}, "p", []SnapshotKind{OfLevel, OfLevel}},
		{"copied", func(l *lab, p Spec) Spec {
			l.rbd("deep", "cp", "--no-progress", path(p), path(l.spec("q")))
			return l.spec("q")
		}, "q", []SnapshotKind{Stray, Stray}},
		{"copied to its own place", func(l *lab, p Spec) Spec {
			l.rbd("deep", "cp", "--no-progress", path(p), path(l.spec("q")))
			l.rbd("rename", path(p), path(l.spec("old")))
			l.rbd("rename", path(l.spec("q")), path(p))
			return p
		}, "p", []SnapshotKind{Stray, Stray}},
		{"restored from the trash", func(l *lab, p Spec) Spec {
			id := l.idOf(p)
			l.rbd("trash", "mv", path(p))
			l.rbd("trash", "restore", "--pool", l.pool, "--image-id", id)
			return p
		}, "p", []SnapshotKind{OfLevel, OfLevel}},
		{"restored from the trash by another name", func(l *lab, p Spec) Spec {
			id := l.idOf(p)
			l.rbd("trash", "mv", path(p))
			l.rbd("trash", "restore", "--pool", l.pool, "--image-id", id, "--image", "q")
			return l.spec("q")
		}, "q", []SnapshotKind{Stray, Stray}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			s, others := newShelf(l), newShelf(l)
			p := l.filled("p")
			l.snap(p, "theirs")
			names := []string{ownName(s.backup(p, "p")), ownName(s.backup(p, "other"))}
			foreign := ownName(others.backup(p, "p"))
			running := l.snap(p, ownPrefix(s.repo.ID, "p")+store.NewRunID(time.Now()).String()).Snap
			q := tt.do(l, p)

			want := map[string]SnapshotKind{foreign: Foreign, running: Undecided}
			for n, name := range names {
				want[name] = tt.want[n]
			}
			got := s.own(q, tt.name)
			s.wantKinds("before", got, want)
			for name, o := range got {
				if err := l.conn.RemoveStray(t.Context(), o); (err == nil) != (want[name] == Stray) {
					t.Errorf("remove %s, %s: %v", name, o.Kind, err)
				}
			}
			maps.DeleteFunc(want, func(_ string, k SnapshotKind) bool { return k == Stray })
			s.wantKinds("after the strays", s.own(q, tt.name), want)

			// Its backups, too, leave only what is needed.
			level, _, err := s.take(l.conn.Source(q, SourceOptions{}), tt.name)
			l.must(err)
			s.holds(level, l.content(q))
			if diffed := level.Origin.Diff == store.DiffFast; diffed != (tt.name == "p" && tt.want[0] == OfLevel) {
				t.Errorf("by %s", level.Origin.Diff)
			}
			if tt.name == "p" {
				delete(want, names[0])
				delete(want, running) // who has the name now has outlived it
			}
			want[ownName(level)] = OfLevel
			s.wantKinds("after a backup", s.own(q, tt.name), want)
			if q != p && l.conn.there(t, p) {
				s.wantKinds("of the original", s.own(p, "p"), map[string]SnapshotKind{names[0]: OfLevel, names[1]: OfLevel, foreign: Foreign, running: Undecided})
			}
			if !slices.Contains(l.snaps(q), "theirs") {
				t.Error("the user's snapshot is gone")
			}
		})
	}
}

func (c *Conn) there(t *testing.T, s Spec) bool {
	t.Helper()
	there, err := c.HasImage(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return there
}

// A backup of an image that was renamed or copied removes what it carries along.
func TestBackupRemovesCarried(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := newShelf(l)
	p, q, c := l.filled("p"), l.spec("q"), l.spec("c")
	ofP := ownName(s.backup(p, "p"))
	l.must(l.conn.Prepare(t.Context(), p, s.repo.ID, "p", 0, nil))
	l.rbd("deep", "cp", "--no-progress", path(p), path(c))
	l.rbd("rename", path(p), path(q))
	for _, spec := range []Spec{q, c} {
		kinds := map[string]SnapshotKind{ofP: Stray, readyName(ownPrefix(s.repo.ID, "p")): Stray}
		s.wantKinds("before", s.own(spec, store.Name(spec.Image)), kinds)
		level := s.backup(spec, store.Name(spec.Image))
		l.wantSnaps(spec, "after a backup", ownName(level))
		next := s.backup(spec, store.Name(spec.Image))
		if next.Origin.Diff != store.DiffFast {
			t.Errorf("%s: the next one by %s", spec, next.Origin.Diff)
		}
	}
}

// A snapshot that was made ahead waits for the name that the image gets, or for
// one whose levels are of its place. For one that has none it waits as long as
// a backup would take it.
func TestWaitingFor(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := newShelf(l)
	p := l.filled("p")
	s.backup(p, "known")
	for _, name := range []store.Name{"known", "new", "derived"} {
		l.must(l.conn.Prepare(t.Context(), p, s.repo.ID, name, 0, nil))
	}
	_, list, err := l.conn.Inspect(t.Context(), p, "")
	l.must(err)
	kinds := func(age time.Duration) map[store.Name]SnapshotKind {
		m := map[store.Name]SnapshotKind{}
		aged := slices.Clone(list)
		for i := range aged {
			aged[i].Derived, aged[i].Time = "derived", aged[i].Time.Add(-age)
		}
		l.must(Judge(t.Context(), s.repo, aged))
		for _, o := range aged {
			for _, name := range []store.Name{"known", "new", "derived"} {
				if o.Run == 0 && o.Spec.Snap == readyName(ownPrefix(s.repo.ID, name)) {
					m[name] = o.Kind
				}
			}
		}
		return m
	}
	if got, want := kinds(0), (map[store.Name]SnapshotKind{"known": Waiting, "new": Waiting, "derived": Waiting}); !maps.Equal(got, want) {
		t.Errorf("at once: %v", got)
	}
	if got, want := kinds(2*readyFor), (map[store.Name]SnapshotKind{"known": Waiting, "new": Stray, "derived": Waiting}); !maps.Equal(got, want) {
		t.Errorf("later: %v", got)
	}
}

// What another name's level was read from is that one's base, whoever made it; and
// while a level's record cannot be read, nothing is a stray.
func TestNeededByAnother(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := newShelf(l)
	p := l.filled("p")
	first := s.backup(p, "p")
	snap := p.at(ownName(first))
	if _, warnings, err := s.take(l.conn.Source(snap, SourceOptions{}), "second"); err != nil || len(warnings) != 1 {
		t.Errorf("by its name: %v, %q", err, warnings)
	}
	l.must(s.repo.Remove(t.Context(), "p", []store.LevelNumber{1}))
	if o := s.own(p)[snap.Snap]; o.Kind != OfLevel || o.Name != "second" || o.Level != 1 {
		t.Errorf("it is the base of another name: %+v", o)
	}
	l.must(s.repo.Remove(t.Context(), "second", []store.LevelNumber{1}))
	s.wantKinds("needed by none", s.own(p), map[string]SnapshotKind{snap.Snap: Stray})
	l.must(s.backend.Put(t.Context(), "levels/third/1.json", []byte("damaged")))
	s.wantKinds("perhaps needed by one that cannot be read", s.own(p), map[string]SnapshotKind{snap.Snap: Undecided})
}

// Of several snapshots of one name the newest is needed.
func TestSuperseded(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := newShelf(l)
	p := l.filled("p")
	first := s.backup(p, "p")
	source := keeping{l.conn.Source(p, SourceOptions{})}
	second, _, err := s.take(source, "p")
	l.must(err)
	s.wantKinds("two", s.own(p, "p"), map[string]SnapshotKind{ownName(first): Stray, ownName(second): OfLevel})
	l.must(s.repo.Remove(t.Context(), "p", []store.LevelNumber{second.Number}))
	s.wantKinds("the newer level was removed", s.own(p, "p"), map[string]SnapshotKind{ownName(first): OfLevel, ownName(second): Stray})
}

// keeping is a source that is killed before it tidies.
type keeping struct{ *Source }

func (k keeping) End(ctx context.Context, _ engine.Outcome) error { return k.closeSnapshot() }
