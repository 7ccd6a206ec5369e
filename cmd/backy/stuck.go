package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"backy/store/pending"
)

const (
	// stuckLimit is how long, after the first signal, one call of the operating
	// system may go on. Those on a file system that answers take a fraction of it.
	stuckLimit = 5 * time.Second

	// endLimit is how long after it the whole run may go on: what cleans up has
	// limits of its own, which are shorter.
	endLimit = 2 * time.Minute

	// lastWords bounds the report of a run that is abandoned: what it goes to may
	// hang, too.
	lastWords = 2 * time.Second
)

// stuckError tells what a run that a signal ended was waiting for.
type stuckError struct {
	signal *interruptedError
	what   string
}

func (e *stuckError) Error() string {
	return fmt.Sprintf("%v, but %s: it is left as it is, as after a kill, and the next run cleans up", e.signal, e.what)
}

func (e *stuckError) Unwrap() error { return e.signal }

// stuckAfter tells when a run that a signal ended does not come to its end.
// Nothing breaks off a call on a dead server's file system.
func stuckAfter(ctx context.Context) <-chan *stuckError {
	stuck := make(chan *stuckError, 1)
	context.AfterFunc(ctx, func() {
		var signal *interruptedError
		if !errors.As(context.Cause(ctx), &signal) {
			return
		}
		for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
			what, since, ok := pending.Oldest()
			if since.Before(began) {
				since = began
			}
			switch {
			case ok && time.Since(since) > stuckLimit:
				stuck <- &stuckError{signal, fmt.Sprintf("a call does not return: %s", what)}
				return
			case time.Since(began) > endLimit:
				stuck <- &stuckError{signal, fmt.Sprintf("the run has not ended within %s", endLimit)}
				return
			}
		}
	})
	return stuck
}

// abandon reports a run of which parts go on until the process ends. What it
// has found out so far is theirs; the document has the error alone.
func (p *program) abandon(stuck *stuckError) int {
	said := make(chan struct{})
	go func() {
		defer close(said)
		if p.report.Command == "status" {
			p.unknown(stuck)
		}
		p.talk.with("exit_code", exitCode(p.report.Command, stuck)).fail(stuck)
		if p.json {
			r := report{Command: p.report.Command}
			r.set(stuck, p.talk.warned())
			_ = p.document(&r) // who reads it may be gone
		}
	}()
	select {
	case <-said:
	case <-time.After(lastWords):
	}
	return exitCode(p.report.Command, stuck)
}
