package store

import (
	"context"
	"testing"
	"time"
)

// A level that comes and is removed while a gc waits may be the base of a backup
// that goes on: what it reaches stays until the next gc.
func TestRemovedWhileAGCWaits(t *testing.T) {
	ctx := context.Background()
	w := &world{t: t, disk: simEmpty().At(1), oracle: newOracle(), harmed: newHarmed()}
	h := &host{w: w}
	r, err := h.open(w.disk)
	if err != nil {
		t.Fatal(err)
	}
	r.packSizes[KindData] = 1 << 20
	write := func(writer *Writer, base *Level, contents [simChunks]byte) Level {
		t.Helper()
		if err := h.write(ctx, r, writer, base, contents); err != nil {
			t.Fatal(err)
		}
		levels, err := r.Levels(ctx, writer.claim.Name)
		if err != nil {
			t.Fatal(err)
		}
		return levels[len(levels)-1]
	}
	write(begin(t, r, "a"), nil, [simChunks]byte{1, 2, 3, 4, 5, 6})
	if err := r.Remove(ctx, "a", []LevelNumber{1}); err != nil {
		t.Fatal(err)
	}
	first, other := begin(t, r, "b"), begin(t, r, "c")
	waits, done := make(chan struct{}, 10), make(chan error)
	go func() {
		_, err := r.GC(ctx, GCOptions{Beat: 10 * time.Millisecond, Waiting: func([]string) { waits <- struct{}{} }})
		done <- err
	}()
	<-waits
	// It began before anything was condemned, and takes over what is.
	one := write(first, nil, [simChunks]byte{1, 2, 3})
	second := begin(t, r, "b")
	if err := r.Remove(ctx, "b", []LevelNumber{one.Number}); err != nil {
		t.Fatal(err)
	}
	if err := other.Abort(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	two := write(second, &one, [simChunks]byte{1, 2, 9})
	for range 2 {
		if contents, bad, err := h.read(ctx, r, &two); err != nil || len(bad) > 0 || contents != w.oracle.of(two.Run) {
			t.Fatalf("%v, %v, %v", contents, bad, err)
		}
		if _, err := r.GC(ctx, GCOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	w.checkStock(ctx, r)
}

// A verdict without its gc's claim came from one that lived through an older copy
// being put back: it is not about this repository, and goes.
func TestVoidVerdict(t *testing.T) {
	ctx := context.Background()
	w := &world{t: t, disk: simEmpty().At(1), oracle: newOracle(), harmed: newHarmed()}
	h := &host{w: w}
	r, err := h.open(w.disk)
	if err != nil {
		t.Fatal(err)
	}
	writer := begin(t, r, "a")
	if err := h.write(ctx, r, writer, nil, [simChunks]byte{1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	v := &verdict{Run: 99, Records: []string{levelKey("a", 1)}}
	if err := r.putVerdict(ctx, v, []sentence{{Kind: KindData, Pack: PackID{Run: writer.ID}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.GC(ctx, GCOptions{}); err != nil {
		t.Fatal(err)
	}
	w.promises(ctx, h, r)
	w.checkStock(ctx, r)
	if there, err := r.stands(ctx, gcKey("verdict", 99)); there || err != nil {
		t.Errorf("the verdict is there still: %v", err)
	}
}
