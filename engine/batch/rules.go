package batch

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"backy/engine"
)

// RulePrefix is what the metadata keys begin with that steer an image's
// backups.
const RulePrefix = "backy."

// Rules are what an image's owner wants of its backups.
type Rules struct {
	Exclude bool
	MinAge  *time.Duration // nil: the run's

	keep map[string]int // by keepRules; takes the place of the run's
	in   *time.Duration // likewise
}

// keepRules are the counting rules of a policy by their keys.
var keepRules = map[string]func(*engine.Keep) *int{
	"keep-last":    func(k *engine.Keep) *int { return &k.Last },
	"keep-hourly":  func(k *engine.Keep) *int { return &k.Hourly },
	"keep-daily":   func(k *engine.Keep) *int { return &k.Daily },
	"keep-weekly":  func(k *engine.Keep) *int { return &k.Weekly },
	"keep-monthly": func(k *engine.Keep) *int { return &k.Monthly },
	"keep-yearly":  func(k *engine.Keep) *int { return &k.Yearly },
}

// ParseRules reads an image's metadata; keys of others are none of its
// business. What it does not understand it leaves out and tells, a sentence
// each. span reads a time span.
//
// No rule names a command, nor anything else beyond the image's own backups:
// whoever may write an image's metadata is not the one who runs the backups.
func ParseRules(metadata map[string]string, span func(string) (time.Duration, error)) (r Rules, bad []string) {
	keys := make([]string, 0, len(metadata))
	for key := range metadata {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, full := range keys {
		key, ours := strings.CutPrefix(full, RulePrefix)
		if !ours {
			continue
		}
		if err := r.set(key, metadata[full], span); err != nil {
			bad = append(bad, fmt.Sprintf("image metadata %s %q: %v; it is left out", full, metadata[full], err))
		}
	}
	return r, bad
}

func (r *Rules) set(key, value string, span func(string) (time.Duration, error)) (err error) {
	timeSpan := func() (*time.Duration, error) {
		if value == "0" {
			return new(time.Duration), nil
		}
		d, err := span(value)
		return &d, err
	}
	switch {
	case key == "exclude":
		exclude, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("neither true nor false")
		}
		r.Exclude = exclude
	case key == "min-age":
		age, err := timeSpan()
		if err != nil {
			return err
		}
		r.MinAge = age
	case key == "keep-within":
		within, err := timeSpan()
		if err != nil {
			return err
		}
		r.in = within
	case keepRules[key] != nil:
		n, err := strconv.ParseUint(value, 10, 31)
		if err != nil {
			return fmt.Errorf("not a number of levels")
		}
		if r.keep == nil {
			r.keep = map[string]int{}
		}
		r.keep[key] = int(n)
	default:
		return fmt.Errorf("no such key; there are exclude, min-age, keep-last, -hourly, -daily, -weekly, -monthly, -yearly and -within")
	}
	return nil
}

// Keep is a run's policy with the image's own rules in place of the run's.
func (r Rules) Keep(run engine.Keep) engine.Keep {
	for key, n := range r.keep {
		*keepRules[key](&run) = n
	}
	if r.in != nil {
		run.Within = *r.in
	}
	return run
}

func (r Rules) minAge(run time.Duration) time.Duration {
	if r.MinAge != nil {
		return *r.MinAge
	}
	return run
}
