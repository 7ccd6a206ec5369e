package rbd

/*
#include <errno.h>
#include <stdlib.h>
#include <rados/librados.h>
#include <rbd/librbd.h>

#ifndef RBD_FEATURE_NON_PRIMARY
#define RBD_FEATURE_NON_PRIMARY (1ULL << 10)
#endif

// whole_copy reports whether a snapshot of mirroring's has been copied whole.
static int whole_copy(rbd_image_t image, uint64_t snap, bool *whole) {
	rbd_snap_mirror_namespace_t m;
	int ret = rbd_snap_get_mirror_namespace(image, snap, &m, sizeof m);
	if (ret < 0)
		return ret;
	*whole = m.complete;
	return rbd_snap_mirror_namespace_cleanup(&m, sizeof m);
}
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// A mirror's copy of an image is rbd-mirror's: nobody else makes or removes snapshots
// there, and librbd, asked to, takes the lock of an rbd-mirror that does not answer
// away and shuts it out of the cluster.
//
// A snapshot of a copy is listed before its data has come. Until then it reads as
// something else, without an error: TestMirrorCopies.

// ofMirroring is the kind of mirroring's snapshots, which go-ceph does not name.
const ofMirroring = rbd.SnapNamespaceType(C.RBD_SNAP_NAMESPACE_TYPE_MIRROR)

// isPrimary reports whether the image may be written to as far as mirroring is
// concerned; one that is not mirrored is its own primary.
func (im *image) isPrimary(ctx context.Context) (bool, error) {
	return on(ctx, im, "ask for the mirror state", func(i *rbd.Image) (bool, error) {
		info, err := i.GetMirrorImageInfo()
		if err != nil {
			return false, err
		}
		return info.State == rbd.MirrorImageDisabled || info.Primary, nil
	})
}

// isCopy is the opposite of isPrimary. It does not ask the cluster about images that
// cannot be copies, which most are.
func (im *image) isCopy(ctx context.Context) (bool, error) {
	bits, err := on(ctx, im, "ask for the features", (*rbd.Image).GetFeatures)
	if err != nil || bits&(C.RBD_FEATURE_NON_PRIMARY|rbd.FeatureJournaling) == 0 {
		return false, err
	}
	primary, err := im.isPrimary(ctx)
	return !primary, err
}

// refuseCopy fails if the image is a mirror's copy.
func (im *image) refuseCopy(ctx context.Context, what string) error {
	yes, err := im.isCopy(ctx)
	if err == nil && yes {
		err = fmt.Errorf("%s: %w", what, ErrNotPrimary)
	}
	return err
}

// syncPoint is how the names of the snapshots begin that rbd-mirror makes for the
// first copy of an image that is mirrored by its journal, and then removes.
const syncPoint = ".rbd-mirror."

// refusePart fails if the image is a mirror's copy of which a snapshot has not come
// whole yet. list are all of its snapshots.
//
// Mirroring by snapshots makes those of users first, then one of its own, then copies
// the data up to that, and only then calls it complete. Mirroring by the journal does
// likewise for the first copy; from then on it does all in the order in which it was
// done to the primary image.
func (im *image) refusePart(ctx context.Context, handle string, s snapshot, list []snapshot) error {
	copied, err := im.isCopy(ctx)
	if err != nil || !copied {
		return err
	}
	mode, err := on(ctx, im, "ask for the mirror mode", (*rbd.Image).GetImageMirrorMode)
	if err != nil {
		return err
	}
	var whole bool
	if mode == rbd.ImageMirrorModeSnapshot {
		whole, err = im.copiedUpTo(ctx, handle, s, list)
	} else {
		whole, err = im.replaying(ctx, list)
	}
	if err == nil && !whole {
		err = fmt.Errorf("%s: %w, and the snapshot is not known to have been copied whole yet: run it again once it is (rbd mirror image status)", im.spec.at(s.name), ErrNotPrimary)
	}
	return err
}

// copiedUpTo reports whether a later snapshot of mirroring's is complete.
func (im *image) copiedUpTo(ctx context.Context, handle string, s snapshot, list []snapshot) (whole bool, err error) {
	what := "ask for the mirror snapshots of " + im.spec.at("").String()
	return inPool(ctx, im.conn, im.spec, what, func(io *rados.IOContext) (bool, error) {
		id := C.CString(handle)
		defer C.free(unsafe.Pointer(id))
		var own C.rbd_image_t
		if err := errOf(C.rbd_open_by_id_read_only(C.rados_ioctx_t(io.Pointer()), id, &own, nil)); err != nil {
			return false, err
		}
		var err error
		whole := C.bool(false)
		for i := len(list) - 1; i >= 0 && list[i].id > s.id && err == nil && !bool(whole); i-- {
			if list[i].mirror {
				err = errOf(C.whole_copy(own, C.uint64_t(list[i].id), &whole))
			}
		}
		settleCallbacks(io)
		return bool(whole), errors.Join(err, errOf(C.rbd_close(own)))
	})
}

// replaying reports whether the first copy is over, as far as rbd-mirror has said
// so. The snapshot that it copies up to comes after those of users, so that its
// absence alone says nothing.
func (im *image) replaying(ctx context.Context, list []snapshot) (bool, error) {
	for _, s := range list {
		if strings.HasPrefix(s.name, syncPoint) {
			return false, nil
		}
	}
	return on(ctx, im, "ask for the mirror status", func(i *rbd.Image) (bool, error) {
		status, err := i.GetGlobalMirrorStatus()
		if err != nil {
			return false, err
		}
		here, err := status.LocalStatus()
		if errors.Is(err, rbd.ErrNotExist) { // of one that was demoted, say, and has no peer yet
			return true, nil
		}
		return here.State == rbd.MirrorImageStatusStateReplaying, err
	})
}
