package engine

import (
	"context"

	"backy/store"
)

// Target is what a restore writes to: an RBD image, a file, a device.
//
// A restore calls Prepare once; after it succeeded, exactly one of Finish and
// Abort. If Prepare fails, the target is as it was before.
type Target interface {
	// Prepare makes the target able to take the level's bytes, or refuses
	// before anything is written. zeroed tells that all of it reads as zeros
	// already, so that holes need no work.
	Prepare(ctx context.Context, level store.Level) (zeroed bool, err error)

	// WriteSize is how long writes suit the target best, in bytes: those of a
	// restore are as long at most, and aligned to it. It is a power of two; less
	// than a chunk counts as one, more than 4 MiB as that.
	WriteSize() int64

	// WriteAt writes all of p, from many goroutines at a time.
	WriteAt(p []byte, off int64) (int, error)

	// Zero makes a range read as zeros, as sparsely as the target can. It may be
	// called from many goroutines and with ranges of any length.
	Zero(off, length int64) error

	// Finish makes what was written durable and closes the target. If it fails,
	// it has done what Abort does.
	Finish(ctx context.Context) error

	// Abort closes the target, and removes it if Prepare made it.
	Abort(ctx context.Context) error
}
