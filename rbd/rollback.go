package rbd

import (
	"context"
	"errors"
	"fmt"

	"github.com/ceph/go-ceph/rados"
)

const (
	// rollbacksAtOnce is how many objects librbd rolls back at a time, unless
	// rbd_concurrent_management_ops says otherwise.
	rollbacksAtOnce = 10

	// guesses is how many periods are looked at before librbd is asked which ones
	// have objects.
	guesses = 16

	// mostAsked bounds the search where objects that the object map has are not
	// there.
	mostAsked = 1000
)

// checkRollback looks whether the image was rolled back to an older snapshot in
// a span of which fast diff has named the changed periods. Error: ErrFastDiff, if
// it was, or if that cannot be told.
//
// A rollback replaces the image's object map by that of the snapshot it goes
// back to. What was written between that snapshot and the span's first, and is
// other than there again, counts as unchanged from then on: fast diff leaves it
// out, in silence (TestFastDiffTrap).
//
// The image's header keeps no trace of a rollback, but its objects do. librbd has
// the OSDs roll back each one that there is, in the order of their numbers and
// also where it is the same in the snapshot, and that gives it a new version
// (PrimaryLogPG::_rollback_to of Ceph's src/osd/PrimaryLogPG.cc). So the first
// object of those that fast diff counts as unchanged tells. Where the image
// still has an older snapshot, the first few of them do: then a rollback that
// was killed is not overlooked either.
func (im *image) checkRollback(ctx context.Context, s span, prefix string, changed *units) error {
	w := witnesses{im: im, span: s, prefix: prefix, need: 1}
	if s.older {
		w.need = rollbacksAtOnce
	}
	p := period(s.layout)
	end := (min(s.from.size, s.to.size) + p - 1) / p
	n := int64(0)
	for ; n < end && w.found < w.need && w.asked < guesses; n++ {
		if !changed.has(n) {
			if err := w.ask(ctx, n); err != nil {
				return err
			}
		}
	}
	if w.found >= w.need || w.found > 0 && n == end {
		return nil
	}
	own, err := im.own(ctx, s.to.size, p)
	if err != nil {
		return err
	}
	return w.search(ctx, own.next, changed, end)
}

// witnesses are objects whose versions at both ends of a span are compared.
type witnesses struct {
	im     *image
	span   span
	prefix string // of their names
	need   int
	found  int
	asked  int // periods that were looked at
}

// search looks at the unchanged periods, of which the object map says that they
// have objects.
func (w *witnesses) search(ctx context.Context, next func(n, end int64) int64, changed *units, end int64) error {
	w.asked, w.found = 0, 0
	for n := next(0, end); n < end && w.found < w.need && w.asked < mostAsked; n = next(n+1, end) {
		if !changed.has(n) {
			if err := w.ask(ctx, n); err != nil {
				return err
			}
		}
	}
	if w.found == 0 && w.asked > 0 {
		return fmt.Errorf("%s: %w: the object map has objects that are not there", w.im.spec.at(""), ErrFastDiff)
	}
	return nil
}

// ask looks at the objects of a period. Error: ErrFastDiff, if the version of one
// has changed.
func (w *witnesses) ask(ctx context.Context, period int64) error {
	w.asked++
	what := "ask for the versions of objects of " + w.im.spec.String()
	found, err := call(ctx, &w.im.calls, what, func(func()) (found int, err error) {
		io, err := w.open()
		if err != nil {
			return 0, w.im.conn.named(err, "%s", what)
		}
		defer io.Destroy()
		count := int64(max(w.span.layout.StripeCount, 1))
		for n := period * count; n < (period+1)*count; n++ {
			object := fmt.Sprintf("%s.%016x", w.prefix, n)
			was, err := version(io, object, w.span.from.id)
			if err != nil {
				return found, w.im.conn.named(err, "%s", what)
			}
			is, err := version(io, object, w.span.to.id)
			if err != nil {
				return found, w.im.conn.named(err, "%s", what)
			}
			if was != is {
				return found, fmt.Errorf("%s: %w: the image was rolled back after its snapshot %s", w.im.spec.at(""), ErrFastDiff, w.span.from.name)
			}
			if is != 0 {
				found++
			}
		}
		return found, nil
	}, nil)
	w.found += found
	return err
}

// open opens the pool that has the image's data.
func (w *witnesses) open() (*rados.IOContext, error) {
	pool := w.span.layout.DataPool
	if pool == "" {
		pool = w.im.spec.Pool
	}
	io, err := w.im.conn.rados.OpenIOContext(pool)
	if err == nil {
		io.SetNamespace(w.im.spec.Namespace)
	}
	return io, err
}

// version is an object's as a snapshot has it, 0 if it has none.
func version(io *rados.IOContext, object string, snap uint64) (uint64, error) {
	if snap == 0 {
		io.SetReadSnap(rados.SnapHead)
	} else {
		io.SetReadSnap(rados.SnapID(snap))
	}
	_, err := io.Read(object, make([]byte, 1), 0)
	if errors.Is(err, rados.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return io.GetLastVersion()
}
