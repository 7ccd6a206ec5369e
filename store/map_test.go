package store

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"backy/store/mem"

	"pgregory.net/rapid"
)

// testRepository is one of a small fan-out, so that little makes a high map.
func testRepository(t interface{ Fatal(...any) }, fanout int) *Repository {
	r, err := Init(context.Background(), mem.New(), Parameters{ChunkSize: 16 << 10})
	if err != nil {
		t.Fatal(err)
	}
	r.fanout = fanout
	r.packSizes[KindMap] = 2000
	r.packSizes[KindData] = 100_000
	return r
}

// refAt makes up a reference to a chunk.
func refAt(pos, version int64) Ref {
	p := []byte{byte(pos), byte(pos >> 8), byte(pos >> 16), byte(version)}
	return Ref{Sum: Sum(p), Pack: PackID{Run: RunID(version + 1), Seq: uint32(pos / 100)}, Index: uint32(pos % 100)}
}

// mapEdit is a change of a map: a reference set, or a range dropped.
type mapEdit struct {
	from, to int64
	ref      Ref
}

// writeMap makes a map out of a base, durable and readable.
func writeMap(t interface{ Fatal(...any) }, r *Repository, base Map, chunks int64, unknown bool, edits []mapEdit) (Map, int) {
	ctx := context.Background()
	packs := newPackWriter(ctx, r, KindMap, NewRunID(testTime()), nil)
	written := 0
	limit := chunks
	if unknown {
		limit = unknownChunks
	}
	w, err := newMapWriter(ctx, r, base, limit, newCoder(maxMetaRaw, CompressZstd), func(e Encoded, f FrameType) (Ref, error) {
		written++
		return packs.Append(e, f)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range edits {
		if e.ref.IsZero() {
			err = w.Drop(ctx, e.from, e.to)
		} else {
			err = w.Set(ctx, e.from, e.ref)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := w.Finish(ctx, chunks)
	if err != nil {
		t.Fatal(err)
	}
	packs.Flush()
	if err := packs.Wait(); err != nil {
		t.Fatal(err)
	}
	return Map{Root: root, Chunks: chunks, Fanout: r.fanout}, written
}

func readMap(t interface{ Fatal(...any) }, r *Repository, m Map) []Ref {
	refs := make([]Ref, m.Chunks)
	c := r.Cursor(m)
	for pos := int64(0); pos < m.Chunks; {
		leaf, err := c.At(context.Background(), pos)
		if err != nil {
			t.Fatal(err)
		}
		if leaf.First > pos || leaf.End() <= pos || leaf.End() > m.Chunks {
			t.Fatal("leaf", leaf.First, leaf.Count, "for position", pos)
		}
		copy(refs[leaf.First:leaf.End()], leaf.Refs)
		pos = leaf.End()
	}
	return refs
}

// A map made of a base and edits holds what a plain array does; it is the
// canonical one: making it from nothing gives the same nodes; and an edit
// that changes nothing writes nothing.
func TestMapWriter(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := testRepository(rt, rapid.SampledFrom([]int{2, 4, 16}).Draw(rt, "fan-out"))
		var base Map
		base.Fanout = r.fanout
		var oracle []Ref
		for version := range int64(rapid.IntRange(1, 6).Draw(rt, "versions")) {
			chunks := int64(rapid.IntRange(0, 600).Draw(rt, "chunks"))
			next := make([]Ref, chunks)
			copy(next, oracle)
			var edits []mapEdit
			for pos := int64(0); pos < chunks; {
				pos += int64(rapid.IntRange(0, 100).Draw(rt, "gap"))
				to := min(chunks, pos+int64(rapid.IntRange(1, 80).Draw(rt, "length")))
				if pos >= chunks {
					break
				}
				if rapid.Bool().Draw(rt, "drop") {
					edits = append(edits, mapEdit{from: pos, to: to})
					clear(next[pos:to])
				} else {
					for p := pos; p < to; p++ {
						next[p] = refAt(p, version)
						edits = append(edits, mapEdit{from: p, ref: next[p]})
					}
				}
				pos = to
			}
			m, _ := writeMap(rt, r, base, chunks, rapid.Bool().Draw(rt, "unknown size"), edits)
			got := readMap(rt, r, m)
			for pos := range next {
				if got[pos] != next[pos] {
					rt.Fatalf("position %d of %d: %v instead of %v", pos, chunks, got[pos], next[pos])
				}
			}
			again, written := writeMap(rt, r, m, chunks, false, nil)
			if again.Root != m.Root || written != 0 {
				rt.Fatalf("no edit changed the root, or wrote %d nodes", written)
			}
			base, oracle = m, next
		}
	})
}

// One chunk changed in a map writes one node per height, whatever the size.
func TestMapWriterSharesTheRest(t *testing.T) {
	r := testRepository(t, 64)
	const chunks = 100 << 40 / (64 << 10)
	var edits []mapEdit
	for pos := int64(0); pos < chunks; pos += chunks / 50 {
		edits = append(edits, mapEdit{from: pos, ref: refAt(pos, 1)})
	}
	base, _ := writeMap(t, r, Map{Fanout: 64}, chunks, false, edits)
	m, written := writeMap(t, r, base, chunks, false, []mapEdit{{from: chunks / 3, ref: refAt(7, 7)}})
	if h := m.height(); written != h || h != 6 {
		t.Errorf("%d nodes written in a map of height %d", written, h)
	}
	_, written = writeMap(t, r, m, chunks, false, []mapEdit{{from: 0, to: chunks / 2}})
	if written > 6 {
		t.Errorf("dropping half an image wrote %d nodes", written)
	}
}

func TestNodeRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := &node{height: rapid.IntRange(1, 12).Draw(rt, "height"), refs: make([]Ref, 1<<rapid.IntRange(1, 8).Draw(rt, "log fan-out"))}
		for i := range n.refs {
			if rapid.Bool().Draw(rt, "there") {
				n.refs[i] = Ref{
					Sum:  Sum([]byte{byte(i)}),
					Pack: PackID{Run: RunID(rapid.Uint64().Draw(rt, "run")), Seq: rapid.Uint32().Draw(rt, "seq")}, Index: rapid.Uint32Range(0, maxPackEntries-1).Draw(rt, "index"),
				}
			}
		}
		got, err := decodeNode(n.appendTo(nil))
		if err != nil {
			rt.Fatal(err)
		}
		if got.height != n.height {
			rt.Fatalf("height %d", got.height)
		}
		for i := range n.refs {
			if got.refs[i] != n.refs[i] {
				rt.Fatalf("child %d: %v instead of %v", i, got.refs[i], n.refs[i])
			}
		}
	})
}

