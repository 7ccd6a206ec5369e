package engine

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// unitBytes is the unit of I/O and work: RBD's usual object.
const unitBytes = 4 << 20

// defaultReaders is how many units are in work at a time; between 8 and 16 a
// cluster gives its best, and each costs some 12 MiB of memory.
const defaultReaders = 8

func workers(n int) int {
	if n > 0 {
		return n
	}
	return defaultReaders
}

// job is a unit on its way through a pipeline.
type job[T any] struct {
	unit T
	done chan struct{}
}

// pipeline runs units through work, several at a time, and through consume,
// one after the other in the order in which produce emitted them. A few units
// more than there are workers are between produce and consume. The first error
// ends all of it.
func pipeline[T any](ctx context.Context, workers int,
	produce func(ctx context.Context, emit func(T) error) error,
	work func(ctx context.Context, unit T) error,
	consume func(ctx context.Context, unit T) error,
) error {
	g, gctx := errgroup.WithContext(ctx)
	todo := make(chan *job[T])
	ordered := make(chan *job[T], workers+2)
	g.Go(func() error {
		defer close(todo)
		defer close(ordered)
		return produce(gctx, func(unit T) error {
			j := &job[T]{unit: unit, done: make(chan struct{})}
			select {
			case ordered <- j:
			case <-gctx.Done():
				return context.Cause(gctx)
			}
			select {
			case todo <- j:
			case <-gctx.Done():
				return context.Cause(gctx)
			}
			return nil
		})
	})
	for range workers {
		g.Go(func() error {
			for j := range todo {
				if err := work(gctx, j.unit); err != nil {
					return err
				}
				close(j.done)
			}
			return nil
		})
	}
	g.Go(func() error {
		for j := range ordered {
			select {
			case <-j.done:
			case <-gctx.Done():
				return context.Cause(gctx)
			}
			if err := consume(gctx, j.unit); err != nil {
				return err
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}
