package rbd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/ceph/go-ceph/rbd"

	"backy/store"
)

// Whose are the levels of a backup name? The newest one says it, by the ids of
// the cluster, the pool and the image. Another image may go on with the name if
// it has the place that is recorded there (it was restored or made anew, or the
// old one was renamed away), and if the old image is no more. Else two images
// would be levels of one name in turn, and what forgets levels would take each
// for the other's.

// ErrOthersName is what refuses an image whose backup name is another's.
var ErrOthersName = errors.New("the backup name is another image's")

// claimant is an image that wants to go on with a backup name.
type claimant struct {
	spec  Spec
	id    store.ImageID
	name  store.Name
	adopt bool // take the name in any case
}

// admit refuses a claimant whose name is another image's by its newest level, nil
// if there is none. note is a sentence for the user about an image that goes on
// with another's name; "" if it does not.
//
// Error: ErrOthersName.
func (c *Conn) admit(ctx context.Context, who claimant, newest *store.Level) (note string, err error) {
	if newest == nil || newest.Of(who.id) {
		return "", nil
	}
	o := newest.Origin.RBD
	level := fmt.Sprintf("level %s of %s", newest.Number, who.name)
	if o == nil {
		return fmt.Sprintf("%s is of %s, which is no RBD image: this image is compared with it by checksum", level, newest.Origin.Source), nil
	}
	spec := Spec{Pool: o.Pool, Namespace: o.Namespace, Image: o.Image}
	if o.Cluster == who.id.Cluster && spec == who.spec.at("").recorded() {
		return fmt.Sprintf("%s is of an earlier image of this name, with the id %s: this one, %s, is compared with it by checksum",
			level, o.ImageID, who.id.Image), nil
	}
	old := spec.String()
	if o.Cluster != who.id.Cluster {
		old += " in the cluster " + o.Cluster
	}
	if who.adopt {
		return fmt.Sprintf("%s is of another image, %s: from now on the name is this image's, which is compared with it by checksum", level, old), nil
	}
	there, err := c.exists(ctx, o)
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "", fmt.Errorf("%s: %w: %s is of %s, and it is unknown whether that image still exists: %w: give this image a name of its own, or add --adopt if the name is this image's from now on",
			who.spec.at(""), ErrOthersName, level, old, err)
	case there && c.comesFrom(ctx, who.spec, o):
		return fmt.Sprintf("%s is of %s, from which this image is migrated: this one is compared with it by checksum", level, old), nil
	case there:
		return "", fmt.Errorf("%s: %w: %s is of %s, which still exists with the id %s: give this image a name of its own, or add --adopt if the name is this image's from now on",
			who.spec.at(""), ErrOthersName, level, old, o.ImageID)
	}
	return fmt.Sprintf("%s is of another image, %s, which is gone: this one is compared with it by checksum", level, old), nil
}

// exists reports whether the image of a level is still there, by its id: whatever
// its name has become, and in the trash too.
func (c *Conn) exists(ctx context.Context, o *store.RBDOrigin) (bool, error) {
	if o.Cluster != c.fsid {
		return false, fmt.Errorf("this is the cluster %s", c.fsid)
	}
	what := fmt.Sprintf("look for the pool with the id %d", o.PoolID)
	pool, err := call(ctx, &c.calls, what, func(func()) (string, error) { return c.rados.GetPoolByID(o.PoolID) }, nil)
	if errnoOf(err) == syscall.ENOENT {
		return false, nil
	}
	if err != nil {
		return false, c.named(err, "%s", what)
	}
	spec, handle := Spec{Pool: pool, Namespace: o.Namespace, Image: o.Image}, o.ImageID
	old := strings.Contains(o.ImageID, ".")
	if old { // the old image format, whose images can be opened by name only
		handle = ""
	}
	id, err := c.identify(ctx, spec, handle)
	switch {
	case old && (errors.Is(err, ErrNoImage) || err == nil && id != o.ID()):
		return false, errors.New("an image of format 1 cannot be found after it was renamed")
	case errors.Is(err, ErrNoImage), errors.Is(err, ErrNoNamespace), errors.Is(err, ErrNoPool):
		return false, nil
	}
	return err == nil && id == o.ID(), err
}

// identify finds out which image has a name, or with a handle whether that one is
// there.
func (c *Conn) identify(ctx context.Context, spec Spec, handle string) (id store.ImageID, err error) {
	im, err := c.open(ctx, spec.at(""), handle, readOnly)
	if err != nil {
		return id, err
	}
	defer func() { err = errors.Join(err, im.close()) }()
	id, _, err = im.whose(ctx)
	return id, err
}

// whose is what an open image is known by, and the id to open it by: see identity.
func (im *image) whose(ctx context.Context) (id store.ImageID, handle string, err error) {
	image, handle, err := im.identity(ctx)
	if err != nil {
		return id, "", err
	}
	pool, err := on(ctx, im, "ask for the pool", func(*rbd.Image) (int64, error) { return im.io.GetPoolID(), nil })
	return store.ImageID{Cluster: im.conn.fsid, PoolID: pool, Image: image}, handle, err
}
