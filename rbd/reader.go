package rbd

import (
	"context"
	"fmt"
	"io"
)

// reader reads a snapshot, or an image opened read-only, from many goroutines at
// a time.
type reader struct {
	ctx  context.Context // ends all reads; io.ReaderAt has no place for one
	im   *image
	size int64
	qos  *throttle
}

// ReadAt implements io.ReaderAt. A read that is left behind because the context
// ended or the cluster hangs may still write to p after its error.
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
	for len(p) > 0 {
		n := r.qos.piece(int64(len(p)))
		if err := r.qos.do(r.ctx, n, func() error { return r.read(p[:n], off) }); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

func (r *reader) read(p []byte, off int64) error {
	what := fmt.Sprintf("read %s at %d+%d", r.im.spec, off, len(p))
	err := transfer(r.ctx, &r.im.calls, what, func() error {
		n, err := r.im.rbd.ReadAt(p, off)
		if err == nil && n < len(p) || err == io.EOF {
			err = fmt.Errorf("%s: librbd gave %d bytes: %w", what, n, io.ErrUnexpectedEOF)
		}
		return err
	})
	return r.im.conn.named(err, "%s", what)
}
