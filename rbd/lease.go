package rbd

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/zeebo/blake3"

	"backy/store"
)

// ErrLocked tells that somebody else has the lease.
var ErrLocked = errors.New("another backy has locked it")

const (
	leaseName = "backy" // of the lock on the object

	// Of rados_lock_exclusive: fail unless the lock is held still. The other
	// flag for renewing takes a lock that has run out for a new one, and so
	// hides that somebody else may have had it in between.
	mustRenew = byte(1 << 1)
)

// Lease is an advisory lock for backing up one image to one repository, so that
// several nodes share a pool's images. It spares work, and protects nothing:
// what is committed, the repository's own claims decide.
//
// It is an exclusive lock of RADOS's lock class, with a duration by the OSD's
// clock, on an object backy.lease.REPOSITORY.IMAGE in the image's pool and
// namespace. It is renewed until Release, which removes the object; that of a
// node that died stays until the next lease of the image is released.
type Lease struct {
	conn     *Conn
	io       *rados.IOContext
	calls    calls
	object   string
	cookie   string
	duration time.Duration
	what     string

	lost    chan struct{}
	stop    context.CancelFunc
	renewer sync.WaitGroup
}

// longImage is the length, in bytes, from which an image's name is not part of
// the object's: OSDs may take no more than 255, which rbd_id.IMAGE just fits.
const longImage = 200

// leaseObject is the name of the object. It is an image's name that makes it
// end, or the checksum of a long one: two objects are the same only where the
// images are.
func leaseObject(repository store.RepositoryID, image string) string {
	if len(image) >= longImage {
		sum := blake3.Sum256([]byte(image))
		image = "~" + hex.EncodeToString(sum[:])
	}
	return fmt.Sprintf("backy.lease.%s.%s", repository, image)
}

// Lock takes the lease of an image for a repository, for as long as it is
// renewed; duration is how long it outlives the last renewal.
//
// Errors: ErrLocked; ErrNoPool, ErrNoNamespace, ErrPermission, ErrTimeout.
func (c *Conn) Lock(ctx context.Context, spec Spec, repository store.RepositoryID, duration time.Duration) (*Lease, error) {
	what := fmt.Sprintf("lock %s", spec.at(""))
	io, err := call(ctx, &c.calls, what, func(func()) (*rados.IOContext, error) { return c.openPool(spec) },
		func(late *rados.IOContext) { late.Destroy() })
	if err != nil {
		return nil, err
	}
	l := &Lease{
		conn: c, io: io, calls: calls{limit: c.calls.limit}, duration: duration, what: what,
		object: leaseObject(repository, spec.Image), cookie: store.NewRunID(time.Now()).String(),
		lost: make(chan struct{}),
	}
	asked := time.Now()
	late, cancel := lasting(ctx) // a lock that came into being after we left would keep others waiting
	err = l.lock(late, 0)
	cancel()
	if err != nil {
		l.close()
		return nil, err
	}
	renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	l.renewer.Go(func() { l.renew(renewing, asked) })
	if ctx.Err() != nil {
		late, cancel := lasting(ctx)
		defer cancel()
		return nil, errors.Join(context.Cause(ctx), l.Release(late))
	}
	return l, nil
}

// lock takes or renews the lock.
func (l *Lease) lock(ctx context.Context, flags byte) error {
	ret, err := call(ctx, &l.calls, l.what, func(func()) (int, error) {
		host, _ := os.Hostname()
		return l.io.LockExclusive(l.object, leaseName, l.cookie, fmt.Sprintf("process %d on %s", os.Getpid(), host), l.duration, &flags)
	}, nil)
	switch {
	case err != nil:
		return l.conn.named(err, "%s", l.what)
	case syscall.Errno(-ret) == syscall.EBUSY, syscall.Errno(-ret) == syscall.EEXIST:
		return fmt.Errorf("%s: %w", l.what, ErrLocked)
	}
	return nil
}

// renew renews the lock until ctx ends. The lease is lost when the lock has gone
// to another, and when no renewal that began less than the duration ago has
// succeeded: then it may have.
func (l *Lease) renew(ctx context.Context, last time.Time) {
	tick := time.NewTicker(max(l.duration/4, time.Millisecond))
	defer tick.Stop()
	for {
		asked := time.Now()
		left, cancel := context.WithDeadline(ctx, last.Add(l.duration))
		err := l.wait(left, tick.C)
		if err == nil {
			asked = time.Now()
			err = l.lock(left, mustRenew)
		}
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			last = asked
		case left.Err() != nil, errors.Is(err, ErrLocked), errors.Is(err, syscall.ENOENT):
			close(l.lost)
			return
		}
		// Any other failure may pass: there is time until the lock runs out.
	}
}

func (l *Lease) wait(ctx context.Context, tick <-chan time.Time) error {
	select {
	case <-tick:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Lost is closed when the lease cannot be counted on any more.
func (l *Lease) Lost() <-chan struct{} { return l.lost }

// Release gives the lease back and removes its object, in one step and only if
// it is ours still.
func (l *Lease) Release(ctx context.Context) error {
	l.stop()
	l.renewer.Wait()
	defer l.close()
	err := do(ctx, &l.calls, "un"+l.what, func() error {
		op := rados.CreateWriteOp()
		defer op.Release()
		op.Exec("lock", "assert_locked", l.assertion())
		op.Remove()
		return op.Operate(l.io, l.object, rados.OperationNoFlag)
	})
	switch errnoOf(err) {
	case syscall.ENOENT, syscall.EBUSY: // it ran out, and may be somebody else's
		return nil
	}
	return l.conn.named(err, "un%s", l.what)
}

// close lets go of the pool, unless calls that were left behind still use it.
func (l *Lease) close() {
	if !l.calls.settle(0) {
		l.conn.leaked.Store(true)
		return
	}
	l.io.Destroy()
}

// assertion is cls_lock_assert_op of Ceph's src/cls/lock/cls_lock_ops.h: the
// lock's name, type, cookie and tag.
func (l *Lease) assertion() []byte {
	text := func(p []byte, s string) []byte {
		return append(binary.LittleEndian.AppendUint32(p, uint32(len(s))), s...)
	}
	const exclusive = 1
	body := append(text(nil, leaseName), exclusive)
	body = text(text(body, l.cookie), "")
	head := []byte{1, 1} // version, and the oldest that can read it
	return append(binary.LittleEndian.AppendUint32(head, uint32(len(body))), body...)
}
