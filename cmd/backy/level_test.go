package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"backy/store"
)

func berlin(t *testing.T) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

func TestParseLevel(t *testing.T) {
	now := time.Date(2026, 11, 23, 18, 30, 0, 0, berlin(t))
	for s, want := range map[string]string{
		"2026-11-22":                    "2026-11-23T00:00:00+01:00",
		"2026-10-25":                    "2026-10-26T00:00:00+01:00", // 25 hours long
		"2026-03-29":                    "2026-03-30T00:00:00+02:00", // 23 hours long
		"2026-11-22 15:04":              "2026-11-22T15:05:00+01:00",
		"2026-11-22T15:04":              "2026-11-22T15:05:00+01:00",
		"2026-11-22 15:04:05":           "2026-11-22T15:04:06+01:00",
		"2026-11-22T15:04:05":           "2026-11-22T15:04:06+01:00",
		"2026-11-22 15:04:05.5":         "2026-11-22T15:04:05.500000001+01:00",
		"2026-11-22T15:04:05Z":          "2026-11-22T15:04:06Z",
		"2026-11-22T15:04Z":             "2026-11-22T15:05:00Z",
		"2026-11-22T15:04:05.25-07:00":  "2026-11-22T15:04:05.250000001-07:00",
		"2026-11-22 15:04:05+02:00":     "2026-11-22T15:04:06+02:00",
		"2026-11-22 15:04:05 +0200":     "2026-11-22T15:04:06+02:00",
		"15:04":                         "2026-11-23T15:05:00+01:00",
		"15:04:05":                      "2026-11-23T15:04:06+01:00",
		"2026-11-22T15:04:05.999999999": "2026-11-22T15:04:06+01:00",
	} {
		got, err := parseLevel(s, now)
		if err != nil {
			t.Errorf("%q: %v", s, err)
			continue
		}
		if text := got.before.Format(time.RFC3339Nano); text != want || got.number != 0 || got.latest {
			t.Errorf("%q: before %s, want %s", s, text, want)
		}
	}
	for s, want := range map[string]store.LevelNumber{"1": 1, "007": 7, "2026": 2026, "20261123": 20261123, "4294967295": 1<<32 - 1} {
		if got, err := parseLevel(s, now); err != nil || got.number != want {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	if got, err := parseLevel("latest", now); err != nil || !got.latest {
		t.Errorf("latest: %v, %v", got, err)
	}
	for _, s := range []string{
		"", "0", "4294967296", "-1", "+1", "1 ", "Latest", "newest", "yesterday",
		"2026-13-01", "2026-02-30", "2026-1-2", "24:00", "2026-11-22 25:00", "2026-11-22T15:04:05Q",
	} {
		var usage *usageError
		if got, err := parseLevel(s, now); !errors.As(err, &usage) {
			t.Errorf("%q: got %v, %v; want a usage error", s, got, err)
		}
	}
}

func levelAt(n store.LevelNumber, t string) store.Level {
	at, err := time.Parse(time.RFC3339Nano, t)
	if err != nil {
		panic(err)
	}
	return store.Level{Name: "web1", Number: n, Time: at}
}

func TestPick(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	levels := &levels{name: "web1", good: []store.Level{
		levelAt(1, "2026-11-20T10:00:00.5Z"),
		levelAt(2, "2026-11-21T10:00:00Z"),
		levelAt(4, "2026-11-22T00:00:00Z"),
		levelAt(5, "2026-11-21T08:00:00Z"), // of an older snapshot
		levelAt(6, "2026-11-22T00:00:00Z"), // of the same snapshot as 4
	}}
	for s, want := range map[string]store.LevelNumber{
		"1":                              1,
		"2":                              2,
		"6":                              6,
		"latest":                         6,
		"2026-11-23":                     6,
		"2026-11-22":                     6,
		"2026-11-21":                     2,
		"2026-11-20":                     1,
		"2026-11-21 09:00":               5,
		"2026-11-21T08:00:00Z":           5,
		"2026-11-21T07:59:59.999999999Z": 1,
		"2026-11-20T10:00:00Z":           1, // to the second, as ls shows it
		"2026-11-20T10:00:00.5Z":         1,
		"2026-11-21T23:59:59":            2,
		"2026-11-21T23:59:59.9":          2,
	} {
		sel, err := parseLevel(s, now)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := sel.pick(levels); err != nil || got.Number != want {
			t.Errorf("%s: got %v, %v; want %v", s, got.Number, err, want)
		}
	}
	for s, want := range map[string]string{
		"3":                       "web1 has no level 3: there are 1-2, 4-6, the oldest, 1, of ",
		"7":                       "web1 has no level 7: ",
		"2026-11-19":              "web1 has no level from 2026-11-19 or before: there are 1-2, 4-6",
		"2026-11-20T10:00:00.49Z": "web1 has no level from 2026-11-20T10:00:00.49Z or before",
	} {
		sel, err := parseLevel(s, now)
		if err != nil {
			t.Fatal(err)
		}
		var none *noLevelError
		if got, err := sel.pick(levels); !errors.As(err, &none) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v, %v; want %s", s, got.Number, err, want)
		}
	}
}

// A record that cannot be read is in nobody's way, unless it may be the level
// that is meant.
func TestPickAmongUnreadable(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	bad := func(n store.LevelNumber) store.BadRecord {
		return store.BadRecord{Number: n, Err: errors.New("garbage")}
	}
	good := []store.Level{levelAt(2, "2026-11-20T10:00:00Z"), levelAt(4, "2026-11-21T10:00:00Z")}
	for _, tt := range []struct {
		wanted string
		levels levels
		want   store.LevelNumber // 0: an error
		said   string
	}{
		{"2", levels{good: good, bad: []store.BadRecord{bad(1), bad(3), bad(5)}}, 2, ""},
		{"3", levels{good: good, bad: []store.BadRecord{bad(1), bad(3), bad(5)}}, 0, "level 3 cannot be read: garbage"},
		{"6", levels{good: good, bad: []store.BadRecord{bad(5)}}, 0, "has no level 6: there are 2, 4"},
		{"latest", levels{good: good, bad: []store.BadRecord{bad(1), bad(3)}}, 4, ""},
		{"latest", levels{good: good, bad: []store.BadRecord{bad(5)}}, 0, "level 5 cannot be read"},
		{"latest", levels{bad: []store.BadRecord{bad(5)}}, 0, "level 5 cannot be read"},
		{"2026-11-21", levels{good: good, bad: []store.BadRecord{bad(1), bad(3)}}, 4, ""},
		{"2026-11-20", levels{good: good, bad: []store.BadRecord{bad(1)}}, 2, ""},
		{"2026-11-20", levels{good: good, bad: []store.BadRecord{bad(3)}}, 0, "level 3 cannot be read"},
		{"2026-11-19", levels{good: good, bad: []store.BadRecord{bad(1)}}, 0, "level 1 cannot be read"},
		{"1", levels{bad: []store.BadRecord{bad(5)}}, 0, "has no level 1"},
	} {
		sel, err := parseLevel(tt.wanted, now)
		if err != nil {
			t.Fatal(err)
		}
		got, err := sel.pick(&tt.levels)
		if (err != nil) != (tt.want == 0) || got.Number != tt.want || err != nil && !strings.Contains(err.Error(), tt.said) {
			t.Errorf("%s of %s, bad %v: got %v, %v; want %v %s", tt.wanted, levelRanges(tt.levels.good), tt.levels.bad, got.Number, err, tt.want, tt.said)
		}
	}
}

func TestLevelRanges(t *testing.T) {
	for _, tt := range []struct {
		numbers []store.LevelNumber
		want    string
	}{
		{[]store.LevelNumber{1}, "1"},
		{[]store.LevelNumber{1, 2}, "1-2"},
		{[]store.LevelNumber{1, 3}, "1, 3"},
		{[]store.LevelNumber{2, 3, 4, 9, 11, 12}, "2-4, 9, 11-12"},
		{[]store.LevelNumber{1, 3, 5, 7, 9, 11, 13, 15, 17, 19}, "1, 3, 5, 7, 9, 11, 13, 15, 17, 19"},
		{[]store.LevelNumber{1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21}, "1, 3, 5, 7, 9, …, 13, 15, 17, 19, 21"},
	} {
		var levels []store.Level
		for _, n := range tt.numbers {
			levels = append(levels, store.Level{Number: n})
		}
		if got := levelRanges(levels); got != tt.want {
			t.Errorf("%v: got %s, want %s", tt.numbers, got, tt.want)
		}
	}
}
