package rbd

import (
	"context"
	"errors"
	"strings"

	"backy/store"
)

// Which snapshots are ours to remove: those named for this repository and
// backup name, whose run the repository knows to be over, or that were made
// before ours: this run had the claim on the name after theirs. Of these the one of
// the newest level stays, as the next base. Where a removal was cut short, what
// is left of the snapshot is removed, too. So are those named for other backup
// names that Judge finds to be strays: the image carries them along from another
// name or another image. Nobody else's snapshot, and none of a run that may still
// be at work, is ever touched.

func (s *Source) prefix() string { return ownPrefix(s.run.Repository, s.run.Name) }

// strays are the snapshots of runs that are over and left no level: killed
// ones, and those whose level was removed since.
func (s *Source) strays() []snapshot {
	return s.over(func(snap snapshot) bool { return s.levelOf(snap) == 0 })
}

// over lists our snapshots of runs that are over and match, and those whose
// removal has begun.
func (s *Source) over(match func(snapshot) bool) []snapshot {
	var list []snapshot
	for _, snap := range s.list {
		run, ok := ownRun(snap, s.prefix())
		if ok && run != s.run.ID && s.run.Over(run) && (snap.trashed != "" || match(snap)) {
			list = append(list, snap)
		}
	}
	return list
}

// outlived lists our snapshots of runs that the repository does not know and that
// this run's snapshot is later than.
func (s *Source) outlived() (list []snapshot) {
	if !s.own {
		return nil
	}
	for _, snap := range s.list {
		run, ok := ownRun(snap, s.prefix())
		if ok && run != s.run.ID && snap.id < s.to.id && !s.run.Over(run) {
			list = append(list, snap)
		}
	}
	return list
}

// levelOf is the level that was read from a snapshot, 0 if there is none that can
// be a base.
func (s *Source) levelOf(snap snapshot) store.LevelNumber {
	for i := range s.run.Levels {
		if l := &s.run.Levels[i]; l.Of(s.id) && l.Origin.RBD.SnapshotID == snap.id {
			return l.Number
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
			if _, ok := ownRun(snap, s.prefix()); ok && snap.user {
				keep = max(keep, s.levelOf(snap))
			}
		}
	}
	list := s.over(func(snap snapshot) bool {
		n := s.levelOf(snap)
		return n == 0 || n != keep
	})
	list = append(list, s.outlived()...)
	carried, err := s.carried(ctx)
	if err != nil {
		s.run.Warn("snapshots that %s has from other backup names are not looked at: %v", s.spec.at(""), err)
	}
	s.sweep(ctx, append(list, carried...))
}

// carried are the strays among our snapshots for other backup names.
func (s *Source) carried(ctx context.Context) (strays []snapshot, err error) {
	var own []OwnSnapshot
	snaps := map[uint64]snapshot{}
	others := false
	for _, snap := range s.list {
		o, ok := parseOwn(snap)
		if !ok || o.Repository != s.run.Repository.String()[:8] {
			continue
		}
		o.Spec, o.Image, o.Derived = s.spec.at(o.Spec.Snap), s.id, s.run.Name
		own, snaps[o.ID] = append(own, o), snap
		others = others || !strings.HasPrefix(o.Spec.Snap, s.prefix())
	}
	if !others || s.judge == nil {
		return nil, nil
	}
	if err := s.judge(ctx, own); err != nil {
		return nil, err
	}
	for _, o := range own {
		if o.Kind == Stray && !strings.HasPrefix(o.Spec.Snap, s.prefix()) {
			strays = append(strays, snaps[o.ID])
		}
	}
	return strays, nil
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
		if errors.Is(err, ErrNotPrimary) { // they go when those of the primary image do
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
