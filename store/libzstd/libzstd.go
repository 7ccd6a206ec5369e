//go:build cgo

// Package libzstd compresses and decompresses zstd frames (RFC 8878) with the
// system's libzstd, which does both about twice as fast as Go code. Its frames
// and those of other implementations decode alike.
//
// It is the one place below engine, store and hints that uses cgo; builds
// without cgo do without it.
package libzstd

/*
#cgo LDFLAGS: -lzstd
#include <zstd.h>
#include <zstd_errors.h>
*/
import "C"

import (
	"fmt"
	"runtime"
	"unsafe"
)

// Codec holds libzstd's contexts. It is for one goroutine at a time.
type Codec struct {
	compress   *C.ZSTD_CCtx
	decompress *C.ZSTD_DCtx
}

// New makes a codec for a compression level.
func New(level int) *Codec {
	c := &Codec{compress: C.ZSTD_createCCtx(), decompress: C.ZSTD_createDCtx()}
	if c.compress == nil || c.decompress == nil {
		panic("libzstd: out of memory")
	}
	C.ZSTD_CCtx_setParameter(c.compress, C.ZSTD_c_compressionLevel, C.int(level))
	runtime.AddCleanup(c, func(p *C.ZSTD_CCtx) { C.ZSTD_freeCCtx(p) }, c.compress)
	runtime.AddCleanup(c, func(p *C.ZSTD_DCtx) { C.ZSTD_freeDCtx(p) }, c.decompress)
	return c
}

// Compress returns src as one frame that says its content's size, in dst if it
// fits.
func (c *Codec) Compress(dst, src []byte) ([]byte, error) {
	if bound := int(C.ZSTD_compressBound(C.size_t(len(src)))); cap(dst) < bound {
		dst = make([]byte, bound)
	}
	dst = dst[:cap(dst)]
	n := C.ZSTD_compress2(c.compress, pointer(dst), C.size_t(len(dst)), pointer(src), C.size_t(len(src)))
	runtime.KeepAlive(c)
	if err := check(n); err != nil {
		return nil, err
	}
	return dst[:n], nil
}

// Decompress decodes src into dst and returns how many bytes it took. A frame
// that needs more than dst is an error; no memory is taken for it.
func (c *Codec) Decompress(dst, src []byte) (int, error) {
	n := C.ZSTD_decompressDCtx(c.decompress, pointer(dst), C.size_t(len(dst)), pointer(src), C.size_t(len(src)))
	runtime.KeepAlive(c)
	return int(n), check(n)
}

func pointer(p []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(p)) }

func check(n C.size_t) error {
	if C.ZSTD_isError(n) == 0 {
		return nil
	}
	return fmt.Errorf("libzstd: %s", C.GoString(C.ZSTD_getErrorName(n)))
}
