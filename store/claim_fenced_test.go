package store

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
)

// A run that is taken for dead while it takes its claim, and takes the next
// number instead, is not who was fenced: nobody deletes its maps.
func TestFencedWhileClaiming(t *testing.T) {
	ctx := context.Background()
	x := newHalting(t)
	h1, b1, r1 := x.host(1)
	_, b2, r2 := x.host(2)
	claimed := false
	came, wake := b1.stop(func(what string) bool {
		claimed = claimed || strings.HasPrefix(what, "put work/claim.")
		return claimed && what == "list levels/a/"
	})
	done := make(chan error, 1)
	go func() {
		w, err := r1.Begin(ctx, "a", WriterOptions{Beat: haltedBeat})
		if err == nil {
			err = h1.write(ctx, r1, w, nil, [simChunks]byte{1, 2, 3})
		}
		done <- err
	}()
	<-came
	taken()
	came, wake2 := b2.stop(first("list maps/")) // the tombstone stands; the maps of who was fenced go next
	second := make(chan error, 1)
	go func() {
		w, err := r2.Begin(ctx, "a", WriterOptions{Beat: haltedBeat})
		if err == nil {
			err = w.Abort(ctx)
		}
		second <- err
	}()
	<-came
	wake()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	wake2()
	if err := <-second; err != nil {
		t.Log("the second:", err)
	}
	x.whole("a")
}

// Whoever is taken for dead and gets no tombstone may commit: nobody deletes his
// maps.
func TestDroppedClaimKeepsMaps(t *testing.T) {
	ctx := context.Background()
	x := newHalting(t)
	h1, b1, r1 := x.host(1)
	x.write(h1, r1, "a", 1, 2, 3)
	w, err := r1.Begin(ctx, "a", WriterOptions{Beat: haltedBeat})
	if err != nil {
		t.Fatal(err)
	}
	came, wake := b1.stop(first("put levels/a/2"))
	done := make(chan error, 1)
	go func() { done <- h1.write(ctx, r1, w, nil, [simChunks]byte{4, 5, 6}) }()
	<-came
	x.lose("levels/a/1.json")
	taken()
	_, _, r2 := x.host(2)
	if w, err := r2.Begin(ctx, "a", WriterOptions{Beat: haltedBeat}); err != nil {
		t.Log("the second:", err)
	} else if err := w.Abort(ctx); err != nil {
		t.Fatal(err)
	}
	wake()
	if err := <-done; err != nil {
		t.Log("the sleeper:", err)
		return
	}
	x.whole("a")
}

// A run that ends without its claim leaves no copy of its record, which would
// look like a level's that was lost.
func TestUncommittedIsNotRecovered(t *testing.T) {
	ctx := context.Background()
	x := newHalting(t)
	h, _, r := x.host(1)
	w := begin(t, r, "a")
	x.lose(claimKey("a", 1)) // an older copy was put back
	if err := h.write(ctx, r, w, nil, [simChunks]byte{1, 2, 3}); !errors.Is(err, ErrFenced) {
		t.Fatal(err)
	}
	if err := w.Abort(ctx); err != nil {
		t.Fatal(err)
	}
	if recovered, err := r.Recover(ctx); err != nil || len(recovered) > 0 {
		t.Errorf("recovered %v: %v", recovered, err)
	}
	if _, err := r.GC(ctx, GCOptions{}); err != nil {
		t.Error(err)
	}
}

// The same while a recovery puts that record back: whichever is last sees the
// other.
func TestUncommittedBesideRecovery(t *testing.T) {
	ctx := context.Background()
	for _, at := range []string{"put levels/", "delete maps"} {
		x := newHalting(t)
		h, b1, r1 := x.host(1)
		_, b2, r2 := x.host(2)
		w := begin(t, r1, "a")
		checks, check := b1.stop(first("get " + claimKey("a", 1)))
		commit, recovery := make(chan error, 1), make(chan error, 1)
		go func() { commit <- h.write(ctx, r1, w, nil, [simChunks]byte{1, 2, 3}) }()
		<-checks
		x.lose(claimKey("a", 1))
		recoverIt := func() {
			_, err := r2.Recover(ctx)
			recovery <- err
		}
		var fenced error
		if at == "delete maps" {
			came, wake := b1.stop(first(at))
			check()
			<-came
			recoverIt()
			wake()
			fenced = <-commit
		} else {
			came, wake := b2.stop(first(at))
			go recoverIt()
			<-came
			check()
			fenced = <-commit
			wake()
		}
		if !errors.Is(fenced, ErrFenced) {
			t.Errorf("%s: the run: %v", at, fenced)
		}
		if err := errors.Join(<-recovery, w.Abort(ctx)); err != nil {
			t.Errorf("%s: %v", at, err)
		}
		levels, err := r2.Levels(ctx, "a")
		if err != nil {
			t.Error(err)
		}
		if len(levels) > 0 {
			x.whole("a")
		}
		if _, err := r2.GC(ctx, GCOptions{}); err != nil {
			t.Errorf("%s: gc: %v", at, err)
		}
	}
}

// A run that cannot tell whether its claim stands puts no tombstone: if an older
// copy was put back, that would leave a gap.
func TestAbortWithoutKnowing(t *testing.T) {
	ctx := context.Background()
	x := newHalting(t)
	h, _, r := x.host(1)
	if err := begin(t, r, "a").Abort(ctx); err != nil {
		t.Fatal(err)
	}
	past := x.disk.At(len(x.disk.Log()))
	b := &failing{Backend: x.disk, call: "get", at: -1, err: syscall.EIO}
	live, err := h.open(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := begin(t, live, "a").Abort(ctx); err != nil {
		t.Fatal(err)
	}
	w := begin(t, live, "a")
	b.Backend, b.at, b.calls = past, 0, 0
	if err := w.Abort(ctx); !errors.Is(err, syscall.EIO) {
		t.Errorf("abort: %v", err)
	}
	after, err := h.open(past)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := after.GC(ctx, GCOptions{}); err != nil {
		t.Error(err)
	}
}
