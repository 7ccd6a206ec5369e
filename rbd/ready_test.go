package rbd

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"backy/store"
)

func (s *series) prepare(spec Spec, maxAge time.Duration) string {
	s.Helper()
	s.must(s.conn.Prepare(s.Context(), spec, s.repository, s.name, maxAge, nil))
	name := readyName(ownPrefix(s.repository, s.name))
	if !slices.Contains(s.snaps(spec), name) {
		s.Fatalf("no snapshot waits: %q", s.snaps(spec))
	}
	return name
}

// The next backup reads the snapshot that waits, whatever was written since,
// and from then on it is a base like any other.
func TestReadySnapshot(t *testing.T) {
	l := newLab(t)
	s := l.series("web1")
	spec := l.create("web1", 64*object)
	l.write(spec, 0, 8*object)
	s.backup(spec, DiffAuto)
	l.write(spec, 8*object, 4*object)
	s.prepare(spec, time.Hour)
	want := l.content(spec)
	l.write(spec, 0, 16*object)
	level := s.backup(spec, DiffAuto)
	if !bytes.Equal(s.content[level.Number], want) {
		t.Error("the level does not hold what the image held when its snapshot was made")
	}
	if level.Base != 1 || level.Origin.Diff != store.DiffFast || !level.Origin.RBD.Own {
		t.Errorf("the level: base %s, diff %s, own %v", level.Base, level.Origin.Diff, level.Origin.RBD.Own)
	}
	after := s.backup(spec, DiffAuto)
	if after.Base != level.Number || after.Origin.Diff != store.DiffFast || !bytes.Equal(s.content[after.Number], l.content(spec)) {
		t.Errorf("the next level: base %s, diff %s", after.Base, after.Origin.Diff)
	}
	if snaps := l.snaps(spec); len(snaps) != 1 {
		t.Errorf("snapshots: %q", snaps)
	}
}

// A snapshot waits once per repository and name; nobody but the next backup of
// that name, or the next order, takes it away. What a backup that failed had made
// its own goes with it.
func TestReadySnapshotIsOneNamesOwn(t *testing.T) {
	l := newLab(t)
	s, other := l.series("web1"), l.series("web1")
	spec := l.create("web1", 16*object)
	first := s.prepare(spec, time.Hour)
	l.write(spec, 0, object)
	s.prepare(spec, time.Hour)
	if n := len(l.snaps(spec)); n != 1 {
		t.Errorf("a second order while one waits: %q", l.snaps(spec))
	}
	if level := s.backup(spec, DiffAuto); !bytes.Equal(s.content[level.Number], make([]byte, 16*object)) {
		t.Error("the second order replaced the snapshot of the first, which was young enough")
	}
	s.prepare(spec, time.Hour)
	l.write(spec, object, object)
	s.prepare(spec, time.Nanosecond)
	other.backup(spec, DiffAuto) // another repository's
	if !slices.Contains(l.snaps(spec), first) {
		t.Errorf("another repository's backup took the snapshot: %q", l.snaps(spec))
	}
	if level := s.backup(spec, DiffAuto); !bytes.Equal(s.content[level.Number], l.content(spec)) {
		t.Error("an order that was too old was kept")
	}
	s.prepare(spec, time.Hour)
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	run := s.run()
	source := s.conn.Source(spec, SourceOptions{})
	if _, err := source.Begin(ctx, run); err != nil {
		t.Fatal(err)
	}
	cancel(enough)
	l.must(source.End(t.Context(), 0))
	if snaps := l.snaps(spec); len(snaps) != 2 || slices.Contains(snaps, first) { // the bases of s and other
		t.Errorf("after a backup that failed: %q", snaps)
	}
}

// What is done around a snapshot gets its image, and no snapshot is made without
// it; its failure is the backup's.
func TestSnapping(t *testing.T) {
	l := newLab(t)
	s := l.series("web1")
	spec := l.create("web1", 4*object)
	no := errors.New("not now")
	source := l.conn.Source(spec, SourceOptions{Snapping: func(_ context.Context, at Spec, _ func(context.Context) error) error {
		if at != spec {
			t.Errorf("around the snapshot of %s", at)
		}
		return no
	}})
	if _, err := source.Begin(t.Context(), s.run()); !errors.Is(err, no) {
		t.Errorf("begun: %v", err)
	}
	// It fails after the snapshot was made: that goes, too.
	source = l.conn.Source(spec, SourceOptions{Snapping: func(ctx context.Context, _ Spec, take func(context.Context) error) error {
		return errors.Join(take(ctx), no)
	}})
	if _, err := source.Begin(t.Context(), s.run()); !errors.Is(err, no) || len(l.snaps(spec)) > 0 {
		t.Errorf("begun: %v; snapshots: %q", err, l.snaps(spec))
	}
	for _, around := range []Snapping{
		func(context.Context, Spec, func(context.Context) error) error { return no },
		func(ctx context.Context, _ Spec, take func(context.Context) error) error {
			return errors.Join(take(ctx), no)
		},
	} {
		err := l.conn.Prepare(t.Context(), spec, s.repository, s.name, time.Hour, around)
		if !errors.Is(err, no) || len(l.snaps(spec)) > 0 {
			t.Errorf("prepared: %v; snapshots: %q", err, l.snaps(spec))
		}
	}
}

// A snapshot that something was to be done around is no backup's before that was
// done: whoever did it may be killed, and then nobody knows what it holds.
func TestUnreadySnapshot(t *testing.T) {
	l := newLab(t)
	s := l.series("web1")
	spec := l.create("web1", 4*object)
	ready, making := readyName(ownPrefix(s.repository, s.name)), makingName(ownPrefix(s.repository, s.name))
	around := func(ctx context.Context, _ Spec, take func(context.Context) error) error {
		err := take(ctx)
		if snaps := l.snaps(spec); !slices.Equal(snaps, []string{making}) {
			t.Errorf("before all is done around it: %q", snaps)
		}
		return err
	}
	l.must(l.conn.Prepare(t.Context(), spec, s.repository, s.name, time.Hour, around))
	if snaps := l.snaps(spec); !slices.Equal(snaps, []string{ready}) {
		t.Errorf("when all is done: %q", snaps)
	}
	l.write(spec, 0, object)
	if level := s.backup(spec, DiffAuto); bytes.Equal(s.content[level.Number], l.content(spec)) {
		t.Error("the snapshot that waited was not read")
	}

	// What a killed one left is not read, nor taken away from one that may be alive; the
	// next order replaces it.
	l.snap(spec, making)
	l.write(spec, object, object)
	if level := s.backup(spec, DiffAuto); !bytes.Equal(s.content[level.Number], l.content(spec)) {
		t.Error("a snapshot that was not ready was read")
	}
	if !slices.Contains(l.snaps(spec), making) {
		t.Error("a snapshot in the making was removed")
	}
	l.must(l.conn.Prepare(t.Context(), spec, s.repository, s.name, time.Hour, func(ctx context.Context, _ Spec, take func(context.Context) error) error { return take(ctx) }))
	if snaps := l.snaps(spec); slices.Contains(snaps, making) || !slices.Contains(snaps, ready) {
		t.Errorf("after the next order: %q", snaps)
	}
	for age, want := range map[time.Duration]SnapshotKind{time.Minute: Undecided, 2 * readyFor: Stray} {
		o, ok := parseOwn(snapshot{id: 1, name: making, user: true})
		o.Time = time.Now().Add(-age)
		if got := new(judge).waiting(&o, nil); !ok || got != want {
			t.Errorf("left for %s: %s, want %s", age, got, want)
		}
	}
}
