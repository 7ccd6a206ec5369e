package store

import (
	"context"
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"backy/store/mem"
)

// stopper halts a host before the first call that matches, as SIGSTOP would,
// until it is let go.
type stopper struct {
	*mem.Mem
	mu   sync.Mutex
	at   func(what string) bool
	came chan struct{}
	wake chan struct{}
	full int // puts of verdicts that find no room
}

// stop returns when the host halts, and a function that wakes it.
func (b *stopper) stop(at func(what string) bool) (came <-chan struct{}, wake func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, w := make(chan struct{}), make(chan struct{})
	b.at, b.came, b.wake = at, c, w
	return c, func() { close(w) }
}

func (b *stopper) call(what string) {
	b.mu.Lock()
	if b.at == nil || !b.at(what) {
		b.mu.Unlock()
		return
	}
	b.at = nil
	came, wake := b.came, b.wake
	b.mu.Unlock()
	close(came)
	<-wake
}

func (b *stopper) Put(ctx context.Context, key string, parts ...[]byte) error {
	b.call("put " + key)
	if b.full > 0 && strings.HasPrefix(key, workPrefix+"verdict.") {
		b.full--
		return syscall.ENOSPC
	}
	return b.Mem.Put(ctx, key, parts...)
}

func (b *stopper) Delete(ctx context.Context, key string) error {
	b.call("delete " + key)
	return b.Mem.Delete(ctx, key)
}

func (b *stopper) List(ctx context.Context, prefix string, fn func(string, int64) error) error {
	b.call("list " + prefix)
	return b.Mem.List(ctx, prefix, fn)
}

func (b *stopper) Get(ctx context.Context, key string, p []byte, off int64) (int, error) {
	b.call("get " + key)
	return b.Mem.Get(ctx, key, p, off)
}

// first matches the first call that begins like this.
func first(prefix string) func(string) bool {
	return func(what string) bool { return strings.HasPrefix(what, prefix) }
}

// halting are hosts on one repository that can be halted.
type halting struct {
	t    *testing.T
	w    *world
	disk *mem.Mem
}

func newHalting(t *testing.T) *halting {
	disk := simEmpty().At(1)
	return &halting{t, &world{t: t, disk: disk, oracle: newOracle(), harmed: newHarmed()}, disk}
}

// host opens the repository as another host.
func (x *halting) host(id int) (*host, *stopper, *Repository) {
	x.t.Helper()
	h, b := &host{w: x.w, id: id}, &stopper{Mem: x.disk}
	r, err := h.open(b)
	if err != nil {
		x.t.Fatal(err)
	}
	r.packSizes[KindData] = 1 << 20
	return h, b, r
}

// write makes a level.
func (x *halting) write(h *host, r *Repository, name Name, contents ...byte) Level {
	x.t.Helper()
	ctx := context.Background()
	var all [simChunks]byte
	copy(all[:], contents)
	if err := h.write(ctx, r, begin(x.t, r, name), nil, all); err != nil {
		x.t.Fatal(err)
	}
	levels, err := r.Levels(ctx, name)
	if err != nil {
		x.t.Fatal(err)
	}
	return levels[len(levels)-1]
}

// whole fails for levels of which anything is lost.
func (x *halting) whole(names ...Name) {
	x.t.Helper()
	ctx := context.Background()
	h, _, r := x.host(99)
	for _, name := range names {
		levels, err := r.Levels(ctx, name)
		if err != nil || len(levels) == 0 {
			x.t.Errorf("%s: %d levels: %v", name, len(levels), err)
		}
		for i := range levels {
			contents, bad, err := h.read(ctx, r, &levels[i])
			if err != nil || len(bad) > 0 || contents != x.w.oracle.of(levels[i].Run) {
				x.t.Errorf("%s level %s: %v, %v, %v", name, levels[i].Number, contents, bad, err)
			}
		}
	}
}

const haltedBeat = 20 * time.Millisecond

// gc runs in the background.
func (x *halting) gc(r *Repository) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := r.GC(context.Background(), GCOptions{Beat: haltedBeat})
		done <- err
	}()
	return done
}

// taken waits until others take a halted run for dead.
func taken() { time.Sleep(3 * haltedBeat) }

