package rbd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"backy/engine"
	"backy/hints"
	"backy/rbd/child"
	"backy/store"

	"golang.org/x/sync/errgroup"
)

func (s *served) sourceVerbs(v child.Verbs) {
	child.Handle(v, verbBegin, s.beginSource)
	child.Handle(v, verbExpect, func(ctx context.Context, _ *child.Peer, _ child.Nothing) (int64, error) {
		at, err := s.current()
		if err != nil || at.state == nil || at.state.Expect == nil {
			return 0, errors.Join(err, errors.New("the child process has nothing to guess at"))
		}
		return at.state.Expect(ctx)
	})
	child.Handle(v, verbAgain, func(_ context.Context, _ *child.Peer, _ child.Nothing) (n child.Nothing, err error) {
		at, err := s.current()
		if err != nil || at.state == nil || at.state.Again == nil {
			return n, errors.Join(err, errors.New("the child process has nothing to open afresh"))
		}
		again, err := at.state.Again(at.ctx)
		if err == nil {
			at.read(again)
		}
		return n, err
	})
	child.Handle(v, verbRecheck, func(ctx context.Context, _ *child.Peer, _ child.Nothing) (n child.Nothing, err error) {
		src, err := s.source()
		if err != nil {
			return n, err
		}
		return n, src.Recheck(ctx)
	})
	child.Handle(v, verbEnd, func(ctx context.Context, _ *child.Peer, o engine.Outcome) (n child.Nothing, err error) {
		src, err := s.source()
		if err != nil {
			return n, err
		}
		return n, src.End(ctx, o)
	})
	child.Handle(v, verbUndo, func(ctx context.Context, p *child.Peer, a undoArgs) (n child.Nothing, err error) {
		src := s.conn.Source(a.Spec, SourceOptions{})
		src.run = engine.Run{Repository: a.Repository, Name: a.Name, ID: a.Run, Warn: warner(p)}
		src.handle, src.tried = a.Handle, src.own
		src.undo(ctx)
		return n, nil
	})
}

func (s *served) source() (*Source, error) {
	at, err := s.current()
	if err != nil || at.source == nil {
		return nil, errors.Join(err, errors.New("the child process has no backup"))
	}
	return at.source, nil
}

func (s *served) beginSource(ctx context.Context, p *child.Peer, a beginArgs) (b began, err error) {
	at, done := s.begin(ctx)
	defer done()
	src := s.conn.Source(a.Spec, SourceOptions{Diff: a.Diff, Adopt: a.Adopt, Snapping: around(p, a.Around, s.verbs())})
	src.judge = judgeBy(p)
	state, err := src.Begin(at.ctx, engine.Run{
		Repository: a.Repository, Name: a.Name, ID: a.Run, Levels: a.Levels.V,
		Distrust: a.Distrust, Unfinished: a.Unfinished, Over: over(p), Warn: warner(p),
	})
	if err != nil {
		return b, err
	}
	at.source, at.state = src, state
	at.read(state.Reader)
	at.lists = [2]hints.Seq{ofExtents: state.Extents, ofDoubt: state.Doubt}
	b = began{
		Handle: src.handle, Size: state.Size, Extents: state.Extents != nil, Doubt: state.Doubt != nil,
		Origin: document[store.Origin]{state.Origin}, Outside: state.Outside,
		Sample: state.Sample, SampleMin: state.SampleMin, Expected: state.Expected, Expect: state.Expect != nil,
		Again: state.Again != nil,
	}
	if state.Base != nil {
		b.Base = state.Base.Number
	}
	return b, nil
}

