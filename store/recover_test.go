package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"backy/store/mem"
)

// lose deletes what stands below a prefix.
func (x *halting) lose(prefix string) {
	x.t.Helper()
	ctx := context.Background()
	_, _, r := x.host(98)
	keys, err := r.list(ctx, prefix)
	if err == nil && len(keys) == 0 {
		err = fs.ErrNotExist
	}
	if err == nil {
		err = r.deleteAll(ctx, keys, nil)
	}
	if err != nil {
		x.t.Fatalf("lose %s: %v", prefix, err)
	}
}

func lostOf(err error) *LostError {
	var lost *LostError
	errors.As(err, &lost)
	return lost
}

// While a record is lost, gc collects nothing and names the level, whichever
// record it is; Recover puts it back, and then gc goes on.
func TestLostRecordsStopGC(t *testing.T) {
	for _, c := range []struct {
		name string
		lose []string
		want []LostLevel
	}{
		{"the newest", []string{"levels/a/3.json"}, []LostLevel{{Name: "a", Number: 3}}},
		{"in the middle", []string{"levels/a/2.json"}, []LostLevel{{Name: "a", Number: 2}}},
		{"the only one", []string{"levels/b/1.json"}, []LostLevel{{Name: "b", Number: 1}}},
		{"a whole name", []string{"levels/a/"}, []LostLevel{{Name: "a", Number: 2}, {Name: "a", Number: 3}}},
		{"all", []string{"levels/"}, []LostLevel{{Name: "a", Number: 2}, {Name: "a", Number: 3}, {Name: "b", Number: 1}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := context.Background()
			x := newHalting(t)
			h, _, r := x.host(1)
			x.write(h, r, "a", 1, 2, 3)
			x.write(h, r, "a", 4, 5)
			x.write(h, r, "a", 6, 7)
			x.write(h, r, "b", 8)
			if err := r.Remove(ctx, "a", []LevelNumber{1}); err != nil {
				t.Fatal(err)
			}
			if err := <-x.gc(r); err != nil {
				t.Fatal(err)
			}
			for _, prefix := range c.lose {
				x.lose(prefix)
			}
			before := len(x.disk.Log())
			lost := lostOf(<-x.gc(r))
			if lost == nil || fmt.Sprint(lost.Levels) != fmt.Sprint(c.want) {
				t.Errorf("gc says that %v are lost", lost)
			}
			for _, op := range x.disk.Log()[before:] {
				if !strings.HasPrefix(op.Key, workPrefix) {
					t.Errorf("gc changed %s", op.Key)
				}
			}
			if lost, err := r.LostLevels(ctx, nil); err != nil || lost == nil || fmt.Sprint(lost.Levels) != fmt.Sprint(c.want) {
				t.Errorf("lost: %v, %v", lost, err)
			}
			recovered, err := r.Recover(ctx)
			if err != nil || len(recovered) != len(c.want) {
				t.Fatalf("recovered %v: %v", recovered, err)
			}
			// Of a name that is lost as a whole, so are the removals.
			if strings.HasPrefix(c.name, "a") && fmt.Sprint(recovered[0].Absent) != "[1]" {
				t.Errorf("absent: %v", recovered[0].Absent)
			}
			for range 2 {
				if err := <-x.gc(r); err != nil {
					t.Errorf("gc afterwards: %v", err)
				}
			}
			x.whole("a", "b")
			x.w.checkStock(ctx, r)
		})
	}
}

// What cannot be brought back stops gc until somebody gives it up.
func TestAbandon(t *testing.T) {
	ctx := context.Background()
	x := newHalting(t)
	h, _, r := x.host(1)
	first := x.write(h, r, "a", 1, 2)
	x.write(h, r, "a", 3)
	newest := x.write(h, r, "b", 4)
	x.lose("levels/a/1.json")
	x.lose("levels/b/")
	for _, folder := range foldersOf(KindMap) {
		key := folder + first.Run.String()
		x.lose(key)
		key = packKey(folder, PackID{Run: newest.Run}, 0)
		overwrite(t, x.disk, key, []byte("no pack"))
	}
	var gone *UnrecoverableError
	if _, err := r.Recover(ctx); !errors.As(err, &gone) {
		t.Errorf("recovered: %v", err)
	}
	if lost := lostOf(<-x.gc(r)); lost == nil {
		t.Error("gc goes on")
	}
	given, err := r.Abandon(ctx)
	if err != nil || len(given) != 1 || given[0].Number != 1 {
		t.Errorf("given up: %v, %v", given, err)
	}
	if err := <-x.gc(r); err != nil {
		t.Errorf("gc afterwards: %v", err)
	}
	x.whole("a")
	if given, err := r.Abandon(ctx); err != nil || len(given) > 0 {
		t.Errorf("given up once more: %v, %v", given, err)
	}
}

