package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"time"
)

// BulkReader is a Backend that can read objects from front to back past the
// caches that others need, and from where they are kept rather than from those.
type BulkReader interface {
	// OpenBulk opens an object. A missing key matches fs.ErrNotExist, there or
	// at the first read.
	OpenBulk(ctx context.Context, key string) (BulkObject, error)
}

// BulkObject is an open object. ReadAt is best called with growing offsets.
type BulkObject interface {
	io.ReaderAt
	io.Closer
}

// openBulk opens an object for a scrub.
func (r *Repository) openBulk(ctx context.Context, key string) (BulkObject, error) {
	if b, ok := r.backend.(BulkReader); ok {
		return b.OpenBulk(ctx, key)
	}
	return plainObject{ctx, r.backend, key}, nil
}

type plainObject struct {
	ctx     context.Context
	backend Backend
	key     string
}

func (o plainObject) ReadAt(p []byte, off int64) (int, error) {
	return o.backend.Get(o.ctx, o.key, p, off)
}

func (o plainObject) Close() error { return nil }

// PackObject is one object that holds a pack: its newest generation in one
// folder.
type PackObject struct {
	ID         PackID
	Size       int64 // bytes
	Generation uint32
	folder     uint8 // of packFolders

	// Checked is when it was last checked whole, in seconds since 1970; 0: never.
	Checked uint32
}

var packFolders = [...]string{dataPrefix, mapsPrefix, twinsPrefix}

func (o *PackObject) name() packName { return packName{packFolders[o.folder], o.ID} }

func (o *PackObject) key() string { return packKey(packFolders[o.folder], o.ID, o.Generation) }

func (o *PackObject) kind() Kind {
	if o.folder == 0 {
		return KindData
	}
	return KindMap
}

func comparePacks(a, b PackObject) int {
	return cmp.Or(cmp.Compare(a.folder, b.folder), cmp.Compare(a.ID.Run, b.ID.Run), cmp.Compare(a.ID.Seq, b.ID.Seq))
}

