package rbd

/*
#cgo LDFLAGS: -lrbd -lrados
#include <errno.h>
#include <stdlib.h>
#include <rados/librados.h>
#include <rbd/librbd.h>
*/
import "C"

import (
	"errors"
	"strings"
	"syscall"
	"unsafe"

	"github.com/ceph/go-ceph/rados"
)

// What go-ceph does not bind. It gives away the rados_ioctx_t, but no
// rbd_image_t, so an image whose flags are asked for is opened here.

// errOf is the error of a C function that answers with a negative number.
func errOf(ret C.int) error {
	if ret >= 0 {
		return nil
	}
	return syscall.Errno(-ret)
}

// failWhenFull makes operations that need space on a full pool fail with ENOSPC
// or EDQUOT. librados's default is to hold them back until there is space,
// opening an image for writing among them. It must be called before the image
// is opened.
func failWhenFull(io *rados.IOContext) {
	C.rados_set_pool_full_try(C.rados_ioctx_t(io.Pointer()))
}

// mapState is what an image's object maps are worth.
type mapState struct {
	invalid bool   // one of them, or its fast diff, is marked so
	prefix  string // of the names of the objects that they are of
}

// readMapState opens an image by its id, and looks at its object map and those of
// some snapshots.
func readMapState(io *rados.IOContext, imageID string, snapshots []uint64) (s mapState, err error) {
	id := C.CString(imageID)
	defer C.free(unsafe.Pointer(id))
	var image C.rbd_image_t
	if err := errOf(C.rbd_open_by_id_read_only(C.rados_ioctx_t(io.Pointer()), id, &image, nil)); err != nil {
		return s, err
	}
	s.invalid, err = anyInvalid(image, snapshots)
	if err == nil {
		s.prefix, err = objectPrefix(image)
	}
	settleCallbacks(io)
	return s, errors.Join(err, errOf(C.rbd_close(image)))
}

// objectPrefix is what the names of the image's objects begin with. rbd_stat cuts
// it off after 23 bytes.
func objectPrefix(image C.rbd_image_t) (string, error) {
	var prefix [256]C.char
	err := errOf(C.rbd_get_block_name_prefix(image, &prefix[0], C.size_t(len(prefix))))
	return C.GoString(&prefix[0]), err
}

// settleCallbacks waits until librados has returned from all callbacks that it
// has begun on the pool's connection. It must be called before an image is closed:
// librbd tells that an image is open while a callback of librados still works on
// it, or on its parent (ImageState::complete_action_unlock of Ceph's
// src/librbd/ImageState.cc); whoever closes it at once frees what that one is
// about to lock, and the process aborts. Flushing no writes only lines up behind
// those callbacks, which librados makes one at a time (RadosClient's
// finish_strand).
func settleCallbacks(io *rados.IOContext) {
	var done C.rados_completion_t
	if C.rados_aio_create_completion2(nil, nil, &done) != 0 {
		return
	}
	defer C.rados_aio_release(done)
	if C.rados_aio_flush_async(C.rados_ioctx_t(io.Pointer()), done) == 0 {
		C.rados_aio_wait_for_complete(done)
	}
}

// poolQoS are the settings of rbd_qos_* in a pool's metadata, by their keys there.
func poolQoS(io *rados.IOContext) (map[string]string, error) {
	const most = 64 // there are some 20 such settings
	var keys, values [64 << 10]C.char
	start := C.CString(qosMetadata)
	defer C.free(unsafe.Pointer(start))
	keyBytes, valueBytes := C.size_t(len(keys)), C.size_t(len(values))
	err := errOf(C.rbd_pool_metadata_list(C.rados_ioctx_t(io.Pointer()), start, most, &keys[0], &keyBytes, &values[0], &valueBytes))
	if errors.Is(err, syscall.ENOENT) { // the pool has no metadata
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	k, v := zeroEnded(keys[:keyBytes]), zeroEnded(values[:valueBytes])
	for i := range min(len(k), len(v)) {
		if strings.HasPrefix(k[i], qosMetadata) {
			found[k[i]] = v[i]
		}
	}
	return found, nil
}

// zeroEnded takes apart strings that each end with a zero.
func zeroEnded(p []C.char) []string {
	if len(p) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(unsafe.Slice((*byte)(unsafe.Pointer(&p[0])), len(p))), "\x00"), "\x00")
}

func anyInvalid(image C.rbd_image_t, snapshots []uint64) (bool, error) {
	const bad = C.RBD_FLAG_OBJECT_MAP_INVALID | C.RBD_FLAG_FAST_DIFF_INVALID
	var flags C.uint64_t
	if err := errOf(C.rbd_get_flags(image, &flags)); err != nil || flags&bad != 0 {
		return true, err
	}
	for _, s := range snapshots {
		if err := errOf(C.rbd_snap_set_by_id(image, C.uint64_t(s))); err != nil {
			return true, err
		}
		if err := errOf(C.rbd_get_flags(image, &flags)); err != nil || flags&bad != 0 {
			return true, err
		}
	}
	return false, nil
}