// Of a recovery and a gc that live, one is told that the other is at work.
func TestRecoverTakesTheGCsPlace(t *testing.T) {
	ctx := context.Background()
	x := newHalting(t)
	h, _, r := x.host(1)
	x.write(h, r, "a", 1, 2)
	_, b2, r2 := x.host(2)
	var busy *BusyError

	came, wake := b2.stop(first("list data/"))
	done := make(chan error, 1)
	go func() {
		_, err := r2.GC(ctx, GCOptions{})
		done <- err
	}()
	<-came
	if _, err := r.Recover(ctx); !errors.As(err, &busy) {
		t.Errorf("recover beside a gc: %v", err)
	}
	wake()
	if err := <-done; err != nil {
		t.Error(err)
	}

	x.lose("levels/a/")
	came, wake = b2.stop(first("put levels/"))
	go func() {
		_, err := r2.Recover(ctx)
		done <- err
	}()
	<-came
	if _, err := r.GC(ctx, GCOptions{}); !errors.As(err, &busy) {
		t.Errorf("gc beside a recovery: %v", err)
	}
	wake()
	if err := <-done; err != nil {
		t.Error(err)
	}
	x.whole("a")
}

// A recovery ends at any call; after it come, in every order, a backup of the
// name, a gc, and another recovery. The level that was lost is whole in the end.
func TestRecoverEndsAnywhere(t *testing.T) {
	ctx := context.Background()
	afterwards := map[string]func(x *halting, h *host, r *Repository) error{
		"backup": func(x *halting, h *host, r *Repository) error {
			w, err := r.Begin(ctx, "a", WriterOptions{})
			if err == nil {
				err = h.write(ctx, r, w, nil, [simChunks]byte{9, 8})
			}
			return err
		},
		"gc": func(_ *halting, _ *host, r *Repository) error {
			_, err := r.GC(ctx, GCOptions{})
			if lostOf(err) != nil {
				return nil
			}
			return err
		},
	}
	for _, order := range [][]string{{"backup", "gc"}, {"gc", "backup"}} {
		for at := 0; ; at++ {
			x := newHalting(t)
			h, _, r := x.host(1)
			x.write(h, r, "a", 1, 2)
			lost := x.write(h, r, "a", 3, 4)
			x.lose("levels/a/2.json")
			b := &failing{Backend: x.disk, at: at, always: true, err: errCrashed}
			crashing, err := h.open(b)
			if err != nil {
				continue // it ends before it has begun
			}
			_, err = crashing.Recover(ctx)
			ended := b.struck == 0
			if ended && err != nil {
				t.Fatal(err)
			}
			claimed, err := r.recoverClaims(ctx, "a")
			if err != nil {
				t.Fatal(err)
			}
			there, err := r.stands(ctx, levelKey("a", 2))
			if err != nil {
				t.Fatal(err)
			}
			if len(claimed) == 0 && !there {
				// The number is free still: who takes it has the newer state.
				if _, err := r.Recover(ctx); err != nil {
					t.Fatalf("at call %d: %v", at, err)
				}
			}
			for _, what := range order {
				if err := afterwards[what](x, h, r); err != nil {
					t.Fatalf("at call %d, %s: %v", at, what, err)
				}
			}
			if _, err := r.Recover(ctx); err != nil {
				t.Fatalf("at call %d, the next recovery: %v", at, err)
			}
			if _, err := r.GC(ctx, GCOptions{}); err != nil {
				t.Fatalf("at call %d, the last gc: %v", at, err)
			}
			x.whole("a")
			levels, err := r.Levels(ctx, "a")
			if err != nil || len(levels) != 3 || levels[1].Run != lost.Run {
				t.Fatalf("at call %d, %v: %d levels, %v", at, order, len(levels), err)
			}
			x.w.checkStock(ctx, r)
			if ended {
				break
			}
		}
	}
}

