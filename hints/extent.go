// Package hints is the arithmetic of extents: which byte ranges of an image
// hold data, hold nothing, or may have changed.
//
// It parses what other tools print about an image (rbd diff) and turns extents
// into ranges of chunks. It reads no image and no repository.
package hints

import (
	"fmt"
	"iter"
	"math"
	"slices"
)

// Extent is a byte range of an image. Exists tells data from a hole: where it
// is false, the whole range is known to read as zeros.
type Extent struct {
	Offset int64 `json:"offset"` // bytes from the image's start
	Length int64 `json:"length"` // bytes, more than 0
	Exists bool  `json:"exists"`
}

// End is the offset of the first byte behind the extent.
func (e Extent) End() int64 { return e.Offset + e.Length }

// String names the extent as offset+length.
func (e Extent) String() string { return fmt.Sprintf("%d+%d", e.Offset, e.Length) }

// within tells whether the extent is one at all and lies in [0, size).
func (e Extent) within(size int64) bool {
	return e.Offset >= 0 && e.Length > 0 && e.Offset < size && e.Length <= size-e.Offset
}

// Seq is a stream of extents in ascending order of offset that do not overlap.
// It ends at the first error. Streams keep memory bounded where an image has
// millions of extents; a Seq may be iterated more than once unless its maker
// says otherwise.
type Seq = iter.Seq2[Extent, error]

// Of streams extents that are already ascending and disjoint, as Normalize
// makes them.
func Of(extents []Extent) Seq {
	return func(yield func(Extent, error) bool) {
		for _, e := range extents {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Whole is one extent of data over [0, size), or none where size is 0.
func Whole(size int64) Seq {
	if size <= 0 {
		return Of(nil)
	}
	return Of([]Extent{{Length: size, Exists: true}})
}

// Collect gathers a stream, up to its error.
func Collect(seq Seq) ([]Extent, error) {
	var extents []Extent
	for e, err := range seq {
		if err != nil {
			return extents, err
		}
		extents = append(extents, e)
	}
	return extents, nil
}

// Normalize sorts extents and merges them. Where they overlap, data wins over a
// hole, since a tool that saw data once has to be believed (librbd's diff gives
// overlapping and unsorted extents: https://tracker.ceph.com/issues/45601).
// Extents of no length are dropped. The argument is left as it is.
func Normalize(extents []Extent) []Extent {
	var data, holes []Extent
	for _, e := range extents {
		switch {
		case e.Length <= 0:
		case e.Exists:
			data = append(data, e)
		default:
			holes = append(holes, e)
		}
	}
	normal, err := Collect(Union(Of(flatten(data)), Of(flatten(holes))))
	if err != nil {
		panic(err) // flatten makes what a Seq has to be
	}
	return normal
}

// flatten sorts and merges extents of one kind in place, cut to what an offset
// can name.
func flatten(extents []Extent) []Extent {
	slices.SortFunc(extents, func(a, b Extent) int {
		switch {
		case a.Offset < b.Offset:
			return -1
		case a.Offset > b.Offset:
			return 1
		}
		return 0
	})
	flat := extents[:0]
	for _, e := range extents {
		if e.Offset < 0 {
			e.Length += e.Offset
			e.Offset = 0
			if e.Length <= 0 {
				continue
			}
		}
		e.Length = min(e.Length, math.MaxInt64-e.Offset)
		if e.Length == 0 {
			continue
		}
		if n := len(flat); n > 0 && e.Offset <= flat[n-1].End() {
			flat[n-1].Length = max(flat[n-1].End(), e.End()) - flat[n-1].Offset
			continue
		}
		flat = append(flat, e)
	}
	return flat
}

// Check tells whether all extents lie in an image of that size, in bytes. The
// error is a *BoundsError with the first that does not.
func Check(extents []Extent, size int64) error {
	for _, e := range extents {
		if !e.within(size) {
			return &BoundsError{Extent: e, Size: size}
		}
	}
	return nil
}

// BoundsError tells of an extent that does not lie in the image.
type BoundsError struct {
	Extent Extent
	Size   int64 // bytes of the image
}

func (e *BoundsError) Error() string {
	switch {
	case e.Extent.Offset < 0:
		return fmt.Sprintf("extent %v: begins before the image", e.Extent)
	case e.Extent.Length <= 0:
		return fmt.Sprintf("extent %v: has no length", e.Extent)
	}
	return fmt.Sprintf("extent %v: reaches beyond the image's end at %d", e.Extent, e.Size)
}
