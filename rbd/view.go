package rbd

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ceph/go-ceph/rbd"

	"backy/engine"
	"backy/hints"
)

// View opens an image, or with spec.Snap a snapshot of it, to be compared with
// a level. Its extents are what is allocated; in a live migration there are none. ctx ends its reads. The closer must
// be closed; it fails where the snapshot is gone, so that what was read does not
// count (ErrSnapshotGone).
//
// An image that is in use changes meanwhile: it differs then, without any
// damage.
func (c *Conn) View(ctx context.Context, spec Spec) (engine.View, io.Closer, error) {
	return c.view(ctx, spec, nil)
}

// view is View that says when reads are throttled; warn may be nil.
func (c *Conn) view(ctx context.Context, spec Spec, warn engine.Warn) (engine.View, io.Closer, error) {
	im, err := c.open(ctx, spec, "", readOnly)
	if err != nil {
		return engine.View{}, nil, c.halfRemoved(ctx, spec, err)
	}
	view, vouch, err := im.view(ctx, warn)
	if err != nil {
		return engine.View{}, nil, errors.Join(err, im.close())
	}
	return view, closer{im, vouch}, nil
}

// view describes what the image is opened at; vouch tells whether it still is.
func (im *image) view(ctx context.Context, warn engine.Warn) (v engine.View, vouch func(context.Context) error, err error) {
	id, handle, err := im.identity(ctx)
	if err != nil {
		return engine.View{}, nil, err
	}
	layout, err := im.layout(ctx)
	if err != nil {
		return engine.View{}, nil, err
	}
	list, err := im.snapshots(ctx)
	if err != nil {
		return engine.View{}, nil, err
	}
	to := im.at
	size, err := on(ctx, im, "ask for the size", (*rbd.Image).GetSize)
	if err != nil {
		return engine.View{}, nil, err
	}
	to.size = int64(size)
	unsettled, err := im.unsettled(ctx)
	if err != nil {
		return engine.View{}, nil, err
	}
	vouch = func(context.Context) error { return nil }
	switch {
	case to.id != 0:
		if err := im.refusePart(ctx, handle, to, list); err != nil {
			return engine.View{}, nil, err
		}
		vouch = func(ctx context.Context) error { return im.conn.verify(ctx, im.spec, id, handle, unsettled, to) }
	case unsettled:
		vouch = func(ctx context.Context) error { return im.conn.verify(ctx, im.spec, id, handle, true) }
	}
	own, _ := im.metadata(ctx, "") // without them all that is lost is the pace
	qos, err := im.throttle(ctx, false, own, func(format string, args ...any) {
		if warn != nil {
			warn("%s is %s", im.spec.at(""), fmt.Sprintf(format, args...))
		}
	})
	if err != nil {
		return engine.View{}, nil, err
	}
	v = engine.View{Reader: &reader{ctx, im, to.size, qos}, Size: to.size}
	if unsettled { // diffs are wrong there
		return v, vouch, nil
	}
	span := newSpan(handle, layout, list, snapshot{}, to)
	v.Extents = func(yield func(hints.Extent, error) bool) {
		set, _, err := im.candidates(ctx, span, DiffAuto, nil)
		if err != nil {
			yield(hints.Extent{}, err)
			return
		}
		im.changes(ctx, "", set, vouch)(yield)
	}
	return v, vouch, nil
}

type closer struct {
	im    *image
	vouch func(context.Context) error
}

func (c closer) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), c.im.calls.limit)
	defer cancel()
	return errors.Join(c.vouch(ctx), c.im.close())
}
