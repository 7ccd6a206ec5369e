package engine

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"sync/atomic"

	"backy/hints"
	"backy/store"

	"golang.org/x/sync/errgroup"
)

// A sample of what a backup leaves out is read and compared: at least
// sampleMin chunks, a hundredth of the number changed, at most sampleMax.
const (
	sampleMin = 16
	sampleMax = 256
)

// sampler draws chunks at random, each as likely as any other, from ranges of
// which it learns one after the other: per slot, a reservoir of one that skips
// ahead (J. S. Vitter, Random sampling with a reservoir, 1985).
type sampler struct {
	rand  *rand.Rand
	total int64 // chunks offered so far
	next  int64 // the first of them at which a slot changes its mind
	slots []slot
	last  int64 // the last chunk offered
}

// slot holds a chunk drawn, and the range of which it is one.
type slot struct {
	pos, first, count int64
	next              int64
}

// newSampler sizes the sample for a state.
func newSampler(s *State) *sampler {
	n := max(sampleMax, s.SampleMin)
	x := &sampler{rand: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), last: -1}
	if s.Sample > 0 {
		chunks := s.Size / store.DefaultChunkSize
		n = max(n, int(min(float64(chunks)*s.Sample, 1<<20)))
	}
	x.slots = make([]slot, n)
	return x
}

// add offers the chunks of a range. Ranges ascend.
func (x *sampler) add(first, count int64) {
	end := x.total + count
	x.last = first + count - 1
	if x.next < end {
		x.next = 1<<63 - 1
		for i := range x.slots {
			s := &x.slots[i]
			for s.next < end {
				*s = slot{pos: first + s.next - x.total, first: first, count: count, next: x.skip(s.next + 1)}
			}
			x.next = min(x.next, s.next)
		}
	}
	x.total = end
}

// skip draws the chunk at which a slot that has seen n chunks is replaced next:
// none of the chunks n to m-1 replaces it with probability n/m.
func (x *sampler) skip(n int64) int64 {
	m := float64(n) / (1 - x.rand.Float64())
	if m >= 1<<62 {
		return 1<<63 - 1
	}
	return max(n, int64(m))
}

// verifyOutside compares a sample of what the plan left out, and all that the
// source doubts, with what is claimed of it. It returns the offset of a
// byte range that differs, or -1.
func (b *backup) verifyOutside(ctx context.Context, p *plan) (int64, error) {
	if p.outside == Unknown {
		return -1, nil
	}
	check := b.newChecker(ctx, p.outside)
	positions, err := b.draw(ctx, p)
	if err == nil {
		for _, pos := range positions {
			check.chunk(pos)
		}
		if b.state.Doubt != nil {
			// Chunks that the plan names in part were read whole.
			named := hints.MergeRanges(hints.Chunks(p.extents, b.repo.ChunkSize, b.size), ranges(p.extra))
			err = check.ranges(hints.SubtractRanges(hints.Chunks(b.state.Doubt, b.repo.ChunkSize, b.size), named))
		}
	}
	wrong, waitErr := check.wait()
	if waitErr != nil {
		return -1, waitErr
	}
	return wrong, err
}

// draw returns the positions to be compared, ascending. Every second one is
// moved to the next chunk of its range that the base has, since in a sparse
// image a position drawn blindly is mostly a hole.
func (b *backup) draw(ctx context.Context, p *plan) ([]int64, error) {
	n := min(sampleMax, max(sampleMin, int(b.stats.Changed/b.repo.ChunkSize/100)))
	n = max(n, b.state.SampleMin, int(b.state.Sample*float64(p.sample.total)))
	n = min(n, len(p.sample.slots))
	if p.sample.total == 0 {
		return nil, nil
	}
	positions := []int64{}
	if p.sample.last == b.chunks()-1 {
		positions = append(positions, p.sample.last)
	}
	for i, s := range p.sample.slots[:n] {
		pos := s.pos
		if i%2 == 1 && p.outside == Unchanged {
			var err error
			if pos, err = b.nextInBase(ctx, s); err != nil {
				return nil, err
			}
		}
		positions = append(positions, pos)
	}
	slices.Sort(positions)
	return slices.Compact(positions), nil
}

