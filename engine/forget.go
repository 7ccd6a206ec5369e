package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"backy/store"
)

// Keep is a retention policy: what each rule keeps of a name's levels. A level
// stays if any rule keeps it.
type Keep struct {
	Last    int // the newest
	Hourly  int // the newest of each of so many hours that have one
	Daily   int // likewise, by the calendar of the location
	Weekly  int // ISO weeks, which begin on Monday
	Monthly int
	Yearly  int

	// Within keeps everything that is not older than so long before the newest
	// level.
	Within time.Duration

	Location *time.Location // of calendar days; nil: local time
}

// ErrEmptyPolicy refuses a policy that would keep nothing.
var ErrEmptyPolicy = errors.New("the policy keeps nothing: name at least one --keep rule")

// Validate refuses an empty policy and negative numbers.
func (k Keep) Validate() error {
	rules := []int{k.Last, k.Hourly, k.Daily, k.Weekly, k.Monthly, k.Yearly}
	if slices.Min(rules) < 0 || k.Within < 0 {
		return errors.New("a --keep rule is negative")
	}
	if slices.Max(rules) == 0 && k.Within == 0 {
		return ErrEmptyPolicy
	}
	return nil
}

// Decision is what a policy says of one level.
type Decision struct {
	Level   store.Level `json:"level"`
	Keep    bool        `json:"keep"`
	Reasons []string    `json:"reasons"` // the rules that keep it
}

// bucket is a calendar rule: how many periods, and which one a time is in.
type bucket struct {
	reason string
	left   int
	period func(time.Time) string
	last   string
}

// Apply decides about the levels of one name, which come back newest first.
// Levels for which protected answers true stay and take no rule's place.
func (k Keep) Apply(levels []store.Level, protected func(store.LevelNumber) bool) []Decision {
	location := k.Location
	if location == nil {
		location = time.Local
	}
	levels = slices.Clone(levels)
	slices.SortFunc(levels, func(a, b store.Level) int {
		if c := b.Time.Compare(a.Time); c != 0 {
			return c
		}
		return int(int64(b.Number) - int64(a.Number))
	})
	layout := func(l string) func(time.Time) string { return func(t time.Time) string { return t.Format(l) } }
	buckets := []*bucket{
		{reason: "last", left: k.Last, period: nil},
		{reason: "hourly", left: k.Hourly, period: layout("2006-01-02 15 -07")},
		{reason: "daily", left: k.Daily, period: layout("2006-01-02")},
		{reason: "weekly", left: k.Weekly, period: func(t time.Time) string { y, w := t.ISOWeek(); return fmt.Sprint(y, " ", w) }},
		{reason: "monthly", left: k.Monthly, period: layout("2006-01")},
		{reason: "yearly", left: k.Yearly, period: layout("2006")},
	}
	decisions := make([]Decision, len(levels))
	for i, l := range levels {
		d := &decisions[i]
		d.Level = l
		d.Reasons = []string{}
		if protected(l.Number) {
			d.Reasons = append(d.Reasons, "protected")
		} else {
			for _, b := range buckets {
				if b.takes(l.Time.In(location)) {
					d.Reasons = append(d.Reasons, b.reason)
				}
			}
		}
		if k.Within > 0 && !l.Time.Before(levels[0].Time.Add(-k.Within)) {
			d.Reasons = append(d.Reasons, "within")
		}
		d.Keep = len(d.Reasons) > 0
	}
	return decisions
}

// takes reports whether the rule keeps a level of this time, which is not
// later than those it was asked about before.
func (b *bucket) takes(t time.Time) bool {
	if b.left == 0 {
		return false
	}
	if b.period != nil {
		period := b.period(t)
		if period == b.last {
			return false
		}
		b.last = period
	}
	b.left--
	return true
}

// Forget removes the levels of a name that a policy does not keep, and returns
// what it decided about each. A dry run removes nothing.
func Forget(ctx context.Context, repo *store.Repository, name store.Name, k Keep, dryRun bool) ([]Decision, error) {
	if err := k.Validate(); err != nil {
		return nil, err
	}
	levels, err := repo.Levels(ctx, name)
	if err != nil {
		// Which of the others are to stay depends on those that cannot be read.
		return nil, fmt.Errorf("forget levels of %s: %w", name, err)
	}
	protected, err := repo.Protected(ctx, name)
	if err != nil {
		return nil, err
	}
	decisions := k.Apply(levels, func(n store.LevelNumber) bool { return protected[n] })
	var remove []store.LevelNumber
	for _, d := range decisions {
		if !d.Keep {
			remove = append(remove, d.Level.Number)
		}
	}
	if dryRun || len(remove) == 0 {
		return decisions, nil
	}
	return decisions, repo.Remove(ctx, name, remove)
}
