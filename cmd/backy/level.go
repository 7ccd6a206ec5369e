package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"backy/store"
)

// selector is what LEVEL stands for: exactly one of its fields is set.
type selector struct {
	number store.LevelNumber
	latest bool
	before time.Time // the newest level before this moment
	text   string    // as typed
}

// timeForms are the forms of times and dates that LEVEL takes. Those without a
// zone are local. What a form leaves out counts in full: a date means its end,
// 15:04 means the end of that minute, as ls shows the times.
var timeForms = []struct {
	layout string
	end    func(time.Time) time.Time
}{
	{"2006-01-02", endOfDay},
	{"2006-01-02 15:04", after(time.Minute)},
	{"2006-01-02T15:04", after(time.Minute)},
	{"2006-01-02 15:04:05", endOfSecond},
	{"2006-01-02T15:04:05", endOfSecond},
	{"2006-01-02T15:04Z07:00", after(time.Minute)},
	{"2006-01-02 15:04:05Z07:00", endOfSecond},
	{"2006-01-02 15:04:05 Z07:00", endOfSecond},
	{"2006-01-02 15:04:05 -0700", endOfSecond},
	{time.RFC3339, endOfSecond},
}

// endOfDay is the next midnight, however long the day is.
func endOfDay(t time.Time) time.Time { return t.AddDate(0, 0, 1) }

func after(d time.Duration) func(time.Time) time.Time {
	return func(t time.Time) time.Time { return t.Add(d) }
}

// endOfSecond goes one nanosecond on where the time has a fraction, so that a
// time as --json prints it takes in the level of that very moment.
func endOfSecond(t time.Time) time.Time {
	if t.Nanosecond() != 0 {
		return t.Add(1)
	}
	return t.Add(time.Second)
}

// parseLevel reads LEVEL: digits are a number, "latest" is the newest, and
// anything else a time or date, without a zone in loc. now gives the day
// of a time without a date.
func parseLevel(s string, now time.Time) (selector, error) {
	if s == "latest" {
		return selector{latest: true, text: s}, nil
	}
	if s != "" && strings.Trim(s, "0123456789") == "" {
		n, err := store.ParseLevelNumber(s)
		if err != nil {
			return selector{}, &usageError{err}
		}
		return selector{number: n, text: s}, nil
	}
	for _, f := range timeForms {
		if t, err := time.ParseInLocation(f.layout, s, now.Location()); err == nil {
			if now.Location() == unknownZone && !strings.Contains(f.layout, "07") { // the form has no zone
				return selector{}, localUnknown(s)
			}
			return selector{before: f.end(t), text: s}, nil
		}
	}
	for _, f := range []string{"15:04", "15:04:05"} {
		day := now.Format("2006-01-02 ")
		if t, err := time.ParseInLocation("2006-01-02 "+f, day+s, now.Location()); err == nil {
			if now.Location() == unknownZone {
				return selector{}, localUnknown(s)
			}
			end := endOfSecond
			if f == "15:04" {
				end = after(time.Minute)
			}
			return selector{before: end(t), text: s}, nil
		}
	}
	return selector{}, usagef(`level %q: neither a number, "latest", nor a time such as "2006-01-02" or "2006-01-02 15:04"`, s)
}

// localUnknown refuses a time without a zone if the local one is unknown.
func localUnknown(s string) error {
	return usagef("level %q is a local time, and the local time zone is unknown: %w", s, zoneProblem)
}

// levels are those of a name: what is known of them all.
type levels struct {
	name store.Name
	good []store.Level     // oldest first
	bad  []store.BadRecord // that cannot be read, by number
}

// unreadable tells what is wrong with the bad ones; nil where there is none.
func (l *levels) unreadable() error {
	var errs []error
	for _, b := range l.bad {
		errs = append(errs, fmt.Errorf("%s level %s cannot be read: %w", l.name, b.Number, b.Err))
	}
	return errors.Join(errs...)
}

// noLevelError tells that a name has no such level, and which there are.
type noLevelError struct {
	wanted selector
	levels *levels
}

func (e *noLevelError) Error() string {
	wanted := "level " + e.wanted.text
	if !e.wanted.before.IsZero() {
		wanted = "level from " + e.wanted.text + " or before"
	}
	text := fmt.Sprintf("%s has no %s", e.levels.name, wanted)
	if good := e.levels.good; len(good) > 0 {
		oldest := slices.MinFunc(good, func(a, b store.Level) int { return a.Time.Compare(b.Time) })
		text += fmt.Sprintf(": there are %s, the oldest, %s, of %s", levelRanges(good), oldest.Number, timeText(oldest.Time))
	}
	return text
}

// pick finds the level. By time it is the one with the greatest time, and of
// equal ones the last. Where a record that cannot be read might be the one
// that is meant, that is an error.
func (s selector) pick(l *levels) (store.Level, error) {
	var found *store.Level
	for i := range l.good {
		g := &l.good[i]
		switch {
		case s.latest, s.number == g.Number:
			found = g
		case g.Time.Before(s.before) && (found == nil || !g.Time.Before(found.Time)):
			found = g
		}
	}
	if found != nil && s.number != 0 {
		return *found, nil
	}
	for _, b := range l.bad {
		meant := found == nil || b.Number > found.Number
		if s.number != 0 {
			meant = b.Number == s.number
		}
		if meant {
			return store.Level{}, fmt.Errorf("%s level %s cannot be read: %w", l.name, b.Number, b.Err)
		}
	}
	if found == nil {
		return store.Level{}, &noLevelError{s, l}
	}
	return *found, nil
}

// levelRanges lists numbers in short: 1-3, 5, 8-9, and of very many ranges the
// first and last few.
func levelRanges(levels []store.Level) string {
	var parts []string
	for i := 0; i < len(levels); {
		first, j := levels[i].Number, i
		for j+1 < len(levels) && levels[j+1].Number == levels[j].Number+1 {
			j++
		}
		part := first.String()
		if j > i {
			part += "-" + levels[j].Number.String()
		}
		parts = append(parts, part)
		i = j + 1
	}
	const ends = 5
	if n := len(parts); n > 2*ends {
		parts = slices.Concat(parts[:ends], []string{"…"}, parts[n-ends:])
	}
	return strings.Join(parts, ", ")
}
