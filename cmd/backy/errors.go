package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// usageError is a command line that cannot be meant: exit code 2.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// hintedError carries the command line that would have been right, or what else
// to do, a line each.
type hintedError struct {
	error
	hint string
}

func (e *hintedError) Unwrap() error { return e.error }

// withHint adds a hint to an error; "" leaves it as it is, and so does a hint
// that it carries already.
func withHint(err error, hint string) error {
	if hint == "" || err == nil || hintOf(err) != "" {
		return err
	}
	return &hintedError{err, hint}
}

func hintOf(err error) string {
	var h *hintedError
	if errors.As(err, &h) {
		return h.hint
	}
	return ""
}

// interruptedError is the cause of a context that a signal ended.
type interruptedError struct{ signal os.Signal }

func (e *interruptedError) Error() string { return "ended by " + e.name() }

func (e *interruptedError) name() string {
	switch e.signal {
	case syscall.SIGINT:
		return "SIGINT"
	case syscall.SIGTERM:
		return "SIGTERM"
	case syscall.SIGHUP:
		return "SIGHUP"
	}
	return "signal " + e.signal.String()
}
