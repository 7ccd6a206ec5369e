package store

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A record that is damaged stops gc, as one that is lost does. Recover puts its
// copy in its place, and only its own; else it is given up, and all else goes on.
func TestDamagedRecord(t *testing.T) {
	ctx := context.Background()
	tombstone, err := encodeObject("tombstone", &tombstone{Name: "a", Number: 2, Run: 7, By: 8})
	if err != nil {
		t.Fatal(err)
	}
	for name, harm := range map[string]func(p []byte) []byte{
		"flipped":      func(p []byte) []byte { p[len(p)/2] ^= 4; return p },
		"cut":          func(p []byte) []byte { return p[:100] },
		"empty":        func([]byte) []byte { return []byte{} },
		"zeros":        func(p []byte) []byte { clear(p); return p },
		"half zeros":   func(p []byte) []byte { clear(p[len(p)/2:]); return p },
		"noise":        func(p []byte) []byte { return noise(1, len(p)) },
		"other object": func([]byte) []byte { return append(bytes.Clone(tombstone[:len(tombstone)-9]), "garbage"...) },
	} {
		for _, copies := range []bool{true, false} {
			x := newHalting(t)
			h, _, r := x.host(1)
			x.write(h, r, "a", 1, 2)
			lost := x.write(h, r, "a", 3, 4)
			x.write(h, r, "a", 5)
			key := levelKey("a", 2)
			p, err := readAll(ctx, x.disk, key, maxJSON)
			if err != nil {
				t.Fatal(err)
			}
			overwrite(t, x.disk, key, harm(bytes.Clone(p)))
			if !copies {
				for _, folder := range foldersOf(KindMap) {
					x.lose(folder + lost.Run.String())
				}
			}
			var bad *BadRecordError
			if err := <-x.gc(r); !errors.As(err, &bad) {
				t.Errorf("%s: gc: %v", name, err)
			}
			recovered, err := r.Recover(ctx)
			if copies && name != "other object" {
				if err != nil || len(recovered) != 1 || recovered[0].Number != 2 {
					t.Errorf("%s: recovered %v: %v", name, recovered, err)
				}
			} else {
				var gone *UnrecoverableError
				// What stands there is another run's, so the level was lost before.
				others := slices.DeleteFunc(slices.Clone(recovered), func(l Recovered) bool { return l.Run == lost.Run && l.Number == 4 })
				if !errors.As(err, &gone) || len(others) > 0 || copies != (len(recovered) == 1) {
					t.Errorf("%s, copies %t: recovered %v: %v", name, copies, recovered, err)
				}
				if now, err := readAll(ctx, x.disk, key, maxJSON); err != nil || !bytes.Equal(now, harm(bytes.Clone(p))) {
					t.Errorf("%s: what has no copy was replaced: %v", name, err)
				}
				if given, err := r.Abandon(ctx); err != nil || len(given) != 1 {
					t.Errorf("%s: given up: %v, %v", name, given, err)
				}
			}
			for range 2 {
				if err := <-x.gc(r); err != nil {
					t.Errorf("%s, copies %t: gc afterwards: %v", name, copies, err)
				}
			}
			x.whole("a")
			x.w.checkStock(ctx, r)
		}
	}
}

// A recovery that ends between taking the damaged record away and putting the good
// one leaves one that is lost: the next goes on.
func TestDamagedRecordEndsAnywhere(t *testing.T) { synctest.Test(t, testDamagedRecordEndsAnywhere) }

func testDamagedRecordEndsAnywhere(t *testing.T) {
	ctx := context.Background()
	for at := 0; ; at++ {
		x := newHalting(t)
		h, _, r := x.host(1)
		x.write(h, r, "a", 1, 2)
		key := levelKey("a", 1)
		p, err := readAll(ctx, x.disk, key, maxJSON)
		if err != nil {
			t.Fatal(err)
		}
		overwrite(t, x.disk, key, p[:len(p)-5])
		before := len(x.disk.Log())
		if _, err := r.Recover(ctx); err != nil {
			t.Fatal(err)
		}
		ops := len(x.disk.Log()) - before
		if at > ops {
			return
		}
		x.disk = x.disk.At(before + at)
		x.w.disk = x.disk
		_, _, r = x.host(2)
		time.Sleep(time.Hour)
		if recovered, err := r.Recover(ctx); err != nil {
			t.Errorf("after %d changes: recovered %v: %v", at, recovered, err)
		}
		x.whole("a")
	}
}
