package rbd

import (
	"context"
	"fmt"
	"math/bits"
	"sync"
	"syscall"

	"github.com/ceph/go-ceph/rbd"

	"backy/hints"
)

const (
	// diffCalls is how many exact diffs run at a time. Each asks the OSDs about
	// several objects at a time itself (rbd_concurrent_management_ops).
	diffCalls = 8

	// windowObjects is how many objects one exact diff covers. It bounds the
	// time without a sign of life and the memory for its extents.
	windowObjects = 128
)

// asked is one question of what differs between a snapshot and the state an
// image is opened at.
type asked struct {
	from           string // "" is the beginning of time: what is allocated
	offset, length int64
	whole          bool // by whole objects: fast diff, where the image has it
	own            bool // without what a clone has of its parent
}

// diff asks librbd and gives each extent to fn, in whatever order and overlap
// they come. fn runs in librbd's callback, so it must neither block nor call
// back into librbd. It returns what result gives afterwards.
//
// Extents of a clone's parent are asked for, unless q.own is set: without them a
// clone's diff leaves out what it has of its parent.
func diff[T any](ctx context.Context, im *image, q asked, fn func(hints.Extent), result func() T) (T, error) {
	what := fmt.Sprintf("diff %s from %q at %d+%d", im.spec, q.from, q.offset, q.length)
	v, err := call(ctx, &im.calls, what, func(alive func()) (T, error) {
		var panicked any
		config := rbd.DiffIterateConfig{
			SnapName: q.from, Offset: uint64(q.offset), Length: uint64(q.length),
			IncludeParent: rbd.IncludeParent,
			// Only a negative number ends the diff, and not at once.
			Callback: func(offset, length uint64, exists int, _ any) (ret int) {
				defer func() {
					if p := recover(); p != nil { // C has no use for it: the process would abort
						panicked, ret = p, -int(syscall.EFAULT)
					}
				}()
				if panicked != nil || ctx.Err() != nil {
					return -int(syscall.ECANCELED)
				}
				alive()
				fn(hints.Extent{Offset: int64(offset), Length: int64(length), Exists: exists != 0})
				return 0
			},
		}
		if q.own {
			config.IncludeParent = rbd.ExcludeParent
		}
		if q.whole {
			config.WholeObject = rbd.EnableWholeObject
		}
		err := im.rbd.DiffIterate(config)
		if panicked != nil {
			err = fmt.Errorf("%s: a bug: %v", what, panicked)
		}
		return result(), err
	}, nil)
	return v, im.conn.named(err, "%s", what)
}

// units is a set of an image's periods, one bit each: 100 TiB of 4 MiB objects
// take 3 MiB, however scattered the set is.
type units struct {
	period int64
	size   int64 // bytes of the image
	bits   []uint64
}

func newUnits(size, period int64) *units {
	n := (size + period - 1) / period
	return &units{period: period, size: size, bits: make([]uint64, (n+63)/64)}
}

// add puts in the periods that [offset, offset+length) touches.
func (u *units) add(offset, length int64) {
	end := min(offset+length, u.size)
	if end <= offset {
		return
	}
	for n := offset / u.period; n*u.period < end; n++ {
		u.bits[n/64] |= 1 << (n % 64)
	}
}

// count is how many periods are in the set.
func (u *units) count() int64 {
	n := int64(0)
	for _, w := range u.bits {
		n += int64(bits.OnesCount64(w))
	}
	return n
}

// windows are the runs of periods in the set, as byte ranges of up to limit
// bytes, at least one period.
func (u *units) windows(limit int64) func(yield func(window) bool) {
	perWindow := max(limit/u.period, 1)
	return func(yield func(window) bool) {
		total := (u.size + u.period - 1) / u.period
		for n := u.next(0, total); n < total; {
			end := n + 1
			for end < total && end-n < perWindow && u.bits[end/64]&(1<<(end%64)) != 0 {
				end++
			}
			if !yield(window{n * u.period, min(end*u.period, u.size)}) {
				return
			}
			n = u.next(end, total)
		}
	}
}

// next is the first period of the set from n on, total where there is none.
func (u *units) next(n, total int64) int64 {
	for n < total {
		w := u.bits[n/64] >> (n % 64)
		if w != 0 {
			return min(n+int64(bits.TrailingZeros64(w)), total)
		}
		n = (n/64 + 1) * 64
	}
	return total
}

