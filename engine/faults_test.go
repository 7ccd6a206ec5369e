package engine_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"backy/engine"
	"backy/store"
	"backy/store/faulty"
	"backy/store/mem"
)

// trouble is a way in which calls of a backend go wrong, the i-th and maybe
// those after it.
type trouble struct {
	name  string
	fault func(i int) faulty.Fault
	// once: no other call fails, and this one fails cleanly. Then it can always
	// be known whether a level stands.
	once bool
	// torn: an object may have been half written.
	torn bool
	late bool
}

// at makes a fault strike the i-th call.
func from(f faulty.Fault) func(i int) faulty.Fault {
	return func(i int) faulty.Fault {
		f.At = i
		return f
	}
}

// garble changes the first byte of what is read, or another one.
func garble(p []byte, off int64, err error) (int, error) {
	if len(p) > 0 {
		p[int(off)%len(p)] ^= 0x40
	}
	return len(p), err
}

var troubles = []trouble{
	{name: "error", once: true, fault: from(faulty.Fault{Err: syscall.EIO})},
	{name: "full", once: true, fault: from(faulty.Fault{Call: faulty.Put, Err: syscall.ENOSPC})},
	{name: "done but error", once: true, fault: from(faulty.Fault{Err: syscall.EIO, Done: true})},
	{name: "short read", once: true, fault: from(faulty.Fault{Call: faulty.Get, Read: faulty.Short(7, io.ErrUnexpectedEOF)})},
	{name: "early end", once: true, fault: from(faulty.Fault{Call: faulty.Get, Read: faulty.Short(7, io.EOF)})},
	{name: "garbled read", once: true, fault: from(faulty.Fault{Call: faulty.Get, Read: garble})},
	{name: "late put", once: true, late: true, fault: from(faulty.Fault{Call: faulty.Put, Err: syscall.EIO, Late: true})},
	{name: "late delete", once: true, late: true, fault: from(faulty.Fault{Call: faulty.Delete, Err: syscall.EIO, Late: true})},
	{name: "two errors", fault: from(faulty.Fault{Err: syscall.EIO, Times: 2})},
	{name: "done but errors", fault: from(faulty.Fault{Err: syscall.EIO, Done: true, Times: 3})},
	{name: "gone", fault: from(faulty.Fault{Err: syscall.EIO, Times: faulty.Always})},
	{name: "full for ever", fault: from(faulty.Fault{Call: faulty.Put, Err: syscall.ENOSPC, Times: faulty.Always})},
	{name: "reads gone", fault: from(faulty.Fault{Call: faulty.Get, Err: syscall.EIO, Times: faulty.Always})},
	{name: "lists gone", fault: from(faulty.Fault{Call: faulty.List, Err: syscall.EIO, Done: true, Times: faulty.Always})},
	{name: "late and gone", late: true, fault: from(faulty.Fault{Call: faulty.Put, Err: syscall.EIO, Late: true, Times: faulty.Always})},
	{name: "torn put", torn: true, fault: from(faulty.Fault{Call: faulty.Put, Err: errTorn})},
	{name: "cancelled", fault: from(faulty.Fault{Err: errCancel})},
}

// Errors that stand for what package faulty does not do.
var (
	errTorn   = errors.New("torn")
	errCancel = errors.New("cancelled here")
)

// world is a backend in trouble.
type world struct {
	*faulty.Faulty
	below  *mem.Mem
	cancel context.CancelFunc
}

// Put puts half an object where it is torn.
func (w *world) Put(ctx context.Context, key string, parts ...[]byte) error {
	err := w.Faulty.Put(ctx, key, parts...)
	if err == errTorn {
		p := slices.Concat(parts...)
		if putErr := w.below.Put(ctx, key, p[:len(p)/2]); putErr != nil {
			return putErr
		}
	}
	return w.translate(ctx, err, func() error { return w.below.Put(ctx, key, parts...) })
}

func (w *world) Get(ctx context.Context, key string, p []byte, off int64) (n int, err error) {
	n, err = w.Faulty.Get(ctx, key, p, off)
	return n, w.translate(ctx, err, func() (err error) { n, err = w.below.Get(ctx, key, p, off); return err })
}

