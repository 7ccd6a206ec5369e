package store

import (
	"context"
	"strconv"
	"testing"
	"time"
)

// What was noted of a level is not said of another that has its number now, and
// holds once the level is put back under another.
func TestMarksBelongToTheirLevel(t *testing.T) {
	ctx := context.Background()
	x := newHalting(t)
	h, _, r := x.host(1)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	level := func(n LevelNumber) *Level {
		t.Helper()
		c, err := r.readCommit(ctx, "a", n)
		must(err)
		return c.level
	}
	states := func(l *Level) (protected, scrubbed, distrusted bool) {
		t.Helper()
		p, err := r.Protected(ctx, "a")
		must(err)
		s, err := r.Scrubbed(ctx, "a")
		must(err)
		d, err := r.Distrusted(ctx, "a", []Level{*l})
		must(err)
		return p.Has(l), !s.Of(l).IsZero(), d >= l.Number
	}
	for _, all := range []bool{false, true} {
		x.write(h, r, "a", 1, 2)
		x.write(h, r, "a", 3, 4)
		n, err := r.lastNumber(ctx, "a")
		must(err)
		first := level(n)
		must(r.Protect(ctx, "a", n))
		must(r.MarkDiffers(ctx, "a"))
		if all {
			must(r.MarkAllScrubbed(ctx, []SurveyedLevel{{Name: "a", Number: n, Run: first.Run}}, r.clock()))
		} else {
			must(r.MarkScrubbed(ctx, first, r.clock()))
		}
		if p, s, d := states(first); !p || !s || !d {
			t.Fatalf("marked: protected %v, scrubbed %v, distrusted %v", p, s, d)
		}
		x.lose(levelKey("a", n))
		x.write(h, r, "a", 5, 6)
		second := level(n)
		if p, s, _ := states(second); second.Run == first.Run || p || s {
			t.Errorf("another level with the number: protected %v, scrubbed %v", p, s)
		}
		must(r.Protect(ctx, "a", n))
		must(r.MarkDiffers(ctx, "a"))
		must(r.Unprotect(ctx, "a", n))
		if p, _, d := states(second); p || !d {
			t.Errorf("the other: protected %v, distrusted %v", p, d)
		}
		_, err = r.Recover(ctx)
		must(err)
		back := level(n + 1)
		if p, _, d := states(back); back.Run != first.Run || !p || !d {
			t.Errorf("put back: protected %v, distrusted %v", p, d)
		}
		if err := r.Remove(ctx, "a", []LevelNumber{n + 1}); err == nil {
			t.Error("a protected level was removed")
		}
		must(r.Remove(ctx, "a", []LevelNumber{n}))
	}
}

// Marks of earlier versions name no run: a protection holds for whichever level
// has the number, a scrub for one that was there when it began.
func TestMarksWithoutARun(t *testing.T) {
	ctx := context.Background()
	x := newHalting(t)
	h, _, r := x.host(1)
	x.write(h, r, "a", 1, 2)
	c, err := r.readCommit(ctx, "a", 1)
	if err != nil {
		t.Fatal(err)
	}
	l := c.level
	if err := r.putObject(ctx, protectedPrefix("a")+"1", "protected", &protection{Name: "a", Number: 1}); err != nil {
		t.Fatal(err)
	}
	if err := r.Remove(ctx, "a", []LevelNumber{1}); err == nil {
		t.Error("a protected level was removed")
	}
	if err := r.Unprotect(ctx, "a", 1); err != nil {
		t.Fatal(err)
	}
	if p, err := r.Protected(ctx, "a"); err != nil || p.Has(l) {
		t.Errorf("unprotected, and yet protected: %v", err)
	}
	for _, tt := range []struct {
		after time.Duration
		want  bool
	}{{-2 * time.Second, false}, {time.Second, true}} {
		at := l.Committed.Add(tt.after).Truncate(time.Second)
		for key, put := range map[string]func(key string) error{
			scrubbedPrefix("a") + "1." + strconv.FormatInt(at.Unix(), 10): func(key string) error {
				return r.putObject(ctx, key, "scrubbed", &scrubbedMark{Name: "a", Number: 1, Time: at})
			},
			scrubbedAllPrefix + l.Run.String() + ".0": func(key string) error {
				return r.putObject(ctx, key, "scrubbed all", &scrubbedAll{Time: at, Levels: map[Name][]LevelNumber{"a": {1}}})
			},
		} {
			if err := put(key); err != nil {
				t.Fatal(err)
			}
			s, err := r.Scrubbed(ctx, "a")
			if got := !s.Of(l).IsZero(); err != nil || got != tt.want {
				t.Errorf("%s, %s after the commit: scrubbed %v, %v", key, tt.after, got, err)
			}
			x.lose(key)
		}
	}
}
