package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"backy/hints"
	"backy/store"
)

// A new level shares with its base what it does not read, and may share no chunk
// whose pack is missing. What is read, or compared as a sample, is looked
// for in the packs' listing. For all else the packs of the runs of the levels up
// to the base are counted; if one may be missing, the base's whole map is walked.
// Not covered is what neither finds: a pack of another name's run, or of a level
// that was removed, of which nothing is read.

// errPackGone tells that a pack that the base refers to was found missing, by a
// plan that may share others of its chunks.
var errPackGone = errors.New("a pack is missing")

// maxGoneNames is how many missing packs a warning names.
const maxGoneNames = 3

// gonePacks are packs that are missing.
type gonePacks struct {
	mu   sync.Mutex
	data map[store.PackID]bool
}

func (g *gonePacks) add(id store.PackID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.data == nil {
		g.data = map[store.PackID]bool{}
	}
	g.data[id] = true
}

func (g *gonePacks) any() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.data) > 0
}

// vouch looks for the packs of the runs that the base was made by, and walks its
// map if one may be missing. Errors: *store.NodeError.
func (b *backup) vouch(ctx context.Context) error {
	if b.base == nil {
		return nil
	}
	short, copies, err := b.w.Short(ctx, b.base)
	if err != nil {
		return err
	}
	if copies > 0 {
		what := "a map pack"
		if copies > 1 {
			what = fmt.Sprintf("%d map packs", copies)
		}
		b.o.Warn("%s: one of the two copies of %s is missing; nothing is lost, and this backup writes it again", b.name, what)
	}
	if !short {
		return nil
	}
	return b.findGone(ctx)
}

// findGone walks the base's map for chunks and nodes whose packs are missing. If
// there are chunks, it notes those of all levels: once this run has written such a
// pack again, no listing tells what it lacks. Errors: *store.NodeError.
func (b *backup) findGone(ctx context.Context) error {
	b.walked, b.without = true, nil
	c := b.baseCursor(ctx)
	for pos := int64(0); pos < b.baseMap().Chunks; {
		leaf, err := c.At(ctx, pos)
		if err != nil {
			return err
		}
		for i, ref := range leaf.Refs {
			there, err := b.inPack(ctx, ref)
			if err != nil {
				return err
			}
			if !there {
				b.without = append(b.without, hints.Range{First: leaf.First + int64(i), Count: 1})
			}
		}
		pos = leaf.End()
	}
	if len(b.without) == 0 {
		return nil
	}
	return b.w.NoteGone(ctx)
}

// inPack reports whether the pack of a base's chunk is there, and notes it if
// not. A hole needs none.
func (b *backup) inPack(ctx context.Context, ref store.Ref) (bool, error) {
	if ref.IsZero() {
		return true, nil
	}
	there, err := b.w.Present.Has(ctx, store.KindData, ref.Pack)
	if err == nil && !there {
		b.gone.add(ref.Pack)
	}
	return there, err
}

// baseCursor is one over the base's map that fails at nodes whose packs are
// missing, also if it has them in memory.
func (b *backup) baseCursor(ctx context.Context) *store.Cursor {
	c := b.repo.Cursor(b.baseMap())
	c.OnNodes(func(refs []store.Ref) error { return b.lookForNodes(ctx, refs) })
	return c
}

// lookForNodes fails if a node's pack is missing in both directories.
func (b *backup) lookForNodes(ctx context.Context, refs []store.Ref) error {
	for _, ref := range refs {
		there, err := b.w.Present.Has(ctx, store.KindMap, ref.Pack)
		if err != nil {
			return err
		}
		if !there {
			bad := &store.ChunkError{Kind: store.KindMap, Ref: ref, Cause: fs.ErrNotExist}
			return &store.NodeError{First: 0, Count: b.baseMap().Chunks, Cause: bad}
		}
	}
	return nil
}

// tellGone warns of the data packs that are missing.
func (b *backup) tellGone() {
	if b.base == nil || !b.gone.any() {
		return
	}
	var names []string
	for id := range b.gone.data {
		names = append(names, fmt.Sprintf("data/%s", id))
	}
	slices.SortFunc(names, cmp.Compare[string])
	n, more := len(names), ""
	if n > maxGoneNames {
		names, more = names[:maxGoneNames], ", …"
	}
	what := "a data pack is"
	if n > 1 {
		what = fmt.Sprintf("%d data packs are", n)
	}
	b.o.Warn("%s level %s is damaged: %s missing (%s%s): the chunks were read again; backy status names levels that stay damaged",
		b.name, b.base.Number, what, strings.Join(names, ", "), more)
}
