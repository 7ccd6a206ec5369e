package store

import (
	"context"
	"errors"
	"fmt"
)

// Leaf is a stretch of a map. Refs are those of the positions from First on,
// zero for holes; nil stands for Count positions that are all holes.
type Leaf struct {
	First, Count int64
	Refs         []Ref
}

// End is the first position behind the leaf.
func (l Leaf) End() int64 { return l.First + l.Count }

// Ref is the reference at a position of the leaf.
func (l Leaf) Ref(pos int64) Ref {
	if l.Refs == nil {
		return Ref{}
	}
	return l.Refs[pos-l.First]
}

// NodeError tells which positions of a map cannot be known, since a node of it
// cannot be read.
type NodeError struct {
	First, Count int64
	Cause        error
}

func (e *NodeError) Error() string {
	return fmt.Sprintf("map of positions %d to %d: %v", e.First, e.First+e.Count-1, e.Cause)
}

func (e *NodeError) Unwrap() error { return e.Cause }

// nodeError says what cannot be known because of a bad node; another error
// stays as it is.
func nodeError(first, count int64, cause error) error {
	var bad *ChunkError
	if !errors.As(cause, &bad) {
		return cause
	}
	return &NodeError{First: first, Count: count, Cause: cause}
}

// Cursor finds the leaves of a map, best front to back. Its memory is bounded
// by the fan-out and the height. It is for one goroutine.
type Cursor struct {
	repo *Repository
	m    Map
	path []step // from the root down

	met   []Ref // fetch's scratch: all nodes, those to be read, and which children these are
	refs  []Ref
	index []int

	onNodes func([]Ref) error
}

// step is a node on the way to the leaf that was last asked for.
type step struct {
	node  *node
	first int64
	// children that were read along with one that was asked for
	children []*node
	last     int // the child that was last asked for
	ahead    int // how many to read at once next time
}

// Cursor returns a cursor over a map.
func (r *Repository) Cursor(m Map) *Cursor { return &Cursor{repo: r, m: m} }

// OnNodes has fn called with the references of the nodes that the cursor goes
// through, before it does. They count whether or not a node with the same bytes is in
// memory: that one may be kept elsewhere.
func (c *Cursor) OnNodes(fn func(refs []Ref) error) { c.onNodes = fn }

func (c *Cursor) reading(refs []Ref) error {
	if c.onNodes == nil || len(refs) == 0 {
		return nil
	}
	return c.onNodes(refs)
}

// At returns the leaf that holds a position, or the widest hole around it that
// the map shows. The refs must not be changed. Errors: *NodeError.
func (c *Cursor) At(ctx context.Context, pos int64) (Leaf, error) {
	if pos < 0 || pos >= c.m.Chunks {
		return Leaf{}, fmt.Errorf("position %d of a map of %d", pos, c.m.Chunks)
	}
	if c.m.Root.IsZero() {
		return Leaf{Count: c.m.Chunks}, nil
	}
	for len(c.path) > 0 {
		top := &c.path[len(c.path)-1]
		if pos >= top.first && pos-top.first < spanOf(top.node.height, c.m.Fanout) {
			break
		}
		c.path = c.path[:len(c.path)-1]
	}
	if len(c.path) == 0 {
		if err := c.reading([]Ref{c.m.Root}); err != nil {
			return Leaf{}, err
		}
		root, err := c.repo.node(ctx, c.m.Root, c.m.height(), c.m.Fanout)
		if err != nil {
			return Leaf{}, nodeError(0, c.m.Chunks, err)
		}
		c.path = append(c.path, newStep(root, 0, 1))
	}
	for {
		top := &c.path[len(c.path)-1]
		if top.node.height == 1 {
			return c.clip(Leaf{First: top.first, Count: int64(c.m.Fanout), Refs: top.node.refs}), nil
		}
		span := spanOf(top.node.height-1, c.m.Fanout)
		i := int((pos - top.first) / span)
		first := top.first + int64(i)*span
		if top.node.refs[i].IsZero() {
			return c.clip(c.hole(top, i, span)), nil
		}
		child, err := c.child(ctx, top, i)
		if err != nil {
			return Leaf{}, nodeError(first, min(span, c.m.Chunks-first), err)
		}
		ahead := 1
		if top.ahead > 8 {
			ahead = c.m.Fanout
		}
		c.path = append(c.path, newStep(child, first, ahead))
	}
}

func newStep(n *node, first int64, ahead int) step {
	s := step{node: n, first: first, last: -1, ahead: ahead}
	if n.height > 1 {
		s.children = make([]*node, len(n.refs))
	}
	return s
}

// hole widens the empty child i over the empty ones that follow it.
func (c *Cursor) hole(s *step, i int, span int64) Leaf {
	n := i + 1
	for n < len(s.node.refs) && s.node.refs[n].IsZero() {
		n++
	}
	return Leaf{First: s.first + int64(i)*span, Count: int64(n-i) * span}
}

func (c *Cursor) clip(l Leaf) Leaf {
	l.Count = min(l.Count, c.m.Chunks-l.First)
	if l.Refs != nil {
		l.Refs = l.Refs[:l.Count]
	}
	return l
}

// child returns child i of a step. Whoever goes from child to child gets more
// and more of them with one read.
func (c *Cursor) child(ctx context.Context, s *step, i int) (*node, error) {
	sequential := i > s.last
	for j := s.last + 1; j < i && sequential; j++ {
		sequential = s.node.refs[j].IsZero()
	}
	if sequential {
		s.ahead = min(2*s.ahead, c.m.Fanout)
	} else {
		s.ahead = 1
	}
	if s.last >= 0 {
		s.children[s.last] = nil
	}
	s.last = i
	if n := s.children[i]; n != nil {
		return n, nil
	}
	return c.fetch(ctx, s, i)
}

// fetch reads child i and those ahead of it.
func (c *Cursor) fetch(ctx context.Context, s *step, i int) (*node, error) {
	c.refs, c.index, c.met = c.refs[:0], c.index[:0], c.met[:0]
	for j := i; j < len(s.node.refs) && j < i+s.ahead; j++ {
		if ref := s.node.refs[j]; !ref.IsZero() && s.children[j] == nil {
			c.met = append(c.met, ref)
			if s.children[j] = c.repo.nodes.get(ref.Sum, s.node.height-1, c.m.Fanout); s.children[j] == nil {
				c.refs, c.index = append(c.refs, ref), append(c.index, j)
			}
		}
	}
	if err := c.reading(c.met); err != nil {
		return nil, err
	}
	var failed error
	err := c.repo.fetchNodes(ctx, c.refs, s.node.height-1, c.m.Fanout, func(k int, n *node, err error) {
		s.children[c.index[k]] = n
		if err != nil && c.index[k] == i {
			failed = err
		}
	})
	if err != nil {
		return nil, err
	}
	return s.children[i], failed
}
