package batch

import (
	"testing"

	"backy/store"
)

func TestExpected(t *testing.T) {
	level := func(diff string, read int64) store.Level {
		return store.Level{Origin: store.Origin{Diff: diff}, Stats: store.Stats{Read: read}}
	}
	full := level(store.DiffAllocated, 900)
	for _, tt := range []struct {
		levels []store.Level
		want   int64
	}{
		{nil, 1000},
		{[]store.Level{full}, 1000},
		{[]store.Level{full, level(store.DiffFast, 10)}, 10},
		{[]store.Level{full, level(store.DiffFast, 0)}, 0},
		{[]store.Level{level(store.DiffFast, 500), level(store.DiffFast, 30), full, level(store.DiffExact, 20), level(store.DiffFast, 10)}, 30},
	} {
		if got := expected(Image{Size: 1000}, known{levels: tt.levels}); got != tt.want {
			t.Errorf("%d levels: %d, want %d", len(tt.levels), got, tt.want)
		}
	}
}
