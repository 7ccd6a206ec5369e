package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Freeze is what is done before and after a snapshot, to stop what writes to an
// image: shell commands. They may hold secrets, so no error repeats them.
type Freeze struct {
	Freeze, Thaw string
	Limit        time.Duration // for both commands, each, and for the time in between
	Stderr       io.Writer     // of both commands, and their stdout; nil: none
}

// ErrThaw says that thawing failed: something may still be frozen.
var ErrThaw = errors.New("it may still be frozen")

// Around runs the freezing command, take, and the thawing command, the latter
// whatever becomes of the others: also if freezing failed half-way, the context
// or the limit ended, or this process was stopped or killed. For that, both
// commands are run by one process besides this one: see Guard.
//
// env are variables for the commands, KEY=VALUE. If anything fails, the error
// says so, even if take succeeded. What take made counts only if the error is
// nil: otherwise it may have come after thawing.
func (f Freeze) Around(ctx context.Context, env []string, take func(context.Context) error) error {
	g, err := startGuard(env, f.Stderr)
	if err != nil {
		return fmt.Errorf("freeze: %w", err)
	}
	g.send(order{Freeze: f.Freeze, Thaw: f.Thaw, Limit: f.Limit})
	err = g.frozen(ctx, f.Limit)
	if err == nil {
		limited, cancel := context.WithTimeoutCause(ctx, f.Limit, fmt.Errorf("the snapshot was not made within %s of freezing", f.Limit))
		err = g.during(limited, take)
		cancel()
	}
	thawErr := g.thaw(f.Limit)
	if errors.Is(thawErr, errGuardLost) {
		thawErr = f.thawAgain(g, env)
	}
	if thawErr != nil && (errors.Is(err, errEarly) || errors.Is(err, errGuardLost)) {
		return thawErr // which says the same, and more
	}
	return errors.Join(err, thawErr)
}

// errGuardLost says that the guard ended, or had to be ended, before it said that
// it had thawed.
var errGuardLost = errors.New("the process that freezes and thaws was killed or stopped")

// errEarly ends the making of a snapshot that would not count.
var errEarly = errors.New("thawed meanwhile")

// thawAgain thaws in a lost guard's place, once all that it started has ended. The
// snapshot does not count then: nobody knows whether the lost one had thawed
// before it.
func (f Freeze) thawAgain(lost *guard, env []string) error {
	lost.endFreeze()
	g, err := startGuard(env, f.Stderr)
	if err != nil {
		return fmt.Errorf("thaw: %w: %w, and no other can be started: %w", ErrThaw, errGuardLost, err)
	}
	g.send(order{Thaw: f.Thaw, Limit: f.Limit})
	switch err := g.thaw(f.Limit); {
	case errors.Is(err, errGuardLost):
		return fmt.Errorf("thaw: %w: %w twice", ErrThaw, errGuardLost)
	case err != nil:
		return err
	case lost.stuck:
		return (&report{Stuck: true}).err()
	}
	return fmt.Errorf("freeze: %w: --thaw was run by another one, and the snapshot does not count", errGuardLost)
}

// frozen waits for the guard to have frozen.
func (g *guard) frozen(ctx context.Context, limit time.Duration) error {
	for {
		r, err := g.next(ctx, limit+2*grace)
		if err != nil {
			return fmt.Errorf("freeze: %w", err)
		}
		g.group = r.Group
		switch {
		case r.Step == stepFreezing:
			continue
		case r.Error != "":
			return fmt.Errorf("freeze: %s", r.Error)
		}
		return nil
	}
}

// during runs take, and ends its context if the guard thaws by itself meanwhile,
// or is lost.
func (g *guard) during(ctx context.Context, take func(context.Context) error) error {
	watched, cancel := context.WithCancelCause(ctx)
	over, seen := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(seen)
		select {
		case r, ok := <-g.reports:
			if ok {
				g.note(r)
			}
			cancel(errEarly)
		case <-over:
		}
	}()
	err := take(watched)
	close(over)
	<-seen
	cancel(nil)
	return err
}

// thaw lets the guard thaw and waits for it, as long as that may take. Errors:
// ErrThaw; errGuardLost.
func (g *guard) thaw(limit time.Duration) error {
	defer g.leave()
	if !g.lost {
		_, _ = io.WriteString(g.hold, orderThaw+"\n") // one that is lost says nothing
	}
	for end := time.Now().Add(limit + grace + lastGrace + outputGrace + 2*grace); g.last == nil; {
		if g.lost {
			g.endFamily()
			return errGuardLost
		}
		if r, err := g.next(context.Background(), time.Until(end)); err == nil {
			g.note(r)
		}
	}
	return g.last.err()
}

// note keeps the last report. Others may come in between, if freezing was given up.
func (g *guard) note(r report) {
	if r.Step == stepThawed {
		g.last = &r
	}
}
