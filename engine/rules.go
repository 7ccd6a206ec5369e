package engine

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"backy/store"
)

// RulePrefix is what the metadata keys begin with that steer an image's
// backups.
const RulePrefix = "backy."

// Rules are what an image's owner wants of its backups.
type Rules struct {
	Exclude bool
	MinAge  *time.Duration // shortens the run's; nil: leaves it

	// Unclear says what is wrong with each rule that is not understood, a sentence
	// each. While there is one, nothing of the image is forgotten: it may have
	// been meant to keep what the others do not.
	Unclear []string

	// Ignored are sentences about what is not understood either, but cannot have
	// been meant so.
	Ignored []string

	keep map[string]int // by keepRules
	in   *time.Duration // keep-within
}

// keepRules are the counting rules of a policy by their keys.
var keepRules = map[string]func(*Keep) *int{
	"keep-last":    func(k *Keep) *int { return &k.Last },
	"keep-hourly":  func(k *Keep) *int { return &k.Hourly },
	"keep-daily":   func(k *Keep) *int { return &k.Daily },
	"keep-weekly":  func(k *Keep) *int { return &k.Weekly },
	"keep-monthly": func(k *Keep) *int { return &k.Monthly },
	"keep-yearly":  func(k *Keep) *int { return &k.Yearly },
}

// ParseRules reads an image's metadata; keys of others are none of its
// business.
//
// No rule names a command, nor anything else beyond the image's own backups:
// whoever may write an image's metadata is not the one who runs the backups.
func ParseRules(metadata map[string]string) (r Rules) {
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
		if err := r.set(key, metadata[full]); err != nil {
			why := err.Error()
			if refused := (*SpanError)(nil); errors.As(err, &refused) {
				why = refused.Why
			}
			// Quoted, but for what surrounds a plain key: both may hold anything.
			plain := strings.Trim(strconv.Quote(shorten(full)), `"`)
			text := fmt.Sprintf("image metadata %s %q: %s", plain, shorten(metadata[full]), why)
			if aboutKeeping(key) {
				r.Unclear = append(r.Unclear, text)
			} else {
				r.Ignored = append(r.Ignored, text)
			}
		}
	}
	return r
}

// keepingWords are parts of keys, also of misspelt ones, that are about what is
// kept. exclude is: who wants no backups any more may want the last ones.
var keepingWords = []string{
	"keep", "kep", "retain", "retention", "last", "hour", "dai", "day", "week", "month", "year", "within", "exclu",
}

func aboutKeeping(key string) bool {
	key = strings.ToLower(key)
	return slices.ContainsFunc(keepingWords, func(w string) bool { return strings.Contains(key, w) })
}

// Warnings are sentences about all that is not understood.
func (r *Rules) Warnings() (list []string) {
	for _, text := range r.Unclear {
		list = append(list, text+"; until that is mended, nothing of the image is forgotten")
	}
	for _, text := range r.Ignored {
		list = append(list, text+"; it is left out")
	}
	return list
}

// shorten bounds what is told of metadata, which may be of any length.
func shorten(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// UnknownRules are those of an image whose metadata cannot be read.
func UnknownRules(cause string) Rules {
	return Rules{Unclear: []string{"the image metadata cannot be read: " + cause}}
}

func (r *Rules) set(key, value string) (err error) {
	span := func(parse func(string) (time.Duration, error)) (*time.Duration, error) {
		if value == "0" {
			return new(time.Duration), nil
		}
		d, err := parse(value)
		return &d, err
	}
	switch {
	case key == "exclude":
		exclude, err := strconv.ParseBool(value)
		if err != nil {
			return errors.New("neither true nor false")
		}
		r.Exclude = exclude
	case key == "min-age":
		if r.MinAge, err = span(ParseAge); err != nil {
			r.MinAge = new(time.Duration) // it was to shorten the run's
		}
		return err
	case key == "keep-within":
		within, err := span(ParseSpan)
		if err != nil {
			return err
		}
		r.in = within
	case keepRules[key] != nil:
		n, err := ParseCount(value)
		if err != nil {
			return err
		}
		if r.keep == nil {
			r.keep = map[string]int{}
		}
		r.keep[key] = n
	default:
		return errors.New("no such key; there are exclude, min-age, keep-last, -hourly, -daily, -weekly, -monthly, -yearly and -within")
	}
	return nil
}

// Keep is the policy of the image's own rules; the zero value if it has none.
func (r Rules) Keep() Keep { return r.over(Keep{}) }

// over is a policy with the image's own rules in place of it.
func (r Rules) over(run Keep) Keep {
	for key, n := range r.keep {
		*keepRules[key](&run) = n
	}
	if r.in != nil {
		run.Within = *r.in
	}
	return run
}

// MinAgeOf is how old the newest level of the image is before it is backed up
// again: what the run says, or less.
func (r Rules) MinAgeOf(run time.Duration) time.Duration {
	if r.MinAge != nil {
		return min(run, *r.MinAge)
	}
	return run
}

// Limits of what a level records of its image's metadata. What is beyond them
// is recorded so that it is not understood.
const (
	mostRules   = 64
	longestRule = 256 // bytes
	tooLong     = "(too long)"
)

// RecordRules is what a level records of an image's metadata, which anybody may
// have made as long as they like: the rules, within bounds.
func RecordRules(metadata map[string]string) map[string]string {
	var keys []string
	for key := range metadata {
		if strings.HasPrefix(key, RulePrefix) {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	slices.Sort(keys)
	rules := map[string]string{}
	if len(keys) > mostRules {
		keys = keys[:mostRules]
		rules[RulePrefix+"keep"] = "(too many keys)"
	}
	for _, key := range keys {
		value := metadata[key]
		if len(value) > longestRule {
			value = tooLong
		}
		if len(key) > longestRule {
			key = RulePrefix + "keep" + tooLong
		}
		rules[key] = value
	}
	return rules
}

// RecordedRules are those of the image that a level was read from, as they were
// then; none if it is no image.
func RecordedRules(l *store.Level) Rules {
	o := l.Origin.RBD
	switch {
	case o == nil:
		return Rules{}
	case o.RulesUnknown != "":
		return UnknownRules(o.RulesUnknown)
	}
	return ParseRules(o.Rules)
}

// newestRules are what the newest level of an image recorded, of levels that
// come newest first; nil if none is of an image.
func newestRules(levels []store.Level) *Rules {
	for i := range levels {
		if levels[i].Origin.RBD != nil {
			r := RecordedRules(&levels[i])
			return &r
		}
	}
	return nil
}
