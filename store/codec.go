package store

import (
	"bytes"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/zstd"
)

// Codec is how the stored bytes of a frame are coded.
type Codec uint8

// The codecs. Absent marks a table entry whose frame this generation of the
// pack does not have.
const (
	Absent Codec = iota
	Raw
	Zstd
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encoded is a chunk or a map node as it goes into a pack.
type Encoded struct {
	Sum    Checksum
	Raw    int // length of the raw bytes
	Codec  Codec
	Stored []byte
	CRC    uint32 // CRC-32C of Stored
}

// Coder compresses and decompresses. It is for one goroutine at a time; keep
// it, since making one costs more than using it.
type Coder struct {
	enc     *zstd.Encoder
	dec     *zstd.Decoder
	max     int
	out     []byte
	compare []byte
}

// NewCoder makes a coder for the repository's chunks.
func (r *Repository) NewCoder() *Coder { return newCoder(int(r.ChunkSize)) }

// newCoder makes a coder for raw lengths up to max, which is at least 1024.
func newCoder(max int) *Coder {
	window := 1 << 20
	for window/2 >= max && window/2 >= zstd.MinWindowSize {
		window /= 2
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(err) // only wrong options make it fail, and they are constants
	}
	// The decoder's own bound is a safety net above ours: Decode never asks it
	// for more than the raw length that a reference's entry names.
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxMemory(uint64(max)),
		zstd.WithDecoderMaxWindow(uint64(max)))
	if err != nil {
		panic(err)
	}
	return &Coder{enc: enc, dec: dec, max: max}
}

// Encode returns the stored form of raw, which aliases raw or the coder until
// its next use. Bytes that do not shrink by an eighth are kept raw. What was
// compressed has been decoded again and compared.
func (c *Coder) Encode(raw []byte, sum Checksum) (Encoded, error) {
	e := Encoded{Sum: sum, Raw: len(raw), Codec: Zstd}
	c.out = c.enc.EncodeAll(raw, c.out[:0])
	e.Stored = c.out
	if len(c.out) > len(raw)-len(raw)/8 {
		e.Codec, e.Stored = Raw, raw
	}
	e.CRC = crc32.Checksum(e.Stored, castagnoli)
	if e.Codec == Raw {
		return e, nil
	}
	var err error
	if c.compare, err = c.Decode(c.compare[:0], e); err != nil {
		return e, fmt.Errorf("chunk %s: what was compressed does not decode: %w", sum, err)
	}
	if !bytes.Equal(c.compare, raw) {
		return e, fmt.Errorf("chunk %s: what was compressed decodes to other bytes; suspect this machine's memory", sum)
	}
	return e, nil
}

// Decode appends the raw bytes of e to dst. It checks the length only: whoever
// knows the checksum must compare it.
func (c *Coder) Decode(dst []byte, e Encoded) ([]byte, error) {
	if e.Raw < 0 || e.Raw > c.max {
		return dst, fmt.Errorf("raw length %d is more than %d", e.Raw, c.max)
	}
	start := len(dst)
	switch e.Codec {
	case Raw:
		dst = append(dst, e.Stored...)
	case Zstd:
		if cap(dst)-start < e.Raw {
			dst = append(make([]byte, 0, start+e.Raw), dst...)
		}
		out, err := c.dec.DecodeAll(e.Stored, dst[:start:start+e.Raw])
		if err != nil {
			return dst, fmt.Errorf("zstd: %w", err)
		}
		dst = out
	default:
		return dst, fmt.Errorf("unknown codec %d", e.Codec)
	}
	if len(dst)-start != e.Raw {
		return dst[:start], fmt.Errorf("decodes to %d bytes instead of %d", len(dst)-start, e.Raw)
	}
	return dst, nil
}
