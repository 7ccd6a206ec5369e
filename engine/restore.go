package engine

import (
	"context"
	"errors"
	"io"

	"backy/store"
)

// RestoreOptions are the choices of a restore. The zero value works.
type RestoreOptions struct {
	Writers  int       // units in work at a time; 0: 12
	Progress *Progress // may be nil
}

// RestoreReport is what a restore did, in bytes.
type RestoreReport struct {
	Size    int64   `json:"size"`    // of the level
	Written int64   `json:"written"` // data written to the target
	Zeroed  int64   `json:"zeroed"`  // holes written or punched on a target that had something there
	Seconds float64 `json:"seconds"`
}

// Restore writes a level to a target. After an error the target has been
// aborted. Errors: *DamagedError where chunks of the level are bad.
func Restore(ctx context.Context, repo *store.Repository, level store.Level, t Target, o RestoreOptions) (RestoreReport, error) {
	return RestoreReport{}, errors.ErrUnsupported
}

// Stream writes a level's bytes in order, holes as zeros.
func Stream(ctx context.Context, repo *store.Repository, level store.Level, w io.Writer, o RestoreOptions) (RestoreReport, error) {
	return RestoreReport{}, errors.ErrUnsupported
}
