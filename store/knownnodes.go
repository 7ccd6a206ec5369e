package store

import (
	"encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"backy/store/pending"
)

// knownNodes remembers on this machine what map nodes refer to, so that the next
// gc reads new ones only. It can be deleted at any time.
//
// It is a file for each map pack, in the cache folder: a node never changes, and
// neither does its place. A file ends in the BLAKE3-256 of all before, and is
// used only if that is right; what it says of a node holds only for the same
// place and checksum. So a gc knows by it exactly what it would know by reading
// the node, and condemns nothing that it would keep without. That the node can
// still be read it does not know: that is a scrub's matter, and what hangs below
// is kept in any case. If no copy of its pack is listed any more, the node is
// read, and so found to be missing.
//
// A leaf takes some 100 bytes: 3 GB for 100 TiB. In memory are a few files and
// what has not been written yet.
type knownNodes struct {
	folder string // "": it knows nothing and remembers nothing
	stock  *stock
	loaded map[PackID]map[uint32][]byte // by index: encoded as below
	order  []PackID                     // of loaded, oldest first
	fresh  map[PackID]map[uint32][]byte // to be written
	bytes  int                          // of fresh
	used   map[PackID]bool
}

const (
	knownMagic   = "backynd1"
	knownLoaded  = 64      // files in memory, of 100 KB each at most
	knownPending = 8 << 20 // bytes
)

// openKnown begins with a cache folder, "" for none, and the packs there are.
func (r *Repository) openKnown(s *stock) *knownNodes {
	k := &knownNodes{
		stock: s, loaded: map[PackID]map[uint32][]byte{}, fresh: map[PackID]map[uint32][]byte{}, used: map[PackID]bool{},
	}
	if r.cache != "" {
		folder := filepath.Join(r.cache, r.ID.String(), "nodes")
		defer pending.Begin("make", "", folder).End()
		if cacheFolder(folder) == nil {
			k.folder = folder
		}
	}
	return k
}

func (k *knownNodes) path(id PackID) string {
	return filepath.Join(k.folder, id.Run.String()+"-"+packNumber(id))
}

func packNumber(id PackID) string { return id.String()[17:] }

// each calls fn for the children of a node and reports whether it knows them.
// The children of a leaf come without their checksums.
func (k *knownNodes) each(ref Ref, height, fanout int, fn func(child Ref)) bool {
	if k == nil || k.folder == "" || k.stock.find(packName{mapsPrefix, ref.Pack}) == nil {
		return false
	}
	k.used[ref.Pack] = true
	p, ok := k.pack(ref.Pack)[ref.Index]
	if !ok {
		p, ok = k.fresh[ref.Pack][ref.Index]
	}
	if !ok || len(p) < 18 || [16]byte(p) != [16]byte(ref.Sum[:16]) || int(p[16]) != height || 1<<p[17] != fanout {
		return false
	}
	return decodeKnown(p[18:], height > 1, fn)
}

// add remembers a node that was read.
func (k *knownNodes) add(ref Ref, n *node) {
	if k == nil || k.folder == "" {
		return
	}
	if k.fresh[ref.Pack] == nil {
		k.fresh[ref.Pack] = map[uint32][]byte{}
	}
	k.used[ref.Pack] = true
	p := encodeKnown(ref, n)
	k.fresh[ref.Pack][ref.Index] = p
	if k.bytes += len(p) + 64; k.bytes > knownPending {
		k.flush()
	}
}

// encodeKnown encodes what a node refers to:
//
//	first half of its checksum (16 bytes), height (1), log2 fan-out (1), then per child
//	number of a pack in the order of their appearance (uvarint); where it is new: run (8), seq (4)
//	index minus the index behind the child before it in the same pack (varint)
//	checksum (32), where the child is a node
func encodeKnown(ref Ref, n *node) []byte {
	p := append(make([]byte, 0, 256), ref.Sum[:16]...)
	log := byte(0)
	for 1<<log < len(n.refs) {
		log++
	}
	p = append(p, byte(n.height), log)
	places, next := map[PackID]int{}, []uint32{}
	for i := range n.refs {
		c := &n.refs[i]
		if c.IsZero() {
			continue
		}
		at, seen := places[c.Pack]
		if !seen {
			at = len(next)
			places[c.Pack], next = at, append(next, 0)
		}
		p = binary.AppendUvarint(p, uint64(at))
		if !seen {
			p = binary.LittleEndian.AppendUint64(p, uint64(c.Pack.Run))
			p = binary.LittleEndian.AppendUint32(p, c.Pack.Seq)
		}
		p = binary.AppendVarint(p, int64(c.Index)-int64(next[at]))
		next[at] = c.Index + 1
		if n.height > 1 {
			p = append(p, c.Sum[:]...)
		}
	}
	return slices.Clip(p)
}

