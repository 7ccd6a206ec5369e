package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"backy/engine"
)

const defaultCephTimeout = 2 * time.Minute

// durationValue is a flag's time span: 90s, 2m, or a plain number of seconds.
type durationValue time.Duration

func (v *durationValue) String() string {
	if *v == 0 {
		return "" // no default
	}
	s := time.Duration(*v).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func (v *durationValue) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil {
		seconds, numErr := strconv.ParseUint(s, 10, 31)
		if numErr != nil {
			return fmt.Errorf("not a time such as 90s or 2m")
		}
		d = time.Duration(seconds) * time.Second
	}
	if d <= 0 {
		return fmt.Errorf("not more than 0")
	}
	*v = durationValue(d)
	return nil
}

// sizeValue is a flag's number of bytes: see parseSize.
type sizeValue struct {
	bytes int64
	given bool
}

func (v *sizeValue) String() string {
	if !v.given {
		return ""
	}
	return strconv.FormatInt(v.bytes, 10)
}

func (v *sizeValue) Set(s string) (err error) {
	v.bytes, err = parseSize(s)
	v.given = err == nil
	return err
}

// parseSize reads a number of bytes. As with rbd, K, M, G, T and P alone are
// powers of 1024, KiB too; KB and MB are powers of 1000.
func parseSize(s string) (int64, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 && s[0] != '+' {
		return n, nil
	}
	fail := fmt.Errorf("not a size such as 65536, 64K or 1.5GiB")
	if s == "" || s[0] < '0' || s[0] > '9' || strings.ContainsAny(s, ",_ ") {
		return 0, fail
	}
	unit := s
	if strings.ContainsRune("kmgtpKMGTP", rune(s[len(s)-1])) {
		unit += "iB"
	}
	n, err := humanize.ParseBytes(unit)
	if err != nil || n > math.MaxInt64 {
		return 0, fail
	}
	return int64(n), nil
}

// rateValue is a flag's number of bytes a second: 200MiB/s, or 200M.
type rateValue int64

func (v *rateValue) String() string {
	if *v == 0 {
		return ""
	}
	return bytesText(int64(*v)) + "/s"
}

// rate is nil where there is no flag.
func (v rateValue) rate() *engine.Rate { return engine.NewRate(int64(v)) }

// leastRate keeps a run from looking dead to others, who wait a minute for it
// to move on.
const leastRate = 1 << 20

func (v *rateValue) Set(s string) error {
	n, err := parseSize(strings.TrimSuffix(s, "/s"))
	if err != nil {
		return fmt.Errorf("not a rate such as 200MiB/s")
	}
	if n < leastRate {
		return fmt.Errorf("less than 1MiB/s")
	}
	*v = rateValue(n)
	return nil
}

// spanValue is a flag's time span of days, weeks and more, as the metadata of
// images has it too.
type spanValue struct {
	to    *time.Duration
	parse func(string) (time.Duration, error) // engine.ParseSpan or engine.ParseAge
	zero  bool                                // 0 may be given

	better string // what to write in place of what was refused; may be ""
}

func (v *spanValue) String() string {
	if v.to == nil {
		return ""
	}
	return (*durationValue)(v.to).String()
}

func (v *spanValue) Set(s string) error {
	if s == "0" && v.zero {
		*v.to = 0
		return nil
	}
	d, err := v.parse(s)
	var refused *engine.SpanError
	if errors.As(err, &refused) {
		v.better = refused.Hint
		return errors.New(refused.Why) // the flag's value is told already
	}
	*v.to = d
	return err
}

func (v *spanValue) hint() string { return v.better }

// countValue is a flag's number of levels.
type countValue int

func (v *countValue) String() string {
	if *v == 0 {
		return ""
	}
	return strconv.Itoa(int(*v))
}

func (v *countValue) Set(s string) error {
	n, err := engine.ParseCount(s)
	if err != nil {
		return errors.New("not a number of levels")
	}
	*v = countValue(n)
	return nil
}

// percentValue is a flag's share in percent, more than 0 and at most 100.
type percentValue float64

func (v *percentValue) String() string { return strconv.FormatFloat(float64(*v), 'g', -1, 64) }

func (v *percentValue) Set(s string) error {
	f, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if err != nil || !(f > 0 && f <= 100) {
		return fmt.Errorf("not a percentage over 0 and up to 100")
	}
	*v = percentValue(f)
	return nil
}

// choiceValue is a flag that takes one of a few words.
type choiceValue struct {
	words  []string
	chosen string
}

func (v *choiceValue) String() string { return v.chosen }

func (v *choiceValue) Set(s string) error {
	for _, w := range v.words {
		if s == w {
			v.chosen = s
			return nil
		}
	}
	return fmt.Errorf("not one of %s", strings.Join(v.words, ", "))
}

// bytesText is a number of bytes for people.
func bytesText(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// shortBytes is bytesText in at most five columns, for tables: 1.5G, 512.
func shortBytes(n int64) string {
	s := strings.Replace(bytesText(n), " ", "", 1)
	return strings.TrimSuffix(strings.TrimSuffix(s, "B"), "i")
}

// count is a number of things for people: 1 chunk, 2 chunks.
func count(n int64, thing string) string { return plural(n, thing, thing+"s") }

func plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.FormatInt(n, 10) + " " + many
}

// secondsText is a time span for people.
func secondsText(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < 10*time.Second:
		return strconv.FormatFloat(seconds, 'f', 1, 64) + " s"
	case d < time.Minute:
		return strconv.FormatFloat(seconds, 'f', 0, 64) + " s"
	}
	return d.Round(time.Second).String()
}

// tristate is a flag that may be given as it is, or as true or false.
type tristate struct{ yes, no bool }

func (v *tristate) String() string { return "" } // no default

func (v *tristate) Set(s string) error {
	yes, err := strconv.ParseBool(s)
	if err != nil {
		return errors.New("not true or false")
	}
	*v = tristate{yes: yes, no: !yes}
	return nil
}

func (v *tristate) IsBoolFlag() bool { return true }
