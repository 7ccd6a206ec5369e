package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// removal takes a level away from every reader.
//
// Invariant: a level is taken away only by a removal that can be read and that names
// the level's run. A number says too little: where levels/ was lost, another level gets
// it, and then the removal may come back from a copy.
type removal struct {
	Name    Name        `json:"name"`
	Number  LevelNumber `json:"number"`
	Run     RunID       `json:"run"` // of the level; 0 where its record could not be read
	Time    time.Time   `json:"time"`
	Earlier []RunID     `json:"earlier,omitempty"` // runs of levels that had the number and were removed before
}

// names reports whether a removal is of a run's level.
func (m *removal) names(run RunID) bool {
	return run != 0 && (m.Run == run || slices.Contains(m.Earlier, run))
}

// hides reports whether a removal takes a level away. One that names no run takes
// away what was there when it was put, as far as clocks can tell.
func (m *removal) hides(l *Level) bool {
	return m.names(l.Run) || m.Run == 0 && !l.Committed.After(m.Time)
}

// readRemoval reads the removal of a number.
func (r *Repository) readRemoval(ctx context.Context, name Name, n LevelNumber) (*removal, error) {
	key := removedKey(name, n)
	p, err := readAll(ctx, r.backend, key, maxJSON)
	if err != nil && !errors.Is(err, errBadObject) {
		return nil, err
	}
	var m removal
	if err == nil {
		err = decodeObject(p, "removed", &m)
	}
	if err == nil && (m.Name != name || m.Number != n) {
		err = fmt.Errorf("%w: it belongs to %s level %s", errBadObject, m.Name, m.Number)
	}
	if err != nil {
		return nil, &BadRecordError{key, err}
	}
	return &m, nil
}

// isRemoved reports whether what stands at a number's commit key is removed. What
// cannot be read is, by a removal that can.
func (r *Repository) isRemoved(ctx context.Context, name Name, n LevelNumber) (bool, error) {
	m, err := r.readRemoval(ctx, name, n)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errBadObject):
		return false, nil
	case err != nil:
		return false, err
	}
	c, err := r.readCommit(ctx, name, n)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errBadObject):
		return true, nil
	case err != nil:
		return false, err
	}
	return c.level == nil || m.hides(c.level), nil
}

// CheckRemoved fails with ErrRemoved once a level has been removed.
func (r *Repository) CheckRemoved(ctx context.Context, l *Level) error {
	keys, err := r.list(ctx, removedKey(l.Name, l.Number))
	if err != nil || len(keys) == 0 {
		return err
	}
	m, err := r.readRemoval(ctx, l.Name, l.Number)
	gone := false
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, errBadObject):
		// It says nothing; that the record was collected does.
		var there bool
		there, err = r.stands(ctx, levelKey(l.Name, l.Number))
		if err != nil {
			return err
		}
		gone = !there
	case err != nil:
		return err
	default:
		gone = m.hides(l)
	}
	if gone {
		return fmt.Errorf("%s level %s: %w", l.Name, l.Number, ErrRemoved)
	}
	return nil
}

// Remove takes levels of a name away from every reader, for good. Numbers
// that are no levels are an error before anything is removed.
func (r *Repository) Remove(ctx context.Context, name Name, numbers []LevelNumber) error {
	removals, err := r.removals(ctx, name, numbers)
	if err != nil {
		return err
	}
	for _, m := range removals {
		err := r.putRemoval(ctx, m)
		if IsFull(err) {
			// What the reserve is for: a gc that is to give back space comes after this.
			_ = r.backend.Delete(ctx, reserveKey)
			err = r.putRemoval(ctx, m)
		}
		if err != nil {
			return fmt.Errorf("remove %s level %s: %w", name, m.Number, err)
		}
	}
	return nil
}

// CheckRemove refuses what Remove would refuse, and changes nothing.
func (r *Repository) CheckRemove(ctx context.Context, name Name, numbers []LevelNumber) error {
	_, err := r.removals(ctx, name, numbers)
	return err
}

func (r *Repository) removals(ctx context.Context, name Name, numbers []LevelNumber) (removals []removal, err error) {
	if err := r.writable(ctx); err != nil {
		return nil, err
	}
	h, err := r.History(ctx, name)
	if err != nil {
		return nil, err
	}
	protected, err := r.Protected(ctx, name)
	if err != nil {
		return nil, err
	}
	for _, n := range numbers {
		i := slices.IndexFunc(h.Levels, func(l Level) bool { return l.Number == n })
		if i < 0 {
			for _, b := range h.Bad {
				if b.Number == n {
					return nil, fmt.Errorf("%s has a level %s, but its record cannot be read: %w", name, n, b.Err)
				}
			}
			return nil, fmt.Errorf("%s has no level %s", name, n)
		}
		if protected.Has(&h.Levels[i]) {
			return nil, fmt.Errorf("%s level %s is protected", name, n)
		}
		removals = append(removals, removal{Name: name, Number: n, Run: h.Levels[i].Run, Time: time.Now().UTC()})
	}
	return removals, nil
}

