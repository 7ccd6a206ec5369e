package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// mendBytes is how many stored bytes a mender collects before it writes.
const mendBytes = 32 << 20

// mender gives packs with bad chunks a new generation in which those are whole
// again.
type mender struct {
	repo   *Repository
	good   map[PackID]map[uint32]Encoded
	bytes  int
	stored int64
	mended int64
}

// Mend takes a chunk whose bytes were found again, for all the places where it
// is bad; base is the one that the base has here, or zero. It copies what it
// keeps.
//
// A pack that is gone altogether is made anew only for the base's sake: for
// anyone else, a gc may have deleted it, and may yet delete it again.
func (w *Writer) Mend(ctx context.Context, e Encoded, base Ref) error {
	m := &w.mends
	e.Stored = slices.Clone(e.Stored)
	for _, ref := range w.Damage.Of(e.Sum) {
		if w.condemned[ref.Pack] {
			continue
		}
		if ref != base {
			there, err := m.repo.listGenerations(ctx, dataPrefix, ref.Pack)
			if err != nil {
				return err
			}
			if len(there) == 0 {
				continue
			}
		}
		if m.good == nil {
			m.good = map[PackID]map[uint32]Encoded{}
		}
		if m.good[ref.Pack] == nil {
			m.good[ref.Pack] = map[uint32]Encoded{}
		}
		if _, ok := m.good[ref.Pack][ref.Index]; !ok {
			m.good[ref.Pack][ref.Index] = e
			m.bytes += len(e.Stored)
		}
	}
	if m.bytes < mendBytes {
		return nil
	}
	return m.flush(ctx)
}

// Mended is how many chunks have been made whole again.
func (w *Writer) Mended() int64 { return w.mends.mended }

func (m *mender) flush(ctx context.Context) error {
	for id, good := range m.good {
		stored, _, err := m.repo.mendPack(ctx, KindData, dataPrefix, id, good)
		if err != nil {
			return fmt.Errorf("mend pack %s: %w", id, err)
		}
		m.stored += stored
		m.mended += int64(len(good))
	}
	clear(m.good)
	m.bytes = 0
	return nil
}

// flushMaps gives map packs of which a copy is bad a new generation, made of
// what both copies have.
func (m *mender) flushMaps(ctx context.Context, d *Damage) error {
	for id := range d.mapPacks() {
		for _, folder := range foldersOf(KindMap) {
			if m.repo.sound(ctx, folder, id) {
				continue
			}
			stored, complete, err := m.repo.mendPack(ctx, KindMap, folder, id, nil)
			if err != nil {
				return fmt.Errorf("mend map pack %s: %w", id, err)
			}
			m.stored += stored
			if !complete {
				continue
			}
			m.mended++
			if err := m.repo.clearNotes(ctx, KindMap, id, func(uint32) bool { return true }); err != nil {
				return err
			}
		}
	}
	return nil
}

// sound reports whether every frame of a pack's newest generation can be read.
func (r *Repository) sound(ctx context.Context, folder string, id PackID) bool {
	generations, err := r.listGenerations(ctx, folder, id)
	if err != nil || len(generations) == 0 {
		return false
	}
	key := packKey(folder, id, generations[0])
	h, entries, err := r.readPackTable(ctx, key)
	if err != nil {
		return false
	}
	p, err := r.readReadable(ctx, key)
	if err != nil || int64(len(p)) != h.Length {
		return false
	}
	for i := range entries {
		e := &entries[i]
		if e.Codec == Absent {
			continue
		}
		if _, err := checkFrame(p[e.Offset:], uint32(i), e, maxRawOf(h.Kind, h.ChunkSize)); err != nil {
			return false
		}
	}
	return true
}

