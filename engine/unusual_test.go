package engine_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"backy/engine"
	"backy/store"
)

// history are nightly levels of a 10 GiB image: a full one, then one for each
// changed share, of which compression leaves the same number's share.
func history(changed []float64, compressed []float64) (levels []store.Level) {
	const size = 10 << 30
	at := time.Date(2026, 11, 1, 1, 0, 0, 0, time.UTC)
	for i := range len(changed) + 1 {
		l := store.Level{
			Name: "web1", Number: store.LevelNumber(i + 1), Time: at.AddDate(0, 0, i), Size: size, ChunkSize: 64 << 10,
			Base: store.LevelNumber(i), Stats: store.Stats{Changed: size, Compression: "zstd"},
		}
		if i > 0 {
			l.Stats.Changed = int64(changed[i-1] * size)
		}
		l.Stats.Raw = l.Stats.Changed
		share := 0.4
		if i > 0 && compressed != nil {
			share = compressed[i-1]
		}
		l.Stats.Packed = int64(share * float64(l.Stats.Raw))
		levels = append(levels, l)
	}
	return levels
}

func repeat(n int, values ...float64) (list []float64) {
	for i := range n {
		list = append(list, values[i%len(values)])
	}
	return list
}

func TestUnusual(t *testing.T) {
	figures := func(levels []store.Level) string {
		last := len(levels) - 1
		var found []string
		for _, u := range engine.FindUnusual(levels[last], levels[:last]) {
			found = append(found, string(u.Figure))
		}
		return strings.Join(found, " ")
	}
	for _, tt := range []struct {
		what    string
		changed []float64
		packed  []float64 // nil: always the same
		change  func(levels []store.Level) []store.Level
		want    string
	}{
		{what: "a disk is encrypted", changed: append(repeat(10, 0.01, 0.02), 0.9), packed: append(repeat(10, 0.4, 0.45), 1), want: "changed compressed"},
		{what: "no level before", changed: nil},
		{what: "four levels before tell nothing", changed: append(repeat(4, 0.01), 0.9)},
		{what: "five do", changed: append(repeat(5, 0.01), 0.9), want: "changed"},
		{what: "compressed counts the full level too", changed: repeat(5, 0.02), packed: append(repeat(4, 0.4), 1), want: "compressed"},
		{what: "the same as ever", changed: repeat(11, 0.3), packed: repeat(11, 0.5)},

		{what: "just below a tenth of the image", changed: append(repeat(10, 0.01), 0.0999)},
		{what: "a tenth of it", changed: append(repeat(10, 0.01), 0.1001), want: "changed"},
		{what: "three times the median", changed: append(repeat(10, 0.1), 0.3)},
		{what: "more than that", changed: append(repeat(10, 0.1), 0.31), want: "changed"},
		{what: "fewer changes than usual", changed: append(repeat(10, 0.5), 0)},
		{what: "a peak every week", changed: append(repeat(20, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.3), 0.74)},
		{what: "far beyond the weekly peak", changed: append(repeat(20, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.3), 0.76), want: "changed"},
		{what: "one earlier outlier hides nothing", changed: append(repeat(10, 0.01), 0.9, 0.01, 0.9), want: "changed"},
		{what: "among few it does", changed: append(repeat(7, 0.01), 0.9, 0.01, 0.9)},
		{what: "two do", changed: append(repeat(10, 0.01), 0.9, 0.9, 0.01, 0.9)},
		{what: "outliers of long ago are forgotten", changed: append(append(repeat(2, 0.9), repeat(20, 0.01)...), 0.5), want: "changed"},

		{what: "a fifth apart", changed: repeat(11, 0.02), packed: append(repeat(10, 0.5), 0.699)},
		{what: "more than a fifth", changed: repeat(11, 0.02), packed: append(repeat(10, 0.5), 0.701), want: "compressed"},
		{what: "much better is strange as well", changed: repeat(11, 0.02), packed: append(repeat(10, 0.9), 0.05), want: "compressed"},
		{what: "it goes up and down as ever", changed: repeat(11, 0.02), packed: append(repeat(10, 0.3, 0.6, 0.9), 1)},

		{
			what: "after three weeks' pause three weeks' changes", changed: append(repeat(10, 0.02), 0.5),
			change: func(l []store.Level) []store.Level {
				l[len(l)-1].Time = l[len(l)-2].Time.AddDate(0, 0, 21)
				return l
			},
		},
		{
			what: "a jump of the clock is no pause", changed: append(repeat(10, 0.02), 0.5), want: "changed",
			change: func(l []store.Level) []store.Level {
				last := &l[len(l)-1]
				last.Committed, last.Time = last.Time, last.Time.AddDate(10, 0, 0)
				return l
			},
		},
		{
			what: "nor is one of the base's", changed: append(repeat(10, 0.02), 0.5), want: "changed",
			change: func(l []store.Level) []store.Level {
				l[len(l)-2].Time = l[len(l)-2].Time.AddDate(-26, 0, 0)
				return l
			},
		},
		{
			what: "a few chunks", changed: append(repeat(10, 0.001), 0.002), packed: append(repeat(10, 0.3), 1),
		},
		{
			what: "half of a small image", changed: append(repeat(10, 0.001), 0.5), packed: append(repeat(10, 0.3), 1),
			change: func(l []store.Level) []store.Level {
				for i := range l {
					l[i].Size /= 1 << 10
					l[i].Stats.Changed /= 1 << 10
					l[i].Stats.Raw = max(l[i].Stats.Raw>>10, 64<<10)
					l[i].Stats.Packed = max(l[i].Stats.Packed>>10, 20<<10)
				}
				return l
			},
			want: "changed compressed",
		},
		{
			what: "not compressed at all", changed: repeat(11, 0.02), packed: append(repeat(10, 0.4), 1),
			change: func(l []store.Level) []store.Level { l[len(l)-1].Stats.Compression = "none"; return l },
		},
		{
			what: "compressed in another way", changed: repeat(11, 0.02), packed: append(repeat(10, 0.4), 1),
			change: func(l []store.Level) []store.Level { l[len(l)-1].Stats.Compression = "s2"; return l },
		},
		{
			what: "levels that do not tell", changed: append(repeat(10, 0.02), 0.02), packed: append(repeat(10, 0.4), 1),
			change: func(l []store.Level) []store.Level {
				for i := range len(l) - 1 {
					l[i].Stats.Raw, l[i].Stats.Packed, l[i].Stats.Compression = 0, 0, ""
				}
				return l
			},
		},
		{
			what: "a full level", changed: append(repeat(10, 0.01), 0.9),
			change: func(l []store.Level) []store.Level { l[len(l)-1].Base = 0; return l },
		},
		{
			what: "an empty image", changed: repeat(10, 0.01),
			change: func(l []store.Level) []store.Level { l[len(l)-1].Size, l[len(l)-1].Stats = 0, store.Stats{}; return l },
		},
	} {
		levels := history(tt.changed, tt.packed)
		if tt.change != nil {
			levels = tt.change(levels)
		}
		if got := figures(levels); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.what, got, tt.want)
		}
	}
}

