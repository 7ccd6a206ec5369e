package rbd

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// openPool opens the pool and namespace of a spec. It blocks: see call.
func (c *Conn) openPool(spec Spec) (*rados.IOContext, error) {
	io, err := c.rados.OpenIOContext(spec.Pool)
	if errnoOf(err) == syscall.ENOENT {
		return nil, fmt.Errorf("pool %s: %w in this cluster", spec.Pool, ErrNoPool)
	}
	if err != nil {
		return nil, c.failed(err, "open the pool %s", spec.Pool)
	}
	failWhenFull(io)
	if spec.Namespace == "" {
		return io, nil
	}
	found, err := rbd.NamespaceExists(io, spec.Namespace)
	switch {
	case err != nil:
		err = c.failed(err, "look for the namespace %s in pool %s", spec.Namespace, spec.Pool)
	case !found:
		err = fmt.Errorf("namespace %s: %w in pool %s", spec.Namespace, ErrNoNamespace, spec.Pool)
	default:
		io.SetNamespace(spec.Namespace)
		return io, nil
	}
	io.Destroy()
	return nil, err
}

// inPool runs a call that needs a pool, but no open image.
func inPool[T any](ctx context.Context, c *Conn, spec Spec, what string, f func(*rados.IOContext) (T, error)) (T, error) {
	v, err := call(ctx, &c.calls, what, func(func()) (v T, err error) {
		io, err := c.openPool(spec)
		if err != nil {
			return v, err
		}
		defer io.Destroy()
		v, err = f(io)
		return v, c.named(err, "%s", what)
	}, nil)
	return v, err
}

// image is an open image with the pool it is in.
type image struct {
	conn  *Conn
	io    *rados.IOContext
	rbd   *rbd.Image
	calls calls
	spec  Spec
	at    snapshot // what is read; without an id the image itself
}

// openMode is how an image is opened: read-only takes no lock and sets no watch.
type openMode bool

const (
	readOnly  openMode = true
	readWrite openMode = false
)

// open opens an image, or with spec.Snap a snapshot of it. With an id it is the
// image of that id, whatever its name has become.
//
// A snapshot is set on the open image, by its id, once the list has told that it
// is a user's.
func (c *Conn) open(ctx context.Context, spec Spec, id string, mode openMode) (*image, error) {
	opener, name := rbd.OpenImage, spec.Image
	switch {
	case mode == readOnly && id != "":
		opener, name = rbd.OpenImageByIdReadOnly, id
	case mode == readOnly:
		opener = rbd.OpenImageReadOnly
	case id != "":
		opener, name = rbd.OpenImageById, id
	}
	return call(ctx, &c.calls, "open "+spec.String(), func(func()) (*image, error) {
		io, err := c.openPool(spec)
		if err != nil {
			return nil, err
		}
		i, err := opener(io, name, rbd.NoSnapshot)
		if err != nil {
			io.Destroy()
			return nil, c.openError(err, spec)
		}
		im := &image{conn: c, io: io, rbd: i, spec: spec, calls: calls{limit: c.calls.limit}}
		if err := im.set(spec.Snap); err != nil {
			return nil, errors.Join(err, im.release())
		}
		return im, nil
	}, func(late *image) { late.release() })
}

func (c *Conn) openError(err error, spec Spec) error {
	if errnoOf(err) == syscall.ENOENT {
		return fmt.Errorf("%s: %w in pool %s", spec, ErrNoImage, spec.pool())
	}
	return c.failed(err, "open %s", spec)
}

// set makes a snapshot what is read; "" leaves it at the image itself.
func (im *image) set(name string) error {
	if name == "" {
		return nil
	}
	list, err := listSnapshots(im.rbd)
	if err != nil {
		return im.conn.failed(err, "list the snapshots of %s", im.spec.at(""))
	}
	snap, ok := named(list, name)
	if !ok {
		return noSnapshot(list, im.spec)
	}
	err = im.rbd.SetSnapByID(snap.id)
	if errnoOf(err) == syscall.ENOENT {
		return fmt.Errorf("%s: %w: it was removed just now", im.spec, ErrSnapshotGone)
	}
	im.at = snap
	return im.conn.named(err, "open the snapshot %s", im.spec)
}

// close closes the image. While calls that were left behind still use it, it
// stays open, and with it the connection.
func (im *image) close() error {
	if !im.calls.settle(grace) {
		im.conn.leaked.Store(true)
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), im.calls.limit)
	defer cancel()
	return do(ctx, &im.conn.calls, "close "+im.spec.String(), im.release)
}

// release closes the image, then its pool: the other order hangs for ever. It
// blocks: see call.
func (im *image) release() error {
	settleCallbacks(im.io)
	if err := im.rbd.Close(); err != nil {
		im.conn.leaked.Store(true)
		return im.conn.failed(err, "close %s", im.spec)
	}
	im.io.Destroy()
	return nil
}

// on runs a call on the image and puts its error into words.
func on[T any](ctx context.Context, im *image, what string, f func(*rbd.Image) (T, error)) (T, error) {
	v, err := call(ctx, &im.calls, what+" of "+im.spec.String(), func(func()) (T, error) { return f(im.rbd) }, nil)
	return v, im.conn.named(err, "%s of %s", what, im.spec)
}

// identity is what the image is known by, whatever its name, and the id to open
// it by. The old image format has no ids: an image of it is known by the prefix
// of its objects' names, and opened by its name only.
func (im *image) identity(ctx context.Context) (id, handle string, err error) {
	old, err := on(ctx, im, "ask for the format", (*rbd.Image).IsOldFormat)
	if err != nil {
		return "", "", err
	}
	if !old {
		id, err = on(ctx, im, "ask for the id", (*rbd.Image).GetId)
		return id, id, err
	}
	info, err := on(ctx, im, "ask for the object prefix", (*rbd.Image).Stat)
	if err != nil {
		return "", "", err
	}
	return info.Block_name_prefix, "", nil
}
