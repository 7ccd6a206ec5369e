package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"backy/hints"
	"backy/store"
)

// ScrubOptions are the choices of a scrub. The zero value checks every chunk
// against its checksum.
type ScrubOptions struct {
	Percent  float64   // of the chunks, drawn at random; 0 or 100: all
	Quick    bool      // check the CRC of what is stored only; not with a Source
	Source   *View     // where not nil, a deep scrub: compare with it too
	Readers  int       // units in work at a time; 0: 8
	Rate     *Rate     // caps reading; may be nil
	Progress *Progress // may be nil
	Warn     Warn      // of what does not end a scrub; may be nil

	// Beat is how often the repository is told that the level is still being read,
	// and asked whether it is still there; 0: a minute.
	Beat time.Duration
}

// unnoted warns of what was checked but could not be noted as such, as in a
// repository on a read-only mount.
func (w Warn) unnoted(ctx context.Context, err error) error {
	if err == nil || context.Cause(ctx) != nil {
		return err
	}
	if w != nil {
		w("what was checked cannot be noted: %v", err)
	}
	return nil
}

// ScrubReport is what a scrub found. Extents are byte ranges of the image,
// merged; Exists is true in all of them.
type ScrubReport struct {
	Checked   int64          `json:"checked"`   // number of chunks read and checked, holes not counted
	Bytes     int64          `json:"bytes"`     // raw bytes of those
	Compared  int64          `json:"compared"`  // bytes compared with the source
	Damaged   []hints.Extent `json:"damaged"`   // whose chunks are bad
	Different []hints.Extent `json:"different"` // where the source has other bytes
	MapNodes  int64          `json:"map_nodes"` // bad copies of map nodes whose twin is good
	Seconds   float64        `json:"seconds"`
}

// scrub is one run of Scrub.
type scrub struct {
	noter
	o      ScrubOptions
	report ScrubReport
	rand   *rand.Rand
	mu     sync.Mutex // guards the report's extents
}

// Scrub checks a level and writes down what is bad, for the next backup to
// mend. It goes on after what it finds and returns the report with a
// *DamagedError, or else a *DifferentError, or nil.
func Scrub(ctx context.Context, repo *store.Repository, level store.Level, o ScrubOptions) (ScrubReport, error) {
	if o.Progress == nil {
		o.Progress = &Progress{}
	}
	o.Progress.Total.Store(level.Size)
	started := time.Now()
	s := &scrub{noter: noter{repo: repo, level: &level, warn: o.Warn}, o: o, rand: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))}
	moved := func() int64 { return o.Progress.Done.Load() + o.Progress.Read.Load() }
	held, release := repo.Hold(ctx, &level, store.HoldOptions{Beat: o.Beat, Moved: moved, Warn: o.Warn})
	defer release()
	err := pipeline(held, workers(o.Readers), s.produce, s.check, func(context.Context, *piece) error { return nil })
	r := &s.report
	r.Damaged, r.Different = hints.Normalize(r.Damaged), hints.Normalize(r.Different)
	r.Seconds = time.Since(started).Seconds()
	if err != nil {
		return *r, err
	}
	if len(r.Different) > 0 {
		if err := repo.MarkDiffers(ctx, level.Name); err != nil {
			return *r, fmt.Errorf("note that the source differs: %w", err)
		}
	}
	switch {
	case len(r.Damaged) > 0 || r.MapNodes > 0:
		return *r, &DamagedError{Name: level.Name, Level: level.Number, Extents: r.Damaged, MapNodes: r.MapNodes}
	case len(r.Different) > 0:
		return *r, &DifferentError{Name: level.Name, Level: level.Number, Extents: r.Different}
	}
	if o.Quick || o.Percent > 0 && o.Percent < 100 {
		return *r, nil
	}
	return *r, o.Warn.unnoted(ctx, repo.MarkScrubbed(ctx, &level, started))
}

