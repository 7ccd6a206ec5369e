package rbd

import (
	"maps"
	"strings"
	"testing"
	"time"

	"backy/engine"
	"backy/store"
	"backy/store/mem"
)

// shelf is a lab with a real repository.
type shelf struct {
	*lab
	backend *mem.Mem
	repo    *store.Repository
}

func newShelf(l *lab) *shelf {
	l.Helper()
	backend := mem.New()
	repo, err := store.Init(l.Context(), backend, store.Parameters{ChunkSize: 16 << 10})
	l.must(err)
	return &shelf{l, backend, repo}
}

func (s *shelf) backup(spec Spec, name store.Name) store.Level {
	s.Helper()
	level, err := engine.Backup(s.Context(), s.repo, name, s.conn.Source(spec, SourceOptions{}), engine.BackupOptions{
		Warn: func(f string, a ...any) { s.Errorf("warning: "+f, a...) },
	})
	s.must(err)
	return level
}

// own lists the snapshots of an image that backys made, as the repository judges
// them, by their names.
func (s *shelf) own(spec Spec, names ...store.Name) map[string]OwnSnapshot {
	s.Helper()
	_, list, err := s.conn.Inspect(s.Context(), spec, "")
	s.must(err)
	for i := range list {
		for _, name := range names {
			list[i].Derived = name
		}
	}
	s.must(Judge(s.Context(), s.repo, list))
	byName := map[string]OwnSnapshot{}
	for _, o := range list {
		byName[o.Spec.Snap] = o
	}
	return byName
}

func (s *shelf) wantKinds(what string, got map[string]OwnSnapshot, want map[string]SnapshotKind) {
	s.Helper()
	kinds := map[string]SnapshotKind{}
	for name, o := range got {
		kinds[name] = o.Kind
	}
	if !maps.Equal(kinds, want) {
		s.Errorf("%s: %v, want %v", what, kinds, want)
	}
}

// A stray is a snapshot of this repository's whose run it knows to be over and
// that has no level, and nothing else is.
func TestOnlyStraysAreRemoved(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", 4*object)
	ours, others := newShelf(l), newShelf(l)
	prefix := ownPrefix(ours.repo.ID, "a")

	l.snap(spec, "backy-up")                // theirs
	l.snap(spec, "backy-nightly-2026")      // theirs
	l.snap(spec, prefix+"0123456789ABCDEF") // not as we write it
	running, err := ours.repo.Begin(t.Context(), "d", store.WriterOptions{})
	l.must(err)
	defer func() { l.must(running.Abort(t.Context())) }()
	unknown := l.snap(spec, ownPrefix(ours.repo.ID, "d")+running.ID.String()).Snap
	l.snap(spec, prefix+store.NewRunID(time.Now()).String())                  // of a run that is over, since the next has the name
	nameless := l.snap(spec, ownPrefix(ours.repo.ID, "c")+"00000000000000aa") // of a name that nobody knows
	foreign := ownName(others.backup(spec, "a"))                              // another repository's
	first := ours.backup(spec, "a")                                           // it removes that one and no other
	l.must(l.conn.Prepare(t.Context(), spec, ours.repo.ID, "b", 0, nil))      // waits
	waiting := readyName(ownPrefix(ours.repo.ID, "b"))
	want := map[string]SnapshotKind{
		unknown: Undecided, nameless.Snap: Undecided, foreign: Foreign, ownName(first): OfLevel, waiting: Waiting,
	}
	ours.wantKinds("one level", ours.own(spec, "b"), want)
	if o := ours.own(spec)[ownName(first)]; o.Name != "a" || o.Level != 1 || o.Run != first.Run || o.Size != 4*object || o.Time.IsZero() {
		t.Errorf("the level's snapshot: %+v", o)
	}

	l.must(ours.repo.Remove(t.Context(), "a", []store.LevelNumber{1}))
	want[ownName(first)] = Stray
	got := ours.own(spec, "b")
	ours.wantKinds("the level was removed", got, want)
	for name, o := range got {
		err := l.conn.RemoveStray(t.Context(), o)
		if (err == nil) != (name == ownName(first)) {
			t.Errorf("remove %s, %s: %v", name, o.Kind, err)
		}
	}
	delete(want, ownName(first))
	got = ours.own(spec, "b")
	ours.wantKinds("after the strays", got, want)
	if all := strings.Join(l.snaps(spec), " "); strings.Count(all, " ") != len(want)+2 {
		t.Errorf("snapshots: %s", all)
	}
	stray := OwnSnapshot{Spec: spec.at(ownName(first)), ID: 1 << 40, Kind: Stray, Image: first.Origin.RBD.ID(), name: ownName(first)}
	l.must(l.conn.RemoveStray(t.Context(), stray)) // gone already
}

