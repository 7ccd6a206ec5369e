package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	simFanout = 4
	simChunks = 24
	simKinds  = 12 // contents of a chunk; 0 is a hole
)

// simBytes are the raw bytes of a chunk that the oracle writes as one byte, and
// simSums their checksums.
var (
	simBytes [simKinds][]byte
	simSums  = map[Checksum]byte{}
)

func init() {
	for content := range simBytes {
		rnd := rand.New(rand.NewPCG(uint64(content), 1))
		p := make([]byte, 60)
		for i := range p {
			p[i] = byte(rnd.Uint32())
		}
		simBytes[content] = p
		simSums[Sum(p)] = byte(content)
	}
}

// write makes a level, as the engine does: what is as in the base is left as it
// is, unless it is known to be bad.
func (h *host) write(ctx context.Context, r *Repository, w *Writer, base *Level, contents [simChunks]byte) error {
	m := Map{Fanout: simFanout}
	var before [simChunks]Ref
	if base != nil {
		m = base.Map()
		if err := simRefs(ctx, r, m, before[:]); err != nil {
			return err
		}
	}
	if err := w.BeginMap(ctx, m, simChunks); err != nil {
		return err
	}
	coder := r.NewCoder(CompressNone)
	for pos, content := range contents {
		ref, err := h.place(ctx, w, coder, before[pos], content)
		if err != nil {
			return err
		}
		if ref == before[pos] {
			continue
		}
		if err := w.Set(ctx, int64(pos), ref); err != nil {
			return err
		}
	}
	root, err := w.FinishMap(ctx, simChunks)
	if err != nil {
		return err
	}
	l := Level{
		Name: w.claim.Name, Number: w.Number, Run: w.ID, Size: simChunks * r.ChunkSize, ChunkSize: r.ChunkSize,
		Fanout: simFanout, Root: root, Time: time.Now(),
	}
	h.w.oracle.written(&l, contents)
	switch err = w.Commit(ctx, &l); {
	case h.adrift:
		// What it says is about the repository that was there before.
	case err == nil:
		h.w.oracle.promise(l.Run)
		h.w.figures.Levels++
		h.w.figures.Mended += int(w.Mended())
	case !errors.Is(err, ErrUndecided) && !h.crashed:
		h.w.oracle.deny(l.Run)
	}
	return err
}

// place returns the reference for a content where the base has another, maybe
// the same.
func (h *host) place(ctx context.Context, w *Writer, coder *Coder, base Ref, content byte) (ref Ref, err error) {
	if content == 0 {
		return Ref{}, nil
	}
	raw := simBytes[content]
	sum := Sum(raw)
	bad := len(w.Damage.Of(sum)) > 0
	asBefore := base.Sum == sum
	if !bad {
		if asBefore {
			return base, nil
		}
		if ref, ok, err := w.Known(ctx, sum); ok || err != nil {
			return ref, err
		}
	}
	e, err := coder.Encode(raw, sum)
	if err != nil {
		return ref, err
	}
	if asBefore && w.Mendable(base) {
		return base, w.Mend(ctx, e, base)
	}
	if bad {
		if err := w.Mend(ctx, e, Ref{}); err != nil {
			return ref, err
		}
	}
	ref, _, err = w.PutChunk(ctx, e)
	return ref, err
}

// simRefs reads a map.
func simRefs(ctx context.Context, r *Repository, m Map, refs []Ref) error {
	c := r.Cursor(m)
	for pos := int64(0); pos < m.Chunks; {
		leaf, err := c.At(ctx, pos)
		if err != nil {
			return err
		}
		copy(refs[leaf.First:leaf.End()], leaf.Refs)
		pos = leaf.End()
	}
	return nil
}

// read returns what a level holds, with what of it cannot be had.
func (h *host) read(ctx context.Context, r *Repository, l *Level) (contents [simChunks]byte, bad map[int64]*ChunkError, err error) {
	var refs [simChunks]Ref
	if err := simRefs(ctx, r, l.Map(), refs[:]); err != nil {
		return contents, nil, err
	}
	var wanted []Ref
	var places []int64
	for pos, ref := range refs {
		if !ref.IsZero() {
			wanted, places = append(wanted, ref), append(places, int64(pos))
		}
	}
	bad = map[int64]*ChunkError{}
	err = r.Fetch(ctx, KindData, wanted, func(i int, raw []byte, err error) error {
		var e *ChunkError
		if errors.As(err, &e) {
			bad[places[i]] = e
			return nil
		}
		content, known := simSums[Sum(raw)]
		if !known {
			return fmt.Errorf("position %d: bytes that nobody wrote", places[i])
		}
		contents[places[i]] = content
		return err
	})
	return contents, bad, err
}
