package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// node is one node of a map: the references of its children, zero for those
// that are empty. At height 1 the children are chunks, above they are nodes
// of the height below.
type node struct {
	height int
	refs   []Ref // as many as the fan-out
}

const nodeMagic = 'N'

// errBadNode is what decodeNode answers with, wrapped.
var errBadNode = errors.New("bad map node")

func (n *node) empty() bool {
	for i := range n.refs {
		if !n.refs[i].IsZero() {
			return false
		}
	}
	return true
}

// appendTo encodes a node:
//
//	'N'  height (1 byte)  log2 fan-out (1 byte)
//	bitmap of the children that are not empty, fan-out bits, bit 0 first
//	number of packs (uvarint), then per pack: run (8 bytes), seq (4 bytes)
//	per child: checksum (32 bytes), pack (uvarint, into the list above),
//	           index minus the index that follows the child before it
//	           in the same pack (varint)
//
// Neighbours mostly lie side by side in one pack, so a child takes 34 bytes.
func (n *node) appendTo(p []byte) []byte {
	p = append(p, nodeMagic, byte(n.height), byte(bits.TrailingZeros(uint(len(n.refs)))))
	bitmap := make([]byte, bitmapSize(len(n.refs)))
	places := map[PackID]int{}
	var packs []PackID
	for i := range n.refs {
		if n.refs[i].IsZero() {
			continue
		}
		bitmap[i/8] |= 1 << (i % 8)
		if _, ok := places[n.refs[i].Pack]; !ok {
			places[n.refs[i].Pack] = len(packs)
			packs = append(packs, n.refs[i].Pack)
		}
	}
	p = append(p, bitmap...)
	p = binary.AppendUvarint(p, uint64(len(packs)))
	for _, id := range packs {
		p = binary.LittleEndian.AppendUint64(p, uint64(id.Run))
		p = binary.LittleEndian.AppendUint32(p, id.Seq)
	}
	next := make([]uint32, len(packs))
	for i := range n.refs {
		ref := &n.refs[i]
		if ref.IsZero() {
			continue
		}
		place := places[ref.Pack]
		p = append(p, ref.Sum[:]...)
		p = binary.AppendUvarint(p, uint64(place))
		p = binary.AppendVarint(p, int64(ref.Index)-int64(next[place]))
		next[place] = ref.Index + 1
	}
	return p
}

func bitmapSize(fanout int) int { return (fanout + 7) / 8 }

// decodeNode is the inverse of appendTo.
func decodeNode(p []byte) (*node, error) {
	if len(p) < 3 || p[0] != nodeMagic {
		return nil, fmt.Errorf("%w: no magic", errBadNode)
	}
	height, fanout := int(p[1]), 1<<min(p[2], 31)
	if height == 0 || height > 63 || !validFanout(fanout) {
		return nil, fmt.Errorf("%w: height %d, fan-out %d", errBadNode, height, fanout)
	}
	p = p[3:]
	if len(p) < bitmapSize(fanout) {
		return nil, fmt.Errorf("%w: cut", errBadNode)
	}
	bitmap := p[:bitmapSize(fanout)]
	p = p[bitmapSize(fanout):]
	count, n := binary.Uvarint(p)
	if n <= 0 || count > uint64(fanout) || uint64(len(p)-n) < count*12 {
		return nil, fmt.Errorf("%w: list of packs", errBadNode)
	}
	p = p[n:]
	packs := make([]PackID, count)
	next := make([]uint32, count)
	for i := range packs {
		packs[i] = PackID{Run: RunID(binary.LittleEndian.Uint64(p)), Seq: binary.LittleEndian.Uint32(p[8:])}
		p = p[12:]
	}
	nd := &node{height: height, refs: make([]Ref, fanout)}
	for i := range nd.refs {
		if bitmap[i/8]&(1<<(i%8)) == 0 {
			continue
		}
		if len(p) < 32 {
			return nil, fmt.Errorf("%w: cut", errBadNode)
		}
		ref := &nd.refs[i]
		ref.Sum = Checksum(p)
		place, n := binary.Uvarint(p[32:])
		if n <= 0 || place >= count {
			return nil, fmt.Errorf("%w: child %d has no pack", errBadNode, i)
		}
		p = p[32+n:]
		delta, n := binary.Varint(p)
		if n <= 0 || delta < -1<<32 || delta > 1<<32 {
			return nil, fmt.Errorf("%w: child %d has no index", errBadNode, i)
		}
		p = p[n:]
		index := int64(next[place]) + delta
		if index < 0 || index >= maxPackEntries {
			return nil, fmt.Errorf("%w: child %d at index %d", errBadNode, i, index)
		}
		ref.Pack, ref.Index = packs[place], uint32(index)
		next[place] = uint32(index) + 1
		if ref.IsZero() {
			return nil, fmt.Errorf("%w: child %d is named and empty", errBadNode, i)
		}
	}
	if len(p) != 0 {
		return nil, fmt.Errorf("%w: %d bytes too many", errBadNode, len(p))
	}
	return nd, nil
}

// Map is the map of one level: which chunk lies at which position.
type Map struct {
	Root   Ref
	Chunks int64 // positions are 0 to Chunks-1
	Fanout int
}

// Map returns the level's map.
func (l *Level) Map() Map { return Map{Root: l.Root, Chunks: l.Chunks(), Fanout: l.Fanout} }

// height is that of the root: the least whose nodes cover all positions.
func (m Map) height() int {
	for h := 1; ; h++ {
		if spanOf(h, m.Fanout) >= m.Chunks {
			return h
		}
	}
}

// spanOf is how many positions a node of a height covers; beyond 2^62 it
// stays there.
func spanOf(height, fanout int) int64 {
	shift := height * bits.TrailingZeros(uint(fanout))
	return 1 << min(shift, 62)
}