// A gc on a disk that is full for a moment is halted behind its deletions, for so
// long that it is taken for dead. What its successor has condemned stays so,
// whatever the first one deletes on waking: a backup that begins then does not
// come to refer to what is about to be collected.
func TestGCWakesBesideItsSuccessor(t *testing.T) {
	x := newHalting(t)
	ctx := context.Background()
	wh, wb, wr := x.host(1)
	x.write(wh, wr, "a", 1, 2, 3, 4, 5, 6, 7, 8)
	x.write(wh, wr, "a", 1)
	x.write(wh, wr, "c", 9, 10)
	for _, name := range []Name{"a", "c"} {
		if err := wr.Remove(ctx, name, []LevelNumber{1}); err != nil {
			t.Fatal(err)
		}
	}
	_, b2, r2 := x.host(2)
	b2.full = 1
	_, b3, r3 := x.host(3)
	deleting := false
	came, wake2 := b2.stop(func(what string) bool {
		deleting = deleting || strings.HasPrefix(what, "delete data/")
		return deleting && strings.HasPrefix(what, "delete work/waiting.")
	})
	done2 := x.gc(r2)
	<-came
	taken()
	came, wake3 := b3.stop(first("list data/"))
	done3 := x.gc(r3)
	<-came
	came, again := b2.stop(first("list levels/"))
	wake2()
	select {
	case <-came:
	case err := <-done2:
		done2 = make(chan error, 1)
		t.Log("the first gc:", err)
		again = func() {}
	}
	b := begin(t, wr, "b")
	came, wakeB := wb.stop(first("put levels/b/"))
	doneB := make(chan error, 1)
	go func() { doneB <- wh.write(ctx, wr, b, nil, [simChunks]byte{2, 3, 4}) }()
	<-came
	wake3()
	time.Sleep(5 * haltedBeat) // the second one waits for the backup, or has been fenced
	wakeB()
	if err := <-doneB; err != nil {
		t.Fatal(err)
	}
	again()
	t.Log("the second gc:", <-done3)
	x.whole("a", "b")
}

// A gc's verdict goes bad while the gc sleeps, just before it deletes a pack. The
// next gc names all of that again under its own name. Until then, and after it,
// nothing comes to refer to the pack that the sleeper deletes on waking.
func TestDamagedVerdictOfASleeper(t *testing.T) {
	x := newHalting(t)
	ctx := context.Background()
	wh, _, wr := x.host(1)
	old := x.write(wh, wr, "a", 1, 2, 3, 4)
	x.write(wh, wr, "a", 5)
	if err := wr.Remove(ctx, "a", []LevelNumber{1}); err != nil {
		t.Fatal(err)
	}
	_, b2, r2 := x.host(2)
	came, wake := b2.stop(first("delete data/" + old.Run.String()))
	done2 := x.gc(r2)
	<-came
	taken()
	for _, key := range claims(t, wr) {
		if strings.HasPrefix(key, workPrefix+"verdict.") {
			p, _ := readAll(ctx, x.disk, key, maxJSON)
			p[len(p)/2] ^= 1
			overwrite(t, x.disk, key, p)
		}
	}
	_, b3, r3 := x.host(3)
	came, wake3 := b3.stop(first("put work/waiting."))
	done3 := x.gc(r3)
	<-came
	// Both have condemned it.
	c, err := wr.condemnedPacks(ctx, 1)
	if err != nil || !c.has(PackID{Run: old.Run}) {
		t.Errorf("not condemned: %v, %v", c, err)
	}
	mine := 0
	for _, key := range claims(t, wr) {
		if strings.HasPrefix(key, gcKey("condemned", lastGC(t, wr))) {
			mine++
		}
	}
	if mine == 0 {
		t.Error("the second gc has condemned nothing in its own name")
	}
	x.write(wh, wr, "b", 2, 3, 4)
	wake3()
	if err := <-done3; err != nil {
		t.Errorf("the second gc: %v", err)
	}
	wake()
	if err := <-done2; !errors.Is(err, ErrFenced) {
		t.Errorf("the sleeper: %v", err)
	}
	x.whole("a", "b")
	for range 2 {
		if err := <-x.gc(wr); err != nil {
			t.Error(err)
		}
	}
	x.whole("a", "b")
}

// lastGC is the newest run that has a gc's claim.
func lastGC(t *testing.T, r *Repository) (last RunID) {
	t.Helper()
	runs, err := r.gcRuns(context.Background(), "gc")
	if err != nil {
		t.Fatal(err)
	}
	for _, run := range runs {
		last = max(last, run)
	}
	return last
}
