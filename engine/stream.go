package engine

import (
	"context"
	"errors"
	"io"

	"backy/store"
)

// copyStream brings a pipe's bytes into the repository; its size is what
// arrives.
func (b *backup) copyStream(ctx context.Context) (store.Ref, error) {
	// A stream cannot be read again, should the base's map turn out to be bad.
	var lost *store.NodeError
	err := b.vouch(ctx)
	if err == nil {
		err = eachLeaf(ctx, b.repo, b.baseMap(), func(store.Leaf) {})
	}
	if errors.As(err, &lost) {
		b.loseBase(ctx, lost)
	} else if err != nil {
		return store.Ref{}, err
	}
	if err := b.w.BeginMap(ctx, b.baseMap(), -1); err != nil {
		return store.Ref{}, err
	}
	b.o.Progress.Total.Store(b.state.Expected)
	b.size = 1 << 62 // nothing is cut at the end before the end is known
	var arrived int64
	err = pipeline(ctx, workers(b.o.Readers),
		func(ctx context.Context, emit func(*unit) error) (err error) {
			arrived, err = b.readStream(ctx, emit)
			return err
		}, b.work, b.consume)
	if err != nil {
		return store.Ref{}, err
	}
	b.size = arrived
	if err := b.cutOff(ctx); err != nil {
		return store.Ref{}, err
	}
	b.o.Progress.Total.Store(arrived)
	return b.w.FinishMap(ctx, b.chunks())
}

// readStream reads the stream to its end, unit by unit.
func (b *backup) readStream(ctx context.Context, emit func(*unit) error) (size int64, err error) {
	look := b.baseRefs(ctx)
	defer context.AfterFunc(ctx, func() { b.stop(context.Cause(ctx)) })()
	for ended := false; !ended; {
		if err := context.Cause(ctx); err != nil {
			return size, err
		}
		p := getBuffer(unitBytes)
		n, err := readUnit(b.state.Stream, p)
		ended = err == io.EOF
		if err != nil && !ended {
			return size, err
		}
		if n == 0 {
			break
		}
		u := &unit{first: size / b.repo.ChunkSize, data: p[:n]}
		u.count = (int64(n) + b.repo.ChunkSize - 1) / b.repo.ChunkSize
		if u.base, err = look(ctx, u.first, u.count); err != nil {
			return size, err
		}
		size += int64(n)
		if err := emit(u); err != nil {
			return size, err
		}
	}
	return size, nil
}

// readUnit fills p, or reads to the end, which io.EOF itself tells and nothing
// that wraps it: io.ErrUnexpectedEOF from a producer is a failure.
func readUnit(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	if n == len(p) {
		return n, nil
	}
	return n, err
}