// What librbd keeps of a removed snapshot for as long as it has clones is a stray,
// and no more trouble.
func TestStrayWithClone(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", 4*object)
	s := newShelf(l)
	level := s.backup(spec, "a")
	child := l.spec("child")
	l.rbd("clone", path(spec.at(ownName(level))), path(child), "--rbd-default-clone-format", "2")
	l.must(s.repo.Remove(t.Context(), "a", []store.LevelNumber{1}))
	for _, what := range []string{"with a clone", "in the trash"} {
		got := s.own(spec)
		s.wantKinds(what, got, map[string]SnapshotKind{ownName(level): Stray})
		l.must(l.conn.RemoveStray(t.Context(), got[ownName(level)]))
	}
	if !l.trashed(spec) {
		t.Errorf("snapshots %v: none in the trash", l.snaps(spec))
	}
	l.rbd("rm", "--no-progress", path(child))
	s.wantKinds("without it", s.own(spec), map[string]SnapshotKind{})
}

// CheckStray refuses what RemoveStray refuses, and removes nothing.
func TestCheckStray(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", 4*object)
	s := newShelf(l)
	name := ownName(s.backup(spec, "a"))
	check := func(what string, want bool) {
		t.Helper()
		o := s.own(spec)[name]
		if err := l.conn.CheckStray(t.Context(), o); (err == nil) != want {
			t.Errorf("%s: check: %v", what, err)
		}
		if !strings.Contains(strings.Join(l.snaps(spec), " "), name) {
			t.Errorf("%s: the check removed it", what)
		}
		if err := l.conn.RemoveStray(t.Context(), o); (err == nil) != want {
			t.Errorf("%s: remove: %v", what, err)
		}
	}
	check("of a level", false)
	l.must(s.repo.Remove(t.Context(), "a", []store.LevelNumber{1}))
	l.rbd("snap", "protect", path(spec.at(name)))
	check("protected", false)
	l.rbd("snap", "unprotect", path(spec.at(name)))
	check("a stray", true)
}

// The space is what has changed since, up to the next snapshot or to now.
func TestSpace(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := newShelf(l)
	spec := l.create("image", 8*object)
	plain := l.create("plain", 8*object, "--image-feature", "layering")
	l.write(spec, 0, 8*object)
	first := ownName(s.backup(spec, "a"))
	space := func(spec Spec, name string) (int64, bool) {
		t.Helper()
		n, ok, err := l.conn.Space(t.Context(), s.own(spec)[name])
		l.must(err)
		return n, ok
	}
	for _, tt := range []struct {
		what string
		do   func()
		want int64
	}{
		{"nothing has changed", func() {}, 0},
		{"one object", func() { l.write(spec, object+5, 10) }, object},
		{"three objects", func() { l.write(spec, 3*object, object+1) }, 3 * object},
		{"what comes after the next snapshot is that one's", func() { l.snap(spec, "theirs"); l.write(spec, 0, object) }, 3 * object},
		{"until that is gone", func() { l.unsnap(spec, "theirs") }, 4 * object},
		{"what was cut off", func() { l.resize(spec, 5*object) }, 7 * object},
	} {
		tt.do()
		if got, ok := space(spec, first); !ok || got != tt.want {
			t.Errorf("%s: %d, %t, want %d", tt.what, got, ok, tt.want)
		}
	}
	if got, ok := space(plain, ownName(s.backup(plain, "b"))); ok {
		t.Errorf("without fast diff: %d", got)
	}
}