// A recovery halts just before it puts the record, is taken for dead, and wakes
// up after others have done all that they may.
func TestRecoverSleeps(t *testing.T) {
	ctx := context.Background()
	x := newHalting(t)
	h, _, r := x.host(1)
	x.write(h, r, "a", 1, 2)
	x.write(h, r, "b", 3, 4, 5)
	x.lose("levels/b/")
	_, b2, r2 := x.host(2)
	came, wake := b2.stop(first("put levels/"))
	done := make(chan error, 1)
	go func() {
		_, err := r2.Recover(ctx)
		done <- err
	}()
	<-came
	replant(t, r, haltedBeat)
	taken()
	if lost := lostOf(<-x.gc(r)); lost == nil {
		t.Error("gc goes on while a recovery sleeps")
	}
	x.write(h, r, "b", 6)
	wake()
	if err := <-done; err != nil && !errors.Is(err, ErrFenced) {
		t.Error(err)
	}
	if _, err := r.Recover(ctx); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-x.gc(r); err != nil {
			t.Error(err)
		}
	}
	x.whole("a", "b")
	if levels, err := r.Levels(ctx, "b"); err != nil || len(levels) != 2 {
		t.Errorf("%d levels: %v", len(levels), err)
	}
}

// replant gives the claims of gcs another beat, so that they are soon taken for
// dead.
func replant(t *testing.T, r *Repository, beat time.Duration) {
	t.Helper()
	ctx := context.Background()
	for _, key := range claims(t, r) {
		if !strings.HasPrefix(key, workPrefix+"gc.") {
			continue
		}
		var c gcClaim
		err := r.getObject(ctx, key, "gc", &c)
		if err == nil {
			err = r.backend.Delete(ctx, key)
		}
		if err == nil {
			c.Beat = beat.Seconds()
			err = r.putObject(ctx, key, "gc", &c)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A verdict that names the packs of a lost level, as one of an older version
// may: the level is put back whole, and stays so when the verdict is carried out,
// by the recovery itself and by a gc that had slept over it.
func TestRecoverFromUnderAVerdict(t *testing.T) {
	for _, damaged := range []bool{false, true} {
		t.Run(fmt.Sprint("damaged ", damaged), func(t *testing.T) {
			ctx := context.Background()
			x := newHalting(t)
			h, _, r := x.host(1)
			x.write(h, r, "a", 1, 2)
			lost := x.write(h, r, "b", 3, 4, 5)
			x.lose("levels/b/")
			var list []sentence
			var names []packName
			for _, kind := range []Kind{KindData, KindMap} {
				list = append(list, sentence{Kind: kind, Pack: PackID{Run: lost.Run}})
				names = append(names, packName{foldersOf(kind)[0], PackID{Run: lost.Run}})
			}
			const run = 99
			err := errors.Join(
				r.putObject(ctx, gcKey("gc", run), "gc", &gcClaim{Run: run, Beat: 1e-3}),
				r.putCondemned(ctx, run, names),
				r.putVerdict(ctx, &verdict{Run: run}, list),
			)
			if err != nil {
				t.Fatal(err)
			}
			if damaged {
				overwrite(t, x.disk, gcKey("verdict", run), []byte("bad"))
			} else if lostOf(<-x.gc(r)) == nil {
				t.Error("gc carries out what names a lost level's packs")
			}
			if recovered, err := r.Recover(ctx); err != nil || len(recovered) != 1 || recovered[0].Damaged > 0 {
				t.Fatalf("recovered %v: %v", recovered, err)
			}
			x.whole("a", "b")
			// The sleeper wakes up.
			for _, s := range list {
				for _, folder := range foldersOf(s.Kind) {
					if err := r.backend.Delete(ctx, packKey(folder, s.Pack, 0)); err != nil {
						t.Fatal(err)
					}
				}
			}
			x.whole("a", "b")
			for range 2 {
				if err := <-x.gc(r); err != nil {
					t.Error(err)
				}
			}
			x.whole("a", "b")
		})
	}
}

// A level of which something is gone is put back with that noted, so that nobody
// takes it for whole.
func TestRecoverNotesWhatIsMissing(t *testing.T) {
	ctx := context.Background()
	x := newHalting(t)
	h, _, r := x.host(1)
	lost := x.write(h, r, "a", 1, 2)
	x.lose("levels/a/")
	x.lose(dataPrefix + lost.Run.String())
	recovered, err := r.Recover(ctx)
	if err != nil || len(recovered) != 1 || recovered[0].Damaged != 2 {
		t.Fatalf("recovered %v: %v", recovered, err)
	}
	d, err := r.Damage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := r.DamagedLevels(ctx, d); err != nil || len(list) != 1 || list[0].Chunks != 2 {
		t.Errorf("damaged: %v, %v", list, err)
	}
}

// A call of the backend that fails reaches the caller, or makes no difference;
// nothing is taken for gone because of it. Each call of each verb fails once.
func TestFailuresAreNotSwallowed(t *testing.T) {
	ctx := context.Background()
	for name, verb := range map[string]func(r *Repository) (any, error){
		"recover": func(r *Repository) (any, error) { return r.Recover(ctx) },
		"gc":      func(r *Repository) (any, error) { return r.GC(ctx, GCOptions{}) },
		"lost":    func(r *Repository) (any, error) { return r.LostLevels(ctx, nil) },
		"names":   func(r *Repository) (any, error) { return r.Names(ctx) },
		"levels":  func(r *Repository) (any, error) { return r.Levels(ctx, "a") },
		"damage":  func(r *Repository) (any, error) { return r.Damage(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			x := newHalting(t)
			h, _, r := x.host(1)
			x.write(h, r, "a", 1, 2)
			x.write(h, r, "a", 3, 4)
			x.write(h, r, "b", 5)
			if err := r.Remove(ctx, "a", []LevelNumber{1}); err != nil {
				t.Fatal(err)
			}
			fresh := func() *mem.Mem {
				disk := x.disk.At(len(x.disk.Log()))
				if name == "recover" {
					if err := disk.Delete(ctx, levelKey("b", 1)); err != nil {
						t.Fatal(err)
					}
				}
				return disk
			}
			well, err := h.open(fresh())
			if err != nil {
				t.Fatal(err)
			}
			answer, err := verb(well)
			if err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprint(answer)
			for _, call := range []string{"list", "get"} {
				for at := 0; ; at++ {
					disk := fresh()
					b := &failing{Backend: disk, call: call, at: at, err: syscall.EIO}
					var got any
					r, err := h.open(b)
					if err == nil {
						got, err = verb(r)
					}
					if b.struck == 0 {
						break
					}
					if err == nil && fmt.Sprint(got) != want {
						t.Errorf("%s %d failed, and %s answers %v instead of %s", call, at, name, got, want)
					}
					after, openErr := h.open(disk)
					if openErr != nil {
						t.Fatal(openErr)
					}
					y := &halting{t, x.w, disk}
					if name == "recover" {
						if _, err := after.Recover(ctx); err != nil {
							t.Errorf("%s %d failed, then: %v", call, at, err)
						}
						y.whole("b")
					}
					y.whole("a")
				}
			}
		})
	}
}

// A store that lets an object be created twice is refused by whoever would
// write, also if it did not when the repository was made.
func TestStoreThatOverwrites(t *testing.T) {
	ctx := context.Background()
	x := newHalting(t)
	h, _, r := x.host(1)
	x.write(h, r, "a", 1)
	x.write(h, r, "a", 2)
	l, err := r.Levels(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	for name, verb := range map[string]func(r *Repository) error{
		"backup":  func(r *Repository) error { _, err := r.Begin(ctx, "a", WriterOptions{}); return err },
		"gc":      func(r *Repository) error { _, err := r.GC(ctx, GCOptions{}); return err },
		"recover": func(r *Repository) error { _, err := r.Recover(ctx); return err },
		"abandon": func(r *Repository) error { _, err := r.Abandon(ctx); return err },
		"remove":  func(r *Repository) error { return r.Remove(ctx, "a", []LevelNumber{1}) },
		"protect": func(r *Repository) error { return r.Protect(ctx, "a", 1) },
		"differs": func(r *Repository) error { return r.MarkDiffers(ctx, "a") },
		"damage": func(r *Repository) error {
			return r.NoteDamage(ctx, &l[0], &ChunkError{Kind: KindMap, Ref: l[0].Root, Cause: errBadPack})
		},
	} {
		before := len(x.disk.Log())
		r, err := h.open(overwriting{x.disk})
		if err != nil {
			t.Fatal(err)
		}
		if err := verb(r); !errors.Is(err, errOverwrites) {
			t.Errorf("%s: %v", name, err)
		}
		if ops := x.disk.Log()[before:]; len(ops) > 0 && ops[0].Key != configKey {
			t.Errorf("%s wrote %s", name, ops[0].Key)
		}
	}
	if err := r.Remove(ctx, "a", []LevelNumber{1}); err != nil {
		t.Error(err)
	}
}

// overwriting is a store without exclusive creation.
type overwriting struct{ Backend }

func (b overwriting) Put(ctx context.Context, key string, parts ...[]byte) error {
	if err := b.Delete(ctx, key); err != nil {
		return err
	}
	return b.Backend.Put(ctx, key, parts...)
}

// failing is a store of which one call fails, or all from there on.
type failing struct {
	Backend
	call   string // put, get, list, delete; "": any
	at     int
	always bool
	err    error

	mu            sync.Mutex
	calls, struck int
}

func (b *failing) strike(call string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.call != "" && b.call != call {
		return nil
	}
	b.calls++
	if n := b.calls - 1; n == b.at || b.always && n > b.at {
		b.struck++
		return b.err
	}
	return nil
}

func (b *failing) Put(ctx context.Context, key string, parts ...[]byte) error {
	if err := b.strike("put"); err != nil {
		return err
	}
	return b.Backend.Put(ctx, key, parts...)
}

func (b *failing) Get(ctx context.Context, key string, p []byte, off int64) (int, error) {
	if err := b.strike("get"); err != nil {
		return 0, err
	}
	return b.Backend.Get(ctx, key, p, off)
}

func (b *failing) List(ctx context.Context, prefix string, fn func(string, int64) error) error {
	if err := b.strike("list"); err != nil {
		return err
	}
	return b.Backend.List(ctx, prefix, fn)
}

func (b *failing) Delete(ctx context.Context, key string) error {
	if err := b.strike("delete"); err != nil {
		return err
	}
	return b.Backend.Delete(ctx, key)
}

// A level whose map cannot be read is not put back, since no gc could go on.
func TestRecoverLeavesWhatHasNoMap(t *testing.T) {
	ctx := context.Background()
	x := newHalting(t)
	h, _, r := x.host(1)
	r.packSizes[KindMap] = 1
	lost := x.write(h, r, "a", 1, 2)
	x.write(h, r, "b", 3)
	x.lose("levels/a/")
	for _, folder := range foldersOf(KindMap) {
		x.lose(packKey(folder, lost.Root.Pack, 0))
	}
	var gone *UnrecoverableError
	if recovered, err := r.Recover(ctx); !errors.As(err, &gone) || len(recovered) > 0 {
		t.Errorf("recovered %v: %v", recovered, err)
	}
	if lostOf(<-x.gc(r)) == nil {
		t.Error("gc goes on")
	}
	if _, err := r.Abandon(ctx); err != nil {
		t.Error(err)
	}
	if err := <-x.gc(r); err != nil {
		t.Error(err)
	}
	x.whole("b")
	x.w.checkStock(ctx, r)
}

// A level whose number another run has claimed meanwhile is lost like any other.
// Putting it back fences that run, dead or alive.
func TestRecoverUnderAnothersClaim(t *testing.T) {
	ctx := context.Background()
	for _, lives := range []bool{false, true} {
		x := newHalting(t)
		h, _, r := x.host(1)
		x.write(h, r, "a", 1, 2)
		lost := x.write(h, r, "a", 3, 4)
		x.lose("levels/a/2.json")
		w := begin(t, r, "a")
		if !lives {
			running.Delete(w.ID)
		}
		if recovered, err := r.Recover(ctx); err != nil || len(recovered) != 1 {
			t.Errorf("recovered %v: %v", recovered, err)
		}
		if lives {
			if err := h.write(ctx, r, w, nil, [simChunks]byte{5}); !errors.Is(err, ErrFenced) {
				t.Errorf("the other run: %v", err)
			}
			if err := w.Abort(ctx); err != nil {
				t.Error(err)
			}
		}
		x.write(h, r, "a", 6)
		if err := <-x.gc(r); err != nil {
			t.Error(err)
		}
		x.whole("a")
		if levels, err := r.Levels(ctx, "a"); err != nil || len(levels) != 3 || levels[1].Run != lost.Run {
			t.Errorf("%v, %v", levels, err)
		}
	}
}

// Whoever fetches while something is fetched that must be salvaged does not wait
// for himself.
func TestSalvageWithinSalvage(t *testing.T) {
	ctx := context.Background()
	x := newHalting(t)
	h, _, r := x.host(1)
	lost := x.write(h, r, "a", 1, 2)
	x.lose("levels/a/")
	for _, key := range []string{
		packKey(dataPrefix, PackID{Run: lost.Run}, 0), packKey(mapsPrefix, PackID{Run: lost.Run}, 0), packKey(twinsPrefix, PackID{Run: lost.Run}, 0),
	} {
		p, err := readAll(ctx, x.disk, key, maxPackBytes)
		if err != nil {
			t.Fatal(err)
		}
		p[packHeaderSize] ^= 1 // the table
		overwrite(t, x.disk, key, p)
	}
	done := make(chan error, 1)
	go func() {
		recovered, err := r.Recover(ctx)
		if err == nil && (len(recovered) != 1 || recovered[0].Damaged > 0) {
			err = fmt.Errorf("recovered %v", recovered)
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it waits for ever")
	}
	x.whole("a")
}

// The night after a record was lost, a backup takes its number: the newest's, or
// the first one's if all of the name is lost. gc collects nothing of the old
// level; Recover puts it back under another number.
func TestLostNumberIsTaken(t *testing.T) {
	ctx := context.Background()
	for _, lose := range []string{"levels/a/2.json", "levels/a/"} {
		for _, after := range []string{"level", "aborted", "removed"} {
			x := newHalting(t)
			h, _, r := x.host(1)
			x.write(h, r, "a", 1, 2)
			x.write(h, r, "a", 3, 4)
			x.lose(lose)
			switch w := begin(t, r, "a"); after {
			case "aborted":
				if err := w.Abort(ctx); err != nil {
					t.Fatal(err)
				}
			default:
				if err := h.write(ctx, r, w, nil, [simChunks]byte{5, 6}); err != nil {
					t.Fatal(err)
				}
				if after == "removed" {
					if err := r.Remove(ctx, "a", []LevelNumber{w.Number}); err != nil {
						t.Fatal(err)
					}
				}
			}
			if lostOf(<-x.gc(r)) == nil {
				t.Errorf("%s, %s: gc goes on", lose, after)
			}
			recovered, err := r.Recover(ctx)
			if err != nil || len(recovered) == 0 {
				t.Fatalf("%s, %s: recovered %v: %v", lose, after, recovered, err)
			}
			if l := slices.MaxFunc(recovered, func(a, b Recovered) int { return cmp.Compare(a.Number, b.Number) }); l.Outdated != (after == "level" || lose == "levels/a/") || l.Time.IsZero() {
				t.Errorf("%s, %s: whether the newest level is old: %+v", lose, after, l)
			}
			x.whole("a")
			for range 2 {
				if err := <-x.gc(r); err != nil {
					t.Errorf("%s, %s: %v", lose, after, err)
				}
			}
			x.whole("a")
			levels, err := r.Levels(ctx, "a")
			want := map[string]int{"level": 3, "aborted": 2, "removed": 2}[after]
			if err != nil || len(levels) != want {
				t.Errorf("%s, %s: %d levels: %v", lose, after, len(levels), err)
			}
			// What was put back under another number can be removed, too.
			if err := r.Remove(ctx, "a", []LevelNumber{recovered[len(recovered)-1].Number}); err != nil {
				t.Error(err)
			}
			for range 2 {
				if err := <-x.gc(r); err != nil {
					t.Errorf("%s, %s, removed: %v", lose, after, err)
				}
			}
			x.w.checkStock(ctx, r)
		}
	}
}
