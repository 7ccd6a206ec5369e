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

// A protection is of a level, not of its number: if the record is lost, the next
// backup takes the number, and recover puts the level back under another. So the
// key names the level's run, and says it all: a mark cannot be damaged away.
// Earlier versions' marks name the number alone, and hold for whichever level has
// it.

// protection is a mark: a level that may not be removed.
type protection struct {
	Name   Name        `json:"name"`
	Number LevelNumber `json:"number"`
	Run    RunID       `json:"run,omitempty"` // 0 in marks of earlier versions
	Time   time.Time   `json:"time"`
}

func protectedPrefix(name Name) string { return marksPrefix + "protected." + name.escape() + "." }

func protectedKey(l *Level) string {
	return protectedPrefix(l.Name) + l.Number.String() + "." + l.Run.String()
}

// Protections are the levels of one name that may not be removed.
type Protections struct {
	runs    map[RunID][]string       // the keys of their marks
	numbers map[LevelNumber][]string // of marks that name no run
}

// Has reports whether a level is protected.
func (p Protections) Has(l *Level) bool { return len(p.keys(l)) > 0 }

func (p Protections) keys(l *Level) []string {
	return slices.Concat(p.runs[l.Run], p.numbers[l.Number])
}

// Protected returns what protects the levels of a name.
func (r *Repository) Protected(ctx context.Context, name Name) (Protections, error) {
	p := Protections{runs: map[RunID][]string{}, numbers: map[LevelNumber][]string{}}
	keys, err := r.list(ctx, protectedPrefix(name))
	for _, key := range keys {
		number, id, bound := strings.Cut(strings.TrimPrefix(key, protectedPrefix(name)), ".")
		n, err := ParseLevelNumber(number)
		run, runErr := ParseRunID(id)
		switch {
		case err != nil: // of another name, which begins alike
		case !bound:
			p.numbers[n] = append(p.numbers[n], key)
		case runErr == nil:
			p.runs[run] = append(p.runs[run], key)
		}
	}
	return p, err
}

// Protect keeps a level from being removed. Protecting it twice is no error.
func (r *Repository) Protect(ctx context.Context, name Name, n LevelNumber) error {
	l, err := r.writableLevel(ctx, name, n)
	if err != nil {
		return err
	}
	p := protection{Name: name, Number: n, Run: l.Run, Time: time.Now().UTC()}
	err = r.putObject(ctx, protectedKey(l), "protected", &p)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// Unprotect undoes Protect. It is no error if the level was not protected.
func (r *Repository) Unprotect(ctx context.Context, name Name, n LevelNumber) error {
	l, err := r.writableLevel(ctx, name, n)
	if err != nil {
		return err
	}
	p, err := r.Protected(ctx, name)
	if err != nil {
		return err
	}
	return r.deleteAll(ctx, p.keys(l), nil)
}

// writableLevel finds a level that is to get a mark or to lose one.
func (r *Repository) writableLevel(ctx context.Context, name Name, n LevelNumber) (*Level, error) {
	if err := r.writable(ctx); err != nil {
		return nil, err
	}
	h, err := r.History(ctx, name)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(h.Levels, func(l Level) bool { return l.Number == n })
	if i < 0 {
		return nil, fmt.Errorf("%s has no level %s", name, n)
	}
	return &h.Levels[i], nil
}
