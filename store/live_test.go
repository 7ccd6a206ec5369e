package store

import (
	"context"
	"math/rand/v2"
	"runtime"
	"testing"

	"pgregory.net/rapid"
)

// A live set answers as a plain map of places does, in whatever order they come.
func TestLiveSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, want := newLiveSet(), map[place]bool{}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			id := PackID{Run: RunID(rapid.IntRange(1, 2).Draw(t, "run")), Seq: uint32(rapid.IntRange(0, 2).Draw(t, "seq"))}
			first := uint32(rapid.IntRange(0, 300).Draw(t, "first"))
			if rapid.IntRange(0, 9).Draw(t, "far") == 0 {
				first += 9000
			}
			for i := range uint32(rapid.IntRange(1, 90).Draw(t, "row")) {
				at := place{KindData, id, first + i}
				if got := s.add(Ref{Pack: id, Index: first + i}); got == want[at] {
					t.Fatalf("add %v: new is %v", at, got)
				}
				want[at] = true
			}
		}
		total := 0
		if err := s.packs(func(id PackID) error {
			bitmap := s.of(id)
			total += s.count(id)
			if n := len(bitmap); n == 0 || bitmap[n-1] == 0 {
				t.Fatalf("a bitmap of %d words", n)
			}
			for i := range uint32(len(bitmap)*64 + 64) {
				if hasBit(bitmap, i) != want[place{KindData, id, i}] || s.has(id, i) != want[place{KindData, id, i}] {
					t.Fatalf("pack %s index %d", id, i)
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if total != len(want) || s.count(PackID{Run: 9}) != 0 || s.of(PackID{Run: 1, Seq: 9}) != nil || s.has(PackID{Run: 9}, 0) {
			t.Fatalf("%d places instead of %d", total, len(want))
		}
	})
}

// heapAfter is what is in use behind what fill keeps, in bytes.
func heapAfter[T any](fill func() T) int64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	kept := fill()
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(kept)
	return int64(after.HeapAlloc) - int64(before.HeapAlloc)
}

// What 100 TiB take in memory: a twentieth of it is filled, in chunks of 64 KiB
// that shrink to a half, so 1024 to a pack; packs whole, with holes at random,
// and named in any order.
func TestLiveSetMemory(t *testing.T) {
	const scale, perPack = 20, 1024
	const packs = 100 << 40 / (64 << 10) / perPack / scale
	rnd := rand.New(rand.NewPCG(1, 1))
	for _, c := range []struct {
		what string
		most int64 // bytes, for 100 TiB
		add  func(s *liveSet, pack PackID)
	}{
		{"whole", 20 << 20, func(s *liveSet, pack PackID) {
			for i := range uint32(perPack) {
				s.addPlace(pack, i)
			}
		}},
		{"with holes", 250 << 20, func(s *liveSet, pack PackID) {
			for i := range uint32(perPack) {
				if rnd.IntN(2) == 0 {
					s.addPlace(pack, i)
				}
			}
		}},
		{"in any order", 250 << 20, func(s *liveSet, pack PackID) {
			for range 100 {
				s.addPlace(pack, uint32(rnd.IntN(perPack)))
			}
		}},
	} {
		used := heapAfter(func() *liveSet {
			s := newLiveSet()
			for i := range uint32(packs) {
				c.add(s, PackID{Run: RunID(1 + i%7), Seq: i / 7})
			}
			return s
		})
		t.Logf("%s: %d MiB for 100 TiB", c.what, used*scale>>20)
		if used*scale > c.most {
			t.Errorf("%s: %d MiB for 100 TiB", c.what, used*scale>>20)
		}
	}
}

// lister is a backend that has only names.
type lister struct {
	Backend
	packs int
}

func (l lister) List(ctx context.Context, prefix string, fn func(string, int64) error) error {
	n := l.packs
	if prefix != dataPrefix {
		n /= 100
	}
	for i := range n {
		if err := fn(packKey(prefix, PackID{Run: RunID(1 + i%7), Seq: uint32(i / 7)}, uint32(i%2)), 32<<20); err != nil {
			return err
		}
	}
	return nil
}

// The list of packs of 100 TiB, likewise: 3.2 million of 32 MiB.
func TestStockMemory(t *testing.T) {
	const scale = 20
	r := &Repository{backend: lister{packs: 100 << 40 / (32 << 20) / scale}}
	used := heapAfter(func() *stock {
		s, err := r.stock(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
	t.Logf("%d MiB for 100 TiB", used*scale>>20)
	if used*scale > 110<<20 {
		t.Errorf("%d MiB for 100 TiB", used*scale>>20)
	}
}