// nextInBase returns the first position from s.pos on, within the range of the
// slot, that the base has a chunk for; s.pos where there is none.
func (b *backup) nextInBase(ctx context.Context, s slot) (int64, error) {
	m := b.baseMap()
	c := b.repo.Cursor(m)
	for pos := s.pos; pos < min(s.first+s.count, m.Chunks); {
		leaf, err := c.At(ctx, pos)
		if err != nil {
			return 0, err
		}
		for at := pos; at < leaf.End() && leaf.Refs != nil; at++ {
			if !leaf.Ref(at).IsZero() && at < s.first+s.count {
				return at, nil
			}
		}
		pos = leaf.End()
	}
	return s.pos, nil
}

// checker compares chunks of the source with what is claimed of them.
type checker struct {
	b     *backup
	ctx   context.Context
	group *errgroup.Group
	look  baseLookup
	claim Outside
	wrong atomic.Int64

	next   []chunkClaim // not read yet
	most   int          // of them in one read
	atOnce int
}

// chunkClaim is what a chunk should be.
type chunkClaim struct {
	pos  int64
	want store.Ref
}

func (b *backup) newChecker(ctx context.Context, claim Outside) *checker {
	c := &checker{b: b, look: b.baseRefs(ctx), claim: claim}
	c.group, c.ctx = errgroup.WithContext(ctx)
	var calls int
	c.most, c.atOnce, calls = batching(b.state.Reader, b.repo.ChunkSize, workers(b.o.Readers))
	c.group.SetLimit(calls)
	c.wrong.Store(-1)
	return c
}

// ranges compares ranges of chunks up to the first that differs.
func (c *checker) ranges(seq func(yield func(hints.Range, error) bool)) error {
	for r, err := range seq {
		if err != nil {
			return err
		}
		for pos := r.First; pos < r.End() && !r.Hole; pos++ {
			if c.wrong.Load() >= 0 || c.ctx.Err() != nil {
				return nil
			}
			c.chunk(pos)
		}
	}
	return nil
}

// chunk compares one chunk, in the background, once there are enough to be read
// together.
func (c *checker) chunk(pos int64) {
	var want store.Ref
	if c.claim == Unchanged {
		refs, err := c.look(c.ctx, pos, 1)
		if err != nil {
			c.group.Go(func() error { return err })
			return
		}
		want = refs[0]
		if there, err := c.b.inPack(c.ctx, want); err != nil || !there && !c.b.walked {
			c.group.Go(func() error { return cmp.Or(err, errPackGone) })
			return
		}
	}
	if c.next = append(c.next, chunkClaim{pos, want}); len(c.next) == c.most {
		c.flush()
	}
}

// flush has those read that wait for more.
func (c *checker) flush() {
	if list := c.next; len(list) > 0 {
		c.next = nil
		c.group.Go(func() error { return c.compare(list) })
	}
}

// wait waits for all comparisons and returns the offset of a byte range that
// differs, or -1.
func (c *checker) wait() (int64, error) {
	c.flush()
	if err := c.group.Wait(); err != nil {
		return -1, err
	}
	return c.wrong.Load(), nil
}

func (c *checker) compare(list []chunkClaim) error {
	size := c.b.repo.ChunkSize
	buffer := getBuffer(len(list) * int(size))
	pieces := make([]Piece, len(list))
	for i, l := range list {
		n := int(chunkLength(l.pos, size, c.b.size))
		pieces[i] = Piece{buffer[i*int(size):][:n], l.pos * size}
	}
	if err := readMany(c.b.state.Reader, pieces, c.atOnce); err != nil {
		return err
	}
	defer putBuffer(buffer)
	c.b.w.Moved()
	for i, p := range pieces {
		c.b.o.Progress.Read.Add(int64(len(p.Data)))
		c.b.sampled.Add(int64(len(p.Data)))
		want := list[i].want
		if isZero(p.Data) != want.IsZero() || !want.IsZero() && store.Sum(p.Data) != want.Sum {
			c.wrong.CompareAndSwap(-1, p.Offset)
		}
	}
	return nil
}
