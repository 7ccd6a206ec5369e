package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// History is what a repository knows of one backup name.
type History struct {
	Name Name

	// Levels are those that can be read, oldest first.
	Levels []Level

	// Last is the highest number ever used; 0: none.
	Last LevelNumber

	// Unfinished tells that the run of number Last did not commit.
	Unfinished bool

	// Fenced are the runs behind the newest level that did not commit, newest
	// first.
	Fenced []RunID

	// Bad are records that cannot be read, by number.
	Bad []BadRecord

	// BadRemovals are removals that take nothing away: they cannot be read, or name
	// another level than the one that stands at their number. Recover puts them right.
	BadRemovals []BadRecord

	over map[RunID]bool
}

// BadRecord is a level's record that cannot be read.
type BadRecord struct {
	Number LevelNumber
	Err    error
}

// Over reports whether a run is known to have ended: committed, removed or
// fenced.
func (h *History) Over(run RunID) bool { return h.over[run] }

// tombstone stands at a commit key whose run may not commit.
type tombstone struct {
	Name   Name        `json:"name"`
	Number LevelNumber `json:"number"`
	Run    RunID       `json:"run"` // 0 where it is not known
	By     RunID       `json:"by"`  // the run that put it
	Time   time.Time   `json:"time"`
}

// commitRecord is what stands at a commit key: one of the two.
type commitRecord struct {
	level     *Level
	tombstone *tombstone
}

func (c *commitRecord) run() RunID {
	if c.level != nil {
		return c.level.Run
	}
	return c.tombstone.Run
}

// readCommit reads what stands at the commit key of a number.
func (r *Repository) readCommit(ctx context.Context, name Name, n LevelNumber) (c commitRecord, err error) {
	key := levelKey(name, n)
	p, err := readAll(ctx, r.backend, key, maxJSON)
	if errors.Is(err, errBadObject) {
		return c, &BadRecordError{key, err}
	}
	if err != nil {
		return c, err
	}
	e, err := openObject(p)
	if err != nil {
		return c, &BadRecordError{key, err}
	}
	var t tombstone
	if e.decode("tombstone", &t) == nil {
		if t.Name != name || t.Number != n {
			return c, &BadRecordError{key, fmt.Errorf("%w: it belongs to %s level %s", errBadObject, t.Name, t.Number)}
		}
		return commitRecord{tombstone: &t}, nil
	}
	var l Level
	if err := e.decode("level", &l); err != nil {
		return c, &BadRecordError{key, err}
	}
	if l.Name != name || l.Number != n {
		return c, &BadRecordError{key, fmt.Errorf("%w: it belongs to %s level %s", errBadObject, l.Name, l.Number)}
	}
	return commitRecord{level: &l}, nil
}

// History reads all that is known of a name.
func (r *Repository) History(ctx context.Context, name Name) (History, error) {
	h := History{Name: name, over: map[RunID]bool{}}
	keys, err := r.list(ctx, levelPrefix(name))
	if err != nil {
		return h, err
	}
	removed, unreadable := map[LevelNumber]*removal{}, map[LevelNumber]error{}
	var numbers []LevelNumber
	for _, key := range keys {
		_, n, isRemoval, err := parseLevelKey(key)
		if err != nil {
			continue // not ours: what an editor or a network file system left
		}
		h.Last = max(h.Last, n)
		if !isRemoval {
			numbers = append(numbers, n)
			continue
		}
		m, err := r.readRemoval(ctx, name, n)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case errors.Is(err, errBadObject):
			unreadable[n] = err
		case context.Cause(ctx) != nil:
			return h, context.Cause(ctx)
		case err != nil:
			h.Bad = append(h.Bad, BadRecord{n, err})
		default:
			removed[n] = m
			h.over[m.Run] = true
			for _, run := range m.Earlier {
				h.over[run] = true
			}
		}
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		c, err := r.readCommit(ctx, name, n)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			if context.Cause(ctx) != nil {
				return h, context.Cause(ctx)
			}
			if removed[n] == nil { // else it is gone for every reader, whatever it was
				h.Bad = append(h.Bad, BadRecord{n, err})
				delete(unreadable, n)
			}
			continue
		}
		if run := c.run(); run != 0 {
			h.over[run] = true
		}
		h.Unfinished = c.tombstone != nil
		if c.tombstone != nil {
			h.Fenced = append([]RunID{c.tombstone.Run}, h.Fenced...)
		} else {
			h.Fenced = nil
		}
		if c.level == nil {
			continue
		}
		m := removed[n]
		if m != nil && m.hides(c.level) {
			continue
		}
		h.Levels = append(h.Levels, *c.level)
		if m != nil {
			err := fmt.Errorf("it is of the level of run %s, and the one that stands there is of run %s", m.Run, c.level.Run)
			h.BadRemovals = append(h.BadRemovals, BadRecord{n, &BadRecordError{removedKey(name, n), err}})
		}
	}
	for n, err := range unreadable {
		h.BadRemovals = append(h.BadRemovals, BadRecord{n, err})
	}
	if n := len(numbers); n > 0 && numbers[n-1] < h.Last {
		h.Unfinished = false
	}
	for _, bad := range [][]BadRecord{h.Bad, h.BadRemovals} {
		slices.SortFunc(bad, func(a, b BadRecord) int { return cmp.Compare(a.Number, b.Number) })
	}
	return h, nil
}

// Levels lists the levels of a name, oldest first: those that can be read,
// with an error that joins why others cannot.
func (r *Repository) Levels(ctx context.Context, name Name) ([]Level, error) {
	h, err := r.History(ctx, name)
	if err != nil {
		return nil, err
	}
	var bad []error
	for _, b := range h.Bad {
		bad = append(bad, b.Err)
	}
	return h.Levels, errors.Join(bad...)
}

// UsedNames lists the backup names that have or had levels or runs, sorted.
func (r *Repository) UsedNames(ctx context.Context) (names []Name, err error) {
	keys, err := r.list(ctx, levelsPrefix)
	for _, key := range keys {
		if name, _, _, err := parseLevelKey(key); err == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), err
}

// Names lists the backup names that have levels, sorted.
func (r *Repository) Names(ctx context.Context) ([]Name, error) {
	keys, err := r.list(ctx, levelsPrefix)
	if err != nil {
		return nil, err
	}
	type numbers struct{ json, removed map[LevelNumber]bool }
	names := map[Name]numbers{}
	for _, key := range keys {
		name, n, isRemoval, err := parseLevelKey(key)
		if err != nil {
			continue
		}
		if _, ok := names[name]; !ok {
			names[name] = numbers{map[LevelNumber]bool{}, map[LevelNumber]bool{}}
		}
		if isRemoval {
			names[name].removed[n] = true
		} else {
			names[name].json[n] = true
		}
	}
	var found []Name
	for name, has := range names {
		live := false
		for n := range has.json {
			if live {
				continue
			}
			if has.removed[n] {
				removed, err := r.isRemoved(ctx, name, n)
				if err != nil {
					return nil, err
				}
				if removed {
					continue
				}
			}
			c, err := r.readCommit(ctx, name, n)
			// One that cannot be read is shown, so that it is not overlooked.
			live = err != nil && !errors.Is(err, fs.ErrNotExist) || c.level != nil
		}
		if live {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found, nil
}