// produce emits what is to be checked: every chunk of the level, and in a deep
// scrub what the source has where the level has none; of all these, a share
// drawn at random.
func (s *scrub) produce(ctx context.Context, emit func(*piece) error) error {
	look := s.levelRefs()
	perUnit := int64(unitBytes) / s.level.ChunkSize
	chosen := s.choose(s.wanted(ctx))
	for r, err := range chosen {
		if err != nil {
			return err
		}
		for pos := r.First; pos < r.End(); {
			end := min(r.End(), (pos/perUnit+1)*perUnit)
			p := &piece{first: pos, count: end - pos}
			if p.refs, err = look(ctx, pos, end-pos); err != nil {
				return err
			}
			if p.refs != nil {
				if err := emit(p); err != nil {
					return err
				}
			}
			s.o.Progress.Done.Store(end * s.level.ChunkSize)
			pos = end
		}
	}
	s.o.Progress.Done.Store(s.level.Size)
	return s.compareSizes()
}

// compareSizes notes what only one of the level and the source has.
func (s *scrub) compareSizes() error {
	if v := s.o.Source; v != nil && v.Size != s.level.Size {
		from, to := min(v.Size, s.level.Size), max(v.Size, s.level.Size)
		s.found(&s.report.Different, hints.Extent{Offset: from, Length: to - from, Exists: true})
	}
	return nil
}

func (s *scrub) found(list *[]hints.Extent, e hints.Extent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*list = append(*list, e)
	s.o.Progress.Bad.Add((e.Length + s.level.ChunkSize - 1) / s.level.ChunkSize)
}

type rangeSeq = func(yield func(hints.Range, error) bool)

// wanted streams the chunks that can be checked, ascending.
func (s *scrub) wanted(ctx context.Context) rangeSeq {
	if s.o.Source == nil {
		return s.existing(ctx)
	}
	extents := s.o.Source.Extents
	if extents == nil {
		extents = hints.Whole(s.o.Source.Size)
	}
	return hints.MergeRanges(s.existing(ctx), data(hints.Chunks(hints.Clip(extents, s.level.Size), s.level.ChunkSize, s.level.Size)))
}

