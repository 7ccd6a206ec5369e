package store

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What scrubs have found well, by level:
//
//	marks/scrubbed.<name>.<n>-<run>.<time>  level n, which that run made, was checked whole, in seconds since 1970
//	marks/scrubbed-all.<run>.<i>            likewise, of many levels; the run is the scrub's
//
// A mark is of a level, not of its number: if the record is lost, the next backup
// takes that. Earlier versions' marks name no level's run: they hold for a level
// that was there when the scrub began, and else for none.

func scrubbedPrefix(name Name) string { return marksPrefix + "scrubbed." + name.escape() + "." }

func scrubbedKey(m *scrubbedMark) string {
	return scrubbedPrefix(m.Name) + m.Number.String() + "-" + m.Run.String() + "." + strconv.FormatInt(m.Time.Unix(), 10)
}

const scrubbedAllPrefix = marksPrefix + "scrubbed-all."

// scrubbedMark is of one level; its key says it all.
type scrubbedMark struct {
	Name   Name        `json:"name"`
	Number LevelNumber `json:"number"`
	Run    RunID       `json:"run,omitempty"` // 0 in marks of earlier versions
	Time   time.Time   `json:"time"`
}

// parseScrubbed tells what the key of one level's mark says.
func parseScrubbed(key string) (m scrubbedMark, ok bool) {
	// Name, number and seconds, of which the name may have dots.
	parts := strings.Split(strings.TrimPrefix(key, marksPrefix+"scrubbed."), ".")
	if len(parts) < 3 {
		return m, false
	}
	last := len(parts) - 2
	number, id, bound := strings.Cut(parts[last], "-")
	name, nameErr := unescapeName(strings.Join(parts[:last], "."))
	n, err := ParseLevelNumber(number)
	at, atErr := strconv.ParseInt(parts[last+1], 10, 64)
	if nameErr != nil || err != nil || atErr != nil {
		return m, false
	}
	m = scrubbedMark{Name: name, Number: n, Time: time.Unix(at, 0).UTC()}
	if bound {
		if m.Run, err = ParseRunID(id); err != nil {
			return m, false
		}
	}
	return m, true
}

// scrubbedAll is a part of a mark of many levels.
type scrubbedAll struct {
	Time   time.Time              `json:"time"`
	Levels map[Name][]LevelNumber `json:"levels"`
	Runs   map[Name][]RunID       `json:"runs"` // of these levels, in the same order; none in marks of earlier versions
}

// MarkScrubbed notes that a level was checked whole, by its checksums, and
// found well. Earlier marks of its number are deleted.
func (r *Repository) MarkScrubbed(ctx context.Context, l *Level, at time.Time) error {
	if r.readOnly != nil {
		return nil
	}
	before, err := r.list(ctx, scrubbedPrefix(l.Name))
	if err != nil {
		return err
	}
	m := scrubbedMark{Name: l.Name, Number: l.Number, Run: l.Run, Time: at.UTC().Truncate(time.Second)}
	key := scrubbedKey(&m)
	if err := r.putObject(ctx, key, "scrubbed", &m); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	old := slices.DeleteFunc(before, func(other string) bool {
		o, ok := parseScrubbed(other)
		return !ok || other == key || o.Name != l.Name || o.Number != l.Number
	})
	return r.deleteAll(ctx, old, nil)
}

// scrubbedPart is how many levels a part of a mark of many has at most.
const scrubbedPart = 4_000

// MarkAllScrubbed does the same for many levels at once.
func (r *Repository) MarkAllScrubbed(ctx context.Context, levels []SurveyedLevel, at time.Time) error {
	if r.readOnly != nil {
		return nil
	}
	before, err := r.list(ctx, scrubbedAllPrefix)
	if err != nil {
		return err
	}
	run, part := r.newRun(time.Now()), 0
	m, size := scrubbedAll{Time: at.UTC().Truncate(time.Second)}, 0
	flush := func() error {
		if size == 0 {
			return nil
		}
		key := scrubbedAllPrefix + run.String() + "." + strconv.Itoa(part)
		part, size = part+1, 0
		return r.putObject(ctx, key, "scrubbed all", &m)
	}
	for i := range levels {
		l := &levels[i]
		if size == 0 {
			m.Levels, m.Runs = map[Name][]LevelNumber{}, map[Name][]RunID{}
		}
		m.Levels[l.Name] = append(m.Levels[l.Name], l.Number)
		m.Runs[l.Name] = append(m.Runs[l.Name], l.Run)
		if size++; size >= scrubbedPart {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	return r.deleteAll(ctx, before, nil)
}

// ScrubTimes tell when levels were last checked whole and found well.
type ScrubTimes map[Name]map[LevelNumber][]scrubbedMark

// Of returns when a level was checked; zero: never, as far as is known.
func (t ScrubTimes) Of(l *Level) (at time.Time) {
	for _, m := range t[l.Name][l.Number] {
		own := m.Run == l.Run || m.Run == 0 && !m.Time.Before(l.Committed.Truncate(time.Second))
		if own && m.Time.After(at) {
			at = m.Time
		}
	}
	return at
}

func (t ScrubTimes) note(m scrubbedMark) {
	if t[m.Name] == nil {
		t[m.Name] = map[LevelNumber][]scrubbedMark{}
	}
	t[m.Name][m.Number] = append(t[m.Name][m.Number], m)
}

// Scrubbed reads the marks of one name's levels.
func (r *Repository) Scrubbed(ctx context.Context, name Name) (ScrubTimes, error) {
	return r.scrubTimes(ctx, scrubbedPrefix(name))
}

// AllScrubbed reads the marks of all names' levels.
func (r *Repository) AllScrubbed(ctx context.Context) (ScrubTimes, error) {
	return r.scrubTimes(ctx, marksPrefix+"scrubbed.")
}

// scrubTimes reads the marks of single levels below a prefix, and all of many.
func (r *Repository) scrubTimes(ctx context.Context, prefix string) (ScrubTimes, error) {
	times := ScrubTimes{}
	keys, err := r.list(ctx, prefix)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		if m, ok := parseScrubbed(key); ok {
			times.note(m)
		}
	}
	if keys, err = r.list(ctx, scrubbedAllPrefix); err != nil {
		return nil, err
	}
	for _, key := range keys {
		var all scrubbedAll
		err := r.getObject(ctx, key, "scrubbed all", &all)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errBadObject) {
			continue // taken over by the next; or damaged: then it was not scrubbed, as far as we know
		}
		if err != nil {
			return nil, err
		}
		for name, numbers := range all.Levels {
			for i, n := range numbers {
				m := scrubbedMark{Name: name, Number: n, Time: all.Time}
				if runs := all.Runs[name]; len(runs) == len(numbers) {
					m.Run = runs[i]
				}
				times.note(m)
			}
		}
	}
	return times, nil
}
