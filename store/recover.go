package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// Recovered is a level whose record was put back.
type Recovered struct {
	Name    Name        `json:"name"`
	Number  LevelNumber `json:"number"`
	Run     RunID       `json:"run"`
	Damaged int64       `json:"damaged,omitempty"` // chunks that it needs and that cannot be had

	// Time is the moment whose bytes it holds. Outdated tells that it is the newest
	// level of its name by its number, and not by its age: a backup came in between,
	// under a lower number. Until the next one, the name's newest level is an old state.
	Time     time.Time `json:"time,omitzero"`
	Outdated bool      `json:"outdated,omitempty"`

	// Absent are lower numbers that nobody missed before, since nothing stood behind
	// them, and of which no copy is left: of levels that had been removed. They
	// have tombstones now.
	Absent []LevelNumber `json:"absent,omitempty"`
}

// UnrecoverableError tells of traces of levels of which no copy can be read.
type UnrecoverableError struct{ Lost *LostError }

func (e *UnrecoverableError) Error() string {
	if len(e.Lost.Levels) == 0 {
		return e.Lost.Error()
	}
	if e.Lost.Levels[0].Damaged {
		return fmt.Sprintf("%s is lost: its record is damaged, and no copy of it with a map that can be read matches it", e.Lost.Levels[0])
	}
	s := fmt.Sprintf("%s is lost: it has no record, and no copy of one with a map that can be read", e.Lost.Levels[0])
	if n := len(e.Lost.Levels) - 1; n > 0 {
		s += fmt.Sprintf("; so are %d more", n)
	}
	return s
}

func (e *UnrecoverableError) Unwrap() error { return e.Lost.Unreadable }

// Recover puts lost records of levels back, from the copies that lie in the
// last map packs of their runs. It never brings back a level that was removed,
// nor one that did not commit: a run that is fenced loses its map packs, and
// one that is under way has a claim. It deletes the removals that take nothing away:
// see History.
//
// Invariant: nothing that a level needs is collected after it was put back. A
// recovery is a run that holds the gc's place, so no gc begins beside it; the
// verdicts of earlier ones are carried out before any record is put back, and
// of what they or damaged verdicts name, the packs that a lost level needs get
// a new generation first, which no verdict is about. It claims each number it
// puts back. While such a claim stands undecided, gcs collect nothing, so a
// recovery that sleeps and wakes up finds all that it had seen.
//
// Errors: *BusyError while a gc is at work; *UnrecoverableError, with what was
// recovered, if something is lost for good.
func (r *Repository) Recover(ctx context.Context) (recovered []Recovered, err error) {
	err = r.asRecovery(ctx, func(ctx context.Context, v *recovery) error {
		recovered, err = v.run(ctx)
		return err
	})
	return recovered, err
}

// Abandon gives up what Recover cannot bring back, so that gcs may collect
// again: its numbers get tombstones. Errors: *BusyError while a gc is at work.
func (r *Repository) Abandon(ctx context.Context) (given []LostLevel, err error) {
	err = r.asRecovery(ctx, func(ctx context.Context, v *recovery) error {
		// A tombstone above all that stands leaves gaps below it, which are given up, too.
		for {
			left, err := v.left(ctx)
			if err != nil {
				return err
			}
			if left == nil {
				return r.dropRecoverClaims(ctx, v.gc.checkClaim)
			}
			more, err := v.abandon(ctx, left)
			given = append(given, more...)
			if err != nil {
				return err
			}
		}
	})
	return given, err
}

// asRecovery runs work as a run that holds the gc's place.
func (r *Repository) asRecovery(ctx context.Context, work func(context.Context, *recovery) error) error {
	if err := r.writable(ctx); err != nil {
		return err
	}
	once := func() error {
		v := &recovery{gc: &gc{repo: r, o: GCOptions{Beat: defaultBeat, Progress: &GCProgress{}}}}
		return v.gc.hold(ctx, func(ctx context.Context) (bool, error) { return false, work(ctx, v) })
	}
	err := once()
	if IsFull(err) {
		// What the reserve is for: a gc that gives back space needs the records first.
		_ = r.backend.Delete(ctx, reserveKey)
		err = once()
	}
	return err
}

// recovery is one run of Recover.
type recovery struct {
	gc *gc

	// unreadable are levels that dead runs may have been about to commit, or had
	// committed, and whose copies cannot be read.
	unreadable *LostError

	finished []Recovered // levels of dead runs
}

