package engine

import (
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
	Now      time.Time      // zero: the current time
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
	Reasons []string    `json:"reasons"` // why it stays: rules, and the reasons below
}

// Reasons other than rules for which a level stays.
const (
	byProtection = "protected"
	byNewest     = "newest"   // no policy removes the newest of a name
	byMade       = "new"      // nor the one that the run has just made
	byMisdated   = "misdated" // its time contradicts its number or the present
	byJump       = "jump"     // within the time before a jump of the clock: see jump
	byUnclear    = "unclear"  // a rule of the image's metadata is not understood
)

// bucket is a calendar rule: how many periods, and which one a time is in.
type bucket struct {
	reason string
	left   int
	period func(time.Time) string
	last   string
}

// buckets are the counting rules of a policy.
func (k Keep) buckets() []*bucket {
	layout := func(l string) func(time.Time) string { return func(t time.Time) string { return t.Format(l) } }
	return []*bucket{
		{reason: "last", left: k.Last, period: nil},
		{reason: "hourly", left: k.Hourly, period: layout("2006-01-02 15 -07")},
		{reason: "daily", left: k.Daily, period: layout("2006-01-02")},
		{reason: "weekly", left: k.Weekly, period: func(t time.Time) string { y, w := t.ISOWeek(); return fmt.Sprint(y, " ", w) }},
		{reason: "monthly", left: k.Monthly, period: layout("2006-01")},
		{reason: "yearly", left: k.Yearly, period: layout("2006")},
	}
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

// Apply decides about the levels of one name, which come back newest first: by
// number, since clocks order nothing. The newest stays, and so do levels whose
// times are not believed and those for which protected answers true; these two
// take no rule's place.
func (k Keep) Apply(levels []store.Level, protected func(store.LevelNumber) bool) []Decision {
	return k.decide(newestFirst(levels), k.date(levels), protected)
}

func newestFirst(levels []store.Level) []store.Level {
	levels = slices.Clone(levels)
	slices.SortFunc(levels, func(a, b store.Level) int { return int(int64(b.Number) - int64(a.Number)) })
	return levels
}

func (k Keep) date(levels []store.Level) *Dating {
	now := k.Now
	if now.IsZero() {
		now = time.Now()
	}
	return Date(levels, now)
}

// decide is Apply for levels that come newest first.
func (k Keep) decide(levels []store.Level, dating *Dating, protected func(store.LevelNumber) bool) []Decision {
	location := k.Location
	if location == nil {
		location = time.Local
	}
	believed := slices.DeleteFunc(slices.Clone(levels), func(l store.Level) bool { return dating.Wrong(l.Number) })
	buckets, windows := k.buckets(), k.windows(believed)
	decisions := make([]Decision, len(levels))
	for i, l := range levels {
		d := &decisions[i]
		d.Level, d.Reasons = l, []string{}
		wrong := dating.Wrong(l.Number)
		if protected(l.Number) {
			d.Reasons = append(d.Reasons, byProtection)
		} else if !wrong {
			for _, b := range buckets {
				if b.takes(l.Time.In(location)) {
					d.Reasons = append(d.Reasons, b.reason)
				}
			}
		}
		if wrong {
			d.Reasons = append(d.Reasons, byMisdated)
		} else if reason := windows.of(l.Time); reason != "" {
			d.Reasons = append(d.Reasons, reason)
		}
		if i == 0 && len(d.Reasons) == 0 {
			d.Reasons = append(d.Reasons, byNewest)
		}
		d.Keep = len(d.Reasons) > 0
	}
	return decisions
}

// windows are what Keep.Within keeps.
type windows struct {
	from         time.Time // all since
	jump         bool      // there is one
	before, upTo time.Time // then what lies between these stays as well
}

func (w *windows) of(t time.Time) string {
	switch {
	case w.from.IsZero():
	case !t.Before(w.from):
		return "within"
	case w.jump && !t.Before(w.before) && !t.After(w.upTo):
		return byJump
	}
	return ""
}

// jumpTimes is how many times as long as any pause before it a pause is that
// may be a jump of the clock.
const jumpTimes = 10

// windows finds out what Within keeps of levels, newest first, whose times are
// believed.
//
// A host whose clock has jumped ahead makes levels that look right to itself, and
// everything before would be too old at once. So what lay within the time before
// an unheard-of pause stays until the levels after it cover the rule's time
// themselves.
func (k Keep) windows(levels []store.Level) (w windows) {
	if k.Within == 0 || len(levels) == 0 {
		return w
	}
	newest := levels[0].Time
	w.from = newest.Add(-k.Within)
	for i := 1; i < len(levels) && newest.Sub(levels[i-1].Time) < k.Within; i++ {
		pause := levels[i-1].Time.Sub(levels[i].Time)
		if pause <= k.Within {
			continue
		}
		if usual := longestPause(levels[i:]); usual > 0 && pause/jumpTimes > usual {
			w.jump, w.upTo, w.before = true, levels[i].Time, levels[i].Time.Add(-k.Within)
		}
		break
	}
	return w
}

// longestPause is that between two levels; 0 where there is none.
func longestPause(levels []store.Level) (most time.Duration) {
	for i := 1; i < len(levels); i++ {
		most = max(most, levels[i-1].Time.Sub(levels[i].Time))
	}
	return most
}

// keepsBy reports whether a decision names a reason.
func (d *Decision) keepsBy(reason string) bool { return slices.Contains(d.Reasons, reason) }

// add makes a decision keep what a rule of the image's metadata keeps.
func (d *Decision) add(other Decision) {
	for _, reason := range other.Reasons {
		switch reason {
		case byProtection, byMisdated, byNewest:
		default:
			if !d.keepsBy(reason) {
				d.Keep, d.Reasons = true, append(d.Reasons, "metadata-"+reason)
			}
		}
	}
	d.Reasons = dropNewest(d.Reasons)
}

// dropNewest leaves out byNewest where there is another reason.
func dropNewest(reasons []string) []string {
	if len(reasons) > 1 {
		return slices.DeleteFunc(reasons, func(r string) bool { return r == byNewest })
	}
	return reasons
}
