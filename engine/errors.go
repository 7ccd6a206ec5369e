package engine

import (
	"fmt"

	"backy/hints"
	"backy/store"
)

// DamagedError tells which byte ranges of a level cannot be read. Without any,
// the level is whole, but copies of map nodes are bad whose twins are good.
type DamagedError struct {
	Name     store.Name
	Level    store.LevelNumber
	Extents  []hints.Extent
	MapNodes int64 // bad copies of map nodes
	Cause    error // of one of them; may be nil
}

func (e *DamagedError) Error() string {
	s := fmt.Sprintf("%s level %s: damaged in %s", e.Name, e.Level, describe(e.Extents))
	if len(e.Extents) == 0 {
		s = fmt.Sprintf("%s level %s: one of the two copies of %d map nodes is bad; nothing is lost", e.Name, e.Level, e.MapNodes)
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

func (e *DamagedError) Unwrap() error { return e.Cause }

// DifferentError tells where a source has other bytes than a level.
type DifferentError struct {
	Name    store.Name
	Level   store.LevelNumber
	Extents []hints.Extent
}

func (e *DifferentError) Error() string {
	return fmt.Sprintf("%s level %s: the source differs in %s", e.Name, e.Level, describe(e.Extents))
}

// describe names the first few of some byte ranges.
func describe(extents []hints.Extent) string {
	const shown = 3
	s := fmt.Sprintf("%d places", len(extents))
	if len(extents) == 1 {
		s = "1 place"
	}
	s += " (offset+length)"
	for i, e := range extents {
		if i == shown {
			return s + ", …"
		}
		s += fmt.Sprintf(", %d+%d", e.Offset, e.Length)
	}
	return s
}
