package batch

import (
	"cmp"
	"slices"
	"time"

	"backy/engine"
	"backy/store"
)

// known is what the repository holds of an image's name.
type known struct {
	last   store.LevelNumber // the highest number ever used
	levels []store.Level     // oldest first
}

func (k *known) newest() (store.Level, bool) {
	if len(k.levels) == 0 {
		return store.Level{}, false
	}
	return k.levels[len(k.levels)-1], true
}

// young reports whether the newest level is younger than an age. One from the
// future says nothing about its age, or a clock that was wrong once would keep its
// image from ever being backed up again. Where one of a lower number is later, as
// after the recovery of a level whose number was taken, the newest by number may
// be an old state.
func (k *known) young(age time.Duration, now time.Time) bool {
	l, ok := k.newest()
	if !ok || now.Sub(l.Time) >= age || engine.Future(l.Time, now) {
		return false
	}
	return !slices.ContainsFunc(k.levels, func(o store.Level) bool {
		return engine.Future(o.Time, l.Time) && !engine.Future(o.Time, now)
	})
}

// lookBack is how many of the last levels tell how much the next will be.
const lookBack = 3

// expected guesses how many bytes an image's backup reads: the most of its last
// incremental levels, or else all of it.
func expected(i Image, k known) int64 {
	most, seen := int64(0), 0
	for n := len(k.levels) - 1; n >= 0 && seen < lookBack; n-- {
		if l := &k.levels[n]; l.Origin.Diff == store.DiffFast || l.Origin.Diff == store.DiffExact {
			most, seen = max(most, l.Stats.Read), seen+1
		}
	}
	if seen == 0 {
		return i.Size
	}
	return most
}

// order sorts the largest expected work first, so that none of it is left
// alone at the end.
func order(todo []*task) {
	slices.SortStableFunc(todo, func(a, b *task) int {
		return cmp.Or(cmp.Compare(b.expected, a.expected), cmp.Compare(a.image.Label, b.image.Label))
	})
}
