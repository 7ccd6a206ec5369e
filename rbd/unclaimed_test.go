package rbd

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"backy/store"
)

// age judges the snapshots of an image as they will be judged after some time.
func (s *shelf) age(spec Spec, by time.Duration) map[string]SnapshotKind {
	s.Helper()
	_, list, err := s.conn.Inspect(s.Context(), spec, "")
	s.must(err)
	for i := range list {
		list[i].Time, list[i].Derived = list[i].Time.Add(-by), store.Name(spec.Image)
	}
	s.must(Judge(s.Context(), s.repo, list))
	kinds := map[string]SnapshotKind{}
	for _, o := range list {
		kinds[o.Spec.Snap] = o.Kind
	}
	return kinds
}

func (s *shelf) loseObjects(prefix string) {
	s.Helper()
	var keys []string
	s.must(s.backend.List(s.Context(), prefix, func(key string, _ int64) error {
		keys = append(keys, key)
		return nil
	}))
	if len(keys) == 0 {
		s.Fatalf("nothing stands below %s", prefix)
	}
	for _, key := range keys {
		s.must(s.backend.Delete(s.Context(), key))
	}
}

// The snapshot of a killed run whose claim is gone becomes a stray, but not while
// anything may need it: the claim of a run that goes on, one that cannot be read,
// a level whose record is lost, or a claim that is not seen yet.
func TestSnapshotsWithoutAClaim(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		what string
		do   func(s *shelf, w *store.Writer)
		want [2]SnapshotKind // now, and after two days
	}{
		{"the run goes on", func(*shelf, *store.Writer) {}, [2]SnapshotKind{Undecided, Undecided}},
		{"the claim is gone", func(s *shelf, _ *store.Writer) { s.loseObjects("work/claim.") }, [2]SnapshotKind{Undecided, Stray}},
		{"a claim cannot be read", func(s *shelf, w *store.Writer) {
			s.loseObjects("work/claim.")
			s.must(s.backend.Put(s.Context(), "work/claim.other.1", []byte("{")))
		}, [2]SnapshotKind{Undecided, Undecided}},
		{"a record is lost", func(s *shelf, w *store.Writer) {
			s.loseObjects("work/claim.")
			s.backup(s.filled("other"), "other")
			s.loseObjects("levels/other/")
		}, [2]SnapshotKind{Undecided, Undecided}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			s := newShelf(l)
			spec := l.filled("p")
			w, err := s.repo.Begin(t.Context(), "p", store.WriterOptions{})
			l.must(err)
			left := l.snap(spec, ownPrefix(s.repo.ID, "p")+w.ID.String()).Snap
			tt.do(s, w)
			for n, by := range []time.Duration{0, 2 * readyFor} {
				if got := s.age(spec, by)[left]; got != tt.want[n] {
					t.Errorf("%s later: %s, want %s", by, got, tt.want[n])
				}
			}
			_ = w.Abort(t.Context()) // its claim may be gone
		})
	}
}

// Whoever has backed up an image after a run has outlived it: that run's snapshot
// is a stray at once, and the backup removes it, without looking at any clock.
func TestOutlivedSnapshots(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := newShelf(l)
	spec := l.filled("p")
	prefix := ownPrefix(s.repo.ID, "p")
	s.backup(spec, "p")
	left := l.snap(spec, prefix+store.NewRunID(time.Now()).String()).Snap
	base := ownName(s.backup(spec, "p"))
	if snaps := strings.Join(l.snaps(spec), " "); snaps != base {
		t.Errorf("after the next backup: %s, want %s", snaps, base)
	}
	later := l.snap(spec, prefix+store.NewRunID(time.Now()).String()).Snap
	if got := s.age(spec, 0); fmt.Sprint(got) != fmt.Sprint(map[string]SnapshotKind{base: OfLevel, later: Undecided}) {
		t.Errorf("%v", got)
	}
	// A version that did not know left the first one.
	o, ok := parseOwn(snapshot{id: 1, name: left, user: true})
	levels, err := s.repo.History(t.Context(), "p")
	l.must(err)
	o.Image = levels.Levels[1].Origin.RBD.ID()
	if !ok || !o.outlived(&levels) {
		t.Error("a snapshot earlier than a level's is not outlived")
	}
}