func FuzzDecodeNode(f *testing.F) {
	n := &node{height: 2, refs: make([]Ref, 16)}
	f.Add(n.appendTo(nil))
	for i := range n.refs {
		n.refs[i] = refAt(int64(i)*70, int64(i%3))
	}
	f.Add(n.appendTo(nil))
	f.Fuzz(func(t *testing.T, p []byte) {
		n, err := decodeNode(p)
		if err != nil {
			if !errors.Is(err, errBadNode) {
				t.Fatalf("another error: %v", err)
			}
			return
		}
		again, err := decodeNode(n.appendTo(nil))
		if err != nil || !bytes.Equal(again.appendTo(nil), n.appendTo(nil)) {
			t.Fatalf("not the same after encoding: %v", err)
		}
	})
}

// A repository's parameters are what it was made with, or the defaults, and
// what none can have is refused before anything is put.
func TestParameters(t *testing.T) {
	for _, test := range []struct {
		p, want Parameters // want is zero where p is refused
	}{
		{Parameters{}, Parameters{64 << 10, 64}},
		{Parameters{16 << 10, 2}, Parameters{16 << 10, 2}},
		{Parameters{4 << 20, 256}, Parameters{4 << 20, 256}},
		{Parameters{ChunkSize: 8 << 10}, Parameters{}},
		{Parameters{ChunkSize: 8 << 20}, Parameters{}},
		{Parameters{ChunkSize: 65537}, Parameters{}},
		{Parameters{Fanout: 1}, Parameters{}},
		{Parameters{Fanout: 48}, Parameters{}},
		{Parameters{Fanout: 512}, Parameters{}},
	} {
		b := mem.New()
		r, err := Init(context.Background(), b, test.p)
		if test.want == (Parameters{}) {
			if err == nil || len(b.Log()) > 0 {
				t.Errorf("%+v: made, with %d calls and error %v", test.p, len(b.Log()), err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got := (Parameters{r.ChunkSize, r.Fanout()}); got != test.want {
				t.Errorf("%+v: %+v instead of %+v", test.p, got, test.want)
			}
			if r, err = Open(context.Background(), b, ""); err != nil {
				t.Fatal(err)
			}
		}
	}
}
