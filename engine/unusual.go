package engine

import (
	"fmt"
	"math"
	"slices"
	"time"

	"backy/store"
)

// Figure is one by which a level is compared with those before it.
type Figure string

// The figures. Each is a share, from 0 to 1.
const (
	// FigureChanged is how much of the image had changed since the base.
	FigureChanged Figure = "changed"
	// FigureEmptied is how much of what the base held is holes now, or was cut off.
	FigureEmptied Figure = "emptied"
	// FigureCompressed is what compression left of the new chunks.
	FigureCompressed Figure = "compressed"
)

// Unusual tells a figure of a level that is far off what it was in the levels
// before it: somebody may have encrypted or overwritten the image.
type Unusual struct {
	Figure Figure  `json:"figure"`
	Value  float64 `json:"value"`
	Usual  float64 `json:"usual"`  // the median of the levels before
	Levels int     `json:"levels"` // how many those are
}

func (u Unusual) String() string {
	what := "%s of the image changed, and %s is usual"
	switch u.Figure {
	case FigureCompressed:
		what = "what is new was compressed to %s of its size, and %s is usual"
	case FigureEmptied:
		what = "%s of what the image held is gone, and %s is usual"
		if u.Levels == 0 {
			return fmt.Sprintf("%s of what the image held is gone: if nobody expected that, keep the older levels and look into the image", percent(u.Value))
		}
	}
	return fmt.Sprintf(what+" (the median of %d levels): if nobody expected that, keep the older levels and look into the image",
		percent(u.Value), percent(u.Usual), u.Levels)
}

func percent(share float64) string {
	if share < 0.0995 {
		return fmt.Sprintf("%.1f %%", 100*share)
	}
	return fmt.Sprintf("%.0f %%", 100*share)
}

// What is far off. Figures vary from day to day and have peaks of their own,
// so a level has to leave behind what is usual and also nearly every other
// level. Of ten or more the most extreme one is left out of account: what stood
// out once does not hide what stands out next.
const (
	unusualLeast = 5  // levels that there must be to compare with
	unusualMost  = 20 // the newest that are compared with

	// unusualBytes have to be concerned, or a quarter of a smaller image: a few
	// chunks tell nothing.
	unusualBytes = 64 << 20

	changedLeast = 0.1 // of the image
	changedTimes = 3   // the median; longer after a pause: see pause

	compressedApart = 0.2 // from the median

	emptiedLeast = 0.5     // of what the base held
	emptiedBytes = 1 << 20 // of it

	beyondPeak  = 2.5 // times what the most extreme level has, or
	forgivePeak = 10  // the second most extreme of so many
)

// FindUnusual compares a level with those before it of the same name, oldest
// first; others among them are left out of account.
func FindUnusual(l store.Level, levels []store.Level) (list []Unusual) {
	var before []store.Level
	for _, b := range levels {
		if b.Number < l.Number {
			before = append(before, b)
		}
	}
	if u, ok := unusualChange(l, before); ok {
		list = append(list, u)
	}
	if u, ok := unusualCompression(l, before); ok {
		list = append(list, u)
	}
	if u, ok := unusualEmptying(l, before); ok {
		list = append(list, u)
	}
	return list
}

// enough reports whether bytes are too many to be a matter of chance.
func enough(n int64, l *store.Level) bool { return n >= min(unusualBytes, l.Size/4) && n > 0 }

// changedShare is that of a level that was compared with another one.
func changedShare(l *store.Level) (share float64, ok bool) {
	if l.Base == 0 || l.Size <= 0 {
		return 0, false
	}
	return min(1, float64(l.Stats.Changed)/float64(l.Size)), true
}

