package rbd

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

var errBoom = errors.New("boom")

func TestCall(t *testing.T) {
	const limit = time.Minute
	for _, c := range []struct {
		name  string
		ctx   time.Duration // after which ctx ends; 0: never
		f     func(alive func()) (int, error)
		value int
		err   error
		took  time.Duration
		late  int // given to drop
	}{
		{
			name: "returns", value: 7, took: time.Second,
			f: func(func()) (int, error) { time.Sleep(time.Second); return 7, nil },
		},
		{
			name: "fails", err: errBoom,
			f: func(func()) (int, error) { return 0, errBoom },
		},
		{
			name: "just in time", value: 7, took: limit - 1,
			f: func(func()) (int, error) { time.Sleep(limit - 1); return 7, nil },
		},
		{
			name: "stuck, then late", err: ErrTimeout, took: limit, late: 7,
			f: func(func()) (int, error) { time.Sleep(limit + 1); return 7, nil },
		},
		{
			name: "stuck, then late and failed", err: ErrTimeout, took: limit,
			f: func(func()) (int, error) { time.Sleep(limit + 1); return 7, errBoom },
		},
		{
			name: "slow, with signs of life", value: 7, took: 10*limit - 10,
			f: func(alive func()) (int, error) {
				for range 10 {
					time.Sleep(limit - 1)
					alive()
				}
				return 7, nil
			},
		},
		{
			name: "stuck after a sign of life", err: ErrTimeout, took: 2 * limit, late: 7,
			f: func(alive func()) (int, error) {
				time.Sleep(limit / 2)
				alive()
				time.Sleep(5 * limit)
				return 7, nil
			},
		},
		{
			name: "interrupted", ctx: time.Second, err: errBoom, took: time.Second, late: 7,
			f: func(func()) (int, error) { time.Sleep(2 * time.Second); return 7, nil },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if c.ctx > 0 {
					time.AfterFunc(c.ctx, func() { cancel(errBoom) })
				}
				calls := calls{limit: limit}
				late := 0
				began := time.Now()
				value, err := call(ctx, &calls, "try", c.f, func(v int) { late = v })
				if value != c.value || !errors.Is(err, c.err) || time.Since(began) != c.took {
					t.Errorf("%d, %v after %v, want %d, %v after %v", value, err, time.Since(began), c.value, c.err, c.took)
				}
				if !calls.settle(time.Hour) {
					t.Error("does not settle")
				}
				if late != c.late {
					t.Errorf("dropped %d, want %d", late, c.late)
				}
			})
		})
	}
}

func TestCallAfterTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errBoom)
	calls := calls{limit: time.Minute}
	err := do(ctx, &calls, "try", func() error { t.Error("called"); return nil })
	if !errors.Is(err, errBoom) {
		t.Errorf("%v, want the context's cause", err)
	}
}

func TestSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := calls{limit: time.Second}
		if !calls.settle(0) {
			t.Error("pending without a call")
		}
		for range 3 {
			err := do(t.Context(), &calls, "try", func() error { time.Sleep(10 * time.Second); return nil })
			if !errors.Is(err, ErrTimeout) {
				t.Errorf("%v, want ErrTimeout", err)
			}
		}
		if calls.settle(time.Second) {
			t.Error("settled while calls are pending")
		}
		if !calls.settle(time.Hour) || calls.pending != 0 {
			t.Errorf("%d pending", calls.pending)
		}
	})
}

// A step that must not be left half done goes on for a moment.
func TestLasting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		late, done := lasting(ctx)
		defer done()
		time.Sleep(time.Hour)
		if late.Err() != nil {
			t.Error("ended before its parent")
		}
		cancel(errBoom)
		ended := time.Now()
		<-late.Done()
		if time.Since(ended) != grace || !errors.Is(context.Cause(late), errBoom) {
			t.Errorf("ended %v later with %v", time.Since(ended), context.Cause(late))
		}
	})
}
