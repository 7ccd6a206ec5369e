package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
)

// maxCachedNodes bounds the cache of decoded nodes: about 3 KiB each at a
// fan-out of 64.
const maxCachedNodes = 2048

// nodeCache keeps decoded map nodes by checksum. Nodes never change, so it is
// always right.
type nodeCache struct {
	mu    sync.Mutex
	nodes map[Checksum]*node
}

func (c *nodeCache) get(sum Checksum, height, fanout int) *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.nodes[sum]
	if n == nil || n.height != height || len(n.refs) != fanout {
		return nil
	}
	return n
}

func (c *nodeCache) put(sum Checksum, n *node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nodes == nil {
		c.nodes = map[Checksum]*node{}
	}
	if len(c.nodes) >= maxCachedNodes {
		evict := maxCachedNodes / 8
		for sum := range c.nodes { // in random order
			delete(c.nodes, sum)
			if evict--; evict == 0 {
				break
			}
		}
	}
	c.nodes[sum] = n
}

// node returns the map node behind a reference, which must not be changed.
func (r *Repository) node(ctx context.Context, ref Ref, height, fanout int) (n *node, err error) {
	if n := r.nodes.get(ref.Sum, height, fanout); n != nil {
		return n, nil
	}
	fetchErr := r.fetchNodes(ctx, []Ref{ref}, height, fanout, func(_ int, got *node, e error) { n, err = got, e })
	if fetchErr != nil {
		return nil, fetchErr
	}
	return n, err
}

// fetchNodes reads nodes and calls fn with each or with why it cannot be had.
func (r *Repository) fetchNodes(ctx context.Context, refs []Ref, height, fanout int, fn func(i int, n *node, err error)) error {
	if len(refs) == 0 {
		return nil
	}
	return r.Fetch(ctx, KindMap, refs, func(i int, raw []byte, err error) error {
		if err != nil {
			fn(i, nil, err)
			return nil
		}
		n, err := decodeNode(raw)
		if err == nil && (n.height != height || len(n.refs) != fanout) {
			err = fmt.Errorf("%w: height %d and fan-out %d instead of %d and %d", errBadNode, n.height, len(n.refs), height, fanout)
		}
		if err != nil {
			fn(i, nil, &ChunkError{Kind: KindMap, Ref: refs[i], Cause: err})
			return nil
		}
		r.nodes.put(refs[i].Sum, n)
		fn(i, n, nil)
		return nil
	})
}

// CheckNodes reads every copy of map nodes, in the newest generations of their
// packs, and calls fn for each that is bad.
func (r *Repository) CheckNodes(ctx context.Context, refs []Ref, fn func(*ChunkError) error) error {
	f := r.fetchers.Get().(*fetcher)
	defer r.fetchers.Put(f)
	for _, ref := range refs {
		for _, folder := range foldersOf(KindMap) {
			cause, err := f.checkNode(ctx, folder, ref)
			if err != nil {
				return err
			}
			if cause == nil {
				continue
			}
			if err := fn(&ChunkError{Kind: KindMap, Ref: ref, Cause: cause}); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkNode reads one copy of a node and returns what is wrong with it.
func (f *fetcher) checkNode(ctx context.Context, folder string, ref Ref) (cause, err error) {
	check := func() (cause, err error) {
		key := packKey(folder, ref.Pack, f.repo.generation(folder, ref.Pack))
		_, cause, err = f.generation(ctx, KindMap, key, []wanted{{ref: ref}}, func(int, []byte, error) error { return nil })
		return cause, err
	}
	if cause, err = check(); cause == nil || err != nil {
		return nil, err
	}
	for tried := int64(-1); ; {
		generations, err := f.repo.listGenerations(ctx, folder, ref.Pack)
		if err != nil || len(generations) == 0 || int64(generations[0]) == tried {
			return cause, err
		}
		tried = int64(generations[0])
		f.repo.setGeneration(folder, ref.Pack, generations[0])
		// Between the listing and the read a newer generation may have taken
		// the place of this one.
		if cause, err = check(); !errors.Is(cause, fs.ErrNotExist) || err != nil {
			return cause, err
		}
	}
}
