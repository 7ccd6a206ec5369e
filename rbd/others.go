package rbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/ceph/go-ceph/rbd"

	"backy/engine"
)

// othersEvery is how often a restore to an image that cannot be locked looks
// whether anybody else uses it.
const othersEvery = 2 * time.Second

// others finds out whether anybody else writes to the image that is restored to:
// by its watchers and locks, and by what is there in the end.
type others struct {
	looked   atomic.Int64 // when, in nanoseconds since 1970
	readback engine.Readback
}

// alone fails with ErrInUse where somebody else uses the image, or its exclusive
// lock was lost. With that lock nobody else can write: watchers do not matter.
func (t *Target) alone(ctx context.Context) error {
	if !t.locked {
		if err := t.im.unused(ctx); err != nil {
			return fmt.Errorf("what was restored cannot be vouched for: %w", err)
		}
		return nil
	}
	owner, err := on(ctx, t.im, "ask for the exclusive lock", (*rbd.Image).LockIsExclusiveOwner)
	if err == nil && !owner {
		err = fmt.Errorf("%s: %w: its exclusive lock was taken away during the restore, so that what was restored cannot be vouched for: restore again", t.spec, ErrInUse)
	}
	return err
}

// aloneStill is alone now and then, between writes.
func (t *Target) aloneStill() error {
	last, now := t.others.looked.Load(), time.Now().UnixNano()
	if t.locked || now-last < int64(othersEvery) || !t.others.looked.CompareAndSwap(last, now) {
		return nil
	}
	return t.alone(t.ctx)
}

// vouch makes sure, after all is flushed and before the image is closed, that it
// has what was written and that nobody else uses it. A sample is read by a handle
// of its own, which knows nothing of what this one wrote.
func (t *Target) vouch(ctx context.Context) (err error) {
	if err := t.alone(ctx); err != nil {
		return err
	}
	fresh, err := t.conn.open(ctx, t.spec, "", readOnly)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fresh.close()) }()
	if id, _, err := fresh.identity(ctx); err != nil {
		return err
	} else if id != t.id {
		return fmt.Errorf("%s: %w: it is another image now (id %s, not %s)", t.spec, ErrInUse, id, t.id)
	}
	if err := t.others.readback.Check(reading{ctx, fresh}); err != nil {
		return fmt.Errorf("%s: %w", t.spec, err)
	}
	return t.alone(ctx)
}

// reading reads an image, until ctx ends.
type reading struct {
	ctx context.Context
	im  *image
}

func (r reading) ReadAt(p []byte, off int64) (int, error) {
	what := fmt.Sprintf("read %s at %d+%d", r.im.spec, off, len(p))
	n, err := call(r.ctx, &r.im.calls, what, func(func()) (int, error) { return r.im.rbd.ReadAt(p, off) }, nil)
	if errors.Is(err, io.EOF) {
		return n, err
	}
	return n, r.im.conn.named(err, "%s", what)
}
