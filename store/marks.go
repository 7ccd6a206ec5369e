package store

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"time"
)

// difference is a mark: a deep scrub found a source that differs, so no diff
// from a level up to Number is to be trusted.
type difference struct {
	Name   Name        `json:"name"`
	Number LevelNumber `json:"number"` // the newest level at the time
	Time   time.Time   `json:"time"`
}

func differsPrefix(name Name) string { return marksPrefix + "differs." + name.escape() + "." }

// MarkDiffers notes that a deep scrub found a source of this name to differ.
// Levels that exist now are never again trusted as the base of a diff.
func (r *Repository) MarkDiffers(ctx context.Context, name Name) error {
	if r.readOnly != nil {
		return r.readOnly
	}
	last, err := r.lastNumber(ctx, name)
	if err != nil {
		return err
	}
	d := difference{Name: name, Number: last, Time: time.Now().UTC()}
	err = r.putObject(ctx, differsPrefix(name)+last.String(), "differs", &d)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// Distrusted returns the newest level of a name that is not to be trusted as
// the base of a diff; 0: all are.
func (r *Repository) Distrusted(ctx context.Context, name Name) (newest LevelNumber, err error) {
	keys, err := r.list(ctx, differsPrefix(name))
	for _, key := range keys {
		// The key says it all, so that a mark cannot be damaged away.
		if n, err := ParseLevelNumber(strings.TrimPrefix(key, differsPrefix(name))); err == nil {
			newest = max(newest, n)
		}
	}
	return newest, err
}
