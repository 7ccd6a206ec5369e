package store

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
)

// keepsClaims is a backend on which claims cannot be removed for a while.
type keepsClaims struct {
	Backend
	keep bool
}

func (b *keepsClaims) Delete(ctx context.Context, key string) error {
	if b.keep && strings.HasPrefix(key, workPrefix+"claim.") {
		return syscall.EIO
	}
	return b.Backend.Delete(ctx, key)
}

// A level whose claim could not be removed, and whose record is lost afterwards,
// looks like a run that died before it committed. Whoever settles its claim
// finishes it; nobody deletes its maps.
func TestLostRecordBesideItsClaim(t *testing.T) {
	ctx := context.Background()
	for _, claim := range []string{"good", "bad"} {
		for _, who := range []string{"gc", "backup", "recover", "dry run"} {
			synctest.Test(t, func(t *testing.T) {
				x := newHalting(t)
				h, _, _ := x.host(1)
				b := &keepsClaims{x.disk, true}
				r, err := h.open(b)
				if err != nil {
					t.Fatal(err)
				}
				w := begin(t, r, "a")
				if err := h.write(ctx, r, w, nil, [simChunks]byte{1, 2, 3}); err != nil {
					t.Fatal(err)
				}
				if w.ClaimLeft() == nil {
					t.Error("the claim stays, and nobody hears of it")
				}
				x.lose("levels/a/1.json")
				if claim == "bad" {
					overwrite(t, x.disk, claimKey("a", 1), []byte("no claim"))
				}
				b.keep = false
				switch who {
				case "gc":
					err = <-x.gc(r)
				case "dry run":
					_, err = r.GC(ctx, GCOptions{DryRun: true})
				case "backup":
					err = begin(t, r, "a").Abort(ctx)
				case "recover":
					if recovered, err := r.Recover(ctx); err != nil || len(recovered) != 1 {
						t.Errorf("%s claim: recovered %v: %v", claim, recovered, err)
					}
				}
				if err != nil {
					t.Errorf("%s claim, %s: %v", claim, who, err)
				}
				if who != "dry run" {
					x.whole("a")
				}
				for range 2 {
					if err := <-x.gc(r); err != nil {
						t.Error(err)
					}
				}
				x.whole("a")
				x.w.checkStock(ctx, r)
			})
		}
	}
}

// The run itself, which only sleeps, puts the same bytes if it wakes up, or hears
// that it cannot know. Its level stands in either case, with its maps.
func TestFinishedWhileAsleep(t *testing.T) {
	ctx := context.Background()
	for _, at := range []string{"get " + claimKey("a", 1), "put levels/a/1"} {
		x := newHalting(t)
		h1, b1, r1 := x.host(1)
		_, _, r2 := x.host(2)
		w, err := r1.Begin(ctx, "a", WriterOptions{Beat: haltedBeat})
		if err != nil {
			t.Fatal(err)
		}
		came, wake := b1.stop(first(at))
		done := make(chan error, 1)
		go func() { done <- h1.write(ctx, r1, w, nil, [simChunks]byte{4, 5, 6}) }()
		<-came
		taken()
		other, err := r2.Begin(ctx, "a", WriterOptions{Beat: haltedBeat})
		if err != nil {
			t.Fatal(err)
		}
		if other.Number != 2 || len(other.History.Levels) != 1 {
			t.Errorf("%s: the next run is %s, on %d levels", at, other.Number, len(other.History.Levels))
		}
		if err := other.Abort(ctx); err != nil {
			t.Error(err)
		}
		wake()
		if err := <-done; err != nil && !errors.Is(err, ErrUndecided) {
			t.Errorf("%s: the sleeper: %v", at, err)
		}
		for range 2 {
			if err := <-x.gc(r2); err != nil {
				t.Error(err)
			}
		}
		x.whole("a")
		// It is a level like any other: if its record is lost, too.
		x.lose("levels/a/1.json")
		if lostOf(<-x.gc(r2)) == nil {
			t.Errorf("%s: gc goes on", at)
		}
		if recovered, err := r2.Recover(ctx); err != nil || len(recovered) != 1 {
			t.Errorf("%s: recovered %v: %v", at, recovered, err)
		}
		x.whole("a")
	}
}

