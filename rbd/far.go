package rbd

import (
	"context"
	"errors"
	"fmt"
	"io"

	"backy/engine"
	"backy/hints"
	"backy/rbd/child"
)

// far is an image that a worker has open, as seen from here.
type far struct {
	cluster *Cluster
	spec    Spec

	w      *worker // nil: none, but its place is ours still
	unlink func()
}

// hire takes a worker and has it know what it may call.
func (f *far) hire(ctx context.Context, v child.Verbs) (err error) {
	if f.w, err = f.cluster.hire(ctx); err != nil {
		return err
	}
	f.w.about(f.spec.String())
	f.w.Serve(v)
	return nil
}

// again takes a fresh worker where one has died.
func (f *far) again(ctx context.Context, v child.Verbs) error {
	w, err := f.cluster.replace(ctx, f.w)
	if f.w = w; err != nil {
		return err
	}
	w.about(f.spec.String())
	w.Serve(v)
	return nil
}

// link makes the end of ctx end what the worker reads or writes.
func (f *far) link(ctx context.Context) {
	w, told := f.w, make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(told)
		_ = w.Call(context.Background(), verbStop, child.Nothing{}, &child.Nothing{})
	})
	f.unlink = func() {
		if !stop() {
			<-told // or it would end the next image's
		}
	}
}

// leave gives the worker back, or what is left of it.
func (f *far) leave() {
	if f.unlink != nil {
		f.unlink()
		f.unlink = nil
	}
	if f.w == nil {
		<-f.cluster.places
		return
	}
	f.cluster.leave(f.w)
}

// use gives a slot to a call and gets it back, unless the call was left behind.
func (w *worker) use(ctx context.Context, do func(slot int) error) error {
	slot, err := w.Memory.Take(ctx)
	if err != nil {
		return err
	}
	err = do(slot)
	if errors.Is(err, ErrTimeout) || ctx.Err() != nil && err != nil {
		w.Memory.Lose(slot)
	} else {
		w.Memory.Give(slot)
	}
	return err
}

// farReader reads what a worker has open. It implements io.ReaderAt as an
// engine.View asks for.
type farReader struct {
	ctx  context.Context // ends all reads; io.ReaderAt has no place for one
	w    *worker
	spec Spec
	size int64
}

// ReadAt implements io.ReaderAt.
func (r *farReader) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("read %s at %d: before its start", r.spec, off)
	}
	for n < len(p) && off < r.size {
		length := min(int64(len(p)-n), r.size-off, child.SlotBytes)
		into := p[n : n+int(length)]
		err := r.w.use(r.ctx, func(slot int) error {
			if err := r.w.call(r.ctx, verbRead, piece{slot, off, length}, &child.Nothing{}); err != nil {
				return err
			}
			return r.w.Memory.Get(slot, into)
		})
		if err != nil {
			return n, err
		}
		n, off = n+int(length), off+length
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// ReadMany implements engine.ManyReader.
func (r *farReader) ReadMany(list []engine.Piece, atOnce int) error {
	ask := pieces{AtOnce: atOnce}
	var total int64
	for _, p := range list {
		ask.List = append(ask.List, piece{Off: p.Offset, Length: int64(len(p.Data))})
		total += int64(len(p.Data))
	}
	if total > child.SlotBytes {
		return fmt.Errorf("read %s: %d bytes in %d pieces at a time", r.spec, total, len(list))
	}
	return r.w.use(r.ctx, func(slot int) error {
		ask.Slot = slot
		if err := r.w.call(r.ctx, verbMany, ask, &child.Nothing{}); err != nil {
			return err
		}
		into := make([][]byte, len(list))
		for i, p := range list {
			into[i] = p.Data
		}
		return r.w.Memory.Get(slot, into...)
	})
}

// extents streams those of what the worker has open.
func (w *worker) extents(ctx context.Context, of which) hints.Seq {
	return func(yield func(hints.Extent, error) bool) {
		var id uint64
		if err := w.call(ctx, verbExtents, of, &id); err != nil {
			yield(hints.Extent{}, err)
			return
		}
		for {
			var x extents
			if err := w.call(ctx, verbNext, id, &x); err != nil {
				yield(hints.Extent{}, err)
				return
			}
			for _, e := range x.Next {
				if !yield(e, nil) {
					_ = w.call(ctx, verbDrop, id, &child.Nothing{})
					return
				}
			}
			if x.Last {
				return
			}
		}
	}
}

// View is Conn.View.
func (c *Cluster) View(ctx context.Context, spec Spec) (engine.View, io.Closer, error) {
	f := &far{cluster: c, spec: spec}
	verbs := child.Verbs{}
	child.Handle(verbs, verbWarn, func(_ context.Context, _ *child.Peer, text string) (n child.Nothing, err error) {
		if c.o.Warn != nil {
			c.o.Warn("%s", text)
		}
		return n, nil
	})
	if err := f.hire(ctx, verbs); err != nil {
		return engine.View{}, nil, err
	}
	var v viewed
	if err := f.w.call(ctx, verbView, spec, &v); err != nil {
		f.leave()
		return engine.View{}, nil, err
	}
	f.link(ctx)
	view := engine.View{Reader: &farReader{ctx, f.w, spec, v.Size}, Size: v.Size}
	if v.Extents {
		view.Extents = f.w.extents(ctx, ofExtents)
	}
	return view, &farView{f}, nil
}

// farView is what must be closed of a view.
type farView struct{ *far }

// Close implements io.Closer.
func (v *farView) Close() error {
	defer v.leave()
	return v.w.call(context.Background(), verbVouch, child.Nothing{}, &child.Nothing{})
}
