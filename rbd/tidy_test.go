package rbd

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rbd"

	"backy/engine"
	"backy/store"
)

// wantSnaps compares an image's snapshots with a list in the order of making.
func (l *lab) wantSnaps(s Spec, what string, want ...string) {
	l.Helper()
	if got := l.snaps(s); !slices.Equal(got, want) {
		l.Errorf("%s: snapshots %v, want %v", what, got, want)
	}
}

// killed leaves the snapshot of a run that never came to its end.
func (s *series) killed(spec Spec) (run store.RunID, name string) {
	s.Helper()
	r := s.run()
	source := s.conn.Source(spec, SourceOptions{})
	state, err := source.Begin(s.Context(), r)
	s.must(err)
	s.must(source.closeSnapshot())
	return r.ID, state.Origin.RBD.Snapshot
}

func ownName(l store.Level) string { return l.Origin.RBD.Snapshot }

func TestOneSnapshotRemains(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", object)
	l.snap(spec, "theirs")
	a, sameImage, otherRepository := l.series("a"), l.series("b"), l.series("a")
	sameImage.repository = a.repository

	a1 := a.backup(spec, DiffAuto)
	b1 := sameImage.backup(spec, DiffAuto)
	o1 := otherRepository.backup(spec, DiffAuto)
	a2 := a.backup(spec, DiffAuto)
	l.wantSnaps(spec, "three series", "theirs", ownName(b1), ownName(o1), ownName(a2))
	if a2.Base != a1.Number || !a2.Origin.RBD.Own {
		t.Errorf("second level: base %d, own %t", a2.Base, a2.Origin.RBD.Own)
	}
	prefix := "backy-" + a.repository.String()[:8] + "-"
	if !strings.HasPrefix(ownName(a2), prefix) || !strings.HasSuffix(ownName(a2), "-"+a2.Run.String()) {
		t.Errorf("snapshot %s: want %s…-%s", ownName(a2), prefix, a2.Run)
	}
}

func TestFailedRunLeavesNoSnapshot(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", object)
	s := l.series("vm")
	base := s.backup(spec, DiffAuto)
	run := s.run()
	source := l.conn.Source(spec, SourceOptions{})
	_, err := source.Begin(t.Context(), run)
	l.must(err)
	l.must(source.End(t.Context(), engine.Failed))
	l.wantSnaps(spec, "after a failure", ownName(base))

	ctx, cancel := context.WithCancel(t.Context())
	source = l.conn.Source(spec, SourceOptions{})
	_, err = source.Begin(ctx, s.run())
	l.must(err)
	cancel()
	l.must(source.End(context.WithoutCancel(ctx), engine.Failed))
	l.wantSnaps(spec, "after an interruption", ownName(base))

	// Begin fails after it made the snapshot: fast diff is refused.
	l.rbd("feature", "disable", path(spec), "fast-diff", "object-map")
	if _, err := s.try(t.Context(), spec, DiffFast); !errors.Is(err, ErrFastDiff) {
		t.Errorf("fast diff without object map: %v, want ErrFastDiff", err)
	}
	l.wantSnaps(spec, "after a refused diff", ownName(base))
	s.warned()
}

// warned compares the warnings so far with what they should hold, and forgets
// them.
func (s *series) warned(want ...string) {
	s.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.warnings) != len(want) {
		s.Errorf("warnings %q, want %d", s.warnings, len(want))
	}
	for i := range min(len(want), len(s.warnings)) {
		if !strings.Contains(s.warnings[i], want[i]) {
			s.Errorf("warning %q: want %q in it", s.warnings[i], want[i])
		}
	}
	s.warnings = nil
}

// A run that is interrupted at any moment of Begin leaves nothing.
func TestInterruptedBegin(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", 10*object)
	s := l.series("vm")
	base := s.backup(spec, DiffAuto)
	for wait := time.Duration(0); wait < 200*time.Millisecond; wait += 7 * time.Millisecond {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		source := l.conn.Source(spec, SourceOptions{})
		if _, err := source.Begin(ctx, s.run()); err == nil {
			l.must(source.End(t.Context(), engine.Failed))
		}
		cancel()
		l.wantSnaps(spec, "interrupted after "+wait.String(), ownName(base))
	}
}