// The noise of every day does not cry wolf: changes that are now half and now
// twice as much as usual, data that compress by a tenth better or worse.
func TestUnusualNoise(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	cries, looked := map[engine.Figure]int{}, 0
	for range 200 {
		usual, spread := 0.3*random.Float64(), 0.7*random.Float64()
		ratio, apart := 0.2+0.6*random.Float64(), 0.1*random.Float64()
		var changed, packed []float64
		for range 60 {
			changed = append(changed, min(1, usual*math.Exp(spread*random.NormFloat64())))
			packed = append(packed, min(1, max(0.02, ratio+apart*random.NormFloat64())))
		}
		levels := history(changed, packed)
		for i := range levels {
			for _, u := range engine.FindUnusual(levels[i], levels) {
				cries[u.Figure]++
			}
			looked++
		}
	}
	if (cries[engine.FigureChanged]+cries[engine.FigureCompressed])*500 > looked {
		t.Errorf("warnings of %d levels: %v", looked, cries)
	}
}

// A backup warns by itself, with the figures.
func TestBackupWarnsOfTheUnusual(t *testing.T) {
	const size = 4 << 20
	repo, _ := newRepository(t, 16<<10)
	src := &image{data: make([]byte, size)}
	for i := range src.data {
		src.data[i] = byte(i>>8) | 1
	}
	var said []string
	backup := func() store.Level {
		t.Helper()
		l, err := engine.Backup(t.Context(), repo, "web1", src, engine.BackupOptions{
			Warn: func(f string, a ...any) { said = append(said, fmt.Sprintf(f, a...)) },
		})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	for n := range 6 {
		for i := range 16 << 10 {
			src.data[i] = byte(i%7 + n)
		}
		backup()
	}
	if len(said) > 0 {
		t.Fatalf("of nothing: %q", said)
	}
	random := rand.NewChaCha8([32]byte{})
	if _, err := random.Read(src.data[:size/2]); err != nil {
		t.Fatal(err)
	}
	l := backup()
	if len(said) != 2 || !strings.Contains(said[0], "web1 level 7: 50 % of the image changed, and 0.4 % is usual (the median of 5 levels)") ||
		!strings.Contains(said[1], "compressed to 100 % of its size") {
		t.Errorf("warnings: %q", said)
	}
	if l.Stats.Raw != size/2 || l.Stats.Packed != size/2 || l.Stats.Compression != "zstd" {
		t.Errorf("stats: %+v", l.Stats)
	}
	restored(t, repo, l, nil)
}
