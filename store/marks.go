package store

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"
)

// difference is a mark: a deep scrub found a source that differs, so no diff
// from a level up to Number is to be trusted, nor from one of Runs: a level that
// is lost and put back may get a higher number.
type difference struct {
	Name   Name        `json:"name"`
	Number LevelNumber `json:"number"` // the newest level at the time
	Runs   []RunID     `json:"runs,omitempty"`
	Time   time.Time   `json:"time"`
}

// differsRuns is of how many of the newest levels a mark keeps the runs: all that
// may be a base, and what an object can hold.
const differsRuns = 10_000

func differsPrefix(name Name) string { return marksPrefix + "differs." + name.escape() + "." }

// MarkDiffers notes that a deep scrub found a source of this name to differ.
// Levels that exist now are never again trusted as the base of a diff.
func (r *Repository) MarkDiffers(ctx context.Context, name Name) error {
	if err := r.writable(ctx); err != nil {
		return err
	}
	last, err := r.lastNumber(ctx, name)
	if err != nil {
		return err
	}
	h, err := r.History(ctx, name)
	if err != nil {
		return err
	}
	d := difference{Name: name, Number: last, Time: time.Now().UTC()}
	for i := max(0, len(h.Levels)-differsRuns); i < len(h.Levels); i++ {
		d.Runs = append(d.Runs, h.Levels[i].Run)
	}
	key := differsPrefix(name) + last.String()
	err = r.putObject(ctx, key, "differs", &d)
	if errors.Is(err, fs.ErrExist) && len(d.Runs) > 0 {
		// That one may be of other levels.
		err = r.putObject(ctx, key+"."+d.Runs[len(d.Runs)-1].String(), "differs", &d)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// Distrusted returns the newest of a name's levels that is not to be trusted as
// the base of a diff; 0: all are.
func (r *Repository) Distrusted(ctx context.Context, name Name, levels []Level) (newest LevelNumber, err error) {
	keys, err := r.list(ctx, differsPrefix(name))
	if err != nil {
		return 0, err
	}
	for _, key := range keys {
		number, id, more := strings.Cut(strings.TrimPrefix(key, differsPrefix(name)), ".")
		n, err := ParseLevelNumber(number)
		if _, runErr := ParseRunID(id); err != nil || more && runErr != nil {
			continue // of another name, which begins alike
		}
		// The key says the most, so that a mark cannot be damaged away.
		newest = max(newest, n)
		var d difference
		err = r.getObject(ctx, key, "differs", &d)
		if err != nil && !errors.Is(err, errBadObject) && !errors.Is(err, fs.ErrNotExist) {
			return 0, err
		}
		for i := range levels {
			if slices.Contains(d.Runs, levels[i].Run) {
				newest = max(newest, levels[i].Number)
			}
		}
	}
	return newest, nil
}