func (w *world) List(ctx context.Context, prefix string, fn func(string, int64) error) error {
	return w.translate(ctx, w.Faulty.List(ctx, prefix, fn), func() error { return w.below.List(ctx, prefix, fn) })
}

func (w *world) Delete(ctx context.Context, key string) error {
	return w.translate(ctx, w.Faulty.Delete(ctx, key), func() error { return w.below.Delete(ctx, key) })
}

// translate does what an error stands for: at errCancel the user gives up, and
// the call goes on as its context says.
func (w *world) translate(ctx context.Context, err error, call func() error) error {
	switch {
	case err == errTorn:
		return syscall.EIO
	case err == errCancel:
		w.cancel()
		return call()
	}
	return err
}

// each tries what happens when the i-th call goes wrong, for i from 0 until a
// run sees no trouble: in soak all, else one in step. do is called in a bubble, where time does not pass for
// nothing, nothing may hang, and no goroutine may stay behind.
func each(t *testing.T, start *mem.Mem, step int, do func(ctx context.Context, t *testing.T, w *world, tr trouble)) {
	tried := 0
	for _, tr := range troubles {
		t.Run(tr.name, func(t *testing.T) {
			if *soak {
				step = 1
			}
			for i := 0; ; i += step {
				struck := 0
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := context.WithCancel(t.Context())
					b := start.At(len(start.Log()))
					w := &world{faulty.New(b, faulty.Plan{tr.fault(i)}), b, cancel}
					do(ctx, t, w, tr)
					struck = w.Struck()
				})
				if t.Failed() {
					t.Fatalf("at call %d", i)
				}
				if struck == 0 {
					break
				}
				tried++
			}
		})
	}
	t.Logf("%d faults", tried)
}

// levelOf returns the level that a run made, if it stands.
func levelOf(t testing.TB, b *mem.Mem, name store.Name, run store.RunID) (store.Level, bool) {
	t.Helper()
	levels, _ := reopen(t, b).Levels(context.Background(), name)
	for _, l := range levels {
		if l.Run == run {
			return l, true
		}
	}
	return store.Level{}, false
}

// troubledBackup is a backup on a backend in trouble. It sees to it that what
// the backup answers, what the source was told and what is in the repository
// agree.
func (s *story) troubledBackup(ctx context.Context, t *testing.T, w *world, tr trouble, way way) (level store.Level, err error) {
	t.Helper()
	src := &honest{image: image{data: changedAt(s.images["a"], 99, chunk, 16*chunk)}, ledger: s.ledger, way: way}
	// Known to the cache from another image, so that the run makes references
	// into foreign packs.
	copy(src.data[10*chunk:], s.images["b"][:2*chunk])
	r, err := store.Open(ctx, w, s.cache)
	if err != nil {
		return level, err
	}
	defer r.Close()
	level, err = engine.Backup(ctx, r, "a", src, engine.BackupOptions{})
	_, stands := levelOf(t, w.below, "a", src.run)
	want := engine.Failed
	switch {
	case err == nil && (!stands || level.Run != src.run):
		t.Errorf("no error, and no level")
	case err == nil:
		want = engine.Committed
	case errors.Is(err, store.ErrUndecided) && tr.once:
		t.Errorf("undecided, though all can be known: %v", err)
	case errors.Is(err, store.ErrUndecided):
		want = engine.Undecided
	case stands:
		t.Errorf("there is a level, and the error %v", err)
	}
	if src.begun > 1 || src.ended != src.begun || src.begun == 1 && src.outcome != want {
		t.Errorf("the source began %d times and ended %d times, with %d instead of %d: %v", src.begun, src.ended, src.outcome, want, err)
	}
	level.Run = src.run
	return level, err
}

