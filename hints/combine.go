package hints

import (
	"fmt"
	"iter"
	"math"
)

// Union covers what either stream covers. Where both do, data wins over a hole.
func Union(a, b Seq) Seq {
	return combine(a, b, func(a, b cover) cover { return max(a, b) })
}

// Subtract covers what a covers and b does not, whatever b says of it.
func Subtract(a, b Seq) Seq {
	return combine(a, b, func(a, b cover) cover {
		if b != nothing {
			return nothing
		}
		return a
	})
}

// Complement covers, as data, what lies in [0, size) and in no extent of seq.
func Complement(seq Seq, size int64) Seq { return Subtract(Whole(size), seq) }

// Clip cuts off what lies at and behind size.
func Clip(seq Seq, size int64) Seq {
	return combine(seq, Whole(size), func(a, inside cover) cover {
		if inside == nothing {
			return nothing
		}
		return a
	})
}

// cover is what a stream says of a byte. The greater wins.
type cover int

const (
	nothing cover = iota
	hole
	data
)

// combine walks two streams side by side and covers each byte as the rule says.
// The rule maps nothing and nothing to nothing. What it yields is merged. An
// error of either stream ends it, as do extents that do not ascend.
func combine(a, b Seq, rule func(a, b cover) cover) Seq {
	return func(yield func(Extent, error) bool) {
		ca, cb := newCursor(a), newCursor(b)
		defer ca.stop()
		defer cb.stop()

		var pending Extent
		for pos := int64(0); ; {
			coverA, endA, errA := ca.at(pos)
			coverB, endB, errB := cb.at(pos)
			if errA == nil {
				errA = errB
			}
			if errA != nil {
				if pending.Length == 0 || yield(pending, nil) {
					yield(Extent{}, errA)
				}
				return
			}
			end := min(endA, endB)
			if c := rule(coverA, coverB); c != nothing {
				next := Extent{Offset: pos, Length: end - pos, Exists: c == data}
				if pending.Length > 0 && pending.End() == pos && pending.Exists == next.Exists {
					pending.Length += next.Length
				} else if pending.Length > 0 && !yield(pending, nil) {
					return
				} else {
					pending = next
				}
			}
			if end == math.MaxInt64 {
				if pending.Length > 0 {
					yield(pending, nil)
				}
				return
			}
			pos = end
		}
	}
}

// cursor looks at one stream, place by place.
type cursor struct {
	next func() (Extent, error, bool)
	stop func()

	now  Extent // the extent at or behind the last place asked for
	done bool
}

func newCursor(seq Seq) *cursor {
	next, stop := iter.Pull2(seq)
	return &cursor{next: next, stop: stop}
}

// at tells how pos is covered and up to where the same holds: math.MaxInt64
// for the rest. Calls have to ascend.
func (c *cursor) at(pos int64) (cover, int64, error) {
	for !c.done && c.now.End() <= pos {
		e, err, ok := c.next()
		if err != nil {
			return nothing, 0, err
		}
		if !ok {
			c.done = true
			break
		}
		if err := follows(c.now, e); err != nil {
			return nothing, 0, err
		}
		c.now = e
	}
	switch {
	case c.done:
		return nothing, math.MaxInt64, nil
	case pos < c.now.Offset:
		return nothing, c.now.Offset, nil
	case c.now.Exists:
		return data, c.now.End(), nil
	}
	return hole, c.now.End(), nil
}

// follows refuses an extent that a Seq cannot have after the one before it.
func follows(before, e Extent) error {
	switch {
	case !e.within(math.MaxInt64):
		return &BoundsError{Extent: e, Size: math.MaxInt64}
	case e.Offset < before.End():
		return fmt.Errorf("extent %v: begins before the end of the extent ahead of it, %v", e, before)
	}
	return nil
}
