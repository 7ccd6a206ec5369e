package store

import "math/bits"

// liveSet remembers places in packs: a bitmap per pack, for as many of its
// entries as were named. For 100 TiB of chunks of 64 KiB that is 200 MB.
type liveSet map[RunID][][]uint64

// add remembers a place and reports whether it is new.
func (s liveSet) add(ref Ref) bool {
	packs := s[ref.Pack.Run]
	if n := int(ref.Pack.Seq) + 1; n > len(packs) {
		packs = append(packs, make([][]uint64, n-len(packs))...)
		s[ref.Pack.Run] = packs
	}
	bitmap := packs[ref.Pack.Seq]
	if n := int(ref.Index)/64 + 1; n > len(bitmap) {
		bitmap = append(bitmap, make([]uint64, n-len(bitmap))...)
		packs[ref.Pack.Seq] = bitmap
	}
	word, bit := &bitmap[ref.Index/64], uint64(1)<<(ref.Index%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	return true
}

// of returns the bitmap of a pack; nil where nothing of it was named.
func (s liveSet) of(id PackID) []uint64 {
	packs := s[id.Run]
	if int(id.Seq) >= len(packs) {
		return nil
	}
	return packs[id.Seq]
}

// count is how many places of a pack were named.
func (s liveSet) count(id PackID) (n int) {
	for _, word := range s.of(id) {
		n += bits.OnesCount64(word)
	}
	return n
}

// hasBit reports whether an index is in a bitmap.
func hasBit(bitmap []uint64, index uint32) bool {
	return int(index/64) < len(bitmap) && bitmap[index/64]&(1<<(index%64)) != 0
}
