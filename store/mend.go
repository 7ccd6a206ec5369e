package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// mendBytes is how many stored bytes a mender collects before it writes.
const mendBytes = 32 << 20

// mender gives packs with bad chunks a new generation in which those are whole
// again.
type mender struct {
	repo *Repository
	// mayDelete is asked before an older generation is deleted.
	mayDelete func(context.Context) error

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
		if w.condemned.has(ref.Pack) {
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
	for _, id := range sortedPacks(m.good) {
		good := m.good[id]
		stored, _, err := m.repo.mendPack(ctx, KindData, dataPrefix, id, good, m.mayDelete)
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
// what both copies have, and deletes the notes on nodes that are whole again.
func (m *mender) flushMaps(ctx context.Context, d *Damage) error {
	packs := d.mapNodes()
	for _, id := range sortedPacks(packs) {
		refs := packs[id]
		var written int64
		for _, folder := range foldersOf(KindMap) {
			sound, err := m.repo.soundTable(ctx, KindMap, folder, id)
			if err != nil {
				return fmt.Errorf("look at map pack %s: %w", id, err)
			}
			if has(sound, refs) {
				continue
			}
			n, _, err := m.repo.mendPack(ctx, KindMap, folder, id, nil, m.mayDelete)
			if err != nil {
				return fmt.Errorf("mend map pack %s: %w", id, err)
			}
			written += n
		}
		bad := map[uint32]bool{}
		err := m.repo.CheckNodes(ctx, refs, func(e *ChunkError) error {
			bad[e.Ref.Index] = true
			return nil
		})
		if err != nil {
			return err
		}
		if written > 0 {
			m.stored += written
			m.mended += int64(len(refs) - len(bad))
		}
		if err := m.repo.clearNotes(ctx, KindMap, id, func(index uint32) bool { return !bad[index] }, m.mayDelete); err != nil {
			return err
		}
	}
	return nil
}

// sortedPacks lists packs in the order in which they were written.
func sortedPacks[V any](packs map[PackID]V) []PackID {
	return slices.SortedFunc(maps.Keys(packs), func(a, b PackID) int {
		return cmp.Or(cmp.Compare(a.Run, b.Run), cmp.Compare(a.Seq, b.Seq))
	})
}

// has reports whether a table names all of these references.
func has(table []entry, refs []Ref) bool {
	for _, ref := range refs {
		if int(ref.Index) >= len(table) || table[ref.Index].Codec == Absent || table[ref.Index].Sum != ref.Sum {
			return false
		}
	}
	return true
}

// soundTable returns the table of a pack's newest generation if every frame of
// it decodes to its checksum, or else nil.
func (r *Repository) soundTable(ctx context.Context, kind Kind, folder string, id PackID) ([]entry, error) {
	_, c, err := r.checkNewest(ctx, kind, folder, id)
	if c == nil || err != nil || !c.sound() {
		return nil, err
	}
	return c.entries, nil
}

// mendPack writes a pack anew as its next generation: good frames in place of
// bad ones, everything else that can be read copied with its CRC. Then it
// deletes the notes of what is whole again, and the older generations, unless
// one may still hold what the new one lacks: a frame that could not be read
// now may be readable another time. complete tells that there is none.
func (r *Repository) mendPack(ctx context.Context, kind Kind, folder string, id PackID, good map[uint32]Encoded,
	mayDelete func(context.Context) error,
) (stored int64, complete bool, err error) {
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
		b, tables, err := r.rebuild(ctx, kind, id, keys, good)
		if err != nil || !b.hasFrames() {
			return 0, false, err
		}
		sound, err := r.soundTable(ctx, kind, folder, id)
		if err != nil {
			return 0, false, err
		}
		if has(sound, b.refs()) {
			next-- // what was noted can be read again, or another run has mended it
		} else {
			parts := b.seal(kind, r, next)
			err = r.put(ctx, packKey(folder, id, next), parts...)
			if errors.Is(err, fs.ErrExist) {
				continue // another run wrote this generation: start from its work
			}
			if err != nil {
				return 0, false, err
			}
			stored = int64(len(parts[0]) + len(parts[1]))
		}
		r.setGeneration(folder, id, next)
		if err := r.noteAbsent(ctx, kind, b, tables); err != nil {
			return stored, false, err
		}
		newest, newer, err := r.checkNewest(ctx, kind, folder, id)
		if err != nil {
			return stored, false, err
		}
		complete = newer != nil
		for _, g := range generations {
			if g >= min(next, newest) {
				continue
			}
			key := packKey(folder, id, g)
			if newer == nil || !newer.replaces(tables[key], nil) {
				complete = false
				continue
			}
			if err := r.deleteAll(ctx, []string{key}, mayDelete); err != nil {
				return 0, false, err
			}
		}
		whole := func(index uint32) bool {
			_, ok := good[index]
			return ok && newer != nil && newer.has(index, good[index].Sum)
		}
		return stored, complete, r.clearNotes(ctx, kind, id, whole, mayDelete)
	}
}

// noteAbsent writes down what the tables of a pack's objects name and a
// rebuilt one lacks.
func (r *Repository) noteAbsent(ctx context.Context, kind Kind, b *packBuilder, tables map[string][]entry) error {
	noted := map[uint32]bool{}
	for _, table := range tables {
		for i, e := range table {
			index := uint32(i)
			if e.Codec == Absent || noted[index] || i < len(b.entries) && b.entries[i].Codec != Absent {
				continue
			}
			noted[index] = true
			if err := r.noteLost(ctx, kind, Ref{Sum: e.Sum, Pack: b.id, Index: index}); err != nil {
				return err
			}
		}
	}
	return nil
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

// hasFrames reports whether a pack would hold anything.
func (b *packBuilder) hasFrames() bool { return len(b.frames) > 0 }

// refs are references to all that a pack holds.
func (b *packBuilder) refs() (refs []Ref) {
	for i := range b.entries {
		if b.entries[i].Codec != Absent {
			refs = append(refs, Ref{Sum: b.entries[i].Sum, Pack: b.id, Index: uint32(i)})
		}
	}
	return refs
}

// rebuild collects a pack's frames from all that is left of it: the objects of
// keys, the newest generation first. It returns their tables, too, as far as
// they can be read.
func (r *Repository) rebuild(ctx context.Context, kind Kind, id PackID, keys []string, good map[uint32]Encoded) (b *packBuilder, tables map[string][]entry, err error) {
	frames := map[uint32][]foundFrame{}
	tables = map[string][]entry{}
	count, found := 0, 0 // entries by the tables, and by the frames
	for _, key := range keys {
		p, err := r.readReadable(ctx, key)
		if err != nil {
			return nil, nil, err
		}
		for index, candidates := range scanFrames(p, maxRawOf(kind, r.ChunkSize)) {
			for _, f := range candidates {
				if !slices.ContainsFunc(frames[index], f.equal) {
					frames[index] = append(frames[index], f)
				}
			}
			found = max(found, int(index)+1)
		}
		if _, entries, err := r.readPackTable(ctx, key); err == nil {
			tables[key] = entries
			count = max(count, len(entries))
		}
	}
	if len(tables) == 0 {
		count = found
	}
	for index := range good {
		count = max(count, int(index)+1)
	}
	// Older tables were made from fewer guesses.
	sums := make([]Checksum, count)
	for _, key := range keys {
		for i, e := range tables[key] {
			if e.Sum != (Checksum{}) {
				sums[i] = e.Sum
			}
		}
	}
	b = &packBuilder{id: id}
	for i := range uint32(count) {
		if e, ok := good[i]; ok {
			b.append(e, FrameChunk)
		} else if e, t, ok := r.pick(frames[i], sums[i]); ok {
			b.append(e, t)
		} else {
			b.appendAbsent(sums[i])
		}
	}
	return b, tables, nil
}

// pick chooses the frame that decodes to bytes of a checksum. Where that is not
// known, since no table can be read, a frame gets the checksum of its bytes, if
// it is the only one.
func (r *Repository) pick(frames []foundFrame, sum Checksum) (Encoded, FrameType, bool) {
	f := r.fetchers.Get().(*fetcher)
	defer r.fetchers.Put(f)
	if sum == (Checksum{}) && len(frames) > 1 {
		return Encoded{}, 0, false
	}
	for _, found := range frames {
		e := Encoded{Raw: found.entry.Raw, Codec: found.entry.Codec, Stored: found.stored, CRC: found.entry.CRC}
		var err error
		if f.raw, err = f.coder.Decode(f.raw[:0], e); err != nil {
			continue
		}
		if e.Sum = Sum(f.raw); sum == (Checksum{}) || e.Sum == sum {
			return e, found.entry.Type, true
		}
	}
	return Encoded{}, 0, false
}

// clearNotes deletes the notes on frames that are whole again.
func (r *Repository) clearNotes(ctx context.Context, kind Kind, id PackID, whole func(index uint32) bool, mayDelete func(context.Context) error) error {
	keys, err := r.list(ctx, damagePrefix(kind, id))
	if err != nil {
		return err
	}
	keys = slices.DeleteFunc(keys, func(key string) bool {
		index, err := strconv.ParseUint(key[strings.LastIndexByte(key, '.')+1:], 10, 32)
		return err != nil || !whole(uint32(index))
	})
	return r.deleteAll(ctx, keys, mayDelete)
}
