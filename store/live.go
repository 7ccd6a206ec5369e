package store

import "math/bits"

// liveSet remembers places in packs. An unbroken row of a pack's entries, as a
// first backup leaves them, takes 8 bytes a pack; anything else takes a bitmap
// besides, a bit an entry: for 100 TiB in chunks of 64 KiB 200 MB if every pack
// has holes.
type liveSet struct {
	runs map[RunID][]liveHead
	bits bitArena
}

func newLiveSet() *liveSet { return &liveSet{runs: map[RunID][]liveHead{}} }

// liveHead is what is known of one pack: 0 for nothing; a row, from its first
// index to behind its last, 21 bits each; or bit 63, 15 bits of words, 40 bits
// of where they begin in the arena.
type liveHead uint64

const headBitmap liveHead = 1 << 63

func rowHead(first, end uint32) liveHead { return liveHead(first)<<21 | liveHead(end) }

func (h liveHead) row() (first, end uint32) {
	return uint32(h >> 21 & (1<<21 - 1)), uint32(h & (1<<21 - 1))
}

func bitmapHead(off uint64, words int) liveHead {
	return headBitmap | liveHead(words)<<40 | liveHead(off)
}

func (h liveHead) bitmap() (off uint64, words int) {
	return uint64(h & (1<<40 - 1)), int(h >> 40 & (1<<15 - 1))
}

// add remembers a place and reports whether it is new.
func (s *liveSet) add(ref Ref) bool { return s.addPlace(ref.Pack, ref.Index) }

func (s *liveSet) addPlace(id PackID, index uint32) bool {
	heads := s.runs[id.Run]
	if n := int(id.Seq) + 1; n > len(heads) {
		heads = append(heads, make([]liveHead, n-len(heads))...)
		s.runs[id.Run] = heads
	}
	h := &heads[id.Seq]
	switch {
	case *h == 0:
		*h = rowHead(index, index+1)
		return true
	case *h&headBitmap == 0:
		first, end := h.row()
		switch {
		case first <= index && index < end:
			return false
		case index == end:
			*h = rowHead(first, end+1)
			return true
		case index+1 == first:
			*h = rowHead(index, end)
			return true
		}
		*h = s.spread(first, end)
	}
	return s.set(h, index)
}

// spread turns a row into a bitmap.
func (s *liveSet) spread(first, end uint32) liveHead {
	words := arenaWords(int(end-1)/64 + 1)
	off := s.bits.take(words)
	bitmap := s.bits.at(off, words)
	for i := first; i < end; i++ {
		bitmap[i/64] |= 1 << (i % 64)
	}
	return bitmapHead(off, words)
}

// set adds an index to a bitmap, which moves where it is too short.
func (s *liveSet) set(h *liveHead, index uint32) bool {
	off, words := h.bitmap()
	if n := int(index)/64 + 1; n > words {
		n = arenaWords(n)
		wider := s.bits.take(n)
		copy(s.bits.at(wider, n), s.bits.at(off, words))
		s.bits.give(off, words)
		off, words = wider, n
		*h = bitmapHead(off, words)
	}
	word, bit := &s.bits.at(off, words)[index/64], uint64(1)<<(index%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	return true
}

func (s *liveSet) head(id PackID) liveHead {
	heads := s.runs[id.Run]
	if int(id.Seq) >= len(heads) {
		return 0
	}
	return heads[id.Seq]
}

// has reports whether a place was named.
func (s *liveSet) has(id PackID, index uint32) bool {
	h := s.head(id)
	if h&headBitmap == 0 {
		first, end := h.row()
		return first <= index && index < end
	}
	off, words := h.bitmap()
	return hasBit(s.bits.at(off, words), index)
}

// of returns a bitmap of a pack, which is the caller's; nil where nothing of it
// was named.
func (s *liveSet) of(id PackID) []uint64 {
	h := s.head(id)
	if h == 0 {
		return nil
	}
	if h&headBitmap != 0 {
		off, words := h.bitmap()
		bitmap := s.bits.at(off, words)
		for len(bitmap) > 0 && bitmap[len(bitmap)-1] == 0 {
			bitmap = bitmap[:len(bitmap)-1]
		}
		return append([]uint64(nil), bitmap...)
	}
	first, end := h.row()
	bitmap := make([]uint64, int(end-1)/64+1)
	for i := first; i < end; i++ {
		bitmap[i/64] |= 1 << (i % 64)
	}
	return bitmap
}

// count is how many places of a pack were named.
func (s *liveSet) count(id PackID) (n int) {
	h := s.head(id)
	if h&headBitmap == 0 {
		first, end := h.row()
		return int(end - first)
	}
	for _, word := range s.bits.at(h.bitmap()) {
		n += bits.OnesCount64(word)
	}
	return n
}

// packs calls fn for every pack of which anything was named.
func (s *liveSet) packs(fn func(id PackID) error) error {
	for run, heads := range s.runs {
		for seq, h := range heads {
			if h == 0 {
				continue
			}
			if err := fn(PackID{Run: run, Seq: uint32(seq)}); err != nil {
				return err
			}
		}
	}
	return nil
}

// hasBit reports whether an index is in a bitmap.
func hasBit(bitmap []uint64, index uint32) bool {
	return int(index/64) < len(bitmap) && bitmap[index/64]&(1<<(index%64)) != 0
}

// bitArena keeps bitmaps close together, without what a slice of its own costs
// each. What was given back is taken first.
type bitArena struct {
	blocks [][]uint64
	used   int              // words of the last block
	free   map[int][]uint64 // by length, where such begin
}

const arenaBlock = 1 << 16 // words: 512 KiB

// arenaWords rounds a length up to one of a few, so that pieces are of use to
// others: multiples of 4 words, and less fine ones where they are long.
func arenaWords(n int) int {
	step := 4
	for n > 16*step {
		step *= 2
	}
	return (n + step - 1) / step * step
}

func (a *bitArena) take(words int) (off uint64) {
	if list := a.free[words]; len(list) > 0 {
		off = list[len(list)-1]
		a.free[words] = list[:len(list)-1]
		clear(a.at(off, words))
		return off
	}
	if len(a.blocks) == 0 || a.used+words > arenaBlock {
		a.blocks = append(a.blocks, make([]uint64, arenaBlock))
		a.used = 0
	}
	off = uint64(len(a.blocks)-1)*arenaBlock + uint64(a.used)
	a.used += words
	return off
}

func (a *bitArena) give(off uint64, words int) {
	if a.free == nil {
		a.free = map[int][]uint64{}
	}
	a.free[words] = append(a.free[words], off)
}

func (a *bitArena) at(off uint64, words int) []uint64 {
	block := a.blocks[off/arenaBlock]
	return block[off%arenaBlock:][:words:words]
}
