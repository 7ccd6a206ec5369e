package engine_test

import (
	"errors"
	"testing"
	"time"

	"backy/engine"
)

// One parser serves flags and metadata. What might be meant otherwise is
// refused, never guessed.
func TestParseSpan(t *testing.T) {
	const day = 24 * time.Hour
	for s, want := range map[string]time.Duration{
		"1h": time.Hour, "12h": 12 * time.Hour, "30d": 30 * day, "8w": 56 * day,
		"6mo": 6 * 31 * day, "1y": 366 * day, "2y6mo": (2*366 + 6*31) * day, "2d12h": 60 * time.Hour,
		"036h": 36 * time.Hour, "1y1mo1w1d1h": (366+31+7+1)*day + time.Hour, "290y": 290 * 366 * day,
	} {
		if got, err := engine.ParseSpan(s); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", s, got, err, want)
		}
		if got, err := engine.ParseAge(s); err != nil || got != want {
			t.Errorf("%q as an age: %v, %v; want %v", s, got, err, want)
		}
	}
	never := []string{
		"", "0", "0d", "30", "1", "-1d", "+1d", " 30d", "30d ", "30 d", "30D", "1.5h", "d", "mo", "1d2", "12h2d", "1d1d", "30days",
		"3h4", "1e3h", "1_0d", "９d", "999y", "99999999999999999999d", "290y12mo99999999h", "1M", "1Mo", "0x1d", "1h\n", "∞d",
	}
	for _, s := range append(never, "1m", "30m", "1h30m", "6m2w", "90s", "1500ms", "1us", "3min") {
		var refused *engine.SpanError
		if got, err := engine.ParseSpan(s); !errors.As(err, &refused) {
			t.Errorf("%q: %v, %v; want it refused", s, got, err)
		}
	}
	for s, hint := range map[string]bool{"1m": true, "30": true, "1M": true, "12h30m": true, "long": false} {
		var refused *engine.SpanError
		if _, err := engine.ParseSpan(s); !errors.As(err, &refused) || (refused.Hint != "") != hint {
			t.Errorf("%q: %v, hint: %v", s, err, hint)
		}
	}
	for s, want := range map[string]time.Duration{"90m": 90 * time.Minute, "1h30m": 90 * time.Minute, "1s": time.Second, "1ms": time.Millisecond, "2mo1m": 62*day + time.Minute} {
		if got, err := engine.ParseAge(s); err != nil || got != want {
			t.Errorf("%q as an age: %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range append(never, "1us", "3min", "30m1h") {
		if got, err := engine.ParseAge(s); err == nil {
			t.Errorf("%q as an age: %v; want it refused", s, got)
		}
	}
}

func TestParseCount(t *testing.T) {
	for s, want := range map[string]int{"0": 0, "7": 7, "010": 10, "2147483647": 1<<31 - 1} {
		if got, err := engine.ParseCount(s); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "-1", "+7", "7d", " 7", "7 ", "0x7", "1_0", "1e3", "2147483648", "seven"} {
		if got, err := engine.ParseCount(s); err == nil {
			t.Errorf("%q: %d; want it refused", s, got)
		}
	}
}