func (v *recovery) run(ctx context.Context) (recovered []Recovered, err error) {
	r := v.gc.repo
	before := map[Name]LevelNumber{}
	recovered, restored, err := v.pass(ctx, before)
	if err == nil && restored {
		var others []Recovered
		others, _, err = v.pass(ctx, before)
		recovered = append(recovered, others...)
	}
	if err != nil {
		return slices.Concat(v.finished, recovered), err
	}
	if err := v.settleRemovals(ctx); err != nil {
		return slices.Concat(v.finished, recovered), err
	}
	left, err := v.left(ctx)
	if err == nil && left != nil {
		err = v.fillGaps(ctx, left, recovered, before)
	}
	if err == nil {
		err = r.dropRecoverClaims(ctx, v.gc.checkClaim)
	}
	recovered = slices.Concat(v.finished, recovered)
	if err == nil {
		err = v.outdated(ctx, recovered)
	}
	if err == nil && left != nil && len(left.Levels)+len(left.runs) > 0 {
		err = &UnrecoverableError{left}
	}
	return recovered, err
}

// pass puts back what is lost, and then what is damaged; restored tells that there was
// such a record: now it is seen whether another level is lost whose number it has.
// before gets the last numbers of names as they were.
func (v *recovery) pass(ctx context.Context, before map[Name]LevelNumber) (recovered []Recovered, restored bool, err error) {
	r := v.gc.repo
	lost, err := v.lost(ctx)
	if err != nil {
		return nil, false, err
	}
	for i := range lost {
		if _, ok := before[lost[i].Name]; ok {
			continue
		}
		if before[lost[i].Name], err = r.lastNumber(ctx, lost[i].Name); err != nil {
			return nil, false, err
		}
	}
	if err := v.claimAll(ctx, lost); err != nil {
		return nil, false, err
	}
	if err := v.rescue(ctx, lost); err != nil {
		return nil, false, err
	}
	allow := func(context.Context, []sentence) error { return nil }
	if err := v.gc.settleOthers(ctx, allow); err != nil {
		return nil, false, err
	}
	for i := range lost {
		l, err := v.putBack(ctx, &lost[i])
		if err != nil {
			return recovered, false, fmt.Errorf("recover %s: %w", lost[i].LostLevel, err)
		}
		if l != nil {
			recovered = append(recovered, *l)
		}
	}
	damaged, err := v.damagedRecords(ctx)
	if err != nil {
		return recovered, false, err
	}
	for i := range damaged {
		l, err := v.restore(ctx, &damaged[i])
		if err != nil {
			return recovered, false, err
		}
		if l != nil {
			recovered, restored = append(recovered, *l), true
		}
	}
	return recovered, restored, nil
}

// outdated finds levels that came back above others that are newer. Numbers do not
// show it, and for a warning clocks will do.
func (v *recovery) outdated(ctx context.Context, recovered []Recovered) error {
	for i := range recovered {
		l := &recovered[i]
		h, err := v.gc.repo.History(ctx, l.Name)
		if err != nil {
			return err
		}
		n := len(h.Levels)
		if n == 0 || h.Levels[n-1].Number != l.Number {
			continue
		}
		newest := &h.Levels[n-1]
		l.Outdated = slices.ContainsFunc(h.Levels, func(o Level) bool { return o.Time.After(newest.Time) })
	}
	return nil
}

// fillGaps puts tombstones at the numbers below recovered ones that were above
// all that stood before, and takes them from what is left. While a map pack of a
// run that nothing names cannot be read, any of them may be a level.
func (v *recovery) fillGaps(ctx context.Context, left *LostError, recovered []Recovered, before map[Name]LevelNumber) error {
	if len(left.runs) > 0 {
		return nil
	}
	for i := range recovered {
		l := &recovered[i]
		var gaps, others []LostLevel
		for _, gap := range left.Levels {
			if gap.Name == l.Name && gap.Run == 0 && gap.Number > before[l.Name] && gap.Number < l.Number {
				gaps = append(gaps, gap)
			} else {
				others = append(others, gap)
			}
		}
		if _, err := v.abandon(ctx, &LostError{Levels: gaps}); err != nil {
			return err
		}
		for _, gap := range gaps {
			l.Absent = append(l.Absent, gap.Number)
		}
		left.Levels = others
	}
	return nil
}