// A backup, of whatever kind, in whatever trouble: its answer is true, what
// was there stays, and the next backup works, whenever late calls land.
func TestTroubledBackup(t *testing.T) {
	s := newStory(t, 17)
	s.cache = t.TempDir()
	s.images["b"] = bytes.Clone(s.images["b"])
	fill(s.rnd, s.images["b"][:4*chunk])
	s.backup("b", compareAll)
	s.backup("a", byAllocated)
	s.write("a", 8*chunk)
	s.backup("a", byDiff)
	for name, way := range map[string]way{"diff": byDiff, "everything": compareAll, "stream": asStream} {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int32
			each(t, s.b, 3, func(ctx context.Context, t *testing.T, w *world, tr trouble) {
				level, err := s.troubledBackup(ctx, t, w, tr, way)
				s.afterwards(t, w, tr, level.Run, err, int(n.Add(1)))
			})
		})
	}
}

// A level that can be read but cannot be made durable does not count as
// committed: the source must keep the older snapshot.
func TestCommitThatIsNotDurable(t *testing.T) {
	s := newStory(t, 17)
	s.backup("a", byAllocated)
	for times, want := range map[int]engine.Outcome{1: engine.Committed, faulty.Always: engine.Undecided} {
		b := s.b.At(len(s.b.Log()))
		f := faulty.New(b, faulty.Plan{
			{Call: faulty.Put, Prefix: "levels/", Err: syscall.EIO, Done: true},
			{Call: faulty.Sync, Prefix: "levels/", Times: times, Err: syscall.EIO},
		})
		r, err := store.Open(t.Context(), f, "")
		if err != nil {
			t.Fatal(err)
		}
		src := &honest{image: image{data: s.images["a"]}, ledger: s.ledger}
		_, err = engine.Backup(t.Context(), r, "a", src, engine.BackupOptions{})
		if src.outcome != want || errors.Is(err, store.ErrUndecided) != (want == engine.Undecided) {
			t.Errorf("%d failing syncs: outcome %d instead of %d, %v", times, src.outcome, want, err)
		}
		s.next(t, b, "a", s.images["a"], byDiff)
	}
}

// afterwards has the next run come, and late calls land before, while or after
// it does.
func (s *story) afterwards(t *testing.T, w *world, tr trouble, run store.RunID, err error, variant int) {
	t.Helper()
	ledger := s.ledgerFor(tr)
	land := func() { _ = w.Land(context.Background()) }
	never := func() {
		t.Helper()
		if _, stands := levelOf(t, w.below, "a", run); run != 0 && stands && err != nil && !errors.Is(err, store.ErrUndecided) {
			t.Errorf("a level came late, after the error %v", err)
		}
	}
	if variant%3 == 0 {
		land()
		never()
	}
	data := changedAt(s.images["a"], byte(variant), 9*chunk)
	ledger.begun = func() {
		if variant%3 == 1 {
			land()
		}
	}
	ledger.next(t, w.below, "a", data, byDiff)
	land()
	never()
	ledger.check(t, w.below)
}

func (s *story) ledgerFor(tr trouble) *ledger {
	l := *s.ledger
	l.torn = tr.torn
	return &l
}

// A restore in trouble gives the right bytes or an error; where one read
// fails once, it gives the bytes.
func TestTroubledRestore(t *testing.T) {
	s := newStory(t, 17)
	s.backup("a", byAllocated)
	s.write("a", 8*chunk)
	level := s.backup("a", byDiff)
	each(t, s.b, 1, func(ctx context.Context, t *testing.T, w *world, tr trouble) {
		r, err := store.Open(ctx, w, "")
		if err != nil {
			return
		}
		d := &disk{old: bytes.Repeat([]byte{7}, len(s.images["a"]))}
		_, err = engine.Restore(ctx, r, level, d, engine.RestoreOptions{})
		switch {
		case err == nil && (!d.finished || d.aborted || !bytes.Equal(d.data, s.images["a"])):
			t.Error("wrong bytes without an error")
		case err != nil && (d.finished || d.data != nil && !d.aborted):
			t.Errorf("after %v, finished %v and aborted %v", err, d.finished, d.aborted)
		}
		var p bytes.Buffer
		if _, err := engine.Stream(ctx, r, level, &p, engine.RestoreOptions{}); err == nil && !bytes.Equal(p.Bytes(), s.images["a"]) {
			t.Error("wrong bytes streamed without an error")
		} else if !bytes.HasPrefix(s.images["a"], p.Bytes()) {
			t.Errorf("wrong bytes streamed before %v", err)
		}
		_ = w.Land(context.Background())
		s.check(t, w.below)
	})
}

