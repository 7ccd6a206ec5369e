package batch

import (
	"context"
	"errors"
	"time"
)

// prepare makes the snapshots of images. Those that others are at work on it
// leaves for later.
func (r *run) prepare(ctx context.Context, tasks []*task) {
	each(ctx, tasks, max(lookups, r.o.Jobs), func(t *task) {
		maxAge := max(t.image.Rules.MinAgeOf(r.o.MinAge), time.Since(r.started))
		claim, err := r.pool.Claim(ctx, t.image)
		if errors.Is(err, ErrClaimed) {
			if r.o.Snapshots == Only {
				r.preparedElsewhere(ctx, t, maxAge)
			}
			return
		}
		if err == nil {
			err = r.pool.Prepare(ctx, t.image, maxAge)
			err = errors.Join(err, r.release(ctx, claim))
		}
		switch {
		case err != nil:
			r.failed(ctx, t, err)
			r.end(t)
		case r.o.Snapshots == Only:
			t.result.Result = Prepared
			r.end(t)
		}
	})
}

// preparedElsewhere settles an image that another node has claimed, once that is
// known to live, since its claim has lasted for longer than a dead one's does, and
// the image's snapshot is there. Until then the run comes back to it.
func (r *run) preparedElsewhere(ctx context.Context, t *task, maxAge time.Duration) {
	if t.claimed.IsZero() {
		t.claimed = time.Now()
	}
	if time.Since(t.claimed) <= r.pool.Outlives() {
		return
	}
	there := false
	runs, _, err := r.repo.Claimed(ctx)
	if err == nil {
		there, err = r.pool.Prepared(ctx, t.image, maxAge, runs)
	}
	switch {
	case err != nil:
		r.failed(ctx, t, err)
	case there:
		t.result.Result = Elsewhere
	}
	if t.result.Result != "" {
		r.end(t)
	}
}