// decodeKnown is the inverse. It reports whether the bytes were whole; whoever
// has been told of children before it finds that they are not has been told of
// too many, at worst.
func decodeKnown(p []byte, sums bool, fn func(Ref)) bool {
	var packs []PackID
	var next []int64
	for len(p) > 0 {
		at, n := binary.Uvarint(p)
		if n <= 0 || at > uint64(len(packs)) {
			return false
		}
		p = p[n:]
		if at == uint64(len(packs)) {
			if len(p) < 12 {
				return false
			}
			packs = append(packs, PackID{RunID(binary.LittleEndian.Uint64(p)), binary.LittleEndian.Uint32(p[8:])})
			next, p = append(next, 0), p[12:]
		}
		delta, n := binary.Varint(p)
		index := next[at] + delta
		if n <= 0 || index < 0 || index >= maxPackEntries {
			return false
		}
		next[at], p = index+1, p[n:]
		child := Ref{Pack: packs[at], Index: uint32(index)}
		if sums {
			if len(p) < len(child.Sum) {
				return false
			}
			child.Sum, p = Checksum(p), p[len(child.Sum):]
		}
		fn(child)
	}
	return true
}

// pack returns what a file says, or nothing where there is none or it is bad.
func (k *knownNodes) pack(id PackID) map[uint32][]byte {
	if nodes, ok := k.loaded[id]; ok {
		return nodes
	}
	if len(k.order) >= knownLoaded {
		delete(k.loaded, k.order[0])
		k.order = k.order[1:]
	}
	reading := pending.Begin("read", "", k.path(id))
	p, err := readCache(k.path(id))
	reading.End()
	if err != nil {
		p = nil
	}
	k.loaded[id] = parseKnown(p, id)
	k.order = append(k.order, id)
	return k.loaded[id]
}

// parseKnown reads a file: magic, the pack's run (8) and seq (4), then index (4),
// length (4) and bytes of each node, and the checksum of all this.
func parseKnown(p []byte, id PackID) map[uint32][]byte {
	head := len(knownMagic) + 12
	if len(p) < head+32 || string(p[:len(knownMagic)]) != knownMagic || Sum(p[:len(p)-32]) != Checksum(p[len(p)-32:]) {
		return nil
	}
	at := p[len(knownMagic):]
	if RunID(binary.LittleEndian.Uint64(at)) != id.Run || binary.LittleEndian.Uint32(at[8:]) != id.Seq {
		return nil
	}
	nodes := map[uint32][]byte{}
	for p = p[head : len(p)-32]; len(p) >= 8; {
		index, n := binary.LittleEndian.Uint32(p), int(binary.LittleEndian.Uint32(p[4:]))
		if p = p[8:]; n > len(p) {
			return nil
		}
		nodes[index], p = p[:n:n], p[n:]
	}
	return nodes
}

// flush writes what is new. What cannot be written is forgotten: the next gc
// reads those nodes again.
func (k *knownNodes) flush() {
	for id, fresh := range k.fresh {
		nodes := maps.Clone(k.pack(id))
		if nodes == nil {
			nodes = map[uint32][]byte{}
		}
		maps.Copy(nodes, fresh)
		p := append([]byte(nil), knownMagic...)
		p = binary.LittleEndian.AppendUint64(p, uint64(id.Run))
		p = binary.LittleEndian.AppendUint32(p, id.Seq)
		for _, index := range slices.Sorted(maps.Keys(nodes)) {
			p = binary.LittleEndian.AppendUint32(p, index)
			p = binary.LittleEndian.AppendUint32(p, uint32(len(nodes[index])))
			p = append(p, nodes[index]...)
		}
		sum := Sum(p)
		if k.write(id, append(p, sum[:]...)) != nil {
			break
		}
		k.loaded[id] = nodes
	}
	clear(k.fresh)
	k.bytes = 0
}

// write replaces a file at once, so that a reader beside has the old or the new.
func (k *knownNodes) write(id PackID, p []byte) error {
	defer pending.Begin("write", "", k.path(id)).End()
	f, err := os.CreateTemp(k.folder, ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(p)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), k.path(id))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// end writes what is new and, after a mark of everything, deletes what no level
// needs any more.
func (k *knownNodes) end(whole bool) {
	if k == nil || k.folder == "" {
		return
	}
	k.flush()
	if !whole {
		return
	}
	wanted := map[string]bool{}
	for id := range k.used {
		wanted[filepath.Base(k.path(id))] = true
	}
	defer pending.Begin("tidy", "", k.folder).End()
	files, err := os.ReadDir(k.folder)
	if err != nil {
		return
	}
	for _, f := range files {
		if !wanted[f.Name()] {
			_ = os.Remove(filepath.Join(k.folder, f.Name()))
		}
	}
}
