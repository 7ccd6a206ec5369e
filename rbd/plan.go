package rbd

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/ceph/go-ceph/rados"

	"backy/engine"
	"backy/store"
)

// span is the part of an image's history that a diff covers.
type span struct {
	handle string // the image's id
	layout store.RBDLayout
	from   snapshot   // without an id: from the beginning of time
	to     snapshot   // what is read; without an id: the image as it is now
	chain  []snapshot // all snapshots from from to to
	older  bool       // the image has snapshots that are older than from

	doubtful bool // to may have been made during a live migration
}

// newSpan picks what lies in between from the image's snapshots.
func newSpan(handle string, l store.RBDLayout, list []snapshot, from, to snapshot) span {
	s := span{handle: handle, layout: l, from: from, to: to}
	for _, snap := range list {
		if from.id <= snap.id && (to.id == 0 || snap.id <= to.id) {
			s.chain = append(s.chain, snap)
		}
		s.older = s.older || snap.id < from.id
	}
	return s
}

// candidates are the periods where something may have changed in a span: those
// that fast diff names where it can be trusted, else all. fast tells which.
func (im *image) candidates(ctx context.Context, s span, d Diff, warn engine.Warn) (set *units, fast bool, err error) {
	p := period(s.layout)
	if d == DiffExact {
		return all(s.to.size, p), false, nil
	}
	prefix, err := im.distrustFast(ctx, s)
	if err == nil {
		set, err = im.fast(ctx, s.from.name, s.to.size, p)
	}
	if err == nil && s.from.id != 0 {
		err = im.checkRollback(ctx, s, prefix, set)
	}
	switch {
	case err == nil:
		return set, true, nil
	case !errors.Is(err, ErrFastDiff):
		return nil, false, err
	case d == DiffFast:
		return nil, false, fmt.Errorf("%w: use --diff auto", err)
	case errors.Is(err, errInvalidMap) && warn != nil:
		warn("%v; every object is asked for instead, which takes longer", err)
	}
	return all(s.to.size, p), false, nil
}

// distrustFast says why fast diff may miss changes in a span, with ErrFastDiff.
// Where it does not, only a rollback is still to be ruled out: prefix is that of
// the objects for checkRollback.
//
// Fast diff compares the object maps that are kept with the snapshots. Those are
// right where their flags do not say otherwise. But where the image was shrunk, a
// snapshot made, and the image grown again, librbd leaves out the objects that
// the shrinking took away and nobody has written since: what was data reads as
// zeros, and counts as unchanged. Measured on 16.2.15 and on 18.2.7, which both
// do so, whatever snapshots were made later; without a snapshot in between, both
// name those objects. So on every release it is trusted only where no snapshot
// is smaller than the one before. TestFastDiffTrap tells when one does better.
func (im *image) distrustFast(ctx context.Context, s span) (prefix string, err error) {
	if !hasFastDiff(s.layout) {
		return "", fmt.Errorf("%s: %w: the image does not have the features object-map and fast-diff", im.spec.at(""), ErrFastDiff)
	}
	if s.from.id != 0 && s.doubtful {
		return "", fmt.Errorf("%s: %w: it is not known that %s was not made during a live migration", im.spec.at(""), ErrFastDiff, s.to.name)
	}
	ids := make([]uint64, len(s.chain))
	last := s.to
	for i := len(s.chain) - 1; i >= 0; i-- {
		snap := s.chain[i]
		if snap.size > last.size {
			return "", fmt.Errorf("%s: %w: the image was shrunk after its snapshot %s", im.spec.at(""), ErrFastDiff, snap.name)
		}
		ids[i], last = snap.id, snap
	}
	what := fmt.Sprintf("ask for the flags of %s", im.spec.at(""))
	maps, err := inPool(ctx, im.conn, im.spec, what, func(io *rados.IOContext) (mapState, error) {
		return readMapState(io, s.handle, ids)
	})
	if errors.Is(err, syscall.ENOENT) {
		return "", fmt.Errorf("%s: %w: one of its snapshots was removed just now", im.spec.at(""), ErrFastDiff)
	}
	if err != nil {
		return "", err
	}
	if maps.invalid {
		return "", fmt.Errorf("%s: %w", im.spec.at(""), errInvalidMap)
	}
	return maps.prefix, nil
}

// errInvalidMap is the reason that is worth a warning, since the image's owner
// can mend it; the others are a choice.
var errInvalidMap = fmt.Errorf("%w: the object map of the image or of one of its snapshots is marked invalid (rbd object-map rebuild mends it)", ErrFastDiff)
