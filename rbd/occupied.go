package rbd

import (
	"context"
	"fmt"
	"strings"
	"syscall"

	"github.com/ceph/go-ceph/rbd"
)

// size is the image's length in bytes.
func (im *image) size(ctx context.Context) (int64, error) {
	n, err := on(ctx, im, "ask for the size", (*rbd.Image).GetSize)
	return int64(n), err
}

// writable refuses an image that a restore must not overwrite: one that is too
// small, a mirror's copy, or in use by anybody but this handle.
func (im *image) writable(ctx context.Context, size int64) error {
	have, err := im.size(ctx)
	if err != nil {
		return err
	}
	if have < size {
		return fmt.Errorf("%s: %w: it has %d bytes, the level %d: rbd resize makes it larger", im.spec, ErrTooSmall, have, size)
	}
	primary, err := im.isPrimary(ctx)
	if err != nil {
		return err
	}
	if !primary {
		return fmt.Errorf("%s: %w", im.spec, ErrNotPrimary)
	}
	if err := im.refuseMigrating(ctx, "restore to "+im.spec.String()); err != nil {
		return err
	}
	return im.unused(ctx)
}

// unused refuses an image that anybody but this handle watches or has locked.
func (im *image) unused(ctx context.Context) error {
	users, err := on(ctx, im, "ask for the users", im.users)
	if err != nil || len(users) == 0 {
		return err
	}
	return fmt.Errorf("%s: %w by %s: stop what uses it there, or restore to another image; the watch of a client that died ends by itself in half a minute, a lock that it left by: rbd lock rm %s LOCK CLIENT",
		im.spec, ErrInUse, strings.Join(users, ", "), strings.TrimPrefix(im.spec.at("").String(), Scheme))
}

// users tells in words who else watches the image or has locked it.
func (im *image) users(i *rbd.Image) ([]string, error) {
	self := im.conn.rados.GetInstanceID()
	watchers, err := i.ListWatchers()
	if err != nil {
		return nil, err
	}
	var users []string
	for _, w := range watchers {
		if uint64(w.Id) != self {
			users = append(users, fmt.Sprintf("client.%d at %s", w.Id, w.Addr))
		}
	}
	_, lockers, err := i.ListLockers()
	if err != nil {
		return nil, err
	}
	for _, l := range lockers {
		if l.Client != fmt.Sprintf("client.%d", self) {
			users = append(users, fmt.Sprintf("%s at %s with the lock %q", l.Client, l.Addr, l.Cookie))
		}
	}
	return users, nil
}

// lock takes the image's exclusive lock for as long as it is open. Without it
// librbd would hand the lock to any other client that wants to write.
func (t *Target) lock(ctx context.Context) error {
	bits, err := on(ctx, t.im, "ask for the features", (*rbd.Image).GetFeatures)
	if err != nil || bits&rbd.FeatureExclusiveLock == 0 {
		return err
	}
	err = do(ctx, &t.im.calls, "lock "+t.spec.String(), func() error {
		return t.im.rbd.LockAcquire(rbd.LockModeExclusive)
	})
	switch errnoOf(err) {
	case 0:
		t.locked = err == nil
		return err
	case syscall.EBUSY, syscall.EROFS, syscall.EAGAIN:
		if err := t.im.unused(ctx); err != nil {
			return err
		}
		return fmt.Errorf("%s: %w: another client had its exclusive lock just now: try again", t.spec, ErrInUse)
	}
	return t.conn.failed(err, "lock %s", t.spec)
}

func (t *Target) unlock(ctx context.Context) error {
	if !t.locked {
		return nil
	}
	t.locked = false
	err := do(ctx, &t.im.calls, "unlock "+t.spec.String(), t.im.rbd.LockRelease)
	return t.conn.named(err, "unlock %s", t.spec)
}
