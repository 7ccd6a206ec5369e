package engine

import (
	"context"
	"io"
	"time"

	"golang.org/x/time/rate"
)

// Rate caps how many bytes a second are read, over everything that shares it.
// nil caps nothing. It is safe for concurrent use.
type Rate struct{ limiter *rate.Limiter }

// slice is what is waited for at a time, so that a small read need not wait
// for the whole of a large one before it.
const slice = 256 << 10

// NewRate makes a cap of so many bytes a second; nil for 0.
func NewRate(bytesPerSecond int64) *Rate {
	if bytesPerSecond <= 0 {
		return nil
	}
	// The bucket is small, and empty at first: no run begins with a rush.
	l := rate.NewLimiter(rate.Limit(bytesPerSecond), slice)
	l.AllowN(time.Now(), slice)
	return &Rate{l}
}

// wait returns when n more bytes may be read, or with the cause of ctx's end.
func (r *Rate) wait(ctx context.Context, n int64) error {
	if r == nil {
		return nil
	}
	for n > 0 {
		now := min(n, slice)
		if err := r.limiter.WaitN(ctx, int(now)); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
		n -= now
	}
	return nil
}

// Budget bounds what backups that go on at the same time read at a time, and
// the memory that they take, all of them together. nil bounds nothing. It is
// safe for concurrent use.
type Budget struct {
	readers chan struct{} // one for each read
	units   chan struct{} // one for each unit from before it is read until it is packed
	packs   int64         // bytes for the packs of one of the backups
}

// budgetPacks is the memory for the packs of all backups of a budget, in bytes.
const budgetPacks = 128 << 20

// NewBudget makes a budget of so many reads at a time, 0 for the usual 8,
// for so many backups.
func NewBudget(readers, backups int) *Budget {
	readers = workers(readers)
	return &Budget{
		readers: make(chan struct{}, readers),
		units:   make(chan struct{}, 2*readers+2), // as many as one backup has
		packs:   budgetPacks / int64(max(backups, 1)),
	}
}

// packMemory is what one backup may take for its packs; 0: as it likes.
func (b *Budget) packMemory() int64 {
	if b == nil {
		return 0
	}
	return b.packs
}

func take(ctx context.Context, slots chan struct{}) error {
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// holder counts the units of one backup's pass. Units are taken in image order,
// so that the one that must be packed next always has its place already.
type holder struct {
	budget *Budget
	held   chan struct{} // as many as budget.units takes
}

func (b *Budget) holder() *holder {
	if b == nil {
		return nil
	}
	return &holder{b, make(chan struct{}, cap(b.units))}
}

func (h *holder) take(ctx context.Context) error {
	if h == nil {
		return nil
	}
	if err := take(ctx, h.budget.units); err != nil {
		return err
	}
	h.held <- struct{}{}
	return nil
}

// give gives one unit back, if any is held.
func (h *holder) give() (held bool) {
	if h == nil {
		return false
	}
	select {
	case <-h.held:
		<-h.budget.units
		return true
	default:
		return false
	}
}

// giveAll is for the end of a pass, however it came.
func (h *holder) giveAll() {
	for h.give() {
	}
}

// govern makes a state read within a rate and a budget, until ctx ends.
func govern(ctx context.Context, s *State, r *Rate, b *Budget) {
	if r == nil && b == nil {
		return
	}
	if s.Reader != nil {
		s.Reader = governed(&governedReader{ctx, s.Reader, r, b, make(chan struct{}, 1)})
	}
	if s.Stream != nil {
		s.Stream = &governedStream{ctx, s.Stream, r}
	}
}

type governedReader struct {
	ctx    context.Context // io.ReaderAt has no place for one
	reader io.ReaderAt
	rate   *Rate
	budget *Budget

	// turn lets one read of this backup wait for the rate at a time, so that
	// each backup gets its share of it, however many reads it has to do.
	turn chan struct{}
}

func (g *governedReader) ReadAt(p []byte, off int64) (int, error) {
	if err := g.wait(int64(len(p))); err != nil {
		return 0, err
	}
	if g.budget != nil {
		if err := take(g.ctx, g.budget.readers); err != nil {
			return 0, err
		}
		defer func() { <-g.budget.readers }()
	}
	return g.reader.ReadAt(p, off)
}

func (g *governedReader) wait(n int64) error {
	if g.rate == nil {
		return nil
	}
	if err := take(g.ctx, g.turn); err != nil {
		return err
	}
	defer func() { <-g.turn }()
	return g.rate.wait(g.ctx, n)
}

type governedStream struct {
	ctx    context.Context
	stream io.Reader
	rate   *Rate
}

// Read waits after it has read, since only then it is known how much came.
func (g *governedStream) Read(p []byte) (int, error) {
	n, err := g.stream.Read(p)
	if waitErr := g.rate.wait(g.ctx, int64(n)); waitErr != nil && err == nil {
		err = waitErr
	}
	return n, err
}
