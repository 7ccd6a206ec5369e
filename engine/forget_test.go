package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"backy/engine"
	"backy/store"
)

// at makes levels of times, numbered from 1 in their order.
func at(t *testing.T, zone *time.Location, times ...string) (levels []store.Level) {
	t.Helper()
	for i, s := range times {
		when, err := time.ParseInLocation("2006-01-02 15:04", s, zone)
		if err != nil {
			t.Fatal(err)
		}
		levels = append(levels, store.Level{Name: "image", Number: store.LevelNumber(i + 1), Time: when.UTC()})
	}
	return levels
}

func TestKeep(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	nights := []string{
		"2025-12-28 23:30", // 1, a Sunday: week 52
		"2025-12-29 00:30", // 2, week 1 of 2026, and December
		"2025-12-31 23:30", // 3
		"2026-01-01 00:30", // 4
		"2026-01-01 12:00", // 5
		"2026-01-01 12:59", // 6, the same hour
		"2026-02-01 00:00", // 7
	}
	for _, test := range []struct {
		name string
		keep engine.Keep
		want string // numbers, newest first
	}{
		{"last", engine.Keep{Last: 2}, "7 6"},
		{"more than there are", engine.Keep{Last: 100}, "7 6 5 4 3 2 1"},
		{"hourly", engine.Keep{Hourly: 3}, "7 6 4"},
		{"daily", engine.Keep{Daily: 3}, "7 6 3"},
		{"weekly", engine.Keep{Weekly: 3}, "7 6 1"},
		{"monthly", engine.Keep{Monthly: 3}, "7 6 3"},
		{"yearly", engine.Keep{Yearly: 5}, "7 3"},
		{"within", engine.Keep{Within: 31 * 24 * time.Hour}, "7 6 5 4"},
		{"rules add up", engine.Keep{Last: 1, Yearly: 2, Hourly: 2}, "7 6 3"},
	} {
		test.keep.Location = berlin
		var kept []string
		for _, d := range test.keep.Apply(at(t, berlin, nights...), func(store.LevelNumber) bool { return false }) {
			if d.Keep != (len(d.Reasons) > 0) {
				t.Errorf("%s: kept %v because of %v", test.name, d.Keep, d.Reasons)
			}
			if d.Keep {
				kept = append(kept, d.Level.Number.String())
			}
		}
		if got := strings.Join(kept, " "); got != test.want {
			t.Errorf("%s keeps %s instead of %s", test.name, got, test.want)
		}
	}
}

// The hour that comes twice when clocks go back counts twice.
func TestKeepHourlyWhenClocksGoBack(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	first := time.Date(2026, 10, 25, 0, 30, 0, 0, time.UTC) // 02:30 summer time
	levels := []store.Level{{Number: 1, Time: first}, {Number: 2, Time: first.Add(time.Hour)}}
	for _, d := range (engine.Keep{Hourly: 5, Location: berlin}).Apply(levels, func(store.LevelNumber) bool { return false }) {
		if !d.Keep {
			t.Errorf("level %s goes", d.Level.Number)
		}
	}
}

func TestEmptyPolicy(t *testing.T) {
	if err := (engine.Keep{}).Validate(); !errors.Is(err, engine.ErrEmptyPolicy) {
		t.Errorf("an empty policy: %v", err)
	}
	if err := (engine.Keep{Last: 1, Daily: -1}).Validate(); err == nil {
		t.Error("a negative rule")
	}
}

// Forget removes what the policy does not keep, never what is protected, and
// nothing in a dry run.
func TestForget(t *testing.T) {
	ctx := context.Background()
	r, _ := newRepository(t, chunk)
	for range 5 {
		mustBackup(t, r, "image", &image{data: make([]byte, 10)})
	}
	numbers := func() (list []string) {
		levels, err := r.Levels(ctx, "image")
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range levels {
			list = append(list, l.Number.String())
		}
		return list
	}
	if err := r.Protect(ctx, "image", 2); err != nil {
		t.Fatal(err)
	}
	if err := engine.Remove(ctx, r, "image", []store.LevelNumber{1, 2}); err == nil || len(numbers()) != 5 {
		t.Errorf("a protected level was removed: %v", err)
	}
	if _, err := engine.Forget(ctx, r, "image", engine.Keep{Last: 2}, engine.ForgetOptions{DryRun: true}); err != nil || len(numbers()) != 5 {
		t.Errorf("a dry run: %v, %s", err, numbers())
	}
	if _, err := engine.Forget(ctx, r, "image", engine.Keep{}, engine.ForgetOptions{}); err == nil || len(numbers()) != 5 {
		t.Errorf("an empty policy: %v, %s", err, numbers())
	}
	forgotten, err := engine.Forget(ctx, r, "image", engine.Keep{Last: 2}, engine.ForgetOptions{})
	if err != nil || !slices.Equal(numbers(), []string{"2", "4", "5"}) {
		t.Errorf("keep the last two: %v, %s, %s", err, numbers(), fmt.Sprint(forgotten))
	}
	if err := r.Unprotect(ctx, "image", 2); err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Forget(ctx, r, "image", engine.Keep{Last: 1}, engine.ForgetOptions{}); err != nil || !slices.Equal(numbers(), []string{"5"}) {
		t.Errorf("keep the last: %v, %s", err, numbers())
	}
	if err := r.Protect(ctx, "image", 1); err == nil {
		t.Error("a level that is not there was protected")
	}
}
