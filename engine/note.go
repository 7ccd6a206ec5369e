package engine

import (
	"context"
	"errors"
	"sync"

	"backy/store"
)

// noter writes down the damage that the reading of a level meets, so that
// status knows of it and the next backup mends what can be mended.
type noter struct {
	repo  *store.Repository
	level *store.Level
	warn  Warn // of damage that cannot be written down; may be nil
	once  sync.Once
}

// note writes down what an error tells to be bad. A repository that cannot be
// written to is read all the same. Errors: store.ErrRemoved where the level was
// removed meanwhile, which is why it cannot be read; the context's.
func (n *noter) note(ctx context.Context, met error) error {
	err := n.repo.NoteMet(ctx, n.level, met)
	if errors.Is(err, store.ErrRemoved) {
		return err
	}
	if err != nil && context.Cause(ctx) == nil {
		n.unnoted(err)
	}
	return context.Cause(ctx)
}

func (n *noter) unnoted(err error) {
	n.once.Do(func() {
		if n.warn != nil {
			n.warn("damage to %s level %s cannot be written down, so status does not know of it: %v", n.level.Name, n.level.Number, err)
		}
	})
}

// copies writes down the bad copies of map nodes that were read from their
// twins. It comes last and fails nothing.
func (n *noter) copies(ctx context.Context) {
	bad, err := n.repo.NoteCopies(ctx, n.level)
	if err != nil && context.Cause(ctx) == nil {
		n.unnoted(err)
	}
	if bad > 0 && n.warn != nil {
		n.warn("%s level %s: one of the two copies of %d map nodes is bad; nothing is lost, and the next backup mends it", n.level.Name, n.level.Number, bad)
	}
}
