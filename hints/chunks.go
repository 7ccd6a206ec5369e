package hints

import (
	"fmt"
	"iter"
)

// Range is a run of chunks: First, First+1, … Count of them. They are to be
// read, or known to be zero where it is a Hole.
type Range struct {
	First, Count int64
	Hole         bool
}

// End is the number of the first chunk behind the range.
func (r Range) End() int64 { return r.First + r.Count }

// Chunks turns extents into ranges of chunks, ascending, disjoint and merged.
// chunk and size are in bytes; the last chunk ends at size.
//
// A chunk is a hole only where holes cover it wholly. What data touches, or
// holes cover in part, is to be read.
//
// Extents that do not lie in [0, size) give a *BoundsError; ones that overlap
// or do not ascend an error that names the extent.
func Chunks(seq Seq, chunk, size int64) iter.Seq2[Range, error] {
	return func(yield func(Range, error) bool) {
		if chunk <= 0 || size < 0 {
			yield(Range{}, fmt.Errorf("chunks of %d bytes of an image of %d bytes: impossible", chunk, size))
			return
		}
		var pending Range
		push := func(r Range) bool {
			// Two extents can meet within one chunk, which is then read for
			// both of them.
			if r.First < pending.End() {
				r.Count -= pending.End() - r.First
				r.First = pending.End()
			}
			switch {
			case r.Count <= 0:
			case pending.Count > 0 && pending.Hole == r.Hole && pending.End() == r.First:
				pending.Count += r.Count
			case pending.Count > 0 && !yield(pending, nil):
				return false
			default:
				pending = r
			}
			return true
		}
		// Adjacent holes have to be seen as one, or the chunk in which they
		// meet would seem to be covered in part only.
		for e, err := range Union(bounded(seq, size), Of(nil)) {
			if err != nil {
				if pending.Count == 0 || yield(pending, nil) {
					yield(Range{}, err)
				}
				return
			}
			for _, r := range split(e, chunk, size) {
				if !push(r) {
					return
				}
			}
		}
		if pending.Count > 0 {
			yield(pending, nil)
		}
	}
}

// bounded ends a stream with an error at the first extent outside [0, size).
func bounded(seq Seq, size int64) Seq {
	return func(yield func(Extent, error) bool) {
		for e, err := range seq {
			if err == nil && !e.within(size) {
				err = &BoundsError{Extent: e, Size: size}
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// split gives the chunks that an extent touches: for a hole those at its edges
// that it covers in part, which are read, and those between.
func split(e Extent, chunk, size int64) [3]Range {
	first, last := e.Offset/chunk, (e.End()-1)/chunk
	if e.Exists {
		return [3]Range{{First: first, Count: last - first + 1}}
	}
	head, tail := first, last+1 // whole chunks: [head, tail)
	if e.Offset%chunk != 0 {
		head++
	}
	if e.End()%chunk != 0 && e.End() != size {
		tail--
	}
	if head > tail {
		return [3]Range{{First: first, Count: 1}} // both edges within one chunk
	}
	return [3]Range{
		{First: first, Count: head - first},
		{First: head, Count: tail - head, Hole: true},
		{First: tail, Count: last + 1 - tail},
	}
}

// MergeRanges is the union of two streams of ranges, each ascending and
// disjoint, as one. A chunk that either wants read is read.
func MergeRanges(a, b iter.Seq2[Range, error]) iter.Seq2[Range, error] {
	return asRanges(Union(asExtents(a), asExtents(b)))
}

// SubtractRanges is what a names and b does not, whatever b says of it.
func SubtractRanges(a, b iter.Seq2[Range, error]) iter.Seq2[Range, error] {
	return asRanges(Subtract(asExtents(a), asExtents(b)))
}

// asRanges is the inverse of asExtents.
func asRanges(seq Seq) iter.Seq2[Range, error] {
	return func(yield func(Range, error) bool) {
		for e, err := range seq {
			if err != nil {
				yield(Range{}, err)
				return
			}
			if !yield(Range{First: e.Offset, Count: e.Length, Hole: !e.Exists}, nil) {
				return
			}
		}
	}
}

// asExtents counts in chunks instead of bytes.
func asExtents(ranges iter.Seq2[Range, error]) Seq {
	return func(yield func(Extent, error) bool) {
		for r, err := range ranges {
			if !yield(Extent{Offset: r.First, Length: r.Count, Exists: !r.Hole}, err) || err != nil {
				return
			}
		}
	}
}
