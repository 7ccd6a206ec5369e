package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
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
	if err := r.writable(ctx); err != nil {
		return err
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

// protection is a mark: a level that may not be removed.
type protection struct {
	Name   Name        `json:"name"`
	Number LevelNumber `json:"number"`
	Time   time.Time   `json:"time"`
}

func protectedPrefix(name Name) string { return marksPrefix + "protected." + name.escape() + "." }

// Protect keeps a level from being removed. Protecting it twice is no error.
func (r *Repository) Protect(ctx context.Context, name Name, n LevelNumber) error {
	if err := r.writable(ctx); err != nil {
		return err
	}
	h, err := r.History(ctx, name)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(h.Levels, func(l Level) bool { return l.Number == n }) {
		return fmt.Errorf("%s has no level %s", name, n)
	}
	p := protection{Name: name, Number: n, Time: time.Now().UTC()}
	err = r.putObject(ctx, protectedPrefix(name)+n.String(), "protected", &p)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// Unprotect undoes Protect. It is no error if the level was not protected.
func (r *Repository) Unprotect(ctx context.Context, name Name, n LevelNumber) error {
	if err := r.writable(ctx); err != nil {
		return err
	}
	return r.backend.Delete(ctx, protectedPrefix(name)+n.String())
}

// Protected returns the levels of a name that are protected.
func (r *Repository) Protected(ctx context.Context, name Name) (map[LevelNumber]bool, error) {
	keys, err := r.list(ctx, protectedPrefix(name))
	protected := map[LevelNumber]bool{}
	for _, key := range keys {
		if n, err := ParseLevelNumber(strings.TrimPrefix(key, protectedPrefix(name))); err == nil {
			protected[n] = true
		}
	}
	return protected, err
}
