//go:build !cgo

package store

import "github.com/klauspost/compress/zstd"

// zstdCodec is klauspost's zstd at its fastest level. Higher ones are not worth
// their time here, and SpeedBestCompression has corrupted data
// (klauspost/compress#414, #875, #922).
type zstdCodec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

// newZstdCodec makes a codec for raw lengths up to max, which is at least
// zstd.MinWindowSize.
func newZstdCodec(max int) *zstdCodec {
	window := 1 << 20
	for window/2 >= max && window/2 >= zstd.MinWindowSize {
		window /= 2
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(err) // only wrong options make it fail, and they are constants
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxMemory(uint64(max)),
		zstd.WithDecoderMaxWindow(uint64(max)))
	if err != nil {
		panic(err)
	}
	return &zstdCodec{enc: enc, dec: dec}
}

func (z *zstdCodec) bound(raw int) int { return z.enc.MaxEncodedSize(raw) }

func (z *zstdCodec) compress(dst, src []byte) ([]byte, error) {
	return z.enc.EncodeAll(src, dst[:0]), nil
}

func (z *zstdCodec) decompress(dst, src []byte) (int, error) {
	out, err := z.dec.DecodeAll(src, dst[:0:len(dst)])
	return len(out), err
}
