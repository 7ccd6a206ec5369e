package store

import (
	"context"
)

// checkedPack is what one object of a pack was found to hold.
type checkedPack struct {
	entries []entry  // of its table
	good    []uint64 // bitmap of the frames that decode to the checksums in the table
}

// checkPack reads an object of a pack whole, and decodes every frame. A nil
// result without an error tells that its header or its table cannot be read, or
// that it is cut: nothing is to be deleted in its favour.
func (r *Repository) checkPack(ctx context.Context, kind Kind, key string) (*checkedPack, error) {
	h, entries, err := r.readPackTable(ctx, key)
	if err != nil {
		return nil, context.Cause(ctx)
	}
	p, err := r.readReadable(ctx, key)
	if err != nil || int64(len(p)) != h.Length {
		return nil, err
	}
	c := &checkedPack{entries: entries, good: make([]uint64, (len(entries)+63)/64)}
	f := r.fetchers.Get().(*fetcher)
	defer r.fetchers.Put(f)
	for i := range entries {
		e := &entries[i]
		if e.Codec == Absent {
			continue
		}
		stored, err := checkFrame(p[e.Offset:], uint32(i), e, maxRawOf(kind, h.ChunkSize))
		if err != nil {
			continue
		}
		if _, err := f.decode(stored, wanted{ref: Ref{Sum: e.Sum}, e: *e}); err == nil {
			c.good[i/64] |= 1 << (i % 64)
		}
	}
	return c, nil
}

// checkNewest checks the newest generation of a pack in a folder, which another
// run may replace meanwhile. A nil result is as that of checkPack, or there is
// no generation.
func (r *Repository) checkNewest(ctx context.Context, kind Kind, folder string, id PackID) (generation uint32, c *checkedPack, err error) {
	for tried := int64(-1); ; tried = int64(generation) {
		generations, err := r.listGenerations(ctx, folder, id)
		if err != nil || len(generations) == 0 {
			return 0, nil, err
		}
		if generation = generations[0]; int64(generation) == tried {
			return generation, nil, nil
		}
		if c, err = r.checkPack(ctx, kind, packKey(folder, id, generation)); c != nil || err != nil {
			return generation, c, err
		}
	}
}

// sound reports whether all that the table tells of is good.
func (c *checkedPack) sound() bool {
	for i := range c.entries {
		if c.entries[i].Codec != Absent && !hasBit(c.good, uint32(i)) {
			return false
		}
	}
	return true
}

// has reports whether a frame is good and is that of a checksum; the zero
// checksum stands for one that is not known.
func (c *checkedPack) has(index uint32, sum Checksum) bool {
	return hasBit(c.good, index) && (sum == Checksum{} || c.entries[index].Sum == sum)
}

// replaces reports whether every frame that an older generation has, by its
// table, is good here. keep, if it is not nil, is a bitmap of those that matter.
// Of a table that cannot be read, which is nil, those of keep are asked for, and
// without it nobody knows.
//
// Nothing older is deleted before this is true: a later generation may have a
// right table over wrong frames.
func (c *checkedPack) replaces(older []entry, keep []uint64) bool {
	if older == nil && keep == nil {
		return false
	}
	for i := range uint32(max(len(older), len(keep)*64)) {
		wanted := keep == nil && older[i].Codec != Absent || keep != nil && hasBit(keep, i)
		if !wanted {
			continue
		}
		var sum Checksum
		if int(i) < len(older) {
			sum = older[i].Sum
		}
		if !c.has(i, sum) {
			return false
		}
	}
	return true
}
