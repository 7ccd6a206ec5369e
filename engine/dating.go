package engine

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"backy/store"
)

// ClockSkew is how far the clocks of hosts and clusters may differ: a time that
// is later than now by more is wrong, or now is.
const ClockSkew = 5 * time.Minute

// Future reports whether a time is later than now by more than clocks differ.
func Future(t, now time.Time) bool { return t.Sub(now) > ClockSkew }

// Dating says of the levels of one name whose times contradict what is known:
// their numbers, which tell their order, and the present. Nothing can be
// concluded from such a time, so no policy removes its level, and it stands for
// none in a rule.
type Dating struct {
	// Future are the numbers of levels that are later than now, ascending.
	Future []store.LevelNumber

	// Against are the numbers of others whose times do not rise with the
	// numbers, ascending. If it cannot be told which of two is wrong, both are.
	Against []store.LevelNumber

	now    time.Time
	latest time.Time // the last of Future's times
	newest store.LevelNumber
}

// Date looks at the levels of a name.
//
// The times that are believed are those that rise with the numbers in every
// longest sequence that there is: with two that disagree, fewer are believed, and
// so more levels stay.
func Date(levels []store.Level, now time.Time) *Dating {
	d := &Dating{now: now}
	var list []store.Level
	for i := range levels {
		if l := &levels[i]; Future(l.Time, now) {
			d.Future = append(d.Future, l.Number)
			if l.Time.After(d.latest) {
				d.latest = l.Time
			}
		} else {
			list = append(list, *l)
		}
	}
	slices.Sort(d.Future)
	slices.SortFunc(list, func(a, b store.Level) int { return cmp.Compare(a.Number, b.Number) })
	for i, r := range rising(list) {
		if r != always {
			d.Against = append(d.Against, list[i].Number)
		}
		if r != never {
			d.newest = list[i].Number
		}
	}
	return d
}

// membership says whether a level is in the longest sequences whose times rise.
type membership int

const (
	never     membership = iota
	sometimes            // in some of them
	always               // in all of them
)

// rising finds the longest sequences of levels, ordered by number, whose times
// do not fall.
func rising(levels []store.Level) []membership {
	n := len(levels)
	before := longest(n, func(i, j int) bool { return levels[i].Time.After(levels[j].Time) })
	after := longest(n, func(i, j int) bool { return levels[n-1-i].Time.Before(levels[n-1-j].Time) })
	most := slices.Max(append([]int{0}, before...))
	member := make([]membership, n)
	at := make([]int, most+1) // how many levels can have a place in a longest sequence
	for i := range member {
		if before[i]+after[n-1-i]-1 == most {
			member[i] = sometimes
			at[before[i]]++
		}
	}
	for i := range member {
		if member[i] == sometimes && at[before[i]] == 1 {
			member[i] = always
		}
	}
	return member
}

// longest finds for each of n things how long the longest sequence is that ends
// with it and in which none goes beyond a later one.
func longest(n int, beyond func(i, j int) bool) []int {
	lengths := make([]int, n)
	var last []int // of the sequences of a length, less 1, the thing that ends the one easiest to go on with
	for i := range lengths {
		at := sort.Search(len(last), func(k int) bool { return beyond(last[k], i) })
		if at == len(last) {
			last = append(last, i)
		}
		last[at] = i
		lengths[i] = at + 1
	}
	return lengths
}

// Wrong reports whether a level's time is not believed.
func (d *Dating) Wrong(n store.LevelNumber) bool {
	return slices.Contains(d.Future, n) || slices.Contains(d.Against, n)
}

// Newest is the newest level whose time may tell its age; 0: none.
func (d *Dating) Newest() store.LevelNumber { return d.newest }

// TellsAge reports whether a level's time may tell its age. Of two that
// contradict each other the newer one's may: it is the earlier time.
func (d *Dating) TellsAge(n store.LevelNumber) bool { return n == d.newest || !d.Wrong(n) }

// Misdated are the numbers of all whose times are not believed, ascending.
func (d *Dating) Misdated() []store.LevelNumber {
	list := slices.Concat(d.Future, d.Against)
	slices.Sort(list)
	return list
}

// Sentences say what is wrong, one sentence for each kind; none where nothing
// is.
func (d *Dating) Sentences() (list []string) {
	if len(d.Future) > 0 {
		text := "is dated %s, later than now"
		if len(d.Future) > 1 {
			text = "are dated later than now, up to %s"
		}
		list = append(list, fmt.Sprintf("%s "+text+", which is %s by this host's clock: either is wrong", numbersText(d.Future), clockText(d.latest), clockText(d.now)))
	}
	if len(d.Against) > 0 {
		verb := "is dated"
		if len(d.Against) > 1 {
			verb = "are dated"
		}
		list = append(list, fmt.Sprintf("%s %s against the order of the levels: a clock was wrong", numbersText(d.Against), verb))
	}
	return list
}

func clockText(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// numbersText is: level 7, or levels 1-3, 9.
func numbersText(numbers []store.LevelNumber) string {
	var parts []string
	for i := 0; i < len(numbers); {
		j := i
		for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
			j++
		}
		part := numbers[i].String()
		if j > i {
			part += "-" + numbers[j].String()
		}
		parts = append(parts, part)
		i = j + 1
	}
	what := "level "
	if len(numbers) > 1 {
		what = "levels "
	}
	return what + strings.Join(parts, ", ")
}
