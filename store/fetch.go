package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
)

// Reads of neighbouring frames are joined over gaps of up to readGap bytes and
// to ranges of up to readSpan bytes, which the processor's cache can hold.
const (
	readGap  = 64 << 10
	readSpan = 1 << 20
)

// ChunkError tells that the bytes of a reference cannot be had.
type ChunkError struct {
	Kind  Kind
	Ref   Ref
	Cause error
}

func (e *ChunkError) Error() string {
	what := "chunk"
	if e.Kind == KindMap {
		what = "map node"
	}
	return fmt.Sprintf("%s %s in pack %s: %v", what, e.Ref.Sum.String()[:16], e.Ref.Pack, e.Cause)
}

func (e *ChunkError) Unwrap() error { return e.Cause }

// fetcher reads frames and checks them. It holds the buffers and the decoder
// of one goroutine's reads; the repository pools them.
type fetcher struct {
	repo  *Repository
	coder *Coder
	table []byte
	span  []byte
	raw   []byte
	quick bool               // compare CRCs only, and give out no bytes
	room  func(i int) []byte // where raw bytes go to; nil: raw
}

// wanted is a reference to be read and its place in the caller's list.
type wanted struct {
	ref Ref
	at  int
	e   entry
}

// Fetch reads chunks or map nodes and calls fn for each reference with the raw
// bytes, whose checksum has been compared, or with a *ChunkError. The bytes
// are the callee's until it returns. The order is that of packs and indices,
// not of refs; a reference that stands twice is given twice. An error of fn
// ends the fetch; so does a cancelled context.
func (r *Repository) Fetch(ctx context.Context, kind Kind, refs []Ref, fn func(i int, raw []byte, err error) error) error {
	return r.fetch(ctx, kind, refs, nil, fn)
}

// FetchInto is Fetch into room that the caller has: into(i) is that of refs[i],
// and fn is told how many bytes of it were filled. Bytes that do not fit are a
// *ChunkError. After an error the room may have anything in it.
func (r *Repository) FetchInto(ctx context.Context, kind Kind, refs []Ref, into func(i int) []byte, fn func(i, n int, err error) error) error {
	return r.fetch(ctx, kind, refs, into, func(i int, raw []byte, err error) error {
		if room := len(into(i)); err == nil && len(raw) > room {
			err = &ChunkError{Kind: kind, Ref: refs[i], Cause: fmt.Errorf("%d bytes where %d fit", len(raw), room)}
		}
		return fn(i, len(raw), err)
	})
}

func (r *Repository) fetch(ctx context.Context, kind Kind, refs []Ref, room func(int) []byte, fn func(int, []byte, error) error) error {
	f := r.fetchers.Get().(*fetcher)
	f.room = room
	defer func() {
		f.room = nil
		r.fetchers.Put(f)
	}()
	return f.fetch(ctx, kind, refs, fn)
}

func (f *fetcher) fetch(ctx context.Context, kind Kind, refs []Ref, fn func(i int, raw []byte, err error) error) error {
	byPack := make([]wanted, len(refs))
	for i, ref := range refs {
		byPack[i] = wanted{ref: ref, at: i}
	}
	slices.SortStableFunc(byPack, func(a, b wanted) int {
		return compareRefs(a.ref, b.ref)
	})
	for len(byPack) > 0 {
		n := 1
		for n < len(byPack) && byPack[n].ref.Pack == byPack[0].ref.Pack {
			n++
		}
		if err := f.pack(ctx, kind, byPack[:n], fn); err != nil {
			return err
		}
		byPack = byPack[n:]
	}
	return nil
}

// CheckStored reads chunks as Fetch does, and compares the CRC of what is stored
// instead of the checksum of what that decodes to. fn gets nil or a *ChunkError.
func (r *Repository) CheckStored(ctx context.Context, refs []Ref, fn func(i int, err error) error) error {
	f := r.fetchers.Get().(*fetcher)
	f.quick = true
	defer func() {
		f.quick = false
		r.fetchers.Put(f)
	}()
	return f.fetch(ctx, KindData, refs, func(i int, _ []byte, err error) error { return fn(i, err) })
}

func compareRefs(a, b Ref) int {
	return cmp.Or(cmp.Compare(a.Pack.Run, b.Pack.Run), cmp.Compare(a.Pack.Seq, b.Pack.Seq), cmp.Compare(a.Index, b.Index))
}

