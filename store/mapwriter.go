package store

import (
	"context"
	"fmt"
	"slices"
)

// mapWriter makes the map of a new level out of its base's and a stream of
// changes in ascending order of position. Only the nodes above a change are
// read and written; all others are shared.
//
// Invariant: the new map equals the base's, cut or lengthened to the new
// number of positions, with the changes applied; no node of it is empty; a
// node whose children are those of the base's node at its place is the
// base's node.
type mapWriter struct {
	repo   *Repository
	coder  *Coder
	append func(Encoded, FrameType) (Ref, error)
	chunks int64 // positions end here; unknownChunks until Finish
	height int   // of the root that Finish leaves
	fanout int
	path   []*openNode // from the root down
	next   int64       // changes below are done
	buf    []byte
}

// openNode is a node that may still change.
type openNode struct {
	height int
	first  int64
	refs   []Ref
	base   Ref // the node of the base's map that refs began as
	dirty  bool
}

// unknownChunks stands for a size that is known only at the end; 2^45 chunks
// of 16 KiB are more than a file can have.
const unknownChunks = 1 << 45

// newMapWriter begins a map of at most so many positions from a base, whose
// Root is zero where there is none. It and the writer's methods answer with a
// *NodeError where the base's map is damaged.
func newMapWriter(ctx context.Context, r *Repository, base Map, chunks int64, coder *Coder,
	appendFrame func(Encoded, FrameType) (Ref, error),
) (*mapWriter, error) {
	w := &mapWriter{repo: r, coder: coder, append: appendFrame, chunks: chunks, fanout: r.fanout}
	if !base.Root.IsZero() && base.Fanout != r.fanout {
		return nil, fmt.Errorf("the base's map has a fan-out of %d, the repository of %d", base.Fanout, r.fanout)
	}
	height := Map{Chunks: chunks, Fanout: w.fanout}.height()
	w.height = height
	root, rootHeight := base.Root, base.height()
	for !root.IsZero() && rootHeight > height {
		n, err := r.node(ctx, root, rootHeight, w.fanout)
		if err != nil {
			return nil, nodeError(0, base.Chunks, err)
		}
		root, rootHeight = n.refs[0], rootHeight-1
	}
	if root.IsZero() || rootHeight == height {
		return w, w.open(ctx, root, height, 0)
	}
	// The image has grown: the base's root becomes the first child of nodes
	// above it, which are new.
	for h := height; h > rootHeight; h-- {
		w.path = append(w.path, &openNode{height: h, refs: make([]Ref, w.fanout), dirty: true})
	}
	w.top().refs[0] = root
	return w, nil
}

func (w *mapWriter) top() *openNode { return w.path[len(w.path)-1] }

// open goes down to the node behind ref, or to an empty one.
func (w *mapWriter) open(ctx context.Context, ref Ref, height int, first int64) error {
	n := &openNode{height: height, first: first, base: ref}
	if ref.IsZero() {
		n.refs = make([]Ref, w.fanout)
	} else {
		old, err := w.repo.node(ctx, ref, height, w.fanout)
		if err != nil {
			return nodeError(first, spanOf(height, w.fanout), err)
		}
		n.refs = slices.Clone(old.refs)
	}
	w.path = append(w.path, n)
	return nil
}

// goTo makes the node of a height that covers a position the top of the path.
func (w *mapWriter) goTo(ctx context.Context, pos int64, height int) error {
	for len(w.path) > 1 {
		top := w.top()
		if top.height >= height && pos-top.first < spanOf(top.height, w.fanout) {
			break
		}
		if err := w.close(); err != nil {
			return err
		}
	}
	for w.top().height > height {
		top := w.top()
		span := spanOf(top.height-1, w.fanout)
		i := (pos - top.first) / span
		if err := w.open(ctx, top.refs[i], top.height-1, top.first+i*span); err != nil {
			return err
		}
	}
	return nil
}

// close writes the top of the path, where it changed, and names it in its
// parent.
func (w *mapWriter) close() error {
	n := w.top()
	ref, err := w.write(n)
	if err != nil {
		return err
	}
	w.path = w.path[:len(w.path)-1]
	parent := w.top()
	w.put(parent, int((n.first-parent.first)/spanOf(n.height, w.fanout)), ref)
	return nil
}

func (w *mapWriter) put(n *openNode, i int, ref Ref) {
	if n.refs[i] != ref {
		n.refs[i] = ref
		n.dirty = true
	}
}

// write returns the reference under which a node is to be named.
func (w *mapWriter) write(n *openNode) (Ref, error) {
	if n.height > w.height {
		return n.refs[0], nil
	}
	if !n.dirty {
		return n.base, nil
	}
	nd := node{height: n.height, refs: n.refs}
	if nd.empty() {
		return Ref{}, nil
	}
	w.buf = nd.appendTo(w.buf[:0])
	sum := Sum(w.buf)
	if sum == n.base.Sum {
		return n.base, nil
	}
	e, err := w.coder.Encode(w.buf, sum)
	if err != nil {
		return Ref{}, err
	}
	return w.append(e, FrameNode)
}

// advance refuses changes that do not come in order.
func (w *mapWriter) advance(from, to int64) error {
	if from < w.next || to < from || to > w.chunks {
		return fmt.Errorf("change of positions %d to %d comes after %d in a map of %d", from, to, w.next, w.chunks)
	}
	w.next = to
	return nil
}

// Set names the chunk at a position; a zero reference makes a hole.
func (w *mapWriter) Set(ctx context.Context, pos int64, ref Ref) error {
	if err := w.advance(pos, pos+1); err != nil {
		return err
	}
	if err := w.goTo(ctx, pos, 1); err != nil {
		return err
	}
	w.put(w.top(), int(pos-w.top().first), ref)
	return nil
}

// Drop makes the positions from from to below to holes, by whole subtrees
// where it can.
func (w *mapWriter) Drop(ctx context.Context, from, to int64) error {
	if err := w.advance(from, to); err != nil {
		return err
	}
	return w.drop(ctx, from, to)
}

func (w *mapWriter) drop(ctx context.Context, from, to int64) error {
	root := w.path[0].height
	for from < to {
		h := 0 // the height of the largest subtree that begins here and ends in time
		for h+1 < root && from%spanOf(h+1, w.fanout) == 0 && to-from >= spanOf(h+1, w.fanout) {
			h++
		}
		if err := w.goTo(ctx, from, h+1); err != nil {
			return err
		}
		w.put(w.top(), int((from-w.top().first)/spanOf(h, w.fanout)), Ref{})
		from += spanOf(h, w.fanout)
	}
	return nil
}

// Finish ends the map at a number of positions, writes what is open and
// returns the root, zero where all is a hole.
func (w *mapWriter) Finish(ctx context.Context, chunks int64) (Ref, error) {
	if err := w.advance(max(w.next, chunks), max(w.next, chunks)); err != nil {
		return Ref{}, err
	}
	// The tree was begun for more positions than there are: the nodes above the
	// root have only their first child.
	w.height = Map{Chunks: chunks, Fanout: w.fanout}.height()
	if err := w.drop(ctx, chunks, spanOf(w.path[0].height, w.fanout)); err != nil {
		return Ref{}, err
	}
	for len(w.path) > 1 {
		if err := w.close(); err != nil {
			return Ref{}, err
		}
	}
	return w.write(w.path[0])
}
