package engine

import (
	"context"
	"errors"
	"fmt"

	"backy/hints"
	"backy/store"
)

// ScrubOptions are the choices of a scrub. The zero value checks every chunk
// against its checksum.
type ScrubOptions struct {
	Percent  float64   // of the chunks, drawn at random; 0 or 100: all
	Source   *View     // where not nil, a deep scrub: compare with it too
	Readers  int       // units in work at a time; 0: 12
	Progress *Progress // may be nil
}

// ScrubReport is what a scrub found. Extents are byte ranges of the image,
// merged; Exists is true in all of them.
type ScrubReport struct {
	Checked   int64          `json:"checked"`   // chunks read and checked, holes not counted
	Bytes     int64          `json:"bytes"`     // raw bytes of those
	Compared  int64          `json:"compared"`  // bytes compared with the source
	Damaged   []hints.Extent `json:"damaged"`   // whose chunks are bad
	Different []hints.Extent `json:"different"` // where the source has other bytes
	MapNodes  int64          `json:"map_nodes"` // bad copies of map nodes whose twin is good
	Seconds   float64        `json:"seconds"`
}

// Scrub checks a level and writes down what is bad, for the next backup to
// mend. It goes on after what it finds and returns the report with a
// *DamagedError, or else a *DifferentError, or nil.
func Scrub(ctx context.Context, repo *store.Repository, level store.Level, o ScrubOptions) (ScrubReport, error) {
	return ScrubReport{}, errors.ErrUnsupported
}

// DamagedError tells which byte ranges of a level cannot be read.
type DamagedError struct {
	Name    store.Name
	Level   store.LevelNumber
	Extents []hints.Extent
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("%s level %s: damaged in %s", e.Name, e.Level, describe(e.Extents))
}

// DifferentError tells where a source has other bytes than a level.
type DifferentError struct {
	Name    store.Name
	Level   store.LevelNumber
	Extents []hints.Extent
}

func (e *DifferentError) Error() string {
	return fmt.Sprintf("%s level %s: the source differs in %s", e.Name, e.Level, describe(e.Extents))
}

func describe(extents []hints.Extent) string {
	const shown = 3
	s := fmt.Sprintf("%d places", len(extents))
	if len(extents) == 1 {
		s = "1 place"
	}
	for i, e := range extents {
		if i == shown {
			return s + ", …"
		}
		s += fmt.Sprintf(", %d+%d", e.Offset, e.Length)
	}
	return s
}
