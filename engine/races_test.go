package engine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"backy/engine"
	"backy/store"
	"backy/store/faulty"
	"backy/store/mem"
)

// act is something that a process does with a repository of its own.
type act struct {
	name string
	do   func(s *story, r *store.Repository) error
	// fails are errors with which the act may end beside others; nil stands for
	// none.
	fails func(error) bool
}

func busy(err error) bool {
	var b *store.BusyError
	return errors.As(err, &b)
}

// backupOf changes an image at a place and backs it up.
func backupOf(name store.Name, at int, w way) act {
	return act{fmt.Sprintf("backup %s", name), func(s *story, r *store.Repository) error {
		src := &honest{image: image{data: changedAt(s.images[name], byte(at), at)}, ledger: s.ledger, way: w}
		_, err := engine.Backup(context.Background(), r, name, src, engine.BackupOptions{})
		if want := engine.Failed; src.begun > 0 && (err == nil) == (src.outcome == want) {
			return fmt.Errorf("the source was told %d: %w", src.outcome, err)
		}
		return err
	}, busy}
}

func removalOf(name store.Name, n store.LevelNumber) act {
	return act{fmt.Sprintf("rm %s %s", name, n), func(_ *story, r *store.Repository) error {
		return engine.Remove(context.Background(), r, name, []store.LevelNumber{n})
	}, nil}
}

// restoreOf restores a level that was listed before the act began.
func restoreOf(name store.Name, n store.LevelNumber, fails func(error) bool) act {
	return act{fmt.Sprintf("restore %s %s", name, n), func(s *story, r *store.Repository) error {
		level, err := numbered(s.b, name, n)
		if err != nil {
			return err
		}
		d := &disk{}
		if _, err := engine.Restore(context.Background(), r, level, d, engine.RestoreOptions{}); err != nil {
			return err
		}
		if !bytes.Equal(d.data, s.of(level.Run)) {
			return errors.New("wrong bytes restored without an error")
		}
		return nil
	}, fails}
}

func scrubOf(name store.Name, n store.LevelNumber, fails func(error) bool) act {
	return act{fmt.Sprintf("scrub %s %s", name, n), func(s *story, r *store.Repository) error {
		level, err := numbered(s.b, name, n)
		if err != nil {
			return err
		}
		_, err = engine.Scrub(context.Background(), r, level, engine.ScrubOptions{})
		return err
	}, fails}
}

func gcOf() act {
	return act{"gc", func(_ *story, r *store.Repository) error {
		_, err := r.GC(context.Background(), store.GCOptions{})
		return err
	}, busy}
}

// numbered returns a level as the story's beginning had it.
func numbered(b *mem.Mem, name store.Name, n store.LevelNumber) (store.Level, error) {
	r, err := store.Open(context.Background(), b, "")
	if err != nil {
		return store.Level{}, err
	}
	levels, err := r.Levels(context.Background(), name)
	for _, l := range levels {
		if l.Number == n {
			return l, nil
		}
	}
	return store.Level{}, errors.Join(err, fmt.Errorf("no level %s", n))
}

func (a act) check(t *testing.T, err error) {
	t.Helper()
	if err != nil && (a.fails == nil || !a.fails(err)) {
		t.Errorf("%s: %v", a.name, err)
	}
}

// interleave lets a process do x up to its i-th call of the backend, then
// another one do y from beginning to end, then the first go on: for i from 0
// until x makes no more calls. Each time everything must be whole, and after
// has a look at some, in soak at all.
func (s *story) interleave(t *testing.T, x, y act, after func(t *testing.T, b *mem.Mem)) (tried int) {
	for i := 0; ; i++ {
		met := false
		synctest.Test(t, func(t *testing.T) {
			b := s.b.At(len(s.b.Log()))
			gate := faulty.NewGate()
			f := faulty.New(b, faulty.Plan{{At: i, Gate: gate}})
			done := make(chan error, 1)
			go func() {
				r, err := store.Open(context.Background(), f, s.cache)
				if err == nil {
					err = errors.Join(x.do(s, r), r.Close())
				}
				done <- err
			}()
			select {
			case <-gate.Arrived():
				met = true
			case err := <-done:
				x.check(t, err)
				return
			}
			// y may have to wait for x: for a gc, until x's level stands.
			second := make(chan error, 1)
			go func() {
				r, err := store.Open(context.Background(), b, s.cache)
				if err == nil {
					err = errors.Join(y.do(s, r), r.Close())
				}
				second <- err
			}()
			time.Sleep(time.Hour)
			gate.Open()
			x.check(t, <-done)
			y.check(t, <-second)
			s.check(t, b)
			if i%3 == 0 || *soak {
				after(t, b)
			}
		})
		if t.Failed() {
			t.Fatalf("%s stopped at call %d by %s", x.name, i, y.name)
		}
		if !met {
			return tried
		}
		tried++
	}
}