// unusualChange looks for more changes than usual; fewer mean no harm.
func unusualChange(l store.Level, before []store.Level) (u Unusual, far bool) {
	share, ok := changedShare(&l)
	usual := newest(before, changedShare)
	if !ok || len(usual) < unusualLeast || !enough(l.Stats.Changed, &l) {
		return u, false
	}
	u = Unusual{Figure: FigureChanged, Value: share, Usual: median(usual), Levels: len(usual)}
	longer := pause(l, before)
	return u, share >= changedLeast && share > changedTimes*u.Usual*longer && share > beyondPeak*peak(usual)*longer
}

// unusualEmptying looks for an image that lost most of what it held, as by discards
// or by being made smaller. Of an image that is mostly empty that is no large
// part, and it needs no levels to compare with to be strange: only to be usual.
func unusualEmptying(l store.Level, before []store.Level) (u Unusual, far bool) {
	share := func(l *store.Level) (float64, bool) {
		i := slices.IndexFunc(before, func(b store.Level) bool { return b.Number == l.Base })
		if i < 0 || before[i].Stats.Data == 0 {
			return 0, false
		}
		return min(1, float64(l.Stats.Emptied)/float64(before[i].Stats.Data)), true
	}
	is, ok := share(&l)
	if !ok || is < emptiedLeast || l.Stats.Emptied < emptiedBytes {
		return u, false
	}
	u = Unusual{Figure: FigureEmptied, Value: is}
	usual := newest(before, share)
	if u.Levels = len(usual); u.Levels == 0 {
		return u, true
	}
	u.Usual = median(usual)
	return u, is > beyondPeak*peak(usual)
}

// pause is how many times as long as usual the level's base lies back: so much
// more may have changed. It is 1 at least, and where that is not known.
func pause(l store.Level, before []store.Level) float64 {
	since := func(l *store.Level) (float64, bool) {
		i := slices.IndexFunc(before, func(b store.Level) bool { return b.Number == l.Base })
		if i < 0 {
			return 0, false
		}
		d := l.Time.Sub(before[i].Time)
		return d.Seconds(), d > time.Second
	}
	at := l.Committed
	if at.IsZero() {
		at = l.Time
	}
	if dating := Date(append(slices.Clone(before), l), at); dating.Wrong(l.Number) || dating.Wrong(l.Base) {
		return 1 // a clock's jump is no pause, and hides nothing
	}
	now, ok := since(&l)
	usual := newest(before, since)
	if !ok || len(usual) == 0 {
		return 1
	}
	return max(1, now/median(usual))
}

// unusualCompression looks for data that compress better or worse than usual,
// among levels that were compressed alike.
func unusualCompression(l store.Level, before []store.Level) (u Unusual, far bool) {
	share := func(b *store.Level) (float64, bool) {
		s := &b.Stats
		ok := s.Raw >= b.ChunkSize && s.Packed > 0 && s.Compression == l.Stats.Compression && s.Compression != store.CompressNone.String()
		return float64(s.Packed) / float64(max(s.Raw, 1)), ok
	}
	is, ok := share(&l)
	usual := newest(before, share)
	if !ok || len(usual) < unusualLeast || !enough(l.Stats.Raw, &l) {
		return u, false
	}
	u = Unusual{Figure: FigureCompressed, Value: is, Usual: median(usual), Levels: len(usual)}
	apart := make([]float64, len(usual))
	for i, v := range usual {
		apart[i] = math.Abs(v - u.Usual)
	}
	off := math.Abs(is - u.Usual)
	return u, off >= compressedApart && off > beyondPeak*peak(apart)
}

// peak is the greatest of some values, or of many the second.
func peak(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	if len(sorted) >= forgivePeak {
		return sorted[len(sorted)-2]
	}
	return sorted[len(sorted)-1]
}

// newest collects a figure of the newest levels that have it.
func newest(levels []store.Level, figure func(*store.Level) (float64, bool)) (values []float64) {
	for i := len(levels) - 1; i >= 0 && len(values) < unusualMost; i-- {
		if v, ok := figure(&levels[i]); ok {
			values = append(values, v)
		}
	}
	return values
}

// median is that of at least one value.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