// putRemoval puts the removal of a level. One at its number that does not name it is
// replaced by a run that holds the gc's place: so no two replace it at a time, and none
// takes away what another has just put.
func (r *Repository) putRemoval(ctx context.Context, m removal) error {
	err := r.putObject(ctx, removedKey(m.Name, m.Number), "removed", &m)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	old, err := r.readRemoval(ctx, m.Name, m.Number)
	switch {
	case err == nil && old.names(m.Run):
		return nil
	case err != nil && !errors.Is(err, errBadObject) && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return r.asRecovery(ctx, func(ctx context.Context, v *recovery) error {
		return r.replaceRemoval(ctx, m, v.gc.run, v.gc.checkClaim)
	})
}

// replaceRemoval puts a removal in the place of one that does not name its run.
func (r *Repository) replaceRemoval(ctx context.Context, m removal, by RunID, mayDelete func(context.Context) error) error {
	for {
		err := r.putObject(ctx, removedKey(m.Name, m.Number), "removed", &m)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		old, err := r.readRemoval(ctx, m.Name, m.Number)
		switch {
		case err == nil && (m.Run == 0 || old.names(m.Run)):
			return nil
		case errors.Is(err, fs.ErrNotExist):
			if err := context.Cause(ctx); err != nil {
				return err
			}
			continue
		case err != nil && !errors.Is(err, errBadObject):
			return err
		}
		runs, err := r.dropRemoval(ctx, m.Name, m.Number, old, by, mayDelete)
		if err != nil {
			return err
		}
		m.Earlier = append(m.Earlier, runs...)
	}
}

// dropRemoval deletes a removal that takes nothing away, and returns the runs that it
// named; old is nil if it cannot be read. The runs are given up first: else what is left
// of their maps would look like levels that were lost.
func (r *Repository) dropRemoval(ctx context.Context, name Name, n LevelNumber, old *removal, by RunID, mayDelete func(context.Context) error) (runs []RunID, err error) {
	if old != nil {
		runs = slices.DeleteFunc(append(slices.Clone(old.Earlier), old.Run), func(run RunID) bool { return run == 0 })
	}
	h, err := r.History(ctx, name)
	if err != nil {
		return nil, err
	}
	for _, run := range runs {
		// It may have come back under another number.
		if slices.ContainsFunc(h.Levels, func(l Level) bool { return l.Run == run }) {
			continue
		}
		if err := r.abandon(ctx, run, by); err != nil {
			return nil, fmt.Errorf("give up run %s: %w", run, err)
		}
	}
	if err := r.deleteAll(ctx, []string{removedKey(name, n)}, mayDelete); err != nil {
		return nil, fmt.Errorf("delete the removal of another level: %w", err)
	}
	return runs, nil
}

// settleRemovals deletes the removals that take nothing away. Where nothing else
// stands at the number, a tombstone does then: it stays used.
func (v *recovery) settleRemovals(ctx context.Context) error {
	r := v.gc.repo
	names, err := r.UsedNames(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		h, err := r.History(ctx, name)
		if err != nil {
			return err
		}
		for _, b := range h.BadRemovals {
			if err := v.settleRemoval(ctx, name, b.Number); err != nil {
				return fmt.Errorf("replace the removal %s: %w", removedKey(name, b.Number), err)
			}
		}
	}
	return nil
}

func (v *recovery) settleRemoval(ctx context.Context, name Name, n LevelNumber) error {
	r := v.gc.repo
	m, err := r.readRemoval(ctx, name, n)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil && !errors.Is(err, errBadObject):
		return err
	}
	c, err := r.readCommit(ctx, name, n)
	switch {
	case errors.Is(err, fs.ErrNotExist) && m == nil:
		if err := v.gc.checkClaim(ctx); err != nil {
			return err
		}
		if err := r.fence(ctx, name, n, 0, v.gc.run); err != nil {
			return err
		}
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errBadObject):
		return nil // it is removed, or damaged
	case err != nil:
		return err
	case m != nil && (c.level == nil || m.hides(c.level)):
		return nil
	}
	_, err = r.dropRemoval(ctx, name, n, m, v.gc.run, v.gc.checkClaim)
	return err
}

// BadRemovals finds the removals of all names that take nothing away: see History.
func (r *Repository) BadRemovals(ctx context.Context) (list []BadRemoval, err error) {
	names, err := r.UsedNames(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		h, err := r.History(ctx, name)
		if err != nil {
			return nil, err
		}
		for _, b := range h.BadRemovals {
			list = append(list, BadRemoval{Name: name, BadRecord: b})
		}
	}
	return list, nil
}

// BadRemoval is a removal that takes nothing away.
type BadRemoval struct {
	Name Name
	BadRecord
}

// Reason is why it takes nothing away.
func (b *BadRemoval) Reason() error {
	var record *BadRecordError
	if errors.As(b.Err, &record) {
		return record.Err
	}
	return b.Err
}

// Key is the removal's.
func (b *BadRemoval) Key() string { return removedKey(b.Name, b.Number) }
