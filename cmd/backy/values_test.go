package main

import (
	"math"
	"testing"
	"time"
)

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{
		"0":                   0,
		"1":                   1,
		"65536":               65536,
		"64K":                 64 << 10,
		"64k":                 64 << 10,
		"64KiB":               64 << 10,
		"64KB":                64000,
		"64kB":                64000,
		"1.5G":                3 << 29,
		"10G":                 10 << 30,
		"10GiB":               10 << 30,
		"10GB":                10e9,
		"100T":                100 << 40,
		"2P":                  2 << 50,
		"9007199254740993":    9007199254740993, // not exact as a float
		"9223372036854775807": math.MaxInt64,
	} {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("%q: got %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{
		"", "-1", "+1", "K", "1X", "1,5G", "1_000", "1 G", " 1", "1G ", "0x10", "1e3",
		"9223372036854775808", "8192P", "99999999999P", "NaN", "Inf", "one",
	} {
		if got, err := parseSize(s); err == nil {
			t.Errorf("%q: got %d, want an error", s, got)
		}
	}
}

func TestPercentValue(t *testing.T) {
	for s, want := range map[string]float64{"100": 100, "1": 1, "0.01": 0.01, "12.5": 12.5, "10%": 10} {
		var v percentValue
		if err := v.Set(s); err != nil || float64(v) != want {
			t.Errorf("%q: got %v, %v", s, v, err)
		}
	}
	for _, s := range []string{"", "0", "-1", "100.1", "NaN", "Inf", "ten", "%"} {
		var v percentValue
		if err := v.Set(s); err == nil {
			t.Errorf("%q: got %v, want an error", s, v)
		}
	}
}

func TestDurationValue(t *testing.T) {
	for s, want := range map[string]time.Duration{"90s": 90 * time.Second, "2m": 2 * time.Minute, "30": 30 * time.Second, "500ms": 500 * time.Millisecond} {
		var v durationValue
		if err := v.Set(s); err != nil || time.Duration(v) != want {
			t.Errorf("%q: got %v, %v", s, v, err)
		}
	}
	for _, s := range []string{"", "0", "-1", "-2m", "0s", "two", "99999999999"} {
		var v durationValue
		if err := v.Set(s); err == nil {
			t.Errorf("%q: got %v, want an error", s, v)
		}
	}
}

func TestTextsForPeople(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 512: "512", 1 << 10: "1.0K", 1536: "1.5K", 100 << 20: "100M", 3 << 29: "1.5G", 100 << 40: "100T", -1: "0"} {
		if got := shortBytes(n); got != want {
			t.Errorf("%d bytes: %s, want %s", n, got, want)
		}
	}
	for s, want := range map[float64]string{0: "0.0 s", 0.25: "0.2 s", 9.9: "9.9 s", 12.3: "12 s", 61: "1m1s", 3700.4: "1h1m40s"} {
		if got := secondsText(s); got != want {
			t.Errorf("%v s: %s, want %s", s, got, want)
		}
	}
}
