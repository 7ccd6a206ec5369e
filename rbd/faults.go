package rbd

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"io"
	"slices"
	"strings"
	"syscall"

	"backy/engine"
	"backy/rbd/child"
)

// What callers branch on goes across from the child process, each by its place
// in this list: both ends are the same binary.
var crossing = []error{
	context.Canceled, context.DeadlineExceeded, io.EOF, io.ErrUnexpectedEOF, io.ErrShortWrite,
	ErrNoPool, ErrNoNamespace, ErrNoImage, ErrNoSnapshot, ErrExists, ErrTooSmall, ErrInUse, ErrNotPrimary,
	ErrSnapshotGone, ErrFastDiff, ErrPermission, ErrTimeout, ErrFull, ErrLocked, errInvalidMap,
	ErrOthersName, ErrMigrating, engine.ErrOverwritten,
}

// faults brings errors across. It implements child.Faults.
type faults struct{}

type fault struct {
	Lines []string // of its text
	Is    []int    // in crossing
	Errno syscall.Errno

	Connect *connectFault // of a ConnectError
}

type connectFault struct {
	What, Reason string
	Hints        []string
}

// Seal implements child.Faults.
func (faults) Seal(err error) []byte {
	f := fault{Lines: engine.ErrorLines(err)}
	for n, known := range crossing {
		if errors.Is(err, known) {
			f.Is = append(f.Is, n)
		}
	}
	errors.As(err, &f.Errno)
	var refused *ConnectError
	if errors.As(err, &refused) {
		f.Connect = &connectFault{refused.what, refused.Reason, refused.Hints}
	}
	var b bytes.Buffer
	_ = gob.NewEncoder(&b).Encode(f) // into memory, of plain fields
	return b.Bytes()
}

// Open implements child.Faults.
func (faults) Open(p []byte) error {
	var f fault
	if err := gob.NewDecoder(bytes.NewReader(p)).Decode(&f); err != nil {
		return child.ErrEnded
	}
	e := &farError{lines: f.Lines}
	for _, n := range f.Is {
		if n >= 0 && n < len(crossing) {
			e.is = append(e.is, crossing[n])
		}
	}
	if f.Errno != 0 {
		e.is = append(e.is, f.Errno)
	}
	if c := f.Connect; c != nil {
		e.is = append(e.is, &ConnectError{what: c.What, Reason: c.Reason, Hints: c.Hints})
	}
	return e
}

// farError is an error that came from the other process.
type farError struct {
	lines []string
	is    []error
}

func (e *farError) Error() string   { return strings.Join(e.lines, "\n") }
func (e *farError) Unwrap() []error { return e.is }

// ErrorLines is for engine.ErrorLines.
func (e *farError) ErrorLines() []string { return slices.Clone(e.lines) }

// caused gives an error that came of the end of ctx the cause of that end, which
// the other process does not know.
func caused(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil || !errors.Is(err, context.Canceled) {
		return err
	}
	cause := context.Cause(ctx)
	if err.Error() == context.Canceled.Error() {
		return cause
	}
	return &farError{engine.ErrorLines(err), []error{err, cause}}
}