// gone are the errors of whoever reads a level that is removed meanwhile.
func gone(err error) bool {
	var damaged *engine.DamagedError
	return err != nil && !errors.As(err, &damaged)
}

// Two processes on one repository, one stopped at any call while the other
// comes and goes: nobody loses or breaks a level of the other.
func TestTwoAtOnce(t *testing.T) {
	s := newStory(t, 17)
	s.cache = t.TempDir()
	s.backup("a", byAllocated)
	s.backup("b", byAllocated)
	s.write("a", 8*chunk)
	s.backup("a", byDiff)
	s.write("a", 9*chunk)
	s.backup("a", byDiff)
	s.remove("a", 2)
	tried := 0
	backup, other := backupOf("a", 3*chunk, byDiff), backupOf("b", 3*chunk, compareAll)
	for _, pair := range [][2]act{
		{backup, backup},
		{backup, other},
		{backup, removalOf("a", 3)}, // its base
		{backup, removalOf("a", 1)},
		{removalOf("a", 3), backup},
		{backup, gcOf()},
		{gcOf(), backup},
		{gcOf(), other},
		{gcOf(), gcOf()},
		{gcOf(), removalOf("a", 3)},
		{removalOf("a", 3), gcOf()},
		{restoreOf("a", 3, gone), removalOf("a", 3)},
		{restoreOf("a", 1, nil), gcOf()},
		{scrubOf("a", 3, gone), removalOf("a", 3)},
		{scrubOf("a", 1, nil), gcOf()},
		{scrubOf("a", 3, nil), backup},
	} {
		t.Run(pair[0].name+" while "+pair[1].name, func(t *testing.T) {
			tried += s.interleave(t, pair[0], pair[1], func(t *testing.T, b *mem.Mem) {
				s.next(t, b, "a", changedAt(s.images["a"], 1, 11*chunk), byDiff)
				if _, err := reopen(t, b).GC(context.Background(), store.GCOptions{}); err != nil {
					t.Fatal(err)
				}
				s.check(t, b)
			})
		})
	}
	t.Logf("%d interleavings", tried)
}

// Mends beside whatever else: of two that mend one pack, each with a chunk of
// its own, both are right in the end; whoever reads the pack never calls a
// chunk of it bad that is not.
func TestMendAtOnce(t *testing.T) {
	s := newStory(t, 17)
	s.cache = t.TempDir()
	s.backup("a", byAllocated) // holds all that b has, but for b's own changes
	s.images["b"] = bytes.Clone(s.images["a"])
	s.backup("b", byAllocated)
	s.images["c"] = changedAt(s.images["a"], 1, 0, 16*chunk)
	s.backup("c", byAllocated)
	// The chunks that c lacks are bad, one on a's and b's side each.
	key, pack := oldest(t, s.b, "data/")
	harmed := bytes.Clone(pack)
	for _, at := range []int{0, 16 * chunk} {
		i := bytes.Index(pack, s.images["a"][at:at+64])
		if i < 0 {
			t.Fatal("the chunk is not in the pack as it is")
		}
		harmed[i] ^= 1
	}
	overwrite(t, s.b, key, harmed)
	s.scrub(t, s.b)
	if notes := keys(t, s.b, "damaged/data"); len(notes) != 2 {
		t.Fatalf("noted: %q", notes)
	}
	// Each image has one of the two chunks still.
	half := func(name store.Name, at int) act {
		return act{"mend by " + string(name), func(s *story, r *store.Repository) error {
			src := &honest{image: image{data: changedAt(s.images[name], 5, at)}, ledger: s.ledger, way: byDiff}
			_, err := engine.Backup(context.Background(), r, name, src, engine.BackupOptions{})
			return err
		}, nil}
	}
	mendA, mendB, all := half("a", 0), half("b", 16*chunk), half("b", 9*chunk)
	whole := func(t *testing.T, b *mem.Mem) {
		if left := keys(t, b, "damaged/"); len(left) > 0 {
			t.Errorf("noted as damaged still: %q", left)
		}
	}
	tried := 0
	for _, pair := range [][2]act{
		{mendA, mendB},
		{mendB, mendA},
		{all, gcOf()},
		{gcOf(), all},
		{restoreOf("c", 1, nil), all},
		{scrubOf("c", 1, nil), all},
		{backupOf("c", 5*chunk, byDiff), all},
	} {
		t.Run(pair[0].name+" while "+pair[1].name, func(t *testing.T) {
			tried += s.interleave(t, pair[0], pair[1], whole)
		})
	}
	t.Logf("%d interleavings", tried)
}

