package batch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"backy/engine"
	"backy/store"
)

// errLost is the cause that ends the work on an image whose claim is lost.
var errLost = errors.New("another node has taken it over: this one was out of reach for too long")

// errDone ends a backup that has nothing to do, found out under the
// repository's own claim.
var errDone = errors.New("there is a new level already")

// try works on one image, unless others do.
func (r *run) try(ctx context.Context, t *task) {
	claim, err := r.pool.Claim(ctx, t.image)
	switch {
	case errors.Is(err, ErrClaimed):
		t.busy = time.Time{}
		return
	case err != nil:
		r.failed(ctx, t, err)
		r.end(t)
		return
	}
	started := time.Now()
	inClaim, stop := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-claim.Lost():
			stop(errLost)
		case <-inClaim.Done():
		}
	}()
	r.backUp(inClaim, t)
	stop(nil)
	// What cannot be given back runs out.
	if err := r.release(ctx, claim); err != nil && ctx.Err() == nil {
		r.warner(t)("%v", err)
	}
	t.result.Seconds += time.Since(started).Seconds()
	if t.result.Result != "" {
		r.end(t)
	}
}

// backUp makes the image's next level, where it needs one.
func (r *run) backUp(ctx context.Context, t *task) {
	now, err := r.lookUp(ctx, t)
	if err != nil {
		r.failed(ctx, t, err)
		return
	}
	if r.passOverLate(ctx, t, now) {
		return
	}
	o := r.o.Backup
	o.Progress, o.Warn = &engine.Progress{}, r.warner(t)
	r.tell(func(w Watcher) { w.Begin(t.image, o.Progress) })
	t.result.Result = Waiting
	source := &onceSource{Source: r.pool.Source(t.image), done: func(levels []store.Level) bool {
		return r.passOverLate(ctx, t, known{levels: levels})
	}}
	level, err := engine.Backup(ctx, r.repo, t.image.Name, source, o)
	var busy *store.BusyError
	switch {
	case err == nil:
		r.succeeded(ctx, t, level)
	case errors.Is(err, errDone): // passOver has told what it found
	case errors.Is(err, store.ErrUndecided):
		r.failed(ctx, t, err)
	case context.Cause(ctx) == errLost, errors.Is(err, store.ErrFenced):
		r.warner(t)("%v", err)
	case errors.As(err, &busy):
		r.wait(ctx, t, err)
	case ctx.Err() != nil:
		t.result.Result = Ended
	default:
		r.failed(ctx, t, err)
	}
}

// onceSource begins only where that is still needed. It is asked under the
// repository's claim, so that of several nodes one makes a level.
type onceSource struct {
	engine.Source
	done func(levels []store.Level) bool
}

func (s *onceSource) Begin(ctx context.Context, run engine.Run) (*engine.State, error) {
	oldestFirst := make([]store.Level, len(run.Levels))
	for i, l := range run.Levels {
		oldestFirst[len(oldestFirst)-1-i] = l
	}
	if s.done(oldestFirst) {
		return nil, errDone
	}
	return s.Source.Begin(ctx, run)
}

// wait leaves a name to the run that is at work on it, but not for ever: that
// run has no claim in the pool, so it is no node's of this kind, or a stuck one.
func (r *run) wait(ctx context.Context, t *task, err error) {
	beat := r.o.Backup.Beat
	if beat == 0 {
		beat = 30 * time.Second
	}
	if t.busy.IsZero() {
		t.busy = time.Now()
	}
	if time.Since(t.busy) > busyBeats*beat {
		r.failed(ctx, t, err)
	}
}

// succeeded notes the new level and applies the policy.
func (r *run) succeeded(ctx context.Context, t *task, l store.Level) {
	t.result.found(Done, l)
	t.result.New = &l
	t.result.Read, t.result.Changed, t.result.Added = l.Stats.Read, l.Stats.Changed, l.Stats.Stored
	if r.o.Keep == nil {
		return
	}
	forgotten, err := engine.Forget(ctx, r.repo, t.image.Name, *r.o.Keep, engine.ForgetOptions{
		Made: l.Number, Rules: &t.image.Rules, MetadataMayKeepLess: r.o.KeepLess, Warn: r.warner(t),
	})
	if err != nil {
		t.result.fail(fmt.Errorf("level %s is there, but the policy was not applied: %w", l.Number, err))
		return
	}
	t.result.Removed, t.result.Unclear = forgotten.Removed(), forgotten.Unclear
	for _, why := range forgotten.Unclear {
		if !slices.Contains(t.image.Rules.Unclear, why) { // told before the backup
			r.warner(t)("%s; nothing of the image was forgotten", why)
		}
	}
}

// warner tells warnings about an image, and notes them with its result.
func (r *run) warner(t *task) engine.Warn {
	return func(format string, args ...any) {
		text := engine.Sentence(format, args...)
		t.warning.Lock()
		t.result.Warnings = append(t.result.Warnings, text)
		t.warning.Unlock()
		r.tell(func(w Watcher) { w.Warn(t.image, text) })
	}
}
