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

// aLevel makes a level of a time, of an RBD image with such metadata.
func aLevel(t *testing.T, r *store.Repository, at time.Time, origin *store.RBDOrigin) store.Level {
	t.Helper()
	return mustBackup(t, r, "image", &originated{&image{data: make([]byte, 10)}, at, origin})
}

type originated struct {
	*image
	at     time.Time
	origin *store.RBDOrigin
}

func (s *originated) Begin(ctx context.Context, run engine.Run) (*engine.State, error) {
	st, err := s.image.Begin(ctx, run)
	st.Origin.Time, st.Origin.RBD = s.at, s.origin
	return st, err
}

// left forgets and lists the numbers that are left.
func left(t *testing.T, r *store.Repository, k engine.Keep, o engine.ForgetOptions) (string, engine.Forgotten) {
	t.Helper()
	f, err := engine.Forget(t.Context(), r, "image", k, o)
	if err != nil {
		t.Fatal(err)
	}
	levels, err := r.Levels(t.Context(), "image")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, l := range levels {
		list = append(list, l.Number.String())
	}
	return strings.Join(list, " "), f
}

// The level that a run has just made stays, whatever other clocks say, and so
// does the newest.
func TestForgetWithWrongClocks(t *testing.T) {
	var said []string
	warn := func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	_, b := newRepository(t, chunk)
	r := reopen(t, b)
	now := time.Now()
	aLevel(t, r, now.AddDate(0, 0, -2), nil)
	aLevel(t, r, now.AddDate(0, 0, -1), nil)
	aLevel(t, r, now.AddDate(10, 0, 0), nil)
	made := aLevel(t, r, now, nil)
	got, f := left(t, r, engine.Keep{Last: 1}, engine.ForgetOptions{Made: made.Number, Warn: warn})
	if got != "3 4" || len(said) != 1 || !strings.Contains(said[0], "level 3 is dated") || !strings.Contains(said[0], "later than now") {
		t.Errorf("%s are left; said %q; %v", got, said, f.Decisions)
	}
	made = aLevel(t, r, now.AddDate(-26, 0, 0), nil)
	if got, f := left(t, r, engine.Keep{Within: time.Hour}, engine.ForgetOptions{Made: made.Number}); got != "3 4 5" {
		t.Errorf("%s are left: %v", got, f.Decisions)
	}
	// Of an older snapshot: its time is right, and it is not the newest any more.
	made = aLevel(t, r, now.AddDate(0, 0, -1), nil)
	aLevel(t, r, now.Add(time.Second), nil)
	if got, f := left(t, r, engine.Keep{Last: 1}, engine.ForgetOptions{Made: made.Number}); !strings.HasSuffix(got, " 6 7") {
		t.Errorf("%s are left: %v", got, f.Decisions)
	}
	// This host's clock is wrong.
	before, _ := left(t, r, engine.Keep{Last: 1}, engine.ForgetOptions{DryRun: true})
	if got, f := left(t, r, engine.Keep{Last: 1, Now: now.AddDate(-26, 0, 0)}, engine.ForgetOptions{}); got != before {
		t.Errorf("%s are left: %v", got, f.Decisions)
	}
}

// Where there is no cluster to ask, the rules that the newest level of an image
// recorded count; wherever rules come from, what is not understood keeps all.
func TestForgetByRecordedRules(t *testing.T) {
	rules := func(pairs ...string) *store.RBDOrigin {
		o := &store.RBDOrigin{Cluster: "fsid", ImageID: "1", Rules: map[string]string{}}
		for i := 0; i < len(pairs); i += 2 {
			o.Rules[pairs[i]] = pairs[i+1]
		}
		return o
	}
	asNow := func(pairs ...string) *engine.Rules {
		r := engine.ParseRules(rules(pairs...).Rules)
		return &r
	}
	unreadable := engine.UnknownRules("no answer")
	for _, tt := range []struct {
		what    string
		third   *store.RBDOrigin // what the levels recorded
		newest  *store.RBDOrigin
		o       engine.ForgetOptions
		want    string // of 4 levels, with --keep-last 2
		unclear int
	}{
		{what: "no image", want: "3 4"},
		{what: "no rules", newest: rules(), want: "3 4"},
		{what: "more", newest: rules("backy.keep-last", "3"), want: "2 3 4"},
		{what: "less", newest: rules("backy.keep-last", "1"), want: "3 4"},
		{what: "less, as allowed", newest: rules("backy.keep-last", "1"), o: engine.ForgetOptions{MetadataMayKeepLess: true}, want: "4"},
		{what: "none of it, as allowed", newest: rules("backy.keep-last", "0", "backy.keep-yearly", "1"), o: engine.ForgetOptions{MetadataMayKeepLess: true}, want: "4"},
		{what: "of an older level", third: rules("backy.keep-last", "3"), newest: rules(), want: "3 4"},
		{what: "the newest is of no image", third: rules("backy.keep-last", "3"), want: "2 3 4"},
		{what: "not understood", newest: rules("backy.keep-last", "all"), want: "1 2 3 4", unclear: 1},
		{what: "not understood, less allowed", newest: rules("backy.keep-dayly", "7"), o: engine.ForgetOptions{MetadataMayKeepLess: true}, want: "1 2 3 4", unclear: 1},
		{what: "could not be read", newest: &store.RBDOrigin{RulesUnknown: "no answer"}, want: "1 2 3 4", unclear: 1},
		{what: "none now", newest: rules("backy.keep-last", "3"), o: engine.ForgetOptions{Rules: asNow()}, want: "2 3 4"},
		{what: "others now", newest: rules("backy.keep-last", "1"), o: engine.ForgetOptions{Rules: asNow("backy.keep-last", "3")}, want: "2 3 4"},
		{what: "others now, less allowed", newest: rules("backy.keep-last", "3"), o: engine.ForgetOptions{Rules: asNow("backy.keep-last", "1"), MetadataMayKeepLess: true}, want: "4"},
		{what: "not understood now", newest: rules(), o: engine.ForgetOptions{Rules: asNow("backy.keep-last", "")}, want: "1 2 3 4", unclear: 1},
		{what: "not understood both times", newest: rules("backy.keep-last", ""), o: engine.ForgetOptions{Rules: asNow("backy.keep-last", "")}, want: "1 2 3 4", unclear: 1},
		{what: "cannot be read now", o: engine.ForgetOptions{Rules: &unreadable}, want: "1 2 3 4", unclear: 1},
	} {
		_, b := newRepository(t, chunk)
		r := reopen(t, b)
		for n, o := range []*store.RBDOrigin{nil, nil, tt.third, tt.newest} {
			aLevel(t, r, levelTime.Add(time.Duration(n)*time.Hour), o)
		}
		got, f := left(t, r, engine.Keep{Last: 2}, tt.o)
		if got != tt.want || len(f.Unclear) != tt.unclear {
			t.Errorf("%s: %s are left, unclear %q; want %s, %d", tt.what, got, f.Unclear, tt.want, tt.unclear)
		}
	}
	// A policy of which metadata leave nothing is no policy.
	_, b := newRepository(t, chunk)
	r := reopen(t, b)
	aLevel(t, r, levelTime, nil)
	aLevel(t, r, levelTime, rules("backy.keep-last", "0"))
	_, err := engine.Forget(t.Context(), r, "image", engine.Keep{Last: 1}, engine.ForgetOptions{MetadataMayKeepLess: true})
	if !errors.Is(err, engine.ErrEmptyPolicy) {
		t.Errorf("nothing is kept: %v", err)
	}
}
