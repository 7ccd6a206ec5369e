package rbd

import (
	"context"
	"fmt"
	"io"
	"sync"
)

// reader reads a snapshot, or an image opened read-only, from many goroutines at
// a time.
type reader struct {
	ctx  context.Context // ends all reads; io.ReaderAt has no place for one
	im   *image
	size int64
}

// ReadAt implements io.ReaderAt. A read that is left behind because the context
// ended or the cluster hangs may still write to its buffer later, so that is
// never the caller's.
func (r *reader) ReadAt(p []byte, off int64) (int, error) {
	switch {
	case off < 0:
		return 0, fmt.Errorf("read %s at %d: before its start", r.im.spec, off)
	case len(p) == 0:
		return 0, nil
	case off >= r.size: // librbd answers EINVAL
		return 0, io.EOF
	}
	want := min(int64(len(p)), r.size-off)
	if err := r.fill(p[:want], off); err != nil {
		return 0, err
	}
	if want < int64(len(p)) {
		return int(want), io.EOF
	}
	return int(want), nil
}

func (r *reader) fill(p []byte, off int64) error {
	what := fmt.Sprintf("read %s at %d+%d", r.im.spec, off, len(p))
	buffer, err := call(r.ctx, &r.im.calls, what, func(func()) (*[]byte, error) {
		b := takeBuffer(len(p))
		n, err := r.im.rbd.ReadAt((*b)[:len(p)], off)
		if err == nil && n < len(p) || err == io.EOF {
			err = fmt.Errorf("%s: librbd gave %d bytes: %w", what, n, io.ErrUnexpectedEOF)
		}
		return b, err
	}, nil)
	if err != nil {
		return r.im.conn.named(err, "%s", what)
	}
	copy(p, *buffer)
	buffers.Put(buffer)
	return nil
}

var buffers sync.Pool

// takeBuffer gives a buffer of at least n bytes.
func takeBuffer(n int) *[]byte {
	if b, ok := buffers.Get().(*[]byte); ok && cap(*b) >= n {
		*b = (*b)[:cap(*b)]
		return b
	}
	b := make([]byte, n)
	return &b
}
