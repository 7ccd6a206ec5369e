package rbd

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// What callers branch on. The errors that are returned wrap them with the names
// of the things they are about.
var (
	ErrNoPool       = fmt.Errorf("no such pool%w", silent{fs.ErrNotExist})
	ErrNoNamespace  = fmt.Errorf("no such namespace%w", silent{fs.ErrNotExist})
	ErrNoImage      = fmt.Errorf("no such image%w", silent{fs.ErrNotExist})
	ErrNoSnapshot   = fmt.Errorf("no such snapshot%w", silent{fs.ErrNotExist})
	ErrExists       = fmt.Errorf("the image exists%w", silent{fs.ErrExist})
	ErrTooSmall     = errors.New("the image is too small")
	ErrInUse        = errors.New("the image is in use")
	ErrNotPrimary   = errors.New("the image is a mirror's copy, not the primary one")
	ErrSnapshotGone = errors.New("a snapshot is gone")
	ErrFastDiff     = errors.New("fast diff cannot be trusted here")
	ErrPermission   = fmt.Errorf("permission denied%w", silent{fs.ErrPermission})
	ErrTimeout      = errors.New("no answer from the cluster")
	ErrFull         = errors.New("no space left")
)

// silent makes an error match another without a word about it.
type silent struct{ error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.error }

// errnoOf is the C error number that go-ceph or our own cgo answered with, 0
// where the error is another one, or has words already. go-ceph's own words are
// of no use: each ENOENT reads "RBD image not found".
func errnoOf(err error) syscall.Errno {
	if errors.Is(err, rbd.ErrNotFound) { // the one that go-ceph wraps
		return syscall.ENOENT
	}
	switch e := err.(type) {
	case syscall.Errno:
		return e
	case rados.OperationError: // of several steps as one
		return errnoOf(e.OpError)
	case interface{ ErrorCode() int }:
		return syscall.Errno(max(e.ErrorCode(), -e.ErrorCode()))
	}
	return 0
}

// plain puts what librados or librbd answered into words.
func (c *Conn) plain(err error) error {
	n := errnoOf(err)
	switch n {
	case 0:
		return err
	case syscall.ETIMEDOUT:
		return fmt.Errorf("%w within %s: it or one of its OSDs is down, unreachable, paused or full (ceph -s tells), the clock of one is an hour off or more, or the cluster no longer knows the key of %s",
			ErrTimeout, c.timeout, c.user)
	case syscall.EPERM, syscall.EACCES:
		return fmt.Errorf("%w for %s (ceph auth get %s shows what it may do)", ErrPermission, c.user, c.user)
	case syscall.ENOSPC:
		return fmt.Errorf("%w: the pool or an OSD is full (ceph df)", ErrFull)
	case syscall.EDQUOT:
		return fmt.Errorf("%w: the pool's quota is used up (ceph osd pool get-quota)", ErrFull)
	case syscall.ESHUTDOWN:
		return fmt.Errorf("the cluster has shut this client out: another one took over its lock, or an administrator did it (ceph osd blocklist ls): %w", n)
	}
	return n
}

// failed says what could not be done.
func (c *Conn) failed(err error, format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), c.plain(err))
}

// named is failed for an error that is librbd's bare answer, and leaves any
// other, nil too, as it is.
func (c *Conn) named(err error, format string, args ...any) error {
	if errnoOf(err) == 0 {
		return err
	}
	return c.failed(err, format, args...)
}
