package engine

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
)

const day = 24 * time.Hour

// spanUnit is one of a time span. A month and a year are the longest that there
// are, so that a rule never keeps less than the calendar says.
type spanUnit struct {
	name   string
	length time.Duration
}

var (
	longUnits  = []spanUnit{{"y", 366 * day}, {"mo", 31 * day}, {"w", 7 * day}, {"d", day}, {"h", time.Hour}}
	shortUnits = []spanUnit{{"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}}
)

// SpanError refuses a time span.
type SpanError struct {
	Text string
	Why  string
	Hint string // what to write instead; may be ""
}

func (e *SpanError) Error() string { return fmt.Sprintf("%q is %s", e.Text, e.Why) }

// ParseSpan reads a time span of a retention rule, such as 30d, 8w, 6mo, 1y or
// 2d12h. There is no unit below an hour, so that nobody's months are taken for
// minutes. Errors: *SpanError.
func ParseSpan(s string) (time.Duration, error) {
	if minutes(s) {
		return 0, &SpanError{
			Text: s, Why: "unclear: m may be minutes or months; write mo for months, h for hours",
			Hint: "write 30d for days, 6mo for months, 12h for hours",
		}
	}
	return parseSpan(s, longUnits, "not a time such as 12h, 30d, 8w, 6mo or 1y")
}

// ParseAge reads a time span for which minutes and seconds make sense as well,
// such as how old a level may be: 90m, 26h, 35d. Errors: *SpanError.
func ParseAge(s string) (time.Duration, error) {
	return parseSpan(s, append(longUnits[:len(longUnits):len(longUnits)], shortUnits...), "not a time such as 90m, 26h, 35d or 2mo")
}

// minutes reports whether a time span has a number with m or M behind it.
func minutes(s string) bool {
	for i := 1; i < len(s); i++ {
		last := i+1 == len(s) || s[i+1] >= '0' && s[i+1] <= '9'
		if (s[i] == 'm' || s[i] == 'M') && last && s[i-1] >= '0' && s[i-1] <= '9' {
			return true
		}
	}
	return false
}

func parseSpan(s string, units []spanUnit, what string) (total time.Duration, err error) {
	if _, err := strconv.ParseUint(s, 10, 64); err == nil && s != "0" {
		return 0, &SpanError{Text: s, Why: what + ": the unit is missing", Hint: fmt.Sprintf("write %sd for days, %sh for hours", s, s)}
	}
	fail := &SpanError{Text: s, Why: what}
	for rest := s; rest != ""; {
		var digits, name string
		digits, rest = leading(rest, func(c byte) bool { return c >= '0' && c <= '9' })
		name, rest = leading(rest, func(c byte) bool { return c < '0' || c > '9' })
		i := indexUnit(units, name)
		n, numErr := strconv.ParseInt(digits, 10, 64)
		if i < 0 || digits == "" {
			return 0, fail
		}
		if numErr != nil || n > (math.MaxInt64-int64(total))/int64(units[i].length) {
			return 0, &SpanError{Text: s, Why: "too long a time"}
		}
		total += time.Duration(n) * units[i].length
		units = units[i+1:] // the longer go first, each once
	}
	if total == 0 {
		return 0, &SpanError{Text: s, Why: what + ", and more than 0"}
	}
	return total, nil
}

func leading(s string, is func(byte) bool) (head, rest string) {
	n := 0
	for n < len(s) && is(s[n]) {
		n++
	}
	return s[:n], s[n:]
}

func indexUnit(units []spanUnit, name string) int {
	for i, u := range units {
		if u.name == name {
			return i
		}
	}
	return -1
}

// ParseCount reads a number of levels: digits alone, in base ten.
func ParseCount(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, errors.New("not a number of levels")
	}
	return int(n), nil
}
