package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
)

// A run puts its level's record into its last map pack when all else is durable,
// and then, if its claim stands, at its commit key. So a dead run whose
// claim and record are there, and nothing at its commit key, has been about to
// commit, or has committed, could not remove its claim, and its record was lost.
// Nobody can tell which. Its level is finished, in both cases: that loses nothing,
// and if the run only sleeps, it puts the same bytes itself.

// readyLevel is a level that only lacks its record at the commit key.
type readyLevel struct {
	level  Level
	pack   PackID // of the record's copy
	record []byte
}

// ready returns the level that a run has been about to commit; nil if it has not
// come that far. Errors: *LostError if the run's last map pack cannot be read.
func (r *Repository) ready(ctx context.Context, c *claim) (*readyLevel, error) {
	last, err := r.lastMapPacks(ctx, c)
	if err != nil {
		return nil, err
	}
	given, err := r.abandonedRuns(ctx)
	if err != nil {
		return nil, err
	}
	unreadable := map[RunID]error{}
	for _, run := range slices.Sorted(maps.Keys(last)) {
		if given[run] {
			continue
		}
		id := PackID{run, last[run]}
		records, why, err := r.levelRecords(ctx, id)
		if err != nil {
			return nil, err
		}
		if why != nil {
			// A run puts both copies before it commits.
			both, err := r.hasTwins(ctx, id)
			if err != nil {
				return nil, err
			}
			if both {
				unreadable[run] = why
			}
		}
		for _, record := range records {
			var l Level
			if decodeObject(record, "level", &l) == nil && l.Name == c.Name && l.Number == c.Number && l.Run == run {
				return &readyLevel{l, id, record}, nil
			}
		}
	}
	if len(unreadable) > 0 {
		return nil, lostError([]lostRecord{{LostLevel: LostLevel{Name: c.Name, Number: c.Number, Run: c.Run}}}, nil, unreadable)
	}
	return nil, nil
}

// hasTwins reports whether both copies of a map pack are there.
func (r *Repository) hasTwins(ctx context.Context, id PackID) (bool, error) {
	for _, folder := range foldersOf(KindMap) {
		if there, err := r.listGenerations(ctx, folder, id); err != nil || len(there) == 0 {
			return false, err
		}
	}
	return true, nil
}

// completeTwins puts the copies of a run's map packs that are not there, byte for
// byte, as the run itself would. It reports whether all are there then: of those
// that only one copy has, that must be good.
func (r *Repository) completeTwins(ctx context.Context, run RunID) (bool, error) {
	there := map[string]map[PackID]bool{}
	for _, folder := range foldersOf(KindMap) {
		s, err := r.stockOf(ctx, []string{folder + run.String() + "/"})
		if err != nil {
			return false, err
		}
		there[folder] = map[PackID]bool{}
		for _, p := range s.maps {
			there[folder][PackID{p.run, p.seq}] = true
		}
	}
	for i, folder := range foldersOf(KindMap) {
		twin := foldersOf(KindMap)[1-i]
		for _, id := range sortedPacks(there[twin]) {
			if there[folder][id] {
				continue
			}
			sound, err := r.soundTable(ctx, KindMap, twin, id)
			if sound == nil || err != nil {
				return false, err
			}
			p, err := readAll(ctx, r.backend, packKey(twin, id, 0), maxPackBytes)
			if errors.Is(err, fs.ErrNotExist) {
				_, _, err = r.mendPack(ctx, KindMap, folder, id, nil, nil)
			} else if err == nil {
				err = r.put(ctx, packKey(folder, id, 0), p)
			}
			if err != nil && !errors.Is(err, fs.ErrExist) {
				return false, fmt.Errorf("put the other copy of map pack %s: %w", id, err)
			}
		}
	}
	return true, nil
}

// lastMapPacks returns the number of the last map pack of a claim's run, if it has
// any. If the claim cannot be read, those of all runs that may be its own.
func (r *Repository) lastMapPacks(ctx context.Context, c *claim) (map[RunID]uint32, error) {
	if c.Run != 0 {
		s, err := r.stockOf(ctx, []string{mapsPrefix + c.Run.String() + "/", twinsPrefix + c.Run.String() + "/"})
		if err != nil {
			return nil, err
		}
		return s.last, nil
	}
	s, err := r.mapStock(ctx)
	if err != nil {
		return nil, err
	}
	known, err := r.knownRuns(ctx, nil)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(s.last, func(run RunID, _ uint32) bool { return known[run] })
	return s.last, nil
}