// data leaves out the holes of a stream.
func data(seq rangeSeq) rangeSeq {
	return func(yield func(hints.Range, error) bool) {
		for r, err := range seq {
			if err == nil && r.Hole {
				continue
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

// existing streams the chunks that the level has. Where its map is damaged, it
// says so in the report and goes on behind.
func (s *scrub) existing(ctx context.Context) rangeSeq {
	return func(yield func(hints.Range, error) bool) {
		m := s.level.Map()
		c := s.repo.Cursor(m)
		c.OnNodes(func(refs []store.Ref) error { return s.checkCopies(ctx, refs) })
		for pos := int64(0); pos < m.Chunks; {
			leaf, err := c.At(ctx, pos)
			var lost *store.NodeError
			if errors.As(err, &lost) && context.Cause(ctx) == nil {
				s.found(&s.report.Damaged, extentOf(s.level, lost.First, lost.Count))
				pos = lost.First + lost.Count
				continue
			}
			if err != nil {
				yield(hints.Range{}, err)
				return
			}
			for i := 0; i < len(leaf.Refs); {
				n := 0
				for i+n < len(leaf.Refs) && !leaf.Refs[i+n].IsZero() {
					n++
				}
				if n > 0 && !yield(hints.Range{First: leaf.First + int64(i), Count: int64(n)}, nil) {
					return
				}
				i += n + 1
			}
			pos = leaf.End()
		}
	}
}

// checkCopies counts the copies of map nodes that are bad, and notes them.
func (s *scrub) checkCopies(ctx context.Context, refs []store.Ref) error {
	return s.repo.CheckNodes(ctx, refs, func(bad *store.ChunkError) error {
		s.report.MapNodes++
		return s.note(ctx, bad)
	})
}

// choose draws the share of the chunks that is asked for, and one at least.
func (s *scrub) choose(seq rangeSeq) rangeSeq {
	if s.o.Percent <= 0 || s.o.Percent >= 100 {
		return seq
	}
	share := s.o.Percent / 100
	return func(yield func(hints.Range, error) bool) {
		var spare hints.Range // one of those not chosen, each as likely
		seen, chosen := 0, 0
		for r, err := range seq {
			if err != nil {
				yield(r, err)
				return
			}
			for pos := r.First; pos < r.End(); pos++ {
				one := hints.Range{First: pos, Count: 1}
				if seen++; s.rand.IntN(seen) == 0 {
					spare = one
				}
				if s.rand.Float64() >= share {
					continue
				}
				if chosen++; !yield(one, nil) {
					return
				}
			}
		}
		if chosen == 0 && seen > 0 {
			yield(spare, nil)
		}
	}
}

// levelRefs returns a lookup of the level's references; nil where the map is
// damaged, which existing reports.
func (s *scrub) levelRefs() baseLookup {
	look := refsOf(s.repo, s.level.Map())
	return func(ctx context.Context, first, count int64) ([]store.Ref, error) {
		refs, err := look(ctx, first, count)
		var lost *store.NodeError
		if errors.As(err, &lost) && context.Cause(ctx) == nil {
			return nil, nil
		}
		return refs, err
	}
}

// check reads a piece, and compares it with the source where there is one.
func (s *scrub) check(ctx context.Context, p *piece) error {
	e := extentOf(s.level, p.first, p.count)
	wanted := e.Length // of the source, which is read as a whole
	if s.o.Source == nil {
		wanted = dataBytes(p.refs, e.Length, s.level.ChunkSize)
	}
	if err := s.o.Rate.wait(ctx, wanted); err != nil {
		return err
	}
	if s.o.Quick && s.o.Source == nil {
		return s.checkStored(ctx, p, e)
	}
	stored := getBuffer(int(e.Length))
	defer putBuffer(stored)
	bad, err := s.fetchInto(ctx, p.first, p.refs, stored)
	if err != nil {
		return err
	}
	for _, b := range bad {
		s.found(&s.report.Damaged, extentOf(s.level, b.pos, 1))
	}
	s.count(p)
	s.o.Progress.Read.Add(e.Length)
	if s.o.Source == nil {
		return nil
	}
	return s.compare(p, e, stored, bad)
}

// checkStored is check without decompressing.
func (s *scrub) checkStored(ctx context.Context, p *piece, e hints.Extent) error {
	var wanted []store.Ref
	var at []int64
	for i, ref := range p.refs {
		if !ref.IsZero() {
			wanted, at = append(wanted, ref), append(at, p.first+int64(i))
		}
	}
	err := s.repo.CheckStored(ctx, wanted, func(i int, err error) error {
		if err == nil {
			return nil
		}
		s.found(&s.report.Damaged, extentOf(s.level, at[i], 1))
		return s.note(ctx, err)
	})
	s.count(p)
	s.o.Progress.Read.Add(e.Length)
	return err
}

func (s *scrub) count(p *piece) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, ref := range p.refs {
		if !ref.IsZero() {
			s.report.Checked++
			s.report.Bytes += extentOf(s.level, p.first+int64(i), 1).Length
		}
	}
}

// compare holds what is stored against the source, holes included.
func (s *scrub) compare(p *piece, e hints.Extent, stored []byte, bad []badChunk) error {
	e.Length = min(e.Length, s.o.Source.Size-e.Offset) // what is beyond differs anyway
	if e.Length <= 0 {
		return nil
	}
	live := getBuffer(int(e.Length))
	if err := readFull(s.o.Source.Reader, live, e.Offset); err != nil {
		return fmt.Errorf("read the source, %d bytes at %d: %w", e.Length, e.Offset, err)
	}
	defer putBuffer(live)
	s.mu.Lock()
	s.report.Compared += e.Length
	s.mu.Unlock()
	for i := range p.refs {
		pos := p.first + int64(i)
		from := int64(i) * s.level.ChunkSize
		to := min(from+s.level.ChunkSize, e.Length)
		if from >= to || isBad(bad, pos) || bytes.Equal(stored[from:to], live[from:to]) {
			continue
		}
		s.found(&s.report.Different, hints.Extent{Offset: e.Offset + from, Length: to - from, Exists: true})
	}
	return nil
}

func isBad(bad []badChunk, pos int64) bool {
	for _, b := range bad {
		if b.pos == pos {
			return true
		}
	}
	return false
}
