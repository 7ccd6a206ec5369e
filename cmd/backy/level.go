package main

import (
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
			return selector{before: f.end(t), text: s}, nil
		}
	}
	for _, f := range []string{"15:04", "15:04:05"} {
		day := now.Format("2006-01-02 ")
		if t, err := time.ParseInLocation("2006-01-02 "+f, day+s, now.Location()); err == nil {
			end := endOfSecond
			if f == "15:04" {
				end = after(time.Minute)
			}
			return selector{before: end(t), text: s}, nil
		}
	}
	return selector{}, usagef(`level %q: neither a number, "latest", nor a time such as "2006-01-02" or "2006-01-02 15:04"`, s)
}

// noLevelError tells that a name has no such level, and which there are.
type noLevelError struct {
	name   store.Name
	wanted selector
	levels []store.Level // oldest first
}

func (e *noLevelError) Error() string {
	wanted := "level " + e.wanted.text
	if !e.wanted.before.IsZero() {
		wanted = "level from " + e.wanted.text + " or before"
	}
	oldest := slices.MinFunc(e.levels, func(a, b store.Level) int { return a.Time.Compare(b.Time) })
	return fmt.Sprintf("%s has no %s: there are %s, the oldest, %s, of %s",
		e.name, wanted, levelRanges(e.levels), oldest.Number, timeText(oldest.Time))
}

// pick finds the level among those of a name, oldest first and at least one.
// By time it is the one with the greatest time, and of equal ones the last.
func (s selector) pick(name store.Name, levels []store.Level) (store.Level, error) {
	if s.latest {
		return levels[len(levels)-1], nil
	}
	var found *store.Level
	for i := range levels {
		l := &levels[i]
		switch {
		case s.number != 0:
			if l.Number == s.number {
				found = l
			}
		case l.Time.Before(s.before) && (found == nil || !l.Time.Before(found.Time)):
			found = l
		}
	}
	if found == nil {
		return store.Level{}, &noLevelError{name, s, levels}
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