// pack reads references into one pack: from the generation that was last seen,
// then, for what could not be had, from whatever else there is.
func (f *fetcher) pack(ctx context.Context, kind Kind, refs []wanted, fn func(int, []byte, error) error) error {
	id := refs[0].ref.Pack
	folder := foldersOf(kind)[0]
	generation := f.repo.generation(folder, id)
	failed, cause, err := f.generation(ctx, kind, packKey(folder, id, generation), refs, fn)
	if err != nil || len(failed) == 0 {
		return err
	}
	first := slices.Clone(failed)
	failed = slices.Clone(failed)
	for tried := map[string]bool{}; len(failed) > 0; {
		keys, err := f.untried(ctx, kind, id, tried)
		if err != nil {
			return err
		}
		if len(keys) == 0 {
			break
		}
		for _, key := range keys {
			if failed, cause, err = f.object(ctx, kind, key, failed, fn, cause); err != nil {
				return err
			}
		}
	}
	if kind == KindMap {
		f.repo.suspect(first, failed)
	}
	for _, w := range failed {
		if err := fn(w.at, nil, &ChunkError{Kind: kind, Ref: w.ref, Cause: cause}); err != nil {
			return err
		}
	}
	return nil
}

// untried lists the objects that may hold frames of a pack and were not tried
// yet, newest generations first. Since a generation may be deleted as soon as a
// newer one is there, whoever has tried all must list them again.
func (f *fetcher) untried(ctx context.Context, kind Kind, id PackID, tried map[string]bool) (keys []string, err error) {
	for _, folder := range foldersOf(kind) {
		generations, err := f.repo.listGenerations(ctx, folder, id)
		if err != nil {
			return nil, err
		}
		if len(generations) > 0 {
			f.repo.setGeneration(folder, id, generations[0])
		}
		for _, g := range generations {
			if key := packKey(folder, id, g); !tried[key] {
				tried[key] = true
				keys = append(keys, key)
			}
		}
	}
	return keys, nil
}

// object reads references from one object, by its table and then by scanning
// it.
func (f *fetcher) object(ctx context.Context, kind Kind, key string, refs []wanted, fn func(int, []byte, error) error, before error) (failed []wanted, cause, err error) {
	if len(refs) == 0 {
		return nil, before, nil
	}
	failed, cause, err = f.generation(ctx, kind, key, refs, fn)
	if err != nil || len(failed) == 0 {
		return failed, cause, err
	}
	failed, err = f.salvage(ctx, kind, key, failed, fn)
	return failed, cause, err
}

// generation reads references from one object. It returns those that it could
// not serve and why the last of them; err is for what ends the whole fetch.
func (f *fetcher) generation(ctx context.Context, kind Kind, key string, refs []wanted, fn func(int, []byte, error) error) (failed []wanted, cause, err error) {
	failed = refs[:0:0]
	fail := func(cause0 error, refs ...wanted) {
		failed, cause = append(failed, refs...), cause0
	}
	maxRaw := maxRawOf(kind, f.repo.ChunkSize)
	located := refs[:0:0]
	for rest := refs; len(rest) > 0; {
		n := tableSpan(rest)
		if cause := f.entries(ctx, key, rest[:n], maxRaw); cause != nil {
			fail(cause, rest[:n]...)
		} else {
			for _, w := range rest[:n] {
				if w.e.Codec == Absent || w.e.Sum != w.ref.Sum {
					fail(fmt.Errorf("%w: the table of %s has another checksum at index %d", errBadPack, key, w.ref.Index), w)
					continue
				}
				located = append(located, w)
			}
		}
		rest = rest[n:]
	}
	slices.SortStableFunc(located, func(a, b wanted) int { return cmp.Compare(a.e.Offset, b.e.Offset) })
	for len(located) > 0 {
		if err := context.Cause(ctx); err != nil {
			return nil, nil, err
		}
		n, end := frameSpan(located)
		start := located[0].e.Offset
		f.span = resize(f.span, int(end-start))
		got, readErr := f.repo.backend.Get(ctx, key, f.span, start)
		if readErr != nil && !errors.Is(readErr, io.EOF) && got < len(f.span) {
			fail(readErr, located[:n]...)
			located = located[n:]
			continue
		}
		for _, w := range located[:n] {
			raw, cause := f.frame(f.span[min(got, int(w.e.Offset-start)):got], w, maxRaw)
			if cause != nil {
				fail(fmt.Errorf("%s: %w", key, cause), w)
				continue
			}
			if err := fn(w.at, raw, nil); err != nil {
				return nil, nil, err
			}
		}
		located = located[n:]
	}
	if err := context.Cause(ctx); err != nil {
		return nil, nil, err
	}
	return failed, cause, nil
}

// tableSpan returns how many of the references, sorted by index, have their
// entries close enough to be read at once.
func tableSpan(refs []wanted) int {
	n := 1
	for n < len(refs) &&
		int64(refs[n].ref.Index-refs[n-1].ref.Index)*entrySize <= readGap &&
		int64(refs[n].ref.Index-refs[0].ref.Index)*entrySize <= readSpan {
		n++
	}
	return n
}

