package rbd

import (
	"fmt"
	"io"
)

// WriteSize is that of RBD's usual objects: librbd writes a whole object at once.
func (t *Target) WriteSize() int64 { return 4 << 20 }

// WriteAt writes all of p, from many goroutines at a time. On a full pool or
// quota it fails at once, with ErrFull.
func (t *Target) WriteAt(p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := t.aloneStill(); err != nil {
		return 0, err
	}
	for done := 0; done < len(p); {
		piece := p[done : done+int(t.qos.piece(int64(len(p)-done)))]
		at := off + int64(done)
		if err := t.qos.do(t.ctx, int64(len(piece)), func() error { return t.write(piece, at) }); err != nil {
			return done, err
		}
		done += len(piece)
	}
	return len(p), nil
}

func (t *Target) write(p []byte, off int64) error {
	what := fmt.Sprintf("write %s at %d+%d", t.spec, off, len(p))
	err := transfer(t.ctx, &t.im.calls, what, func() error {
		n, err := t.im.rbd.WriteAt(p, off)
		if err == io.EOF || err == nil && n < len(p) { // reaches across the image's end
			err = fmt.Errorf("%s: librbd took %d bytes: %w", what, n, io.ErrShortWrite)
		}
		return err
	})
	if err == nil {
		t.others.readback.Wrote(p, off)
	}
	return t.conn.named(err, "%s", what)
}

const (
	// zeroBlock is what WriteSame repeats; a length that it takes is a multiple of it.
	zeroBlock = 512

	// zeroCall bounds one call: librbd takes less than 2 GiB, and the watchdog
	// wants a sign of life.
	zeroCall = 256 << 20
)

var zeros [zeroBlock]byte

// Zero makes a range read as zeros. Whole objects are freed, and what librbd can
// free within objects; it writes zeros only where the edges ask for it.
//
// Discard would not do: librbd leaves what is not aligned to 64 KiB as it is, and
// says nothing. A WriteSame of zeros it turns into rbd_write_zeroes, which
// frees what it can and writes the rest, also over a clone's parent.
func (t *Target) Zero(off, length int64) error {
	for length > 0 {
		n := t.qos.piece(min(length, zeroCall))
		if err := t.qos.do(t.ctx, n, func() error { return t.zero(off, n) }); err != nil {
			return err
		}
		off, length = off+n, length-n
	}
	return nil
}

func (t *Target) zero(off, length int64) error {
	if odd := length % zeroBlock; odd != 0 {
		if err := t.write(zeros[:odd], off+length-odd); err != nil {
			return err
		}
		length -= odd
	}
	if length == 0 {
		return nil
	}
	what := fmt.Sprintf("zero %s at %d+%d", t.spec, off, length)
	err := transfer(t.ctx, &t.im.calls, what, func() error {
		n, err := t.im.rbd.WriteSame(uint64(off), uint64(length), zeros[:], 0)
		if err == nil && n < length {
			err = fmt.Errorf("%s: librbd took %d bytes: %w", what, n, io.ErrShortWrite)
		}
		return err
	})
	if err == nil {
		t.others.readback.Zeroed(off, length)
	}
	return t.conn.named(err, "%s", what)
}
