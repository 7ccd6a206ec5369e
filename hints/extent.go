// Package hints is the arithmetic of extents: which byte ranges of an image
// hold data, hold nothing, or may have changed.
//
// It parses what other tools print about an image (rbd diff) and turns extents
// into ranges of chunks. It reads no image and no repository.
package hints

import "iter"

// Extent is a byte range of an image. Exists tells data from a hole: where it
// is false, the whole range is known to read as zeros.
type Extent struct {
	Offset int64 // bytes from the image's start
	Length int64 // bytes, more than 0
	Exists bool
}

// End is the offset of the first byte behind the extent.
func (e Extent) End() int64 { return e.Offset + e.Length }

// Seq is a stream of extents in ascending order of offset that do not overlap.
// It ends at the first error. Streams keep memory bounded where an image has
// millions of extents; a Seq may be iterated more than once unless its maker
// says otherwise.
type Seq = iter.Seq2[Extent, error]
