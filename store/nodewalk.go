package store

import (
	"context"
	"errors"
)

// nodeWalk walks maps downwards, a few nodes at a time.
type nodeWalk struct {
	repo     *Repository
	progress *GCProgress
	known    *knownNodes // may be nil

	// unreadable, where it is not nil, is told of nodes that cannot be read, and
	// the walk goes on.
	unreadable func(ref Ref)
}

// below goes on below nodes of one height, and reads those that are not known.
// visit is told of each child, a chunk's height being 0, and answers whether to
// go on below it. The references of chunks may come without their checksums.
func (w *nodeWalk) below(ctx context.Context, refs []Ref, height, fanout int, visit func(ref Ref, height int) bool) error {
	var next, unknown []Ref
	child := func(ref Ref) {
		if visit(ref, height-1) && height > 1 {
			next = append(next, ref)
		}
	}
	for _, ref := range refs {
		if w.known.each(ref, height, fanout, child) {
			w.progress.Known.Add(1)
		} else {
			unknown = append(unknown, ref)
		}
	}
	var failed error
	err := w.repo.fetchNodes(ctx, unknown, height, fanout, func(at int, n *node, err error) {
		w.progress.Nodes.Add(1)
		if err != nil {
			if w.unreadable == nil || context.Cause(ctx) != nil {
				failed = err
			} else {
				w.unreadable(unknown[at])
			}
			return
		}
		w.known.add(unknown[at], n)
		for i := range n.refs {
			if !n.refs[i].IsZero() {
				child(n.refs[i])
			}
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	// Those of one parent mostly lie side by side.
	for len(next) > 0 {
		n := min(len(next), fanout)
		if err := w.below(ctx, next[:n], height-1, fanout, visit); err != nil {
			return err
		}
		next = next[n:]
	}
	return nil
}