// Snapshots of runs that are over go when the next one begins; those of runs that
// nobody knows go when it has committed, since until then they may be of the run
// that has the claim.
func TestStrays(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", object)
	s := l.series("vm")
	base := s.backup(spec, DiffAuto)
	deadRun, dead := s.killed(spec)
	_, unknown := s.killed(spec)
	prefix := ownPrefix(s.repository, s.name)
	foreign := []string{prefix + "0123", prefix + strings.ToUpper(base.Run.String()[:15]) + "F", "x" + dead}
	for _, name := range foreign {
		l.snap(spec, name)
	}
	s.over[deadRun] = true
	source := l.conn.Source(spec, SourceOptions{})
	_, err := source.Begin(t.Context(), s.run())
	l.must(err)
	l.must(source.End(t.Context(), engine.Failed))
	l.wantSnaps(spec, "after a run that failed", append([]string{ownName(base), unknown}, foreign...)...)
	next := s.backup(spec, DiffAuto)
	l.wantSnaps(spec, "after the next run", append(foreign, ownName(next))...)
	if next.Base != base.Number {
		t.Errorf("next level: base %d, want %d", next.Base, base.Number)
	}
}

// What a run removes is settled when it commits: a level of which the repository
// does not yet know whether it stands keeps its snapshot, and so does its base.
func TestUndecidedRemovesNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", object)
	s := l.series("vm")
	base := s.backup(spec, DiffAuto)
	source := l.conn.Source(spec, SourceOptions{})
	state, err := source.Begin(t.Context(), s.run())
	l.must(err)
	l.must(source.End(t.Context(), engine.Undecided))
	l.wantSnaps(spec, "undecided", ownName(base), state.Origin.RBD.Snapshot)
}

func TestUsersSnapshots(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", 4*object)
	old := l.snap(spec, "old")
	l.write(spec, 0, object)
	s := l.series("vm")

	own1 := s.backup(spec, DiffAuto)
	l.write(spec, object, object)
	middle := l.snap(spec, "middle")
	l.write(spec, 2*object, object)

	level := s.backup(middle, DiffAuto)
	if level.Base != own1.Number || level.Origin.Diff != store.DiffFast || level.Origin.RBD.Own {
		t.Errorf("user's snapshot: base %d by %s, own %t", level.Base, level.Origin.Diff, level.Origin.RBD.Own)
	}
	l.wantSnaps(spec, "ours stays until a newer one of ours stands", "old", ownName(own1), "middle")

	again := s.backup(middle, DiffAuto)
	if again.Base != level.Number || again.Stats.Read != 0 {
		t.Errorf("the same snapshot again: base %d, %d bytes read", again.Base, again.Stats.Read)
	}
	if older := s.backup(old, DiffAuto); older.Base != again.Number || older.Origin.Diff != store.DiffAllocated {
		t.Errorf("older than every base: base %d by %s, want the newest level by checksum", older.Base, older.Origin.Diff)
	}

	own2 := s.backup(spec, DiffAuto)
	if own2.Base != 4 || own2.Origin.Diff != store.DiffFast {
		t.Errorf("after an older one: base %d by %s", own2.Base, own2.Origin.Diff)
	}
	l.wantSnaps(spec, "a newer one of ours stands", "old", "middle", ownName(own2))

	// The user removes theirs: the next base is the newest that is left.
	last := l.snap(spec, "last")
	s.backup(last, DiffAuto)
	l.unsnap(spec, "last")
	if next := s.backup(spec, DiffAuto); next.Base != own2.Number || next.Origin.Diff != store.DiffFast {
		t.Errorf("user's base removed: base %d by %s, want %d by fast diff", next.Base, next.Origin.Diff, own2.Number)
	}
	s.warned()
}

func TestDistrustedAndRemovedLevels(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", 4*object)
	s := l.series("vm")
	s.backup(spec, DiffAuto)
	s.distrust = 1
	if second := s.backup(spec, DiffAuto); second.Base != 1 || second.Origin.Diff != store.DiffAllocated {
		t.Errorf("distrusted base: base %d by %s, want 1 by checksum", second.Base, second.Origin.Diff)
	}
	third := s.backup(spec, DiffAuto)
	if third.Base != 2 || third.Origin.Diff != store.DiffFast {
		t.Errorf("after the distrusted one: base %d by %s", third.Base, third.Origin.Diff)
	}
	s.levels = s.levels[1:] // removed
	fourth := s.backup(spec, DiffAuto)
	if fourth.Base != 2 || fourth.Origin.Diff != store.DiffAllocated {
		t.Errorf("base removed: base %d by %s, want 2 by checksum", fourth.Base, fourth.Origin.Diff)
	}
	l.wantSnaps(spec, "the removed level's went", ownName(fourth))
}

