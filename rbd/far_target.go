package rbd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"backy/engine"
	"backy/rbd/child"
	"backy/store"
)

// Target is Conn.Target.
func (c *Cluster) Target(spec Spec, o TargetOptions) engine.Target {
	return &farTarget{far: far{cluster: c, spec: spec}, options: o}
}

// farTarget is a Target in a child process. It implements engine.Target. When the
// child dies, another one removes the image that it has made.
type farTarget struct {
	far
	options TargetOptions

	ctx  context.Context // of Prepare; ends the writes
	made string          // the id of the image that was made; "": none
}

func (t *farTarget) warn(format string, args ...any) {
	if t.options.Warn != nil {
		t.options.Warn(format, args...)
	}
}

func (t *farTarget) verbs() child.Verbs {
	v := child.Verbs{}
	child.Handle(v, verbWarn, func(_ context.Context, _ *child.Peer, text string) (n child.Nothing, err error) {
		t.warn("%s", text)
		return n, nil
	})
	child.Handle(v, verbCreated, func(_ context.Context, _ *child.Peer, id string) (n child.Nothing, err error) {
		t.made = id
		return n, nil
	})
	return v
}

// Prepare implements engine.Target.
func (t *farTarget) Prepare(ctx context.Context, level store.Level) (zeroed bool, err error) {
	t.ctx = ctx
	if err := t.hire(ctx, t.verbs()); err != nil {
		return false, err
	}
	err = t.w.call(ctx, verbTarget, targetArgs{t.spec, t.options.Force, t.options.Metadata, document[store.Level]{level}}, &zeroed)
	if err == nil {
		t.link(ctx)
		return zeroed, nil
	}
	if t.w.Dead() {
		late, cancel := lasting(ctx)
		defer cancel()
		if t.made == "" {
			t.warn("%s: it is not known whether the image was made before librbd's process died; if it was not there before, it is empty: rbd rm removes it", t.spec)
		}
		err = errors.Join(err, t.unmake(late))
	}
	t.leave()
	return false, err
}

// WriteSize implements engine.Target.
func (t *farTarget) WriteSize() int64 { return child.SlotBytes }

// WriteAt implements engine.Target.
func (t *farTarget) WriteAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		from := p[n:min(len(p), n+child.SlotBytes)]
		err := t.w.use(t.ctx, func(slot int) error {
			if err := t.w.Memory.Put(slot, from); err != nil {
				return err
			}
			return t.w.call(t.ctx, verbWrite, piece{slot, off + int64(n), int64(len(from))}, &child.Nothing{})
		})
		if err != nil {
			return n, err
		}
		n += len(from)
	}
	return n, nil
}

// Zero implements engine.Target.
func (t *farTarget) Zero(off, length int64) error {
	return t.w.call(t.ctx, verbZero, piece{Off: off, Length: length}, &child.Nothing{})
}

// Finish implements engine.Target.
func (t *farTarget) Finish(ctx context.Context) error {
	defer t.leave()
	err := t.w.call(ctx, verbFinish, piece{}, &child.Nothing{})
	if err != nil && t.w.Dead() {
		err = errors.Join(err, t.unmake(ctx))
	}
	return err
}

// Abort implements engine.Target.
func (t *farTarget) Abort(ctx context.Context) error {
	defer t.leave()
	if !t.w.Dead() {
		err := t.w.call(ctx, verbAbort, piece{}, &child.Nothing{})
		if !t.w.Dead() {
			return err
		}
	}
	return t.unmake(ctx)
}

// watchEnds is how long a dead client's watch keeps an image from being removed,
// with some time to spare.
const watchEnds = 45 * time.Second

// unmake has another child remove the image that the dead one has made.
func (t *farTarget) unmake(ctx context.Context) error {
	if t.made == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, watchEnds)
	defer cancel()
	err := t.again(ctx, t.verbs())
	for err == nil {
		err = t.w.call(ctx, verbUnmake, unmakeArgs{t.spec, t.made}, &child.Nothing{})
		if err == nil {
			return nil
		}
		if !t.w.Dead() && ctx.Err() == nil {
			err = nil // the watch is there still
		}
	}
	return fmt.Errorf("the incomplete image %s may be left: %w", t.spec, err)
}