// finishLevel commits the level of a dead run if it has been about to, and returns
// it; settled tells that the run is over. by is who does it, whose own condemned
// packs are no obstacle: it marks again afterwards.
//
// Invariant: a level that comes to stand like this loses nothing to a gc. While
// nothing stands at a run's commit key, gcs that condemn packs wait for it, and mark
// its level; and if it began later, it makes no new reference into those packs. So a
// gc that has condemned the run's own ones has seen it end, and what said so is lost:
// then the level is for Recover, which holds the gc's place. So it is if its map
// cannot be read. Chunks that cannot be had are noted. Errors: *LostError.
func (r *Repository) finishLevel(ctx context.Context, c *claim, by RunID) (finished *Recovered, settled bool, err error) {
	for tries := 2; ; tries-- {
		finished, settled, err = r.tryFinish(ctx, c, by)
		var lost *LostError
		if !errors.As(err, &lost) {
			return finished, settled, err
		}
		// The run may live and have gone on since it was looked at, or somebody else
		// may have settled it, and a gc gone on.
		decided, decidedErr := r.decided(ctx, c.Name, c.Number)
		there, claimErr := r.claimed(ctx, claimKey(c.Name, c.Number), c.Run)
		if err := errors.Join(decidedErr, claimErr); err != nil {
			return nil, false, err
		}
		if decided || !there {
			return nil, true, nil
		}
		if tries == 1 {
			return nil, false, fmt.Errorf("finish the level of a run that is dead: %w", lost)
		}
	}
}

func (r *Repository) tryFinish(ctx context.Context, c *claim, by RunID) (finished *Recovered, settled bool, err error) {
	decided, err := r.decided(ctx, c.Name, c.Number)
	if decided || err != nil {
		return nil, false, err
	}
	ready, err := r.ready(ctx, c)
	if err != nil {
		return nil, false, err
	}
	if ready == nil {
		return nil, false, nil
	}
	l := &ready.level
	lost := &LostError{Levels: []LostLevel{{Name: l.Name, Number: l.Number, Run: l.Run}}}
	if doomed, err := r.doomed(ctx, l.Run, by); err != nil {
		return nil, false, err
	} else if doomed {
		return nil, false, lost
	}
	missing, err := needs{r, &GCProgress{}}.missing(ctx, l)
	if err != nil {
		return nil, false, err
	}
	for _, bad := range missing {
		if bad.Kind == KindData {
			err = r.NoteDamage(ctx, l, bad)
		} else if both, listErr := r.hasTwins(ctx, bad.Ref.Pack); listErr != nil {
			err = listErr
		} else if both || bad.Ref.Pack.Run != l.Run {
			err = lost
		} else {
			return nil, false, nil // the run never came so far; an older version put map packs in any order
		}
		if err != nil {
			return nil, false, err
		}
	}
	if whole, err := r.completeTwins(ctx, l.Run); !whole || err != nil {
		return nil, false, err
	}
	err = r.put(ctx, levelKey(l.Name, l.Number), ready.record)
	if errors.Is(err, fs.ErrExist) {
		return nil, true, nil // somebody else has settled it meanwhile
	}
	if err != nil {
		return nil, false, fmt.Errorf("finish %s level %s, whose run is dead: %w", l.Name, l.Number, err)
	}
	if gone, err := r.discarded(ctx, l, ready.pack); gone || err != nil {
		return nil, true, err
	}
	return &Recovered{Name: l.Name, Number: l.Number, Run: l.Run, Damaged: int64(len(missing)), Time: l.Time}, true, nil
}

// doomed reports whether a gc has condemned packs of a run's own, and may delete
// them. It does so only if something said that the run was over, and that is lost.
func (r *Repository) doomed(ctx context.Context, run, by RunID) (bool, error) {
	gcs := map[RunID]bool{}
	_, err := r.eachCondemned(ctx, func(name packName, gc RunID) {
		if name.id.Run == run && gc != by {
			gcs[gc] = true
		}
	})
	for _, gc := range slices.Sorted(maps.Keys(gcs)) {
		if v, verdictErr := r.readVerdict(ctx, gc); v != nil || verdictErr != nil {
			return true, err
		}
	}
	return false, err
}

// discarded takes a level away again if its run, which has never committed, was
// just giving itself up: see Writer.discard.
func (r *Repository) discarded(ctx context.Context, l *Level, pack PackID) (bool, error) {
	given, err := r.stands(ctx, abandonedPrefix+l.Run.String())
	if err != nil {
		return false, err
	}
	left, err := r.copies(ctx, KindMap, mapsPrefix, pack)
	if err != nil || !given && len(left) > 0 {
		return false, err
	}
	m := removal{Name: l.Name, Number: l.Number, Run: l.Run, Time: r.clock().UTC()}
	return true, r.replaceRemoval(ctx, m, l.Run, nil)
}
