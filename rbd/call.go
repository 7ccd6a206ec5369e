package rbd

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"backy/rbd/child"
)

// grace is how long closing and cleaning up wait for calls that were left
// behind, and how long a call that must not be left behind goes on after its
// context ended. Calls on a healthy cluster take a fraction of it.
const grace = 5 * time.Second

// calls counts the calls that use a handle, so that it is only closed when there
// are none.
type calls struct {
	limit time.Duration // without progress; then a call counts as stuck

	// ended counts the reads and writes that ended well: each is progress for those
	// beside it, which may wait for it in a queue of librbd's.
	ended atomic.Int64

	mu      sync.Mutex
	pending int
	idle    chan struct{} // closed when pending falls to 0; nil while nobody waits
}

func (c *calls) enter() {
	c.mu.Lock()
	c.pending++
	c.mu.Unlock()
}

func (c *calls) leave() {
	c.mu.Lock()
	c.pending--
	if c.pending == 0 && c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
	c.mu.Unlock()
}

// settle waits up to d for the pending calls to return and reports whether
// there are none.
func (c *calls) settle(d time.Duration) bool {
	c.mu.Lock()
	if c.pending == 0 {
		c.mu.Unlock()
		return true
	}
	if c.idle == nil {
		c.idle = make(chan struct{})
	}
	idle := c.idle
	c.mu.Unlock()
	select {
	case <-idle:
		return true
	case <-time.After(d):
		return false
	}
}

// result is what a call gave.
type result[T any] struct {
	value T
	err   error
}

// call runs f, which calls into librados or librbd, and waits for it: until ctx
// ends, or until f made no progress for the limit. f tells of progress by
// calling alive; one that never does has the limit for all of it.
//
// Then the call is left behind: nothing that f uses may be closed or written
// to before it is back, which calls.settle tells. A value that comes too late is
// given to drop, which may be nil.
func call[T any](ctx context.Context, c *calls, what string, f func(alive func()) (T, error), drop func(T)) (T, error) {
	var zero T
	if ctx.Err() != nil {
		return zero, context.Cause(ctx)
	}
	var beats atomic.Int64
	back := make(chan result[T])
	left := make(chan struct{})
	c.enter()
	go func() {
		defer c.leave()
		child.AtStep(what)
		value, err := f(func() {
			beats.Add(1)
			moved.Add(1)
		})
		moved.Add(1)
		select {
		case back <- result[T]{value, err}:
		case <-left:
			if err == nil && drop != nil {
				drop(value)
			}
		}
	}()
	watch := time.NewTimer(c.limit)
	defer watch.Stop()
	for seen := c.ended.Load(); ; {
		select {
		case r := <-back:
			return r.value, r.err
		case <-ctx.Done():
			close(left)
			return zero, context.Cause(ctx)
		case <-watch.C:
			if n := beats.Load() + c.ended.Load(); n != seen {
				seen = n
				watch.Reset(c.limit)
				continue
			}
			close(left)
			return zero, fmt.Errorf("%s: %w: the call has made no progress for %s", what, ErrTimeout, c.limit)
		}
	}
}

// transfer is do for a read or write.
func transfer(ctx context.Context, c *calls, what string, f func() error) error {
	err := do(ctx, c, what, f)
	if err == nil {
		c.ended.Add(1)
	}
	return err
}

// do is call for what gives nothing but an error.
func do(ctx context.Context, c *calls, what string, f func() error) error {
	_, err := call(ctx, c, what, func(func()) (struct{}, error) { return struct{}{}, f() }, nil)
	return err
}

// lasting is ctx for a step that should not be left half done: it ends a little
// later than ctx does.
func lasting(ctx context.Context) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel(context.Cause(ctx))
		case <-late.Done():
		}
	})
	return late, func() {
		stop()
		cancel(context.Canceled)
	}
}