// foreign makes the claims in a repository those of a process on another host.
func foreign(t testing.TB, b *mem.Mem) {
	t.Helper()
	for _, key := range keys(t, b, "work/") {
		if !strings.HasPrefix(key, "work/claim.") && !strings.HasPrefix(key, "work/gc.") {
			continue
		}
		_, p := object(t, b, key)
		var e struct {
			Type string          `json:"type"`
			Sum  store.Checksum  `json:"blake3"`
			Body json.RawMessage `json:"body"`
		}
		var body map[string]any
		if err := errors.Join(json.Unmarshal(p, &e), json.Unmarshal(e.Body, &body)); err != nil {
			t.Fatal(err)
		}
		body["process"].(map[string]any)["boot_id"] = "of another host"
		e.Body, _ = json.Marshal(body)
		e.Sum = store.Sum(e.Body)
		p, _ = json.Marshal(e)
		overwrite(t, b, key, p)
	}
}

// A backup or gc on another host that stops at any call for so long that it is
// taken for dead, and wakes up when its successor is through: either its level
// stands, or it is told that it was fenced and there is none.
func TestSleeper(t *testing.T) {
	s := newStory(t, 17)
	s.backup("a", byAllocated)
	s.write("a", 8*chunk)
	s.backup("a", byDiff)
	s.remove("a", 1)
	fenced := func(err error) bool { return errors.Is(err, store.ErrFenced) }
	sleeping := backupOf("a", 3*chunk, byDiff)
	sleeping.fails = fenced
	collecting := gcOf()
	collecting.fails = fenced
	tried := 0
	for _, pair := range [][2]act{
		{sleeping, backupOf("a", 4*chunk, byDiff)},
		{sleeping, gcOf()},
		{collecting, gcOf()},
		{collecting, backupOf("a", 4*chunk, byDiff)},
	} {
		t.Run(pair[0].name+" sleeps while "+pair[1].name, func(t *testing.T) {
			for i := 0; ; i++ {
				met := false
				synctest.Test(t, func(t *testing.T) {
					b := s.b.At(len(s.b.Log()))
					gate := faulty.NewGate()
					f := faulty.New(b, faulty.Plan{{At: i, Gate: gate}})
					done := make(chan error, 1)
					go func() {
						r, err := store.Open(context.Background(), f, "")
						if err == nil {
							err = pair[0].do(s, r)
						}
						done <- err
					}()
					select {
					case <-gate.Arrived():
						met = true
					case err := <-done:
						pair[0].check(t, err)
						return
					}
					foreign(t, b)
					time.Sleep(time.Hour)
					// What comes next meets no running claim, or one that does not beat.
					if err := pair[1].do(s, reopen(t, b)); err != nil {
						t.Errorf("%s: %v", pair[1].name, err)
					}
					s.check(t, b)
					gate.Open()
					pair[0].check(t, <-done)
					s.check(t, b)
					s.next(t, b, "a", changedAt(s.images["a"], 1, 11*chunk), byDiff)
					if _, err := reopen(t, b).GC(context.Background(), store.GCOptions{}); err != nil {
						t.Fatal(err)
					}
					s.check(t, b)
				})
				if t.Failed() {
					t.Fatalf("asleep at call %d", i)
				}
				if !met {
					break
				}
				tried++
			}
		})
	}
	t.Logf("%d naps", tried)
}

// Many at once, each on names of its own and on one that all want.
func TestManyWriters(t *testing.T) {
	const writers = 6
	s := newStory(t, 17)
	var g sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for i := range writers {
		own := store.Name(fmt.Sprintf("own-%d", i))
		g.Go(func() {
			r, err := store.Open(context.Background(), s.b, "")
			if err != nil {
				t.Error(err)
				return
			}
			for n := range 4 {
				data := changedAt(s.images["a"], byte(i), (i+n)*chunk, 16*chunk)
				for _, name := range []store.Name{own, "shared"} {
					src := &honest{image: image{data: data}, ledger: s.ledger, way: way(n) % ways}
					_, err := engine.Backup(context.Background(), r, name, src, engine.BackupOptions{})
					switch {
					case err == nil && name == "shared":
						mu.Lock()
						won++
						mu.Unlock()
					case err != nil && (name == own || !busy(err) || src.begun > 0):
						t.Errorf("%s: %v", name, err)
					}
				}
				if n == 2 {
					if err := engine.Remove(context.Background(), r, own, []store.LevelNumber{2}); err != nil {
						t.Error(err)
					}
					if _, err := r.GC(context.Background(), store.GCOptions{}); err != nil && !busy(err) {
						t.Error(err)
					}
				}
				s.tolerate(t, s.b)
			}
		})
	}
	g.Wait()
	s.check(t, s.b)
	if got := len(standing(t, s.b)["shared"]); got != won || won == 0 {
		t.Errorf("%d levels of the name that all want, and %d backups of it said that they made one", got, won)
	}
	for _, what := range []string{"claim", "gc", "condemned", "waiting", "beat", "lease"} {
		if left := keys(t, s.b, "work/"+what+"."); len(left) > 0 {
			t.Errorf("left in work/: %q", left)
		}
	}
}
