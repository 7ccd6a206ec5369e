package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"backy/hints"
	"backy/store"
)

// unit is a stretch of chunks on its way from the source to the packs.
type unit struct {
	first, count int64
	drop         bool        // all of it is a hole; nothing is read
	held         int64       // bytes that the base has there, if it is dropped
	base         []store.Ref // of the base, per chunk
	results      []result
	data         []byte // what was read; already filled where the source is a stream
	length       int64  // of data
	packed       int    // bytes at data's beginning that encoded chunks have taken
}

// result is what became of one chunk.
type result struct {
	verdict verdict
	ref     store.Ref     // known
	enc     store.Encoded // fresh, mended
	mends   bool          // enc is known to be bad elsewhere, too
}

type verdict uint8

const (
	same   verdict = iota // as the base has it
	hole                  // zeros, and the base has none there
	known                 // kept already: ref
	fresh                 // to be stored: enc
	mended                // kept at ref, the base's, where it is bad, and found again: enc
)

// pass reads what a plan names and makes the level's map of it.
func (b *backup) pass(ctx context.Context, p *plan) error {
	b.stats.Changed, b.stats.Emptied, b.stats.Reused, b.grown = 0, 0, 0, 0
	if err := b.w.BeginMap(ctx, b.baseMap(), b.chunks()); err != nil {
		return err
	}
	p.sample = newSampler(b.state)
	held := b.o.Budget.holder()
	defer held.giveAll()
	err := pipeline(ctx, workers(b.o.Readers),
		func(ctx context.Context, emit func(*unit) error) error {
			return b.produce(ctx, p, func(u *unit) error {
				if !u.drop {
					if err := held.take(ctx); err != nil {
						return err
					}
				}
				return emit(u)
			})
		},
		b.work,
		func(ctx context.Context, u *unit) error {
			if !u.drop {
				defer held.give()
			}
			return b.consume(ctx, u)
		})
	if err != nil {
		return err
	}
	return b.cutOff(ctx)
}

// produce cuts the plan into units and finds what the base has there.
func (b *backup) produce(ctx context.Context, p *plan, emit func(*unit) error) error {
	look, base := b.baseRefs(ctx), b.newHeld()
	drop := func(first, count int64) error {
		bytes, err := base.between(ctx, first, first+count)
		if err != nil {
			return err
		}
		return emit(&unit{first: first, count: count, drop: true, held: bytes})
	}
	next := int64(0)
	skip := func(to int64) error {
		first, count := next, to-next
		next = to
		if count <= 0 {
			return nil
		}
		switch p.outside {
		case Unknown:
			return fmt.Errorf("chunks %d to %d are not spoken for", first, to-1)
		case Hole:
			p.sample.add(first, count)
			return drop(first, count)
		}
		p.sample.add(first, count)
		return nil
	}
	chunks := hints.Chunks(p.extents, b.repo.ChunkSize, b.size)
	for r, err := range hints.MergeRanges(chunks, ranges(p.extra)) {
		if err != nil {
			return err
		}
		if err := skip(r.First); err != nil {
			return err
		}
		next = r.End()
		if r.Hole {
			if err := drop(r.First, r.Count); err != nil {
				return err
			}
			continue
		}
		if err := b.cut(ctx, r, look, emit); err != nil {
			return err
		}
	}
	return skip(b.chunks())
}

// cut emits a range as units that end where RBD's objects do.
func (b *backup) cut(ctx context.Context, r hints.Range, look baseLookup, emit func(*unit) error) error {
	perUnit := int64(unitBytes) / b.repo.ChunkSize
	for pos := r.First; pos < r.End(); {
		end := min(r.End(), (pos/perUnit+1)*perUnit)
		u := &unit{first: pos, count: end - pos}
		var err error
		if u.base, err = look(ctx, pos, end-pos); err != nil {
			return err
		}
		if err := emit(u); err != nil {
			return err
		}
		pos = end
	}
	return nil
}

// baseLookup returns the base's references of positions from first on.
type baseLookup func(ctx context.Context, first, count int64) ([]store.Ref, error)

// baseRefs returns a lookup in the base's map.
func (b *backup) baseRefs(ctx context.Context) baseLookup {
	return lookup(b.baseCursor(ctx), b.baseMap())
}

// refsOf returns a lookup in a map for positions that ascend; those behind the
// map's end are holes.
func refsOf(repo *store.Repository, m store.Map) baseLookup {
	return lookup(repo.Cursor(m), m)
}

func lookup(c *store.Cursor, m store.Map) baseLookup {
	return func(ctx context.Context, first, count int64) ([]store.Ref, error) {
		refs := make([]store.Ref, count)
		for pos := first; pos < min(first+count, m.Chunks); {
			leaf, err := c.At(ctx, pos)
			if err != nil {
				return nil, err
			}
			end := min(leaf.End(), first+count)
			if leaf.Refs != nil {
				copy(refs[pos-first:], leaf.Refs[pos-leaf.First:end-leaf.First])
			}
			pos = end
		}
		return refs, nil
	}
}

