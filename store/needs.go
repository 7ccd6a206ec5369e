package store

import (
	"context"
	"errors"
	"fmt"
)

// needs finds out what levels need.
type needs struct {
	repo     *Repository
	progress *GCProgress
}

func (g *gc) needs() needs { return needs{g.repo, g.o.Progress} }

// each calls visit for every chunk and map node that a level needs, and bad for
// nodes that cannot be read.
func (n needs) each(ctx context.Context, l *Level, visit func(kind Kind, ref Ref) error, bad func(ref Ref)) (err error) {
	m := l.Map()
	if m.Root.IsZero() {
		return nil
	}
	seen := newLiveSet()
	seen.add(m.Root)
	w := nodeWalk{repo: n.repo, progress: n.progress, unreadable: bad}
	if err := visit(KindMap, m.Root); err != nil {
		return err
	}
	walkErr := w.below(ctx, []Ref{m.Root}, m.height(), m.Fanout, func(ref Ref, height int) bool {
		if err != nil {
			return false
		}
		if height == 0 {
			err = visit(KindData, ref)
			return false
		}
		if !seen.add(ref) {
			return false
		}
		err = visit(KindMap, ref)
		return err == nil
	})
	return errors.Join(err, walkErr)
}

// missing finds what a level needs and cannot be had: nodes are read, of chunks
// the tables of their packs, and those that these do not have.
func (n needs) missing(ctx context.Context, l *Level) (list []*ChunkError, err error) {
	r := n.repo
	tables := tableCache{repo: r}
	note := func(_ int, _ []byte, err error) error {
		var bad *ChunkError
		if errors.As(err, &bad) {
			list = append(list, bad)
		}
		return nil
	}
	err = n.each(ctx, l, func(kind Kind, ref Ref) error {
		n.progress.moved.Add(1)
		if kind == KindMap {
			return nil // its reading shows
		}
		sums, err := tables.sums(ctx, ref.Pack)
		if err != nil {
			return err
		}
		if int(ref.Index) < len(sums) && sums[ref.Index] == ref.Sum {
			return nil
		}
		return r.Fetch(ctx, kind, []Ref{ref}, note)
	}, func(ref Ref) {
		list = append(list, &ChunkError{Kind: KindMap, Ref: ref, Cause: fmt.Errorf("%w: no copy of it can be read", errBadPack)})
	})
	return list, err
}
