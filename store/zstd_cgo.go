//go:build cgo

package store

import "backy/store/libzstd"

// zstdCodec is the system's libzstd at level 1.
type zstdCodec struct{ c *libzstd.Codec }

func newZstdCodec(int) *zstdCodec { return &zstdCodec{libzstd.New(1)} }

func (z *zstdCodec) compress(dst, src []byte) ([]byte, error) { return z.c.Compress(dst, src) }

func (z *zstdCodec) decompress(dst, src []byte) (int, error) { return z.c.Decompress(dst, src) }