// has reports whether a period is in the set.
func (u *units) has(n int64) bool { return u.bits[n/64]&(1<<(n%64)) != 0 }

// window is a byte range.
type window struct{ start, end int64 }

// fast finds the periods with objects that changed since a snapshot: one call
// over the image, since each call loads the object maps anew.
func (im *image) fast(ctx context.Context, from string, size, period int64) (*units, error) {
	return im.periods(ctx, asked{from: from, length: size, whole: true}, period)
}

// own finds the periods of which the image has objects itself, and not its parent
// alone.
func (im *image) own(ctx context.Context, size, period int64) (*units, error) {
	return im.periods(ctx, asked{length: size, whole: true, own: true}, period)
}

func (im *image) periods(ctx context.Context, q asked, period int64) (*units, error) {
	set := newUnits(q.length, period)
	if q.length == 0 {
		return set, nil
	}
	add := func(e hints.Extent) { set.add(e.Offset, e.Length) }
	return diff(ctx, im, q, add, func() *units { return set })
}

// all is the set of all periods.
func all(size, period int64) *units {
	set := newUnits(size, period)
	set.add(0, size)
	return set
}

// exact finds the extents in one window that changed since a snapshot.
func (im *image) exact(ctx context.Context, from string, w window) ([]hints.Extent, error) {
	var found []hints.Extent
	add := func(e hints.Extent) { found = append(found, e) }
	q := asked{from: from, offset: w.start, length: w.end - w.start}
	extents, err := diff(ctx, im, q, add, func() []hints.Extent { return hints.Normalize(found) })
	if err != nil || len(extents) == 0 {
		return nil, err
	}
	if first, last := extents[0], extents[len(extents)-1]; first.Offset < w.start || last.End() > w.end {
		return nil, fmt.Errorf("diff %s at %d+%d: librbd answered with extents outside: %v, %v", im.spec, w.start, w.end-w.start, first, last)
	}
	return extents, nil
}

// changes streams the extents that changed since a snapshot within a set of
// periods: exact diffs of windows, several at a time, handed over in order.
// After the last one it calls vouch, whose error ends the stream.
func (im *image) changes(ctx context.Context, from string, set *units, vouch func(context.Context) error) hints.Seq {
	limit := windowObjects * set.period
	return func(yield func(hints.Extent, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		var group sync.WaitGroup
		defer group.Wait()
		defer cancel()
		queue := make(chan chan result[[]hints.Extent], diffCalls-1)
		group.Go(func() {
			defer close(queue)
			for w := range set.windows(limit) {
				answer := make(chan result[[]hints.Extent], 1)
				select {
				case queue <- answer:
				case <-ctx.Done():
					return
				}
				group.Go(func() {
					extents, err := im.exact(ctx, from, w)
					answer <- result[[]hints.Extent]{extents, err}
				})
			}
		})
		for answer := range queue {
			r := <-answer
			for _, e := range r.value {
				if !yield(e, nil) {
					return
				}
			}
			if r.err != nil {
				yield(hints.Extent{}, r.err)
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(hints.Extent{}, context.Cause(ctx))
		} else if err := vouch(ctx); err != nil {
			yield(hints.Extent{}, err)
		}
	}
}

// estimate guesses how many bytes of data changes will name, from a few of the
// windows, evenly spread, until enough ends: no call is left behind then.
func (im *image) estimate(ctx, enough context.Context, from string, set *units) (int64, error) {
	const samples = 64
	step := max(set.count()/samples, 1)
	var asked, found, n int64
	for w := range set.windows(set.period) {
		if n++; n%step != step/2 && step > 1 {
			continue
		}
		if enough.Err() != nil {
			return 0, context.Cause(enough)
		}
		extents, err := im.exact(ctx, from, w)
		if err != nil {
			return 0, err
		}
		asked += w.end - w.start
		for _, e := range extents {
			if e.Exists {
				found += e.Length
			}
		}
	}
	if asked == 0 {
		return 0, nil
	}
	return int64(float64(found) / float64(asked) * float64(min(set.count()*set.period, set.size))), nil
}