// A snapshot that cannot be removed is a warning; the next run tries again.
func TestProtectedSnapshot(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", object)
	s := l.series("vm")
	first := s.backup(spec, DiffAuto)
	l.rbd("snap", "protect", path(spec.at(ownName(first))))
	second := s.backup(spec, DiffAuto)
	l.wantSnaps(spec, "protected", ownName(first), ownName(second))
	s.warned("protected")
	l.rbd("snap", "unprotect", path(spec.at(ownName(first))))
	third := s.backup(spec, DiffAuto)
	l.wantSnaps(spec, "unprotected again", ownName(third))
	s.warned()
}

// librbd moves a snapshot to the trash before it removes it. There it would stay,
// with all that it holds, where whoever removed it was killed.
func TestUnfinishedRemoval(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", 100*object)
	s := l.series("vm")
	base := s.backup(spec, DiffAuto)
	l.write(spec, 0, object)
	wait := 100 * time.Millisecond
	for tries := 1; !l.trashed(spec); tries++ {
		if tries > 200 {
			t.Fatal("no removal was cut short")
		}
		run := store.NewRunID(time.Now())
		s.over[run] = true
		name := s.ownName(run)
		l.snap(spec, name)
		l.rbdKilled(wait, "snap", "rm", "--no-progress", path(spec.at(name)))
		if slices.Contains(l.snaps(spec), name) {
			wait += wait / 4
		} else {
			wait -= wait / 3
		}
	}
	next := s.backup(spec, DiffAuto)
	l.wantSnaps(spec, "after the next backup", ownName(next))
	if next.Base != base.Number {
		t.Errorf("base %d, want %d", next.Base, base.Number)
	}

	// One with clones is in the trash rightfully, until the last of them goes.
	child := l.spec("child")
	l.rbd("clone", path(spec.at(ownName(next))), path(child), "--rbd-default-clone-format", "2")
	s.backup(spec, DiffAuto)
	last := s.backup(spec, DiffAuto)
	if !l.trashed(spec) {
		t.Errorf("snapshots %v: none in the trash", l.snaps(spec))
	}
	s.warned()
	l.rbd("rm", "--no-progress", path(child))
	l.wantSnaps(spec, "after the clone was removed", ownName(last))
}

// ownName is how a run names its snapshot.
func (s *series) ownName(run store.RunID) string {
	return ownPrefix(s.repository, s.name) + run.String()
}

// trashed reports whether one of the image's snapshots is in the trash.
func (l *lab) trashed(s Spec) (found bool) {
	l.Helper()
	l.look(s, func(i *rbd.Image) error {
		list, err := listSnapshots(i)
		found = slices.ContainsFunc(list, func(s snapshot) bool { return s.trashed != "" })
		return err
	})
	return found
}

// rbdKilled runs the rbd command and kills it after a while.
func (l *lab) rbdKilled(after time.Duration, args ...string) {
	l.Helper()
	cmd := l.cluster.Command("rbd", args...)
	l.must(cmd.Start())
	time.Sleep(after)
	_ = cmd.Process.Kill() // it may be done
	_ = cmd.Wait()
}

// P17: another client has the exclusive lock, as every running VM does.
func TestP17ExclusiveLockElsewhere(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", 4*object)
	l.with(spec, func(i *rbd.Image) error {
		if _, err := i.WriteAt([]byte("in use"), object); err != nil { // which takes the lock
			return err
		}
		if owner, err := i.LockIsExclusiveOwner(); err != nil || !owner {
			t.Fatalf("the other client owns the lock: %t, %v", owner, err)
		}
		s := l.series("vm")
		s.backup(spec, DiffAuto)
		if _, err := i.WriteAt([]byte("still in use"), 2*object); err != nil {
			return err
		}
		second := s.backup(spec, DiffAuto)
		if second.Origin.Diff != store.DiffFast {
			t.Errorf("second backup by %s", second.Origin.Diff)
		}
		l.wantSnaps(spec, "with a lock elsewhere", ownName(second))
		_, err := l.restorer.Target(spec, TargetOptions{Force: true}).Prepare(t.Context(), s.level(4*object))
		if !errors.Is(err, ErrInUse) {
			t.Errorf("restore to an image in use: %v, want ErrInUse", err)
		}
		owner, err := i.LockIsExclusiveOwner()
		if err == nil && !owner {
			t.Error("the other client lost the lock")
		}
		return err
	})
}