func (s *served) readVerbs(v child.Verbs) {
	child.Handle(v, verbView, func(ctx context.Context, p *child.Peer, spec Spec) (r viewed, err error) {
		at, done := s.begin(ctx)
		defer done()
		view, closer, err := s.conn.view(at.ctx, spec, warner(p))
		if err != nil {
			return r, err
		}
		at.lists[ofExtents], at.close = view.Extents, closer.Close
		at.read(view.Reader)
		return viewed{view.Size, view.Extents != nil}, nil
	})
	child.Handle(v, verbVouch, func(context.Context, *child.Peer, child.Nothing) (n child.Nothing, err error) {
		at, err := s.current()
		if err != nil || at.close == nil {
			return n, errors.Join(err, errors.New("the child process has no view"))
		}
		return n, at.close()
	})
	child.Handle(v, verbRead, func(_ context.Context, _ *child.Peer, r piece) (n child.Nothing, err error) {
		at, err := s.current()
		if err != nil {
			return n, err
		}
		p, err := s.memory.Slot(r.Slot, int(r.Length))
		if err != nil {
			return n, err
		}
		return n, at.fill(p, r.Off)
	})
	child.Handle(v, verbMany, func(_ context.Context, _ *child.Peer, r pieces) (n child.Nothing, err error) {
		at, err := s.current()
		if err != nil {
			return n, err
		}
		total := 0
		for _, one := range r.List {
			total += int(one.Length)
		}
		p, err := s.memory.Slot(r.Slot, total)
		if err != nil {
			return n, err
		}
		return n, at.fillMany(p, r.List, r.AtOnce)
	})
	child.Handle(v, verbExtents, func(_ context.Context, _ *child.Peer, w which) (uint64, error) {
		at, err := s.current()
		if err != nil || w < 0 || int(w) >= len(at.lists) || at.lists[w] == nil {
			return 0, errors.Join(err, errors.New("the child process has no such extents"))
		}
		return at.stream(at.lists[w]), nil
	})
	child.Handle(v, verbNext, func(_ context.Context, _ *child.Peer, id uint64) (x extents, err error) {
		at, err := s.current()
		if err != nil {
			return x, err
		}
		return at.next(id)
	})
	child.Handle(v, verbDrop, func(_ context.Context, _ *child.Peer, id uint64) (n child.Nothing, err error) {
		at, err := s.current()
		if err != nil {
			return n, err
		}
		at.drop(id)
		return n, nil
	})
}

// read sets what is read.
func (at *session) read(r io.ReaderAt) {
	at.mu.Lock()
	defer at.mu.Unlock()
	at.reader = r
}

func (at *session) reading() io.ReaderAt {
	at.mu.Lock()
	defer at.mu.Unlock()
	if at.reader == nil {
		return bytes.NewReader(nil)
	}
	return at.reader
}

// fill reads all of p.
func (at *session) fill(p []byte, off int64) error {
	_, err := at.reading().ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// fillMany reads pieces into p, one after the other. If a read was left behind, that
// is the error, whatever became of the others: p is still being written to.
func (at *session) fillMany(p []byte, list []piece, atOnce int) error {
	errs := make([]error, len(list))
	var failed atomic.Bool
	var group errgroup.Group
	group.SetLimit(max(atOnce, 1))
	for i, one := range list {
		var into []byte
		into, p = p[:one.Length], p[one.Length:]
		group.Go(func() error {
			if failed.Load() {
				return nil
			}
			errs[i] = at.fill(into, one.Off)
			if errs[i] != nil {
				failed.Store(true)
			}
			return nil
		})
	}
	_ = group.Wait() // errs has them all
	var first error
	for _, err := range errs {
		if first == nil || errors.Is(err, ErrTimeout) {
			first = err
		}
	}
	return first
}

// batchExtents is how many extents go across at a time.
const batchExtents = 4096

// stream is a list of extents on its way.
type stream struct {
	found chan hints.Extent // closed after the last
	err   error             // then
	left  chan struct{}     // closed when nobody wants more
	once  sync.Once
}

func (at *session) stream(list hints.Seq) (id uint64) {
	st := &stream{found: make(chan hints.Extent, batchExtents), left: make(chan struct{})}
	at.mu.Lock()
	at.last++
	id = at.last
	at.streams[id] = st
	at.mu.Unlock()
	go func() {
		defer close(st.found)
		for e, err := range list {
			if err != nil {
				st.err = err
				return
			}
			select {
			case st.found <- e:
			case <-st.left:
				return
			}
		}
	}()
	return id
}

// next waits for one extent, and takes with it what has come besides.
func (at *session) next(id uint64) (x extents, err error) {
	at.mu.Lock()
	st := at.streams[id]
	at.mu.Unlock()
	if st == nil {
		return x, errors.New("the child process has no such extents")
	}
	e, more := <-st.found
	for more {
		x.Next = append(x.Next, e)
		if len(x.Next) == batchExtents {
			return x, nil
		}
		select {
		case e, more = <-st.found:
		default:
			return x, nil
		}
	}
	if st.err != nil && len(x.Next) > 0 {
		return x, nil // the error comes next
	}
	if st.err == nil {
		x.Last = true
	}
	at.drop(id)
	return x, st.err
}

func (at *session) drop(id uint64) {
	at.mu.Lock()
	st := at.streams[id]
	delete(at.streams, id)
	at.mu.Unlock()
	if st != nil {
		st.once.Do(func() { close(st.left) })
	}
}