// mendPack writes a pack anew as its next generation: good frames in place of
// bad ones, everything else that can be read copied with its CRC. Then it
// deletes the notes of what is whole again, and the older generations, unless
// one may still hold what the new one lacks: a frame that could not be read
// now may be readable another time.
func (r *Repository) mendPack(ctx context.Context, kind Kind, folder string, id PackID, good map[uint32]Encoded) (stored int64, complete bool, err error) {
	for {
		generations, err := r.listGenerations(ctx, folder, id)
		if err != nil {
			return 0, false, err
		}
		next := uint32(0)
		if len(generations) > 0 {
			next = generations[0] + 1
		}
		keys, err := r.copies(ctx, kind, folder, id)
		if err != nil {
			return 0, false, err
		}
		b, complete, err := r.rebuild(ctx, kind, id, keys, good)
		if err != nil {
			return 0, false, err
		}
		parts := b.seal(kind, r, next)
		err = r.put(ctx, packKey(folder, id, next), parts...)
		if errors.Is(err, fs.ErrExist) {
			continue // another run wrote this generation: start from its work
		}
		if err != nil {
			return 0, false, err
		}
		r.setGeneration(folder, id, next)
		for _, g := range generations {
			if !complete {
				break
			}
			if err := r.backend.Delete(ctx, packKey(folder, id, g)); err != nil {
				return 0, false, err
			}
		}
		whole := func(index uint32) bool { _, ok := good[index]; return ok }
		return int64(len(parts[0]) + len(parts[1])), complete, r.clearNotes(ctx, kind, id, whole)
	}
}

// copies lists all the objects that may hold frames of a pack: the
// generations in a folder, newest first, then those of the twin's.
func (r *Repository) copies(ctx context.Context, kind Kind, folder string, id PackID) (keys []string, err error) {
	folders := []string{folder}
	for _, f := range foldersOf(kind) {
		if f != folder {
			folders = append(folders, f)
		}
	}
	for _, f := range folders {
		generations, err := r.listGenerations(ctx, f, id)
		if err != nil {
			return nil, err
		}
		for _, g := range generations {
			keys = append(keys, packKey(f, id, g))
		}
	}
	return keys, nil
}

// rebuild collects a pack's frames from all that is left of it. complete tells
// that every frame which the pack is known to have had is there.
func (r *Repository) rebuild(ctx context.Context, kind Kind, id PackID, keys []string, good map[uint32]Encoded) (b *packBuilder, complete bool, err error) {
	maxRaw := maxRawOf(kind, r.ChunkSize)
	var table []entry
	frames := map[uint32]foundFrame{}
	for _, key := range keys {
		p, err := r.readReadable(ctx, key)
		if err != nil {
			return nil, false, err
		}
		for index, f := range scanFrames(p, maxRaw) {
			if _, ok := frames[index]; !ok {
				frames[index] = f
			}
		}
		if _, entries, err := r.readPackTable(ctx, key); err == nil && len(entries) > len(table) {
			table = entries
		}
	}
	count := len(table)
	for index := range frames {
		count = max(count, int(index)+1)
	}
	for index := range good {
		count = max(count, int(index)+1)
	}
	b = &packBuilder{id: id}
	complete = len(table) == count
	for i := range uint32(count) {
		e, isGood := good[i]
		f, isFound := frames[i]
		var sum Checksum
		if int(i) < len(table) {
			sum = table[i].Sum
		}
		switch {
		case isGood:
			b.append(e, FrameChunk)
		case isFound && sum == Checksum{}:
			// The table is lost: the frame's checksum is that of its bytes, if
			// they are sound, which a reader compares with its reference.
			b.append(r.checksummed(f), f.entry.Type)
		case isFound:
			b.append(Encoded{Sum: sum, Raw: f.entry.Raw, Codec: f.entry.Codec, Stored: f.stored, CRC: f.entry.CRC}, f.entry.Type)
		default:
			if int(i) < len(table) && table[i].Codec != Absent {
				complete = false
			}
			b.appendAbsent(sum)
		}
	}
	return b, complete, nil
}

// checksummed gives a found frame the checksum of what it decodes to.
func (r *Repository) checksummed(f foundFrame) Encoded {
	e := Encoded{Raw: f.entry.Raw, Codec: f.entry.Codec, Stored: f.stored, CRC: f.entry.CRC}
	fetcher := r.fetchers.Get().(*fetcher)
	defer r.fetchers.Put(fetcher)
	var err error
	if fetcher.raw, err = fetcher.coder.Decode(fetcher.raw[:0], e); err == nil {
		e.Sum = Sum(fetcher.raw)
	}
	return e
}

// clearNotes deletes the notes on frames that are whole again.
func (r *Repository) clearNotes(ctx context.Context, kind Kind, id PackID, whole func(index uint32) bool) error {
	keys, err := r.list(ctx, damagePrefix(kind, id))
	if err != nil {
		return err
	}
	for _, key := range keys {
		index, err := strconv.ParseUint(key[strings.LastIndexByte(key, '.')+1:], 10, 32)
		if err != nil || !whole(uint32(index)) {
			continue
		}
		if err := r.backend.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}
