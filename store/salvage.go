package store

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io/fs"
)

// maxPackBytes bounds a pack as a whole.
const maxPackBytes = 256 << 20

// foundFrame is a frame found by scanning: its checksum is not known.
type foundFrame struct {
	entry  entry
	stored []byte
}

// equal reports whether two frames are copies of each other.
func (f foundFrame) equal(o foundFrame) bool {
	f.entry.Offset, o.entry.Offset = 0, 0
	return f.entry == o.entry && bytes.Equal(f.stored, o.stored)
}

// scanFrames finds every frame of a pack whose header is readable and whose
// stored bytes have their CRC, wherever it lies. It needs neither the pack's
// header nor its table.
//
// Inside a frame that is bad, what looks like frames may be the image's own
// bytes: of a disk that holds a repository. So an index can have several, and
// only a checksum tells which is the pack's.
func scanFrames(p []byte, maxRaw int) map[uint32][]foundFrame {
	frames := map[uint32][]foundFrame{}
	// Bytes made up to look like frames inside each other must not take for ever.
	budget := 64 * len(p)
	for at := 0; budget > 0; {
		i := bytes.Index(p[at:], frameMagic[:])
		if i < 0 {
			return frames
		}
		at += i
		index, e, err := decodeFrameHeader(p[at:], maxRaw)
		end := at + frameHeaderSize + e.Stored
		if err != nil || end > len(p) {
			at++
			continue
		}
		stored := p[at+frameHeaderSize : end]
		budget -= len(stored)
		if crc32.Checksum(stored, castagnoli) != e.CRC {
			at++
			continue
		}
		e.Offset = int64(at)
		frames[index] = append(frames[index], foundFrame{entry: e, stored: stored})
		at = end
	}
	return frames
}

// readReadable reads a pack as far as it can be read: pieces that cannot are
// zeros, and a pack that is gone is empty.
func (r *Repository) readReadable(ctx context.Context, key string) ([]byte, error) {
	const piece = 64 << 10
	var size int64
	err := r.backend.List(ctx, key, func(k string, n int64) error {
		if k == key {
			size = min(n, maxPackBytes)
		}
		return nil
	})
	if err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	p := make([]byte, size)
	for off := 0; off < len(p); off += piece {
		part := p[off:min(off+piece, len(p))]
		n, err := r.backend.Get(ctx, key, part, int64(off))
		switch {
		case context.Cause(ctx) != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, fs.ErrNotExist):
			return nil, nil
		case err != nil && n < len(part):
			clear(part[n:])
		}
	}
	return p, nil
}