// work reads a unit and decides about each of its chunks.
func (b *backup) work(ctx context.Context, u *unit) error {
	if u.drop {
		return nil
	}
	if b.state.Stream == nil {
		off := u.first * b.repo.ChunkSize
		u.data = getBuffer(int(min(u.count*b.repo.ChunkSize, b.size-off)))
		if err := readFull(b.state.Reader, u.data, off); err != nil {
			return fmt.Errorf("read %d bytes at %d: %w", len(u.data), off, err)
		}
	}
	u.length = int64(len(u.data))
	b.w.Moved()
	b.o.Progress.Read.Add(u.length)
	coder := b.coders.Get().(*store.Coder)
	defer b.coders.Put(coder)
	u.results = make([]result, u.count)
	for i := range u.results {
		var err error
		if u.results[i], err = b.judge(ctx, coder, u, i); err != nil {
			return err
		}
	}
	return nil
}

// readFull reads all of p; an end inside it is an error.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return err
}

// judge decides about the i-th chunk of a unit: is it a hole, as before, known,
// or new?
func (b *backup) judge(ctx context.Context, coder *store.Coder, u *unit, i int) (result, error) {
	at := int64(i) * b.repo.ChunkSize
	raw, base := u.data[at:min(at+b.repo.ChunkSize, u.length)], u.base[i]
	if isZero(raw) {
		if base.IsZero() {
			return result{verdict: same}, nil
		}
		return result{verdict: hole}, nil
	}
	sum := store.Sum(raw)
	bad := len(b.w.Damage.Of(sum)) > 0
	asBefore := base.Sum == sum && !base.IsZero()
	if !bad {
		if asBefore {
			there, err := b.inPack(ctx, base)
			if err != nil {
				return result{}, err
			}
			if there {
				return result{verdict: same}, nil
			}
		}
		ref, ok, err := b.w.Known(ctx, sum)
		if err != nil {
			return result{}, err
		}
		if ok {
			return result{verdict: known, ref: ref}, nil
		}
	}
	enc, err := coder.EncodeInto(u.data[u.packed:u.packed:at], raw, sum)
	if err != nil {
		return result{}, err
	}
	u.keep(&enc, int(at))
	if asBefore && b.w.Mendable(base) {
		return result{verdict: mended, ref: base, enc: enc}, nil
	}
	return result{verdict: fresh, enc: enc, mends: bad}, nil
}

// keep gives a chunk's stored form its place in the unit's data. It is never
// longer than what was read: it takes the room of chunks that are done with, and
// of its own.
func (u *unit) keep(enc *store.Encoded, at int) {
	if enc.Codec == store.Raw {
		u.packed = at // it stays where it was read
	}
	to := u.data[u.packed : u.packed+len(enc.Stored) : u.packed+len(enc.Stored)]
	copy(to, enc.Stored) // nothing where it is there already
	enc.Stored = to
	u.packed += len(to)
}

var zeros [4 << 10]byte

// isZero compares with a page of zeros first: what is not zero mostly shows at
// once.
func isZero(p []byte) bool {
	for len(p) > 0 {
		n := min(len(p), len(zeros))
		if !bytes.Equal(p[:n], zeros[:n]) {
			return false
		}
		p = p[n:]
	}
	return true
}

// consume puts a unit's chunks into the packs and the map, in image order.
func (b *backup) consume(ctx context.Context, u *unit) error {
	if u.drop {
		b.emptied(u.held)
		return b.w.Drop(ctx, u.first, u.first+u.count)
	}
	for i := range u.results {
		r := &u.results[i]
		pos := u.first + int64(i)
		length := min(b.repo.ChunkSize, u.length-int64(i)*b.repo.ChunkSize)
		if r.verdict == same {
			continue
		}
		ref, err := b.place(ctx, r, length)
		if err != nil {
			return err
		}
		b.placed(u.base[i], r.verdict, length)
		if err := b.w.Set(ctx, pos, ref); err != nil {
			return err
		}
	}
	b.stats.Read += u.length
	b.o.Progress.Done.Add(u.length)
	putBuffer(u.data)
	return nil
}

// place returns the reference under which a chunk is to be named, having
// stored it where that is needed.
func (b *backup) place(ctx context.Context, r *result, length int64) (store.Ref, error) {
	switch r.verdict {
	case hole:
		return store.Ref{}, nil
	case known:
		b.stats.Reused += length
		return r.ref, nil
	case mended:
		return r.ref, b.w.Mend(ctx, r.enc, r.ref)
	}
	if r.mends {
		if err := b.w.Mend(ctx, r.enc, store.Ref{}); err != nil {
			return store.Ref{}, err
		}
	}
	ref, stored, err := b.w.PutChunk(ctx, r.enc)
	if stored {
		b.stats.Chunks++
		b.stats.Raw += int64(r.enc.Raw)
		b.stats.Packed += int64(len(r.enc.Stored))
	} else {
		b.stats.Reused += length
	}
	return ref, err
}