// frameSpan does the same for frames sorted by offset; end is where the last
// of them ends.
func frameSpan(refs []wanted) (n int, end int64) {
	n, end = 1, refs[0].e.end()
	for n < len(refs) && refs[n].e.Offset-end <= readGap && refs[n].e.end()-refs[0].e.Offset <= readSpan {
		end = max(end, refs[n].e.end())
		n++
	}
	return n, end
}

// entries fills in the table's entries of refs, by one read.
func (f *fetcher) entries(ctx context.Context, key string, refs []wanted, maxRaw int) error {
	first := refs[0].ref.Index
	last := refs[len(refs)-1].ref.Index
	if last >= maxPackEntries {
		return fmt.Errorf("%w: index %d", errBadPack, last)
	}
	f.table = resize(f.table, int(last-first+1)*entrySize)
	n, err := f.repo.backend.Get(ctx, key, f.table, packHeaderSize+int64(first)*entrySize)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	for i := range refs {
		w := &refs[i]
		at := int(w.ref.Index-first) * entrySize
		w.e = entry{}
		if at+entrySize <= n {
			// What does not decode stays absent, and is looked for elsewhere.
			if e, err := decodeEntry(f.table[at:], maxRaw); err == nil {
				w.e = e
			}
		}
	}
	return nil
}

// frame decodes a frame, whose bytes begin at p, and compares its checksum,
// beside which its CRC tells nothing more.
func (f *fetcher) frame(p []byte, w wanted, maxRaw int) ([]byte, error) {
	if f.quick {
		_, err := checkFrame(p, w.ref.Index, &w.e, maxRaw)
		return nil, err
	}
	stored, err := frameAt(p, w.ref.Index, &w.e, maxRaw)
	if err != nil {
		return nil, err
	}
	return f.decode(stored, w)
}

func (f *fetcher) decode(stored []byte, w wanted) ([]byte, error) {
	to := f.raw
	if f.room != nil {
		to = f.room(w.at)
	}
	raw, err := f.coder.Decode(to[:0:len(to)], Encoded{Raw: w.e.Raw, Codec: w.e.Codec, Stored: stored})
	if f.room == nil {
		f.raw = raw[:cap(raw)]
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBadPack, err)
	}
	if Sum(raw) != w.ref.Sum {
		return nil, fmt.Errorf("%w: the bytes fail their checksum", errBadPack)
	}
	return raw, nil
}

// salvage looks for the frames of refs without the help of the pack's table,
// which may be what is bad.
func (f *fetcher) salvage(ctx context.Context, kind Kind, key string, refs []wanted, fn func(int, []byte, error) error) (failed []wanted, err error) {
	frames, err := f.repo.scan(ctx, kind, key)
	if err != nil {
		return nil, err
	}
	for _, w := range refs {
		raw, ok := f.choose(frames[w.ref.Index], w)
		if !ok {
			failed = append(failed, w)
			continue
		}
		if err := fn(w.at, raw, nil); err != nil {
			return nil, err
		}
	}
	return failed, nil
}

// scan finds the frames of an object. It takes a whole pack of memory: one at a
// time. What is done with them must not wait for its turn, since that may need
// another pack.
func (r *Repository) scan(ctx context.Context, kind Kind, key string) (map[uint32][]foundFrame, error) {
	if err := r.beginSalvage(ctx); err != nil {
		return nil, err
	}
	defer r.endSalvage()
	p, err := r.readReadable(ctx, key)
	if err != nil {
		return nil, err
	}
	return scanFrames(p, maxRawOf(kind, r.ChunkSize)), nil
}

// beginSalvage waits for the turn to salvage a pack, which endSalvage passes on.
// Whoever waits may be cancelled: the one before may be waiting for the backend.
func (r *Repository) beginSalvage(ctx context.Context) error {
	select {
	case r.salvaging <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (r *Repository) endSalvage() { <-r.salvaging }

// choose decodes the frame that has the checksum of a reference.
func (f *fetcher) choose(frames []foundFrame, w wanted) (raw []byte, ok bool) {
	for _, found := range frames {
		w.e = found.entry
		if raw, err := f.decode(found.stored, w); err == nil {
			return raw, true
		}
	}
	return nil, false
}

func resize(p []byte, n int) []byte {
	if cap(p) < n {
		return make([]byte, n)
	}
	return p[:n]
}

// newFetcherPool makes the pool of a repository's fetchers.
func newFetcherPool(r *Repository) *sync.Pool {
	return &sync.Pool{New: func() any { return &fetcher{repo: r, coder: newCoder(max(int(r.ChunkSize), maxMetaRaw), CompressZstd)} }}
}
