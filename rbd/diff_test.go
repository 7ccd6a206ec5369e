package rbd

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The windows are the set's periods and no others, in order, up to the image's
// end.
func TestUnits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		period := rapid.Int64Range(1, 100).Draw(t, "period")
		size := rapid.Int64Range(0, 20000).Draw(t, "size")
		set := newUnits(size, period)
		want := make([]bool, size)
		for range rapid.IntRange(0, 20).Draw(t, "extents") {
			off := rapid.Int64Range(0, size+200).Draw(t, "offset")
			length := rapid.Int64Range(0, 500).Draw(t, "length")
			set.add(off, length)
			if end := min(off+length, size); off < end {
				for i := off / period * period; i < min((end+period-1)/period*period, size); i++ {
					want[i] = true
				}
			}
		}
		limit := rapid.Int64Range(0, 1000).Draw(t, "limit")
		got := make([]bool, size)
		last := int64(0)
		for w := range set.windows(limit) {
			if w.start < last || w.end <= w.start || w.start%period != 0 || w.end%period != 0 && w.end != size {
				t.Fatalf("window %d–%d after %d, period %d, size %d", w.start, w.end, last, period, size)
			}
			if w.end-w.start > max(limit, period) {
				t.Fatalf("window %d–%d, limit %d, period %d", w.start, w.end, limit, period)
			}
			last = w.end
			for i := w.start; i < w.end; i++ {
				got[i] = true
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("windows cover other bytes than were added")
		}
		periods := int64(0)
		for i := int64(0); i < size; i += period {
			if want[i] {
				periods++
			}
		}
		if set.count() != periods {
			t.Fatalf("count %d, want %d", set.count(), periods)
		}
		if n := all(size, period).count(); n != (size+period-1)/period {
			t.Fatalf("all: count %d", n)
		}
	})
}
