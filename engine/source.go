package engine

import (
	"context"
	"io"

	"backy/hints"
	"backy/store"
)

// Source is what a backup reads: an RBD image, a file, a device, a pipe.
//
// A backup calls Begin once. If Begin fails, the source has undone what it did.
// If it succeeds, End is called exactly once, whatever happens in between.
type Source interface {
	// Begin fixes the state to be backed up (an RBD source makes its snapshot
	// here), chooses the base among run.Levels and says what may differ from it.
	Begin(ctx context.Context, run Run) (*State, error)

	// Recheck is called after the last read and before the level is committed.
	// It fails where what was read can no longer be vouched for: a snapshot
	// that is gone, a file that changed its size, a producer that failed.
	Recheck(ctx context.Context) error

	// End lets go of the state. When the level was Committed, an RBD source
	// now removes the snapshots that are over; when the run Failed, its own;
	// while it is Undecided, none. ctx may be one made anew for cleaning up
	// after a cancelled run.
	End(ctx context.Context, outcome Outcome) error
}

// Outcome is how a run ended.
type Outcome int

const (
	// Failed: there is no level and there will be none.
	Failed Outcome = iota
	// Committed: the level stands.
	Committed
	// Undecided: the repository did not tell whether the level stands; a later
	// run settles it.
	Undecided
)

// Run tells a source which run it serves and what the repository knows.
type Run struct {
	Repository store.RepositoryID
	Name       store.Name
	ID         store.RunID

	// Repo is the repository, for what it holds under other names. It may be nil.
	Repo *store.Repository

	// Levels are the levels of this name that can serve as a base, newest
	// first.
	Levels []store.Level

	// Distrust is a level number: no level up to it may serve as the base of a
	// diff, since a deep scrub found the source to differ. Comparing with
	// such a level by checksum stays right. 0 where all are trusted.
	Distrust store.LevelNumber

	// Over reports whether this repository knows a run of this name to be over
	// (committed, removed, or fenced), so that its snapshot is ours to remove.
	Over func(store.RunID) bool

	// Unfinished tells that the newest run of this name did not commit.
	Unfinished bool

	// Warn takes a sentence for the user. It is never nil.
	Warn func(format string, args ...any)
}

// Outside says what is known of the bytes that no extent of a State names.
type Outside int

const (
	// Unknown: nothing is known; everything must be named by the extents.
	Unknown Outside = iota
	// Unchanged: they are as they were in the base.
	Unchanged
	// Hole: they read as zeros.
	Hole
)

// View is one unchanging state of an image, opened for reading.
type View struct {
	// Reader reads at any offset, from many goroutines at a time. A read inside
	// [0, Size) fills the buffer or fails. One that failed may go on writing to
	// the buffer, which must not be used again.
	Reader io.ReaderAt

	// Size is the image's length in bytes.
	Size int64

	// Extents are what is to be looked at; nil stands for the whole image.
	// In a View for a deep scrub, what they leave out reads as zeros.
	Extents hints.Seq
}

// State is a View with its relation to the levels that the repository has.
type State struct {
	View

	// Stream, where it is not nil, is read once from front to back instead of
	// Reader; Size is then -1 and Extents nil. An input that did not end as it
	// should gives an error, never io.EOF.
	Stream io.Reader

	// Origin is recorded in the level, with its Time.
	Origin store.Origin

	// Base is the level of run.Levels that is compared against: its map is
	// shared where nothing changed. nil makes a full level.
	Base *store.Level

	// Outside says what is known of the bytes that Extents leave out.
	Outside Outside

	// Doubt are extents outside Extents that are read and compared with what
	// Outside claims; a difference makes the run compare everything. Beyond
	// them the engine draws a sample of its own.
	Doubt hints.Seq

	// Sample is the least share of what lies outside Extents that is drawn,
	// 0 to 1, and SampleMin the least number of chunks, both on top of
	// the engine's own rule.
	Sample    float64
	SampleMin int

	// Again, where it is not nil, opens the same state afresh once all of it has been
	// read, which then is read a second time and must be as before. It is for a
	// state that may still change. Where each place changes once at most, what two
	// passes agree on is what all of it was between them.
	Again func(ctx context.Context) (io.ReaderAt, error)

	// Expected is about how many bytes Extents name, for progress; 0: unknown.
	Expected int64

	// Expect finds Expected out, where that takes time. It is called beside the
	// reads, only in runs that take longer themselves, and ends soon after its
	// context. It may be nil.
	Expect func(ctx context.Context) (int64, error)
}
