package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"backy/store/pending"

	"golang.org/x/sys/unix"
)

// zeroStep is how much is zeroed before it is looked whether the restore is
// still wanted: a device that cannot do it by itself is written to.
const zeroStep = 256 << 20

// Zero punches a hole where the target can, and else writes zeros.
//
// A device punches as it discards, but is bound to read as zeros then (the
// kernel's blkdev_fallocate with FALLOC_FL_PUNCH_HOLE refuses what is not). One
// that cannot has the kernel write them (BLKZEROOUT). Both want whole sectors,
// and share the page cache with neighbours who write: the pages at the edges
// are written.
func (t *Target) Zero(off, length int64) error {
	if err := t.inside(off, length); err != nil {
		return err
	}
	end := off + length
	head, tail := off, end
	if t.device {
		page := int64(os.Getpagesize())
		head = min((off+page-1)/page*page, end)
		tail = max(end/page*page, head)
	}
	if err := t.writeZeros(off, head); err != nil {
		return err
	}
	for pos := head; pos < tail; {
		if err := context.Cause(t.ctx); err != nil {
			return err
		}
		next := min(pos+zeroStep, tail)
		if err := t.zeroStep(pos, next); err != nil {
			return fmt.Errorf("zero %d bytes of %s at %d: %w", next-pos, t.path, pos, err)
		}
		pos = next
	}
	if err := t.writeZeros(tail, end); err != nil {
		return err
	}
	t.readback.Zeroed(off, length)
	return nil
}

// zeroStep zeros [off, end) in the best way that is known to work.
func (t *Target) zeroStep(off, end int64) error {
	defer pending.Begin("zero", "", t.path).End()
	for _, way := range []struct {
		not *atomic.Bool
		do  func(off, end int64) error
	}{
		{&t.noPunch, t.punch},
		{&t.noZeroOut, t.zeroOut},
	} {
		if way.not.Load() {
			continue
		}
		err := way.do(off, end)
		if !cannot(err) {
			return err
		}
		way.not.Store(true)
	}
	return t.writeZeros(off, end)
}

// cannot tells of an error that means that a way of zeroing is not to be had.
func cannot(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) ||
		errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL)
}

func (t *Target) punch(off, end int64) error {
	return untilDone(func() error {
		return unix.Fallocate(int(t.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, end-off)
	})
}

func (t *Target) zeroOut(off, end int64) error {
	if !t.device {
		return unix.ENOTTY
	}
	span := [2]uint64{uint64(off), uint64(end - off)}
	return untilDone(func() error {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, t.f.Fd(), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&span)))
		if errno != 0 {
			return errno
		}
		return nil
	})
}

func untilDone(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

var zeros [1 << 20]byte

func (t *Target) writeZeros(off, end int64) error {
	for off < end {
		if err := context.Cause(t.ctx); err != nil {
			return err
		}
		n, err := t.f.WriteAt(zeros[:min(end-off, int64(len(zeros)))], off)
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}
