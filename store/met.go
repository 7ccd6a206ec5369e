package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"syscall"
)

// NoteMet writes down what an error tells to be bad, as a scrub would: whoever
// meets damage while it reads a level calls it. Of a level that is no longer
// there nothing is noted, since that is why it cannot be read: ErrRemoved. An
// error that tells of no damage is passed over.
func (r *Repository) NoteMet(ctx context.Context, l *Level, met error) error {
	var bad *ChunkError
	if !errors.As(met, &bad) {
		return nil
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := r.checkThere(ctx, l); err != nil {
		return err
	}
	return r.NoteDamage(ctx, l, bad)
}

// checkThere fails with ErrRemoved where a level has been removed, or has no
// record any more: an older copy of the repository was put back.
func (r *Repository) checkThere(ctx context.Context, l *Level) error {
	if err := r.CheckRemoved(ctx, l); err != nil {
		return err
	}
	there, err := r.stands(ctx, levelKey(l.Name, l.Number))
	if err == nil && !there {
		err = fmt.Errorf("%s level %s: its record is gone: %w", l.Name, l.Number, ErrRemoved)
	}
	return err
}

// maxSuspects bounds the references that are remembered.
const maxSuspects = 4096

// suspect remembers map nodes that could not be read where they were looked for
// first, but somewhere else: nobody is told of those.
func (r *Repository) suspect(first, lost []wanted) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range first {
		if len(r.suspects) >= maxSuspects {
			return
		}
		if slices.ContainsFunc(lost, func(l wanted) bool { return l.ref == w.ref }) {
			continue
		}
		if r.suspects == nil {
			r.suspects = map[Ref]bool{}
		}
		r.suspects[w.ref] = true
	}
}

// NoteCopies looks at both copies of the map nodes that this repository's
// readers could not have from the first one, writes down those that are bad,
// and returns how many that are. l is the level that was read, and may be nil.
func (r *Repository) NoteCopies(ctx context.Context, l *Level) (bad int, err error) {
	r.mu.Lock()
	refs := slices.SortedFunc(maps.Keys(r.suspects), compareRefs)
	r.suspects = nil
	r.mu.Unlock()
	if l == nil {
		l = &Level{}
	}
	for _, ref := range refs {
		left, err := r.copies(ctx, KindMap, mapsPrefix, ref.Pack)
		if err != nil {
			return bad, err
		}
		if len(left) == 0 {
			continue // collected meanwhile: had a level needed it, its reading would have failed
		}
		isBad := 0
		err = r.CheckNodes(ctx, []Ref{ref}, func(e *ChunkError) error {
			isBad = 1
			return r.NoteDamage(ctx, l, e)
		})
		bad += isBad
		if err != nil {
			return bad, err
		}
	}
	return bad, nil
}

// asNoted passes over that a note could not be put since nothing can be: what is
// done besides must not fail for it. The next to meet the damage notes it.
func (r *Repository) asNoted(err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) || IsFull(err) || r.readOnly != nil && errors.Is(err, r.readOnly) {
		return nil
	}
	return err
}

// noteLost writes down a frame that could not be taken over into a new
// generation, if it cannot be read another time either.
func (r *Repository) noteLost(ctx context.Context, kind Kind, ref Ref) error {
	if ref.Sum == (Checksum{}) {
		return nil
	}
	return r.Fetch(ctx, kind, []Ref{ref}, func(_ int, _ []byte, err error) error {
		var bad *ChunkError
		if !errors.As(err, &bad) {
			return nil
		}
		return r.asNoted(r.NoteDamage(ctx, &Level{}, bad))
	})
}