// Chunks that are gone do not keep a level from being finished: they are noted. If
// its map cannot be read, that is for Recover, and nothing is deleted until then.
func TestUnfinishable(t *testing.T) {
	ctx := context.Background()
	lostBesideClaim := func(x *halting) (*Repository, RunID) {
		h, _, _ := x.host(1)
		b := &keepsClaims{x.disk, true}
		r, err := h.open(b)
		if err != nil {
			t.Fatal(err)
		}
		w := begin(t, r, "a")
		if err := h.write(ctx, r, w, nil, [simChunks]byte{1, 2, 3}); err != nil {
			t.Fatal(err)
		}
		b.keep = false
		x.lose("levels/a/1.json")
		return r, w.ID
	}

	x := newHalting(t)
	r, _ := lostBesideClaim(x)
	x.lose("data/")
	if err := <-x.gc(r); err != nil {
		t.Error(err)
	}
	levels, err := r.Levels(ctx, "a")
	d, damageErr := r.Damage(ctx)
	if err != nil || damageErr != nil || len(levels) != 1 || !d.Any() {
		t.Errorf("%d levels, %v, %v", len(levels), err, damageErr)
	}

	x = newHalting(t)
	r, run := lostBesideClaim(x)
	for _, folder := range foldersOf(KindMap) {
		overwrite(t, x.disk, packKey(folder, PackID{Run: run}, 0), []byte("no pack"))
	}
	if lostOf(<-x.gc(r)) == nil {
		t.Error("gc goes on")
	}
	if w, err := r.Begin(ctx, "a", WriterOptions{}); lostOf(err) == nil {
		t.Errorf("a backup begins: %v, %v", w, err)
	}
	var gone *UnrecoverableError
	if recovered, err := r.Recover(ctx); !errors.As(err, &gone) {
		t.Errorf("recovered %v: %v", recovered, err)
	}
	if _, err := r.Abandon(ctx); err != nil {
		t.Error(err)
	}
	if err := begin(t, r, "a").Abort(ctx); err != nil {
		t.Error(err)
	}
	if err := <-x.gc(r); err != nil {
		t.Error(err)
	}
}

// The same where the run cannot read what stands at its number, once or for long:
// it may be its own level, and keeps its maps.
func TestFinishedAndCannotBeRead(t *testing.T) {
	ctx := context.Background()
	for _, times := range []int{1, 1000} {
		x := newHalting(t)
		h1, b1, _ := x.host(1)
		_, _, r2 := x.host(2)
		b := &unreadable{Backend: b1, key: levelKey("a", 1)}
		r1, err := h1.open(b)
		if err != nil {
			t.Fatal(err)
		}
		w, err := r1.Begin(ctx, "a", WriterOptions{Beat: haltedBeat})
		if err != nil {
			t.Fatal(err)
		}
		came, wake := b1.stop(first("get " + claimKey("a", 1)))
		done := make(chan error, 1)
		go func() { done <- h1.write(ctx, r1, w, nil, [simChunks]byte{4, 5, 6}) }()
		<-came
		taken()
		if err := begin(t, r2, "a").Abort(ctx); err != nil {
			t.Fatal(err)
		}
		b.times.Store(int64(times))
		wake()
		if err := <-done; !errors.Is(err, ErrUndecided) || !errors.Is(err, syscall.EIO) {
			t.Errorf("%d times: the sleeper: %v", times, err)
		}
		if b.times.Load() == int64(times) {
			t.Error("nothing failed")
		}
		for range 2 {
			if err := <-x.gc(r2); err != nil {
				t.Errorf("%d times: gc: %v", times, err)
			}
		}
		x.whole("a")
		// Nor has it given itself up: if the level's record is lost, too, that comes back.
		x.lose("levels/a/1.json")
		if recovered, err := r2.Recover(ctx); err != nil || len(recovered) != 1 {
			t.Errorf("%d times: recovered %v: %v", times, recovered, err)
		}
		x.whole("a")
	}
}

// unreadable is a backend on which an object cannot be read so many times.
type unreadable struct {
	Backend
	key   string
	times atomic.Int64
}

func (b *unreadable) Get(ctx context.Context, key string, p []byte, off int64) (int, error) {
	if key == b.key && b.times.Add(-1) >= 0 {
		return 0, syscall.EIO
	}
	return b.Backend.Get(ctx, key, p, off)
}

// Whoever finishes the level of a run that sleeps puts the copy of the map that was
// missing. If that goes bad before the run wakes up and would put it, the run ends with
// an error; its level stands on the other copy.
func TestFinishedAndItsCopyIsBad(t *testing.T) {
	ctx := context.Background()
	x := newHalting(t)
	h1, b1, r1 := x.host(1)
	_, _, r2 := x.host(2)
	w, err := r1.Begin(ctx, "a", WriterOptions{Beat: haltedBeat})
	if err != nil {
		t.Fatal(err)
	}
	copyKey := packKey(twinsPrefix, PackID{Run: w.ID}, 0)
	came, wake := b1.stop(first("put " + copyKey))
	done := make(chan error, 1)
	go func() { done <- h1.write(ctx, r1, w, nil, [simChunks]byte{4, 5, 6}) }()
	<-came
	taken()
	other := begin(t, r2, "a")
	if len(other.History.Levels) != 1 {
		t.Errorf("the next run finds %d levels", len(other.History.Levels))
	}
	if err := other.Abort(ctx); err != nil {
		t.Fatal(err)
	}
	overwrite(t, x.disk, copyKey, make([]byte, 100))
	wake()
	if err := <-done; !errors.Is(err, ErrUndecided) || !errors.Is(err, fs.ErrExist) {
		t.Errorf("the sleeper: %v", err)
	}
	for range 2 {
		if err := <-x.gc(r2); err != nil {
			t.Error(err)
		}
	}
	x.whole("a")
}