// lost finds the records that can be put back, in the order of names and
// numbers.
func (v *recovery) lost(ctx context.Context) ([]lostRecord, error) {
	r := v.gc.repo
	// A level that is finished may take a lost one's number.
	unfinished, err := v.unfinished(ctx)
	if err != nil {
		return nil, err
	}
	s, err := r.mapStock(ctx)
	if err != nil {
		return nil, err
	}
	ended, err := r.endedRuns(ctx, nil)
	if err != nil {
		return nil, err
	}
	found, err := r.lostRecords(ctx, s, func(run RunID) bool { return ended[run] })
	if err != nil {
		return nil, err
	}
	lost := slices.Concat(found.lost, unfinished)
	damaged, err := v.damagedRecords(ctx)
	for i := range damaged {
		lost = append(lost, damaged[i].others...)
	}
	slices.SortFunc(lost, func(a, b lostRecord) int { return compareLost(a.LostLevel, b.LostLevel) })
	return lost, err
}

// abandon puts tombstones for what cannot be recovered.
func (v *recovery) abandon(ctx context.Context, left *LostError) (given []LostLevel, err error) {
	r := v.gc.repo
	for _, l := range left.Levels {
		if err := v.gc.checkClaim(ctx); err != nil {
			return given, err
		}
		settle := func() error { return r.fence(ctx, l.Name, l.Number, 0, v.gc.run) }
		switch {
		case l.Damaged:
			settle = func() error { return v.giveUpRecord(ctx, l) }
		case l.Taken:
			settle = func() error { return r.abandon(ctx, l.Run, v.gc.run) }
		}
		if err := settle(); err != nil {
			return given, fmt.Errorf("give up %s: %w", l, err)
		}
		given = append(given, l)
	}
	for _, run := range left.runs {
		if err := v.gc.checkClaim(ctx); err != nil {
			return given, err
		}
		if err := r.abandon(ctx, run, v.gc.run); err != nil {
			return given, fmt.Errorf("give up run %s: %w", run, err)
		}
	}
	return given, nil
}

// putBack puts one record back, having noted which chunks of its level cannot be
// had. It returns nil where the level's map cannot be read, or a backup, or
// another recovery, has that number meanwhile.
func (v *recovery) putBack(ctx context.Context, lost *lostRecord) (*Recovered, error) {
	r := v.gc.repo
	var l Level
	if err := decodeObject(lost.record, "level", &l); err != nil {
		return nil, err
	}
	missing, err := v.gc.needs().missing(ctx, &l)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(missing, func(e *ChunkError) bool { return e.Kind == KindMap }) {
		return nil, nil // no gc and no backup could go on with it
	}
	for _, bad := range missing {
		if err := v.gc.checkClaim(ctx); err != nil {
			return nil, err
		}
		if err := r.NoteDamage(ctx, &l, bad); err != nil {
			return nil, err
		}
	}
	if err := v.completeMaps(ctx, l.Run); err != nil {
		return nil, err
	}
	if err := v.gc.checkClaim(ctx); err != nil {
		return nil, err
	}
	err = r.put(ctx, levelKey(l.Name, l.Number), lost.record)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	if gone, err := r.discarded(ctx, &l, lost.pack); gone || err != nil {
		return nil, err
	}
	return &Recovered{Name: l.Name, Number: l.Number, Run: l.Run, Damaged: int64(len(missing)), Time: l.Time}, nil
}

// completeMaps puts those copies of a run's map packs that are not there, with all
// that can be read of the others. Where there is no room it does without.
func (v *recovery) completeMaps(ctx context.Context, run RunID) error {
	r := v.gc.repo
	s, err := r.stockOf(ctx, []string{mapsPrefix + run.String() + "/", twinsPrefix + run.String() + "/"})
	if err != nil {
		return err
	}
	packs := map[PackID]bool{}
	for _, p := range s.maps {
		packs[PackID{p.run, p.seq}] = true
	}
	for _, id := range sortedPacks(packs) {
		for _, folder := range foldersOf(KindMap) {
			there, err := r.listGenerations(ctx, folder, id)
			if err == nil && len(there) == 0 {
				if err = v.gc.checkClaim(ctx); err == nil {
					_, _, err = r.mendPack(ctx, KindMap, folder, id, nil, v.gc.checkClaim)
				}
			}
			if err != nil && !IsFull(err) {
				return fmt.Errorf("put the other copy of map pack %s: %w", id, err)
			}
		}
	}
	return nil
}
