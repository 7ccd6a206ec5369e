package rbd

import (
	"context"
	"errors"

	"backy/rbd/child"
)

func (s *served) targetVerbs(v child.Verbs) {
	child.Handle(v, verbTarget, s.prepareTarget)
	on := func(verb string, f func(ctx context.Context, t *Target, w piece) error) {
		child.Handle(v, verb, func(ctx context.Context, _ *child.Peer, w piece) (n child.Nothing, err error) {
			t, err := s.target()
			if err != nil {
				return n, err
			}
			return n, f(ctx, t, w)
		})
	}
	on(verbWrite, func(_ context.Context, t *Target, w piece) error {
		p, err := s.memory.Slot(w.Slot, int(w.Length))
		if err != nil {
			return err
		}
		_, err = t.WriteAt(p, w.Off)
		return err
	})
	on(verbZero, func(_ context.Context, t *Target, w piece) error { return t.Zero(w.Off, w.Length) })
	on(verbFinish, func(ctx context.Context, t *Target, _ piece) error { return t.Finish(ctx) })
	on(verbAbort, func(ctx context.Context, t *Target, _ piece) error { return t.Abort(ctx) })
	child.Handle(v, verbUnmake, func(ctx context.Context, _ *child.Peer, a unmakeArgs) (n child.Nothing, err error) {
		return n, s.conn.unmake(ctx, a.Spec, a.ID)
	})
}

func (s *served) target() (*Target, error) {
	at, err := s.current()
	if err != nil || at.target == nil {
		return nil, errors.Join(err, errors.New("the child process has no target"))
	}
	return at.target, nil
}

func (s *served) prepareTarget(ctx context.Context, p *child.Peer, a targetArgs) (zeroed bool, err error) {
	at, done := s.begin(ctx)
	defer done()
	t := s.conn.Target(a.Spec, TargetOptions{Force: a.Force, Metadata: a.Metadata, Warn: warner(p)})
	t.made = func(id string) { _ = p.Call(context.Background(), verbCreated, id, &child.Nothing{}) }
	zeroed, err = t.Prepare(at.ctx, a.Level.V)
	if err == nil {
		at.target = t
	}
	return zeroed, err
}