// Packs lists what there is to be checked, folder by folder in the order in
// which it was written, and suspects packs that levels reach and that are not
// there.
func (s *Survey) Packs(ctx context.Context) ([]PackObject, error) {
	var list []PackObject
	for folder, prefix := range packFolders {
		err := s.repo.backend.List(ctx, prefix, func(key string, size int64) error {
			if _, id, generation, err := parsePackKey(key); err == nil {
				list = append(list, PackObject{ID: id, Size: size, Generation: generation, folder: uint8(folder)})
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(list, func(a, b PackObject) int {
		return cmp.Or(comparePacks(a, b), cmp.Compare(b.Generation, a.Generation))
	})
	list = slices.CompactFunc(list, func(a, b PackObject) bool { return comparePacks(a, b) == 0 })
	for folder := range packFolders {
		if err := s.suspectMissing(list, uint8(folder)); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// suspectMissing finds packs that levels reach among what was listed. A map
// pack of which one copy is missing is noted for mending, one of which both are
// suspected.
func (s *Survey) suspectMissing(list []PackObject, folder uint8) error {
	o := PackObject{folder: folder}
	return s.live(o.kind()).packs(func(id PackID) error {
		o.ID = id
		if _, ok := slices.BinarySearchFunc(list, o, comparePacks); !ok {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.packs[packName{foldersOf(o.kind())[0], id}] = true
			if o.kind() == KindMap {
				s.copies = append(s.copies, o.name())
			}
		}
		return nil
	})
}

// PackCheck says how packs are to be checked. The zero value reads all of them
// and compares every chunk's checksum.
type PackCheck struct {
	Quick bool    // only the CRC of what is stored: nothing is decompressed
	Share float64 // of the chunks, at random, if more than 0 and less than 1
}

// PackReport is what the check of one object found.
type PackReport struct {
	Chunks int64 // checked: chunks, map nodes and copies of level records
	Bytes  int64 // read
	Bad    int64 // chunks that are bad, or that the object lacks
	Unused int64 // of these, those that no level needs
	Copies int64 // bad ones in one copy of a map pack
	Table  error // what is wrong with the header or the table
	Gone   bool  // it is not there any more: deleted, or replaced by a newer generation
}

// windowBytes is how much of a pack is read at once: more than that is out of
// the processor's cache again before it is checked.
const windowBytes = 1 << 20

// Check reads one object. What is bad is suspected; what no level needs, copies
// of map nodes and bad tables are noted at once.
//
// What cannot be read or fails a check is read once more before it counts.
func (s *Survey) Check(ctx context.Context, o PackObject, how PackCheck) (PackReport, error) {
	c := &packChecker{survey: s, object: &o, key: o.key(), how: how, fetcher: s.repo.fetchers.Get().(*fetcher)}
	defer s.repo.fetchers.Put(c.fetcher)
	in, err := s.repo.openBulk(ctx, c.key)
	if err == nil {
		c.window = window{in: in, size: o.Size, p: c.fetcher.span[:0]}
		err = c.pack(ctx)
		c.fetcher.span = c.window.p[:0]
		_ = in.Close() // it was only read
	}
	if context.Cause(ctx) != nil {
		return c.report, context.Cause(ctx)
	}
	if err != nil {
		c.report.Table = err
		c.each(func(index uint32) { c.bad = append(c.bad, badFrame{index: index, cause: err}) })
	}
	if len(c.bad) == 0 && c.report.Table == nil {
		return c.report, nil
	}
	gone, err := c.superseded(ctx)
	if gone || err != nil {
		c.report.Bad, c.report.Table, c.report.Gone = 0, nil, gone
		return c.report, err
	}
	return c.report, c.settle(ctx)
}

// packChecker checks one object.
type packChecker struct {
	survey  *Survey
	object  *PackObject
	key     string
	how     PackCheck
	fetcher *fetcher
	window  window
	report  PackReport
	bad     []badFrame
}

type badFrame struct {
	index uint32
	sum   Checksum // zero where it is not known
	cause error
}

// each calls fn for what the levels reach of the pack.
func (c *packChecker) each(fn func(index uint32)) {
	live := c.survey.live(c.object.kind()).of(c.object.ID)
	for i := range uint32(len(live) * 64) {
		if hasBit(live, i) {
			fn(i)
		}
	}
}

// pack checks the whole. An error is one of the header or the table: without
// them, frames are looked for by what they look like.
func (c *packChecker) pack(ctx context.Context) error {
	h, entries, err := c.table()
	if err != nil {
		c.window.forget()
		h, entries, err = c.table()
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return c.salvage(ctx, err)
	}
	maxRaw := maxRawOf(h.Kind, h.ChunkSize)
	order := make([]uint32, 0, len(entries))
	for i := range entries {
		if entries[i].Codec != Absent {
			order = append(order, uint32(i))
		}
	}
	byOffset := func(a, b uint32) int { return cmp.Compare(entries[a].Offset, entries[b].Offset) }
	if !slices.IsSortedFunc(order, byOffset) {
		slices.SortFunc(order, byOffset)
	}
	sampled := c.how.Share > 0 && c.how.Share < 1
	for _, i := range order {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if sampled && rand.Float64() >= c.how.Share {
			continue
		}
		c.report.Chunks++
		if cause := c.frame(i, &entries[i], maxRaw, sampled); cause != nil {
			c.bad = append(c.bad, badFrame{i, entries[i].Sum, cause})
		}
	}
	c.each(func(i uint32) {
		if int(i) >= len(entries) || entries[i].Codec == Absent {
			c.bad = append(c.bad, badFrame{index: i, cause: fmt.Errorf("%w: a level needs index %d, which has no frame", errBadPack, i)})
		}
	})
	c.report.Bytes += c.window.read
	if h.Length != c.object.Size {
		c.report.Table = fmt.Errorf("%w: it has %d bytes instead of %d", errBadPack, c.object.Size, h.Length)
	}
	return nil
}

// table reads and checks the header and the table.
func (c *packChecker) table() (h packHeader, entries []entry, err error) {
	first := min(int64(windowBytes), c.object.Size)
	if s := c.how.Share; s > 0 && s < 1 {
		first = min(64<<10, c.object.Size)
	}
	p, err := c.window.bytes(0, packHeaderSize, first)
	if err != nil {
		return h, nil, err
	}
	if h, err = decodePackHeader(p); err != nil {
		return h, nil, err
	}
	if h.Repository != c.survey.repo.ID || h.Pack != c.object.ID || h.Generation != c.object.Generation || h.Kind != c.object.kind() {
		return h, nil, fmt.Errorf("%w: its header belongs to another pack", errBadPack)
	}
	if p, err = c.window.bytes(packHeaderSize, int(h.Entries)*entrySize, 0); err != nil {
		return h, nil, err
	}
	entries, err = decodeTable(&h, p)
	return h, entries, err
}

// frame checks one frame, and once more where it is bad.
func (c *packChecker) frame(i uint32, e *entry, maxRaw int, sampled bool) error {
	ahead := int64(windowBytes)
	if sampled {
		ahead = 0
	}
	p, err := c.window.bytes(e.Offset, frameHeaderSize+e.Stored, ahead)
	if err == nil {
		err = c.bytes(p, i, e, maxRaw)
	}
	if err == nil {
		return nil
	}
	c.window.forget()
	if p, err = c.window.bytes(e.Offset, frameHeaderSize+e.Stored, 0); err != nil {
		return err
	}
	return c.bytes(p, i, e, maxRaw)
}

func (c *packChecker) bytes(p []byte, i uint32, e *entry, maxRaw int) error {
	stored, err := checkFrame(p, i, e, maxRaw)
	if err != nil || c.how.Quick {
		return err
	}
	_, err = c.fetcher.decode(stored, wanted{ref: Ref{Sum: e.Sum}, e: *e})
	return err
}

// salvage looks for what the levels reach of a pack whose table is bad.
func (c *packChecker) salvage(ctx context.Context, cause error) error {
	c.report.Table = cause
	repo := c.survey.repo
	if err := repo.beginSalvage(ctx); err != nil {
		return err
	}
	defer repo.endSalvage()
	p, err := repo.readReadable(ctx, c.key)
	if err != nil {
		return err
	}
	c.report.Bytes += int64(len(p))
	frames := scanFrames(p, maxRawOf(c.object.kind(), repo.ChunkSize))
	c.report.Chunks += int64(len(frames))
	c.each(func(i uint32) {
		if len(frames[i]) == 0 {
			c.bad = append(c.bad, badFrame{index: i, cause: cause})
		}
	})
	return nil
}

// superseded reports whether an object is gone, or has a newer generation.
func (c *packChecker) superseded(ctx context.Context) (bool, error) {
	name := c.object.name()
	generations, err := c.survey.repo.listGenerations(ctx, name.folder, name.id)
	if err != nil {
		return false, err
	}
	return !slices.Contains(generations, c.object.Generation) || generations[0] != c.object.Generation, nil
}

// settle says what becomes of what is bad.
func (c *packChecker) settle(ctx context.Context) error {
	s, kind := c.survey, c.object.kind()
	for _, b := range c.bad {
		live := s.live(kind).has(c.object.ID, b.index)
		if live {
			s.suspect(kind, c.object.ID, b.index)
		}
		if kind == KindMap {
			c.report.Copies++
		} else {
			c.report.Bad++
			if !live {
				c.report.Unused++
			}
		}
		if s.repo.readOnly != nil || b.sum == (Checksum{}) || live && kind == KindData {
			continue // Confirm knows more
		}
		if err := s.repo.noteFrame(ctx, kind, c.object, b); err != nil {
			return err
		}
	}
	if c.report.Table == nil && (kind == KindData || len(c.bad) == 0) || s.repo.readOnly != nil {
		return nil
	}
	return s.repo.noteTable(ctx, c.object, cmp.Or(c.report.Table, errBadPack))
}

// noteFrame notes what is bad in one object.
func (r *Repository) noteFrame(ctx context.Context, kind Kind, o *PackObject, b badFrame) error {
	n := damageNote{
		Kind: kind, Ref: Ref{Sum: b.sum, Pack: o.ID, Index: b.index}, Generation: o.Generation,
		Cause: b.cause.Error(), Time: time.Now().UTC(),
	}
	err := r.putObject(ctx, damageKey(kind, n.Ref, o.Generation), "damaged", &n)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// window is a part of an object in memory, which moves forward.
type window struct {
	in   io.ReaderAt
	size int64
	off  int64
	p    []byte
	read int64
}

func (w *window) forget() { w.p = w.p[:0] }

// bytes returns n bytes at off, having read up to ahead where they were not in
// memory. Where that fails, only what is asked for is read.
func (w *window) bytes(off int64, n int, ahead int64) ([]byte, error) {
	if at := off - w.off; at >= 0 && at+int64(n) <= int64(len(w.p)) {
		return w.p[at:][:n], nil
	}
	if off+int64(n) > w.size {
		return nil, io.ErrUnexpectedEOF
	}
	kept := 0
	if at := off - w.off; at >= 0 && at < int64(len(w.p)) {
		kept = copy(w.p, w.p[at:])
	}
	want := int(min(max(int64(n), ahead), w.size-off))
	if cap(w.p) < want {
		w.p = append(make([]byte, 0, want), w.p[:kept]...)
	}
	w.off, w.p = off, w.p[:kept]
	got, err := w.in.ReadAt(w.p[kept:want], off+int64(kept))
	w.read += int64(got)
	w.p = w.p[:kept+got]
	if len(w.p) < n && want > n && kept+got < want {
		got, err = w.in.ReadAt(w.p[len(w.p):n], off+int64(len(w.p)))
		w.read += int64(got)
		w.p = w.p[:len(w.p)+got]
	}
	if len(w.p) < n {
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return w.p[:n], nil
}
