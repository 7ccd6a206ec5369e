package store

import (
	"context"
	"testing"
)

// Two names with the same contents have the same map nodes, each its own copies. A
// scrub of both looks at all of them, though the second has nothing new to read.
func TestSameNodesElsewhere(t *testing.T) {
	ctx := context.Background()
	x := newHalting(t)
	h, _, r := x.host(1)
	first := x.write(h, r, "a", 1, 2, 3, 4, 5, 6)
	var refs [simChunks]Ref
	if err := simRefs(ctx, r, first.Map(), refs[:]); err != nil {
		t.Fatal(err)
	}
	const chunks = simFanout * simFanout // leaves right below the root
	again := func(name Name) Level {
		w := begin(t, r, name)
		err := w.BeginMap(ctx, Map{Fanout: simFanout}, chunks)
		for pos, ref := range refs {
			if err == nil && !ref.IsZero() {
				err = w.Set(ctx, int64(pos), ref)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		l := first
		if l.Root, err = w.FinishMap(ctx, chunks); err != nil {
			t.Fatal(err)
		}
		l.Size = chunks * r.ChunkSize
		l.Name, l.Number, l.Run = name, w.Number, w.ID
		x.w.oracle.written(&l, x.w.oracle.of(first.Run))
		if err := w.Commit(ctx, &l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	second, third := again("b"), again("c")
	leaves := func(l Level) []Ref {
		root, err := r.node(ctx, l.Root, l.Map().height(), simFanout)
		if err != nil {
			t.Fatal(err)
		}
		return root.refs
	}
	if a, b := leaves(second)[0], leaves(third)[0]; a.Sum != b.Sum || a.Pack == b.Pack {
		t.Fatalf("no leaf is at two places: %v, %v", a, b)
	}
	key := packKey(twinsPrefix, third.Root.Pack, 0)
	p, err := readAll(ctx, x.disk, key, maxPackBytes)
	if err != nil {
		t.Fatal(err)
	}
	clear(p[packHeaderSize:]) // its table, and all frames
	overwrite(t, x.disk, key, p)
	for _, l := range []Level{second, third} {
		c := r.Cursor(l.Map())
		c.OnNodes(func(refs []Ref) error {
			return r.CheckNodes(ctx, refs, func(e *ChunkError) error { return r.NoteDamage(ctx, &l, e) })
		})
		for pos := int64(0); pos < chunks; {
			leaf, err := c.At(ctx, pos)
			if err != nil {
				t.Fatal(err)
			}
			pos = leaf.End()
		}
	}
	d, err := r.Damage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range append([]Ref{third.Root}, leaves(third)...) {
		if ref.Pack == third.Root.Pack && !d.Has(KindMap, ref) {
			t.Errorf("nobody has noted that a copy of index %d is bad", ref.Index)
		}
	}
}

// A gc that writes a map pack again takes what its copy lacks from the other one.
func TestRewriteFromTwin(t *testing.T) {
	ctx := context.Background()
	x := newHalting(t)
	h, _, r := x.host(1)
	var all [simChunks]byte
	for pos := range all {
		all[pos] = byte(pos%(simKinds-1)) + 1
	}
	r.packSizes[KindMap] = 1 << 20 // one pack a level
	x.write(h, r, "a", all[:]...)
	base := x.write(h, r, "b", all[:]...)
	w := begin(t, r, "b")
	changed := all
	for pos := range changed[:simChunks-simFanout] {
		changed[pos] = all[pos]%(simKinds-1) + 1
	}
	if err := h.write(ctx, r, w, &base, changed); err != nil {
		t.Fatal(err)
	}
	if err := r.Remove(ctx, "b", []LevelNumber{base.Number}); err != nil {
		t.Fatal(err)
	}
	key := packKey(twinsPrefix, base.Root.Pack, 0)
	p, err := readAll(ctx, x.disk, key, maxPackBytes)
	if err != nil {
		t.Fatal(err)
	}
	_, entries, err := r.readPackTable(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	clear(p[entries[0].Offset:])
	overwrite(t, x.disk, key, p)
	for range 2 {
		if err := <-x.gc(r); err != nil {
			t.Fatal(err)
		}
	}
	for _, folder := range foldersOf(KindMap) {
		there, err := r.listGenerations(ctx, folder, base.Root.Pack)
		if err != nil || len(there) != 1 || there[0] != 1 {
			t.Errorf("%s: generations %v: %v", folder, there, err)
		}
		if sound, err := r.soundTable(ctx, KindMap, folder, base.Root.Pack); sound == nil {
			t.Errorf("%s: not sound: %v", folder, err)
		}
	}
	x.whole("a", "b")
}
