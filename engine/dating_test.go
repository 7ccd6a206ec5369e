package engine_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"backy/engine"
	"backy/store"
)

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// dated makes levels whose times lie so many hours before noon, from number 1.
func dated(hours ...float64) (levels []store.Level) {
	for i, h := range hours {
		at := noon.Add(-time.Duration(h * float64(time.Hour)))
		levels = append(levels, store.Level{Name: "image", Number: store.LevelNumber(i + 1), Time: at})
	}
	return levels
}

const decade = 24 * 3652

func TestDate(t *testing.T) {
	type numbers = []store.LevelNumber
	for _, tt := range []struct {
		what    string
		hours   []float64 // before noon, by number
		future  numbers
		against numbers
		newest  store.LevelNumber
	}{
		{what: "none"},
		{what: "one", hours: []float64{5}, newest: 1},
		{what: "as it should be", hours: []float64{5, 4, 3, 0}, newest: 4},
		{what: "equal times", hours: []float64{5, 5, 5}, newest: 3},
		{what: "little ahead", hours: []float64{5, -0.08}, newest: 2},
		{what: "further ahead", hours: []float64{5, -0.09}, future: numbers{2}, newest: 1},
		{what: "one of the future", hours: []float64{5, 4, -decade, 2, 1}, future: numbers{3}, newest: 5},
		{what: "all of the future", hours: []float64{-decade, -1}, future: numbers{1, 2}},
		{what: "one of the past", hours: []float64{5, 4, 3, decade}, against: numbers{4}, newest: 3},
		{what: "two of the past", hours: []float64{5, 4, 3, decade, decade - 1}, against: numbers{4, 5}, newest: 3},
		{what: "one that was ahead", hours: []float64{5, 4, 1, 3, 2}, against: numbers{3}, newest: 5},
		{what: "the first was ahead", hours: []float64{1, 5, 4, 3}, against: numbers{1}, newest: 4},
		{what: "two that nobody can judge", hours: []float64{1, decade}, against: numbers{1, 2}, newest: 2},
		{what: "two among others", hours: []float64{9, 8, 3, 4, 2}, against: numbers{3, 4}, newest: 5},
		{what: "two at the end", hours: []float64{9, 8, 3, 4}, against: numbers{3, 4}, newest: 4},
		{what: "half and half", hours: []float64{3, 2, 1, 9, 8, 7}, against: numbers{1, 2, 3, 4, 5, 6}, newest: 6},
		{what: "both kinds", hours: []float64{9, 8, -decade, decade, 7}, future: numbers{3}, against: numbers{4}, newest: 5},
	} {
		levels := dated(tt.hours...)
		rand.Shuffle(len(levels), func(i, j int) { levels[i], levels[j] = levels[j], levels[i] })
		d := engine.Date(levels, noon)
		if !slices.Equal(d.Future, tt.future) || !slices.Equal(d.Against, tt.against) || d.Newest() != tt.newest {
			t.Errorf("%s: future %v, against %v, newest %s; want %v, %v, %s", tt.what, d.Future, d.Against, d.Newest(), tt.future, tt.against, tt.newest)
		}
		if got := len(d.Sentences()); got != min(1, len(tt.future))+min(1, len(tt.against)) {
			t.Errorf("%s: %q", tt.what, d.Sentences())
		}
	}
}

// The levels that are believed are those in every longest sequence that rises,
// by trying all of them.
func TestDateAgainstAll(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 9))
	for range 2000 {
		n := 1 + rnd.IntN(9)
		hours := make([]float64, n)
		for i := range hours {
			hours[i] = float64(1 + rnd.IntN(6))
		}
		most, every, some := 0, 0, 0 // sets of levels, a bit each
		for set := range 1 << n {
			last, count := 99.0, 0
			for i, h := range hours {
				if set>>i&1 == 0 {
					continue
				}
				if h > last {
					count = -99
				}
				last, count = h, count+1
			}
			switch {
			case count > most:
				most, every, some = count, set, set
			case count == most:
				every, some = every&set, some|set
			}
		}
		d := engine.Date(dated(hours...), noon)
		newest := 0
		for i := range n {
			if (every>>i&1 == 0) != d.Wrong(store.LevelNumber(i+1)) {
				t.Fatalf("%v: level %d is wrong: %v", hours, i+1, d.Wrong(store.LevelNumber(i+1)))
			}
			if some>>i&1 == 1 {
				newest = i + 1
			}
		}
		if d.Newest() != store.LevelNumber(newest) {
			t.Fatalf("%v: the newest is %s, want %d", hours, d.Newest(), newest)
		}
	}
}

// decided tells of each level, by number, why it stays; "-" goes.
func decided(decisions []engine.Decision) string {
	var list []string
	for _, d := range slices.Backward(decisions) {
		why := strings.Join(d.Reasons, "+")
		if !d.Keep {
			why = "-"
		}
		list = append(list, why)
	}
	return strings.Join(list, " ")
}

