package store

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/klauspost/compress/s2"
)

// Codec is how the stored bytes of a frame are coded.
type Codec uint8

// The codecs. Absent marks a table entry whose frame this generation of the
// pack does not have.
const (
	Absent Codec = iota
	Raw
	Zstd // RFC 8878
	S2   // an s2 block: github.com/klauspost/compress/s2
)

// Compression is how a run codes what it stores. The zero value is zstd.
type Compression uint8

// The compressions.
const (
	CompressZstd Compression = iota
	CompressS2
	CompressNone
)

// ParseCompression reads what Compression.String prints.
func ParseCompression(s string) (Compression, error) {
	for _, c := range []Compression{CompressZstd, CompressS2, CompressNone} {
		if s == c.String() {
			return c, nil
		}
	}
	return 0, fmt.Errorf("compression %q: not zstd, s2 or none", s)
}

func (c Compression) String() string { return [...]string{"zstd", "s2", "none"}[c] }

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
	compression Compression
	zstd        *zstdCodec // made when it is first needed
	max         int
	out         []byte
	compare     []byte
}

// NewCoder makes a coder for the repository's chunks.
func (r *Repository) NewCoder(c Compression) *Coder { return newCoder(int(r.ChunkSize), c) }

// newCoder makes a coder for raw lengths up to max, which is at least 1024.
func newCoder(max int, c Compression) *Coder {
	return &Coder{compression: c, max: max}
}

func (c *Coder) codec() *zstdCodec {
	if c.zstd == nil {
		c.zstd = newZstdCodec(c.max)
	}
	return c.zstd
}

// Encode returns the stored form of raw, which aliases raw or the coder until
// its next use. Bytes that do not shrink by an eighth are kept raw. What was
// compressed has been decoded again and compared.
func (c *Coder) Encode(raw []byte, sum Checksum) (Encoded, error) {
	return c.EncodeInto(nil, raw, sum)
}

// EncodeInto is Encode with room for the stored form, which is used if that fits
// into its capacity for certain.
func (c *Coder) EncodeInto(room, raw []byte, sum Checksum) (e Encoded, err error) {
	e = Encoded{Sum: sum, Raw: len(raw), Codec: Raw, Stored: raw}
	if e.Codec, e.Stored, err = c.compress(room, raw); err != nil {
		return e, fmt.Errorf("chunk %s: %w", sum, err)
	}
	if len(e.Stored) > len(raw)-len(raw)/8 {
		e.Codec, e.Stored = Raw, raw
	}
	e.CRC = crc32.Checksum(e.Stored, castagnoli)
	if e.Codec == Raw {
		return e, nil
	}
	if c.compare, err = c.Decode(c.compare[:0], e); err != nil {
		return e, fmt.Errorf("chunk %s: what was compressed does not decode: %w", sum, err)
	}
	if !bytes.Equal(c.compare, raw) {
		return e, fmt.Errorf("chunk %s: what was compressed decodes to other bytes; suspect this machine's memory", sum)
	}
	return e, nil
}

// compress codes raw into room, or else into the coder's own.
func (c *Coder) compress(room, raw []byte) (codec Codec, out []byte, err error) {
	bound := 0
	switch c.compression {
	case CompressZstd:
		bound = c.codec().bound(len(raw))
	case CompressS2:
		bound = s2.MaxEncodedLen(len(raw))
	default:
		return Raw, raw, nil
	}
	if cap(room) < bound {
		c.out = resize(c.out, bound)
		room = c.out
	}
	if c.compression == CompressS2 {
		return S2, s2.Encode(room[:cap(room)], raw), nil
	}
	out, err = c.codec().compress(room, raw)
	return Zstd, out, err
}

// Decode appends the raw bytes of e to dst. It checks the length only: whoever
// knows the checksum must compare it. The memory it takes is bounded by the
// coder's maximum, whatever the stored bytes say.
func (c *Coder) Decode(dst []byte, e Encoded) ([]byte, error) {
	if e.Raw < 0 || e.Raw > c.max {
		return dst, fmt.Errorf("raw length %d is more than %d", e.Raw, c.max)
	}
	start := len(dst)
	if e.Codec == Raw {
		dst = append(dst, e.Stored...)
	} else {
		dst = slices.Grow(dst, e.Raw)[:start+e.Raw]
	}
	room, n := dst[start:], len(dst)-start
	var err error
	switch e.Codec {
	case Raw:
	case Zstd:
		n, err = c.codec().decompress(room, e.Stored)
	case S2:
		if n, err = s2.DecodedLen(e.Stored); err == nil && n == e.Raw {
			_, err = s2.Decode(room, e.Stored)
		}
	default:
		err = fmt.Errorf("unknown codec %d", e.Codec)
	}
	if err != nil {
		return dst[:start], err
	}
	if n != e.Raw {
		return dst[:start], fmt.Errorf("decodes to %d bytes instead of %d", n, e.Raw)
	}
	return dst, nil
}
