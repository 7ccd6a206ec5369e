package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"backy/engine"
	"backy/engine/batch"
	"backy/engine/health"
	"backy/hints"
	"backy/store"
)

func TestExitCode(t *testing.T) {
	damaged, different := &engine.DamagedError{}, &engine.DifferentError{}
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("anything"), 1},
		{fs.ErrNotExist, 1},
		{context.Canceled, 1},
		{store.ErrNotRepository, 1},
		{&store.FormatError{}, 1},
		{&noLevelError{levels: &levels{}}, 1},
		{usagef("wrong"), 2},
		{&hints.SyntaxError{}, 2},
		{&hints.BoundsError{}, 2},
		{damaged, 3},
		{different, 4},
		{errors.Join(damaged, different), 3},
		{errors.Join(different, damaged), 3},
		{&store.BusyError{}, 5},
		{&batch.FailedError{}, 6},
		{&interruptedError{syscall.SIGINT}, 130},
	} {
		for _, err := range []error{tt.err, fmt.Errorf("opening: %w", tt.err), withHint(tt.err, "backy ls"), errors.Join(tt.err, nil)} {
			if tt.err == nil && err != nil {
				continue
			}
			if got := exitCode("backup", err); got != tt.want {
				t.Errorf("%#v: exit code %d, want %d", err, got, tt.want)
			}
		}
	}
}

// status has codes of its own, and whatever is no finding is unknown.
func TestStatusExitCode(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{&stateError{state: health.Warning}, 1},
		{&stateError{state: health.Critical}, 2},
		{&stateError{state: health.Undecidable}, 3},
		{usagef("wrong"), 3},
		{errors.New("anything"), 3},
		{&engine.DamagedError{}, 3},
		{&interruptedError{syscall.SIGINT}, 3},
	} {
		if got := exitCode("status", tt.err); got != tt.want {
			t.Errorf("%v: exit code %d, want %d", tt.err, got, tt.want)
		}
	}
}

// A signal's exit code goes before that of what it broke off, and an error of
// cleaning up is still told.
func TestBecause(t *testing.T) {
	cause := &interruptedError{syscall.SIGTERM}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{context.Canceled, "ended by SIGTERM"},
		{cause, "ended by SIGTERM"},
		{fmt.Errorf("reading: %w", context.Canceled), "ended by SIGTERM"},
		{&engine.DamagedError{}, "ended by SIGTERM: " + (&engine.DamagedError{}).Error()},
		{errors.New("the snapshot stays"), "ended by SIGTERM: the snapshot stays"},
	} {
		got := because(cause, tt.err)
		if got.Error() != tt.want || exitCode("backup", got) != 130 {
			t.Errorf("%v: got %v, exit code %d", tt.err, got, exitCode("backup", got))
		}
	}
}
