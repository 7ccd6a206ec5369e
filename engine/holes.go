package engine

import (
	"context"

	"backy/store"
)

// What becomes a hole has changed as much as what is overwritten: a disk that is
// wiped by discards, or cut off, has lost all it held. The extents name it without
// its bytes, so what the base has there is counted by the base's map.

// held counts the bytes that a map has, holes apart, in positions that ascend from
// call to call.
type held struct {
	cursor *store.Cursor
	m      store.Map
	size   int64 // of the map's level
	chunk  int64
}

func (b *backup) newHeld() *held {
	h := &held{m: b.baseMap(), chunk: b.repo.ChunkSize}
	h.cursor = b.repo.Cursor(h.m)
	if b.base != nil {
		h.size = b.base.Size
	}
	return h
}

// between counts from one position to below another. Errors: *store.NodeError.
func (h *held) between(ctx context.Context, first, end int64) (bytes int64, err error) {
	end = min(end, h.m.Chunks)
	for pos := first; pos < end; {
		leaf, err := h.cursor.At(ctx, pos)
		if err != nil {
			return bytes, err
		}
		to := min(leaf.End(), end)
		for ; leaf.Refs != nil && pos < to; pos++ {
			if !leaf.Ref(pos).IsZero() {
				bytes += chunkLength(pos, h.chunk, h.size)
			}
		}
		pos = to
	}
	return bytes, nil
}

// emptied notes bytes that the base has and that are holes now, or behind the end.
func (b *backup) emptied(bytes int64) {
	b.stats.Changed += bytes
	b.stats.Emptied += bytes
	b.grown -= bytes
}

// cutOff notes what the base has behind the end.
func (b *backup) cutOff(ctx context.Context) error {
	bytes, err := b.newHeld().between(ctx, b.chunks(), 1<<62)
	b.emptied(bytes)
	return err
}

// placed notes a chunk that was read and differs from the base.
func (b *backup) placed(base store.Ref, v verdict, length int64) {
	switch {
	case v == hole:
		b.emptied(length)
		return
	case base.IsZero():
		b.grown += length
	}
	b.stats.Changed += length
}

// holds is how many bytes of the level are no holes; 0 if that is not known of the
// base.
func (b *backup) holds() int64 {
	if b.base == nil {
		return b.grown
	}
	if b.base.Stats.Data == 0 && !b.base.Root.IsZero() {
		return 0
	}
	return max(0, b.base.Stats.Data+b.grown)
}
