package rbd

import (
	"context"
	"errors"

	"backy/store"
)

// Which snapshots are ours to remove: those named for this repository and
// backup name, whose run the repository knows to be over. Of these the one of
// the newest level stays, as the next base. Where a removal was cut short, what
// is left of the snapshot is removed, too. Nobody else's snapshot, and none of a
// run that may still be at work, is ever touched.

func (s *Source) prefix() string { return ownPrefix(s.run.Repository, s.run.Name) }

// strays are the snapshots of runs that are over and left no level: killed
// ones, and those whose level was removed since.
func (s *Source) strays() []snapshot {
	return s.over(func(run store.RunID) bool { return s.levelOf(run) == 0 })
}

// over lists our snapshots of runs that are over and match, and those whose
// removal has begun.
func (s *Source) over(match func(store.RunID) bool) []snapshot {
	var list []snapshot
	for _, snap := range s.list {
		run, ok := ownRun(snap, s.prefix())
		if ok && run != s.run.ID && s.run.Over(run) && (snap.trashed != "" || match(run)) {
			list = append(list, snap)
		}
	}
	return list
}

// levelOf is the level that a run made, 0 where it made none that can be a base.
func (s *Source) levelOf(run store.RunID) store.LevelNumber {
	for i := range s.run.Levels {
		if s.run.Levels[i].Run == run {
			return s.run.Levels[i].Number
		}
	}
	return 0
}

// tidy removes, after the commit, our snapshots that no later backup needs.
//
// A snapshot that we made ourselves is the next base, so all others go. With a
// snapshot of the user's the newest of ours stays: the user may remove theirs
// at any time, and the next backup would be without a base.
func (s *Source) tidy(ctx context.Context) {
	keep := store.LevelNumber(0)
	if !s.own {
		for _, snap := range s.list {
			if run, ok := ownRun(snap, s.prefix()); ok && snap.user {
				keep = max(keep, s.levelOf(run))
			}
		}
	}
	s.sweep(ctx, s.over(func(run store.RunID) bool {
		n := s.levelOf(run)
		return n == 0 || n != keep
	}))
}

// sweep removes snapshots of ours. What cannot be removed is a warning.
func (s *Source) sweep(ctx context.Context, list []snapshot) {
	if len(list) == 0 {
		return
	}
	head, err := s.conn.open(ctx, s.spec.at(""), s.handle, readWrite)
	if err != nil {
		s.run.Warn("snapshots of earlier backups are not removed: %v", err)
		return
	}
	s.removeAll(ctx, head, list)
	if err := head.close(); err != nil {
		s.run.Warn("%v", err)
	}
}

// removeAll removes snapshots, unless the image is in a live migration.
func (s *Source) removeAll(ctx context.Context, head *image, list []snapshot) {
	for _, snap := range list {
		err := head.remove(ctx, snap)
		if errors.Is(err, ErrMigrating) {
			s.unremoved(list)
			return
		}
		if err != nil {
			s.run.Warn("%v", err)
		}
	}
}

// undo closes the snapshot and removes it if this run made it, or may have: one
// whose creation was given up can still have come into being.
func (s *Source) undo(ctx context.Context) {
	if err := s.closeSnapshot(); err != nil {
		s.run.Warn("%v", err)
	}
	if !s.tried {
		return
	}
	err := s.removeOwn(ctx)
	if errors.Is(err, ErrMigrating) {
		s.run.Warn("the snapshot %s of this run stays: %v; the first backup after that removes it", s.spec.at(s.ownName()), err)
	} else if err != nil {
		s.run.Warn("the snapshot %s of this run may be left; the next run removes it: %v", s.spec.at(s.ownName()), err)
	}
}

func (s *Source) removeOwn(ctx context.Context) error {
	head, err := s.conn.open(ctx, s.spec.at(""), s.handle, readWrite)
	if errors.Is(err, ErrNoImage) {
		return nil // and its snapshots are gone with it
	}
	if err != nil {
		return err
	}
	list, err := head.snapshots(ctx)
	if own, ok := named(list, s.ownName()); ok {
		err = head.remove(ctx, own)
	}
	return errors.Join(err, head.close())
}

func (s *Source) ownName() string { return s.prefix() + s.run.ID.String() }
