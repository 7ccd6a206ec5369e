package rbd

import (
	"context"
	"errors"
	"fmt"

	"backy/engine"
	"backy/store"
)

// TargetOptions are the choices of a restore to an image. The zero value makes
// a new image.
type TargetOptions struct {
	Force    bool // an image that exists is overwritten
	Metadata Metadata
	Warn     engine.Warn // may be nil
}

// Target restores to an image. It implements engine.Target.
type Target struct {
	conn    *Conn
	spec    Spec
	options TargetOptions

	ctx     context.Context // of Prepare; ends the writes
	im      *image
	id      string // of the image
	created bool
	locked  bool
	others  others

	made func(id string) // is told of the image that was created; may be nil

	metadata map[string]string // that Finish sets
	qos      *throttle
}

// Target makes a target of an image. Nothing is asked of the cluster yet.
func (c *Conn) Target(spec Spec, o TargetOptions) *Target {
	return &Target{conn: c, spec: spec, options: o}
}

func (t *Target) warn(format string, args ...any) {
	if t.options.Warn != nil {
		t.options.Warn(format, args...)
	}
}

// Prepare makes the image with the level's layout, or with Force takes one that
// exists. It then holds the image's exclusive lock, where it has that feature,
// so that no other client writes to it. ctx ends the writes, too.
//
// Errors: ErrExists without Force; ErrTooSmall; ErrInUse where anybody watches
// or has locked the image; ErrNotPrimary; ErrNoPool, ErrNoNamespace,
// ErrPermission, ErrFull, ErrTimeout.
func (t *Target) Prepare(ctx context.Context, level store.Level) (zeroed bool, err error) {
	if t.spec.Snap != "" {
		return false, fmt.Errorf("%s: a snapshot cannot be written to: name the image", t.spec)
	}
	t.ctx = ctx
	if err := t.prepare(ctx, level); err != nil {
		late, cancel := lasting(ctx)
		defer cancel()
		return false, errors.Join(err, t.Abort(late))
	}
	return t.created, nil
}

func (t *Target) prepare(ctx context.Context, level store.Level) error {
	var err error
	t.im, err = t.conn.open(ctx, t.spec, "", readOnly)
	switch {
	case errors.Is(err, ErrNoImage):
		if half := t.conn.halfRemoved(ctx, t.spec, err); half != err {
			return half
		}
		if err := t.create(ctx, level); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		if err := t.reuse(ctx, level.Size); err != nil {
			return err
		}
	}
	t.chooseMetadata(level)
	own, _ := t.im.metadata(ctx, "") // without them all that is lost is the pace
	t.qos, err = t.im.throttle(ctx, true, own, func(format string, args ...any) {
		t.warn("%s is %s", t.spec, fmt.Sprintf(format, args...))
	})
	if err != nil {
		return err
	}
	return t.lock(ctx)
}

// create makes the image and opens it.
func (t *Target) create(ctx context.Context, level store.Level) error {
	var want store.RBDLayout
	if level.Origin.RBD != nil {
		want = level.Origin.RBD.Layout
	}
	if want.DataPool != "" && !t.hasPool(want.DataPool) {
		t.warn("%s: the level's data pool %s does not exist in this cluster: the data goes to pool %s", t.spec, want.DataPool, t.spec.Pool)
		want = withoutDataPool(want)
	}
	if err := t.conn.createImage(ctx, t.spec, level.Size, want); err != nil {
		return err
	}
	t.created = true
	var err error
	if t.im, err = t.conn.open(ctx, t.spec, "", readWrite); err != nil {
		return err
	}
	if t.id, _, err = t.im.identity(ctx); err != nil {
		return err
	}
	if t.made != nil {
		t.made(t.id)
	}
	got, err := t.im.layout(ctx)
	if err != nil {
		return err
	}
	if want.Order != 0 {
		for _, d := range differences(want, got) {
			t.warn("%s: this cluster made the image with %s", t.spec, d)
		}
	}
	return nil
}

func (t *Target) hasPool(name string) bool {
	_, err := t.conn.rados.GetPoolByName(name)
	return err == nil
}

// reuse checks an image that exists and opens it for writing. t.im is open
// read-only, which disturbs nobody.
func (t *Target) reuse(ctx context.Context, size int64) error {
	if !t.options.Force {
		return fmt.Errorf("%s: %w: use --force to overwrite it", t.spec, ErrExists)
	}
	if err := t.im.writable(ctx, size); err != nil {
		return err
	}
	id, handle, err := t.im.identity(ctx)
	if err != nil {
		return err
	}
	look := t.im
	t.im = nil
	if err := look.close(); err != nil {
		return err
	}
	if t.im, err = t.conn.open(ctx, t.spec, handle, readWrite); err != nil {
		return err
	}
	// Somebody may have come in between; from now on they see us.
	t.id = id
	if err := t.im.writable(ctx, size); err != nil {
		return err
	}
	if have, err := t.im.size(ctx); err != nil {
		return err
	} else if have > size {
		t.warn("%s: the image has %d bytes, the level %d: what lies beyond is left as it is", t.spec, have, size)
	}
	return nil
}

// Finish flushes what was written, makes sure that nobody else used the image and
// that it has what was written, sets the metadata, and closes the image. What cannot be
// flushed or vouched for is aborted. Errors: ErrInUse, engine.ErrOverwritten.
func (t *Target) Finish(ctx context.Context) error {
	err := do(ctx, &t.im.calls, "flush "+t.spec.String(), t.im.rbd.Flush)
	err = t.conn.named(err, "flush %s", t.spec)
	if err == nil {
		err = t.vouch(ctx)
	}
	if err == nil {
		err = t.setMetadata(ctx)
	}
	if err != nil {
		return errors.Join(err, t.Abort(ctx))
	}
	return t.close(ctx)
}

// Abort closes the image, and removes it if Prepare made it.
func (t *Target) Abort(ctx context.Context) error {
	err := t.close(ctx)
	if !t.created {
		return err
	}
	t.created = false
	return errors.Join(err, t.conn.unmake(ctx, t.spec, t.id))
}

func (t *Target) close(ctx context.Context) error {
	if t.im == nil {
		return nil
	}
	err := errors.Join(t.unlock(ctx), t.im.close())
	t.im = nil
	return err
}