// A scrub in trouble does not call a level damaged for one read that fails,
// and a level that is damaged it does not call whole.
func TestTroubledScrub(t *testing.T) {
	s := newStory(t, 17)
	level := s.backup("a", byAllocated)
	s.write("a", 8*chunk)
	s.backup("a", byDiff)
	for _, h := range []harm{{name: "none"}, flip("data/", 500), flip("maps/", 300)} {
		t.Run(h.name, func(t *testing.T) {
			b := s.b.At(len(s.b.Log()))
			if h.do != nil {
				h.do(t, b)
			}
			each(t, b, 2, func(ctx context.Context, t *testing.T, w *world, tr trouble) {
				r, err := store.Open(ctx, w, "")
				if err != nil {
					return
				}
				_, err = engine.Scrub(ctx, r, level, engine.ScrubOptions{})
				var damaged *engine.DamagedError
				if is := errors.As(err, &damaged); h.do == nil && is && tr.once {
					t.Errorf("called damaged: %v", err)
				} else if h.do != nil && err == nil {
					t.Error("called whole")
				}
				_ = w.Land(context.Background())
				if h.do == nil {
					s.check(t, w.below)
				} else {
					s.tolerate(t, w.below)
				}
			})
		})
	}
}

// A removal in trouble removes what it was asked to, or answers with an error;
// no other level goes.
func TestTroubledRemoval(t *testing.T) {
	s := newStory(t, 17)
	for range 4 {
		s.backup("a", byDiff)
		s.write("a", 8*chunk)
	}
	each(t, s.b, 1, func(ctx context.Context, t *testing.T, w *world, tr trouble) {
		r, err := store.Open(ctx, w, "")
		if err == nil {
			err = engine.Remove(ctx, r, "a", []store.LevelNumber{1, 3})
		}
		left := standing(t, w.below)["a"]
		if err == nil && !slices.Equal(left, []store.LevelNumber{2, 4}) {
			t.Errorf("without an error, %v are left", left)
		}
		if !slices.Contains(left, 2) || !slices.Contains(left, 4) {
			t.Errorf("%v are left: %v", left, err)
		}
		s.afterwards(t, w, tr, 0, err, len(left))
	})
}

// A backup that mends, in trouble, loses nothing, and the next one mends what
// it left.
func TestTroubledMend(t *testing.T) {
	before := newStory(t, 17)
	before.backup("a", byAllocated)
	before.write("a", 8*chunk)
	before.backup("a", byDiff)
	for _, h := range []harm{both(flip("data/", 300), flip("maps/", 500)), both(lose("data/"), lose("maps2/"))} {
		t.Run(h.name, func(t *testing.T) {
			s := *before
			s.b = before.b.At(len(before.b.Log()))
			h.do(t, s.b)
			s.scrub(t, s.b)
			var n atomic.Int32
			each(t, s.b, 5, func(ctx context.Context, t *testing.T, w *world, tr trouble) {
				level, err := s.troubledBackup(ctx, t, w, tr, byDiff)
				if n.Add(1)%2 == 0 {
					_ = w.Land(context.Background())
				}
				ledger := s.ledgerFor(tr)
				ledger.tolerate(t, w.below)
				ledger.scrub(t, w.below)
				for range 2 { // the second finds what the first was told was bad
					src := &honest{image: image{data: s.images["a"]}, ledger: ledger, way: byDiff}
					if _, err := engine.Backup(context.Background(), reopen(t, w.below), "a", src, engine.BackupOptions{}); err != nil {
						t.Fatal(err)
					}
					_ = w.Land(context.Background())
				}
				if _, stands := levelOf(t, w.below, "a", level.Run); stands && level.Base == 0 {
					// No record could be read, or no map, whether or not the run learnt that
					// its level stands: what only older levels have stays bad.
					s.checkLevel(t, reopen(t, w.below), mustLevel(t, reopen(t, w.below), "a"))
					return
				}
				ledger.check(t, w.below)
				if left := keys(t, w.below, "damaged/"); len(left) > 0 && !tr.torn {
					t.Errorf("noted as damaged still, after %v: %q", err, left)
				}
			})
		})
	}
}