// A wrong clock, whichever it is and for however long, costs no level that would
// have stayed without it, and never the newest.
func TestKeepWithWrongClocks(t *testing.T) {
	const day = 24.0
	hour := func(n int) time.Duration { return time.Duration(n) * time.Hour }
	for _, tt := range []struct {
		what  string
		hours []float64
		keep  engine.Keep
		now   time.Time // zero: noon
		want  string
	}{
		{
			what: "a level of 2036", hours: []float64{3 * day, 2 * day, -decade, day, 0},
			keep: engine.Keep{Within: hour(30)}, want: "- - misdated within within",
		},
		{
			what: "the newest is of 2036", hours: []float64{2 * day, day, 1, -decade},
			keep: engine.Keep{Last: 1, Daily: 1}, want: "- - last+daily misdated",
		},
		{
			what: "a clock that says 2000 made the newest", hours: []float64{3, 2, 1, 27 * 365 * day},
			keep: engine.Keep{Last: 1}, want: "- - last misdated",
		},
		{
			what: "again and again", hours: []float64{3, 2, 1, 27 * 365 * day, 27*365*day - 1},
			keep: engine.Keep{Daily: 1}, want: "- - daily misdated misdated",
		},
		{
			what: "two of which one is wrong", hours: []float64{1, 27 * 365 * day},
			keep: engine.Keep{Last: 1}, want: "misdated misdated",
		},
		{
			what: "this host's clock says 2000", hours: []float64{3, 2, 1}, now: noon.AddDate(-26, 0, 0),
			keep: engine.Keep{Last: 1}, want: "misdated misdated misdated",
		},
		{
			what: "this host's clock is a day behind", hours: []float64{50, 40, 30, 20, 10}, now: noon.Add(-hour(24)),
			keep: engine.Keep{Last: 1}, want: "- - last misdated misdated",
		},
		{
			what: "this host's clock is ahead and has made a level", now: noon.AddDate(10, 0, 5),
			hours: []float64{5 * day, 4 * day, 3 * day, 2 * day, day, -decade},
			keep:  engine.Keep{Within: hour(72)}, want: "- jump jump jump jump within",
		},
		{
			what: "and more of them", now: noon.AddDate(10, 0, 5),
			hours: []float64{4 * day, 3 * day, 2 * day, day, -decade, -decade - 24, -decade - 48},
			keep:  engine.Keep{Within: hour(72)}, want: "jump jump jump jump within within within",
		},
		{
			what: "a pause that is over", now: noon.AddDate(10, 0, 5),
			hours: []float64{3 * day, 2 * day, day, -decade, -decade - 24, -decade - 48, -decade - 72},
			keep:  engine.Keep{Within: hour(72)}, want: "- - - within within within within",
		},
		{
			what: "a pause as there were others", hours: []float64{400 * day, 300 * day, 200 * day, 0},
			keep: engine.Keep{Within: hour(72)}, want: "- - - within",
		},
		{
			what: "too few to tell a pause from a jump", hours: []float64{40 * day, 0},
			keep: engine.Keep{Within: hour(72)}, want: "- within",
		},
		{
			what: "buckets are filled by others", hours: []float64{50, 49, 26, -decade, 25, 2, 1},
			keep: engine.Keep{Daily: 3}, want: "- daily - misdated daily - daily",
		},
		{
			what: "nothing else keeps it", hours: []float64{2, 1},
			keep: engine.Keep{Yearly: 0, Last: 0, Within: 0}, want: "- newest",
		},
	} {
		tt.keep.Location, tt.keep.Now = time.UTC, tt.now
		if tt.now.IsZero() {
			tt.keep.Now = noon
		}
		if got := decided(tt.keep.Apply(dated(tt.hours...), func(store.LevelNumber) bool { return false })); got != tt.want {
			t.Errorf("%s:\n %s, want\n %s", tt.what, got, tt.want)
		}
	}
}

// Whatever the clocks say, the newest stays, misdated ones stay, and the others
// are judged as if the misdated were not there.
func TestKeepAnyClock(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		hours := make([]float64, 1+rnd.IntN(12))
		for i := range hours {
			hours[i] = float64(len(hours)-i) * 5
			switch rnd.IntN(8) {
			case 0:
				hours[i] = -rnd.Float64() * decade
			case 1:
				hours[i] = rnd.Float64() * 3 * decade
			}
		}
		k := engine.Keep{
			Last: rnd.IntN(3), Hourly: rnd.IntN(3), Daily: rnd.IntN(4), Yearly: rnd.IntN(2),
			Within: time.Duration(rnd.IntN(3)) * 10 * time.Hour, Location: time.UTC, Now: noon,
		}
		levels := dated(hours...)
		dating := engine.Date(levels, noon)
		all := k.Apply(levels, func(store.LevelNumber) bool { return false })
		right := slices.DeleteFunc(slices.Clone(levels), func(l store.Level) bool { return dating.Wrong(l.Number) })
		of := map[store.LevelNumber]engine.Decision{}
		for _, d := range k.Apply(right, func(store.LevelNumber) bool { return false }) {
			of[d.Level.Number] = d
		}
		for i, d := range all {
			n := d.Level.Number
			if (i == 0 || dating.Wrong(n)) && !d.Keep {
				t.Fatalf("%v, %+v: level %s goes", hours, k, n)
			}
			if alone, ok := of[n]; ok && (d.Keep != alone.Keep && !slices.Equal(alone.Reasons, []string{"newest"})) {
				t.Fatalf("%v, %+v: level %s: %v, and %v without the others", hours, k, n, d.Reasons, alone.Reasons)
			}
		}
	}
}
