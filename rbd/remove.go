package rbd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// unmake removes an image that we made. Where the name has gone to an image
// of another id, that one is left alone; "" stands for any.
//
// On a full pool librbd cannot remove an image: it moves it to the trash first,
// for which there is no space. So the image is shrunk to nothing, and the
// removal tried again while the cluster finds out that it has space.
func (c *Conn) unmake(ctx context.Context, spec Spec, id string) error {
	const tries = 15
	err := c.removeImage(ctx, spec, id)
	for try := 0; err != nil && !errors.Is(err, ErrNoImage) && try < tries; try++ {
		if try == 0 {
			if shrinkErr := c.shrink(ctx, spec); shrinkErr != nil {
				return errors.Join(err, shrinkErr)
			}
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return fmt.Errorf("the incomplete image is left, shrunk to size 0: %w", err)
		}
		err = c.removeImage(ctx, spec, id)
	}
	if errors.Is(err, ErrNoImage) {
		return nil
	}
	return err
}

func (c *Conn) removeImage(ctx context.Context, spec Spec, id string) error {
	im, err := c.open(ctx, spec, "", readOnly)
	if err != nil {
		return err
	}
	now, _, err := im.identity(ctx)
	if err = errors.Join(err, im.close()); err != nil {
		return err
	}
	if id != "" && now != id {
		return fmt.Errorf("%s: %w: the name is another image's now", spec, ErrNoImage)
	}
	_, err = inPool(ctx, c, spec, fmt.Sprintf("remove the incomplete image %s", spec), func(io *rados.IOContext) (struct{}, error) {
		return struct{}{}, rbd.RemoveImage(io, spec.Image)
	})
	return err
}

func (c *Conn) shrink(ctx context.Context, spec Spec) error {
	im, err := c.open(ctx, spec, "", readWrite)
	if err != nil {
		return err
	}
	err = do(ctx, &im.calls, "shrink "+spec.String(), func() error { return im.rbd.Resize(0) })
	return errors.Join(c.named(err, "shrink the incomplete image %s", spec), im.close())
}
