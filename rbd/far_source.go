package rbd

import (
	"context"
	"fmt"
	"io"

	"backy/engine"
	"backy/rbd/child"
	"backy/store"
)

// Source is Conn.Source.
func (c *Cluster) Source(spec Spec, o SourceOptions) engine.Source {
	return &farSource{far: far{cluster: c, spec: spec}, options: o}
}

// farSource is a Source in a child process. It implements engine.Source. When the
// child dies, another one removes the snapshot that it has made.
type farSource struct {
	far
	options SourceOptions

	run    engine.Run
	handle string // see Source
}

// verbs are what the child may ask while it works on the image.
func (s *farSource) verbs() child.Verbs {
	v := child.Verbs{}
	child.Handle(v, verbWarn, func(_ context.Context, _ *child.Peer, text string) (n child.Nothing, err error) {
		s.run.Warn("%s", text)
		return n, nil
	})
	if s.run.Over != nil {
		child.Handle(v, verbOver, func(_ context.Context, _ *child.Peer, run store.RunID) (bool, error) { return s.run.Over(run), nil })
	}
	if s.run.Repo != nil {
		child.Handle(v, verbJudge, func(ctx context.Context, _ *child.Peer, sealed []ownSnapshot) ([]ownSnapshot, error) {
			list := openAll(sealed)
			err := Judge(ctx, s.run.Repo, list)
			return sealAll(list), err
		})
	}
	return v
}

// Begin implements engine.Source.
func (s *farSource) Begin(ctx context.Context, run engine.Run) (*engine.State, error) {
	s.run = run
	if err := s.hire(ctx, nil); err != nil {
		return nil, err
	}
	v := s.verbs()
	snap := handleSnap(v, s.w, s.options.Snapping)
	s.w.Serve(v)
	var b began
	err := s.w.call(ctx, verbBegin, beginArgs{
		Spec: s.spec, Diff: s.options.Diff, Adopt: s.options.Adopt, Around: s.options.Snapping != nil,
		Repository: run.Repository, Name: run.Name, Run: run.ID, Levels: document[[]store.Level]{run.Levels},
		Distrust: run.Distrust, Unfinished: run.Unfinished,
	}, &b)
	err = snap.kept(err)
	var base *store.Level
	if err == nil {
		base, err = s.base(b.Base)
	}
	if err != nil {
		if s.w.Dead() {
			late, cancel := lasting(ctx)
			defer cancel()
			s.undo(late)
		}
		s.leave()
		return nil, err
	}
	s.handle = b.Handle
	s.link(ctx)
	return s.state(ctx, b, base), nil
}

// base finds the level that the child has chosen.
func (s *farSource) base(n store.LevelNumber) (*store.Level, error) {
	for i := range s.run.Levels {
		if s.run.Levels[i].Number == n {
			return &s.run.Levels[i], nil
		}
	}
	if n != 0 {
		return nil, fmt.Errorf("%s: librbd's process chose level %s, which there is not", s.spec, n)
	}
	return nil, nil
}

func (s *farSource) state(ctx context.Context, b began, base *store.Level) *engine.State {
	reader := &farReader{ctx, s.w, s.spec, b.Size}
	state := &engine.State{
		View:   engine.View{Reader: reader, Size: b.Size},
		Origin: b.Origin.V, Base: base, Outside: b.Outside,
		Sample: b.Sample, SampleMin: b.SampleMin, Expected: b.Expected,
	}
	if b.Extents {
		state.Extents = s.w.extents(ctx, ofExtents)
	}
	if b.Doubt {
		state.Doubt = s.w.extents(ctx, ofDoubt)
	}
	if b.Again {
		state.Again = func(context.Context) (io.ReaderAt, error) {
			return reader, s.w.call(ctx, verbAgain, child.Nothing{}, &child.Nothing{})
		}
	}
	if b.Expect {
		state.Expect = func(ctx context.Context) (n int64, err error) {
			err = s.w.call(ctx, verbExpect, child.Nothing{}, &n)
			return n, err
		}
	}
	return state
}

// Recheck implements engine.Source.
func (s *farSource) Recheck(ctx context.Context) error {
	return s.w.call(ctx, verbRecheck, child.Nothing{}, &child.Nothing{})
}

// End implements engine.Source.
func (s *farSource) End(ctx context.Context, outcome engine.Outcome) error {
	defer s.leave()
	var err error
	if died := s.w.Dead(); !died || outcome != engine.Failed { // then its death has been told
		err = s.w.call(ctx, verbEnd, outcome, &child.Nothing{})
	}
	if s.w.Dead() && outcome == engine.Failed {
		s.undo(ctx)
	}
	return err
}

// undo has another child remove the snapshot that the dead one may have made.
func (s *farSource) undo(ctx context.Context) {
	if s.spec.Snap != "" {
		return
	}
	err := s.again(ctx, s.verbs())
	if err == nil {
		err = s.w.call(ctx, verbUndo, undoArgs{s.spec, s.handle, s.run.Repository, s.run.Name, s.run.ID}, &child.Nothing{})
	}
	if err != nil {
		name := ownPrefix(s.run.Repository, s.run.Name) + s.run.ID.String()
		s.run.Warn("the snapshot %s of this run may be left; the next run removes it: %v", s.spec.at(name), err)
	}
}
