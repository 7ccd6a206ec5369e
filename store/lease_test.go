package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"backy/store/mem"
)

// readingHost is a host of a reader: its repository and the level that it reads.
type readingHost struct {
	t     *testing.T
	disk  *mem.Mem
	repo  *Repository
	level Level
	moved atomic.Int64
	warns []string
}

// otherHost opens a repository as a process of another host.
func otherHost(t *testing.T, b Backend, host string) *Repository {
	t.Helper()
	r, err := Open(t.Context(), b, "")
	if err != nil {
		t.Fatal(err)
	}
	r.self = process{Host: host, BootID: host, PIDNamespace: "1", PID: 7, Start: 7}
	return r
}

func newReadingHost(t *testing.T) *readingHost {
	t.Helper()
	w := &world{t: t, disk: simEmpty().At(1), oracle: newOracle(), harmed: newHarmed()}
	h := &host{w: w}
	r, err := h.open(w.disk)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.write(t.Context(), r, begin(t, r, "a"), nil, [simChunks]byte{1, 2, 3, 4}); err != nil {
		t.Fatal(err)
	}
	levels, err := r.Levels(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	return &readingHost{t: t, disk: w.disk, repo: otherHost(t, w.disk, "reader"), level: levels[0]}
}

func (h *readingHost) hold() (context.Context, func()) {
	return h.repo.Hold(h.t.Context(), &h.level, HoldOptions{
		Moved: h.moved.Load,
		Warn:  func(format string, args ...any) { h.warns = append(h.warns, fmt.Sprintf(format, args...)) },
	})
}

func (h *readingHost) remove() {
	h.t.Helper()
	if err := h.repo.Remove(h.t.Context(), "a", []LevelNumber{h.level.Number}); err != nil {
		h.t.Fatal(err)
	}
}

// collect runs a gc on a host of its own, whose clock is wrong by so much.
func (h *readingHost) collect(skew time.Duration) {
	h.t.Helper()
	r := otherHost(h.t, h.disk, "collector")
	r.clock = func() time.Time { return time.Now().Add(skew) }
	if _, err := r.GC(h.t.Context(), GCOptions{}); err != nil {
		h.t.Fatal(err)
	}
}

// kept reports whether the level's chunks are all there.
func (h *readingHost) kept() bool {
	_, bad, err := (&host{}).read(h.t.Context(), otherHost(h.t, h.disk, "judge"), &h.level)
	return err == nil && len(bad) == 0
}

// sleep lets time pass, in which the reader goes on.
func (h *readingHost) sleep(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		h.moved.Add(1)
		time.Sleep(min(30*time.Second, time.Until(end)))
	}
}

func (h *readingHost) leases() []string {
	keys, err := h.repo.list(h.t.Context(), leasePrefix())
	if err != nil {
		h.t.Error(err)
	}
	return keys
}

// A reader that goes on keeps its level for as long as it takes, from gcs of
// other hosts too, and leaves nothing behind.
func TestHoldLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newReadingHost(t)
		held, release := h.hold()
		h.remove()
		for range 4 {
			h.sleep(20 * time.Hour)
			h.collect(0)
			if held.Err() != nil || !h.kept() || len(h.leases()) != 1 {
				t.Fatalf("after %v: %v, %q", time.Since(h.level.Committed), context.Cause(held), h.leases())
			}
		}
		release()
		if left := h.leases(); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
		h.collect(0)
		if h.kept() {
			t.Error("nobody reads it, and it was not collected")
		}
		if len(h.warns) > 0 {
			t.Errorf("%q", h.warns)
		}
	})
}

// What a reader leaves that was killed, or that does not go on, is honoured for
// a day, and by the gc that finds it; then it goes.
func TestHoldEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newReadingHost(t)
		ctx, kill := context.WithCancel(t.Context())
		h.repo.Hold(ctx, &h.level, HoldOptions{Moved: h.moved.Load})
		h.sleep(time.Hour)
		kill()
		h.remove()
		time.Sleep(leaseTime - time.Hour)
		h.collect(0)
		if !h.kept() {
			t.Fatal("collected within a day")
		}
		time.Sleep(2 * time.Hour)
		h.collect(0)
		if left := h.leases(); len(left) > 0 || !h.kept() {
			t.Fatalf("the gc that finds it honours it, for the last time: %q, %v", left, h.kept())
		}
		h.collect(0)
		if h.kept() {
			t.Error("held for ever")
		}
	})
}

// A gc whose clock is a year ahead, or behind, takes nothing from a reader that
// goes on.
func TestHoldAndAWrongClock(t *testing.T) {
	for _, skew := range []time.Duration{365 * 24 * time.Hour, -365 * 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			h := newReadingHost(t)
			held, release := h.hold()
			defer release()
			for range 3 {
				h.sleep(10 * time.Minute)
				h.collect(skew)
				if !h.kept() {
					t.Fatal("collected")
				}
			}
			h.sleep(10 * time.Minute)
			if len(h.leases()) != 1 || held.Err() != nil {
				t.Errorf("%q, %v", h.leases(), context.Cause(held))
			}
		})
	}
}

// A hold that somebody deletes is put again; where the level is removed
// meanwhile, its reader ends within a minute, with a clean error.
func TestHoldLost(t *testing.T) {
	lose := func(h *readingHost) {
		for _, key := range h.leases() {
			if err := h.disk.Delete(h.t.Context(), key); err != nil {
				h.t.Fatal(err)
			}
		}
	}
	synctest.Test(t, func(t *testing.T) {
		h := newReadingHost(t)
		held, release := h.hold()
		h.sleep(5 * time.Minute)
		lose(h)
		h.sleep(2 * time.Minute)
		if len(h.leases()) != 1 || held.Err() != nil {
			t.Errorf("not put again: %q, %v", h.leases(), context.Cause(held))
		}
		h.remove()
		h.sleep(5 * time.Minute)
		h.collect(0)
		if held.Err() != nil || !h.kept() {
			t.Errorf("the new one holds nothing: %v", context.Cause(held))
		}
		lose(h)
		h.sleep(2 * time.Minute)
		if !errors.Is(context.Cause(held), ErrRemoved) {
			t.Errorf("nothing holds the level, and its reader goes on: %v", context.Cause(held))
		}
		release()
		if left := h.leases(); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	})
}

type readOnlyDisk struct{ Backend }

func (readOnlyDisk) Put(context.Context, string, ...[]byte) error { return syscall.EROFS }

// Where no hold can be left, that is said, and the removal of the level ends its
// reader within a minute.
func TestNoHold(t *testing.T) {
	for what, make := range map[string]func(h *readingHost){
		"no rights": func(h *readingHost) {
			h.repo.backend = readOnlyDisk{h.disk}
		},
		"a newer backy's": func(h *readingHost) { h.repo.readOnly = &FormatError{Needs: "more"} },
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newReadingHost(t)
				make(h)
				held, release := h.hold()
				defer release()
				h.sleep(10 * time.Minute)
				if len(h.warns) != 1 || !strings.Contains(h.warns[0], "a level 1 is being read") || held.Err() != nil {
					t.Errorf("%q, %v", h.warns, context.Cause(held))
				}
				(&readingHost{t: t, repo: otherHost(t, h.disk, "admin"), level: h.level}).remove()
				h.sleep(90 * time.Second)
				if !errors.Is(context.Cause(held), ErrRemoved) {
					t.Errorf("the level is removed: %v", context.Cause(held))
				}
			})
		})
	}
}

// A hold of a backy that does not renew them counts for a day, as it always did.
func TestOldHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newReadingHost(t)
		l := lease{
			Run: h.repo.newRun(time.Now()), Process: h.repo.self, Started: time.Now().UTC(), Name: "a", Number: 1,
			Root: h.level.Root, Chunks: h.level.Chunks(), Fanout: h.level.Fanout,
		}
		if err := h.repo.putObject(t.Context(), leaseKey(l.Run), "lease", &l); err != nil {
			t.Fatal(err)
		}
		h.remove()
		time.Sleep(leaseTime - time.Minute)
		h.collect(0)
		if !h.kept() || len(h.leases()) != 1 {
			t.Error("collected within a day")
		}
		time.Sleep(2 * time.Minute)
		h.collect(0)
		if h.kept() || len(h.leases()) > 0 {
			t.Error("honoured for longer than a day")
		}
	})
}

// Each renewal is an object of its own, which a gc that knows of no renewals
// takes for a reader's hold.
func TestRenewalsAreHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newReadingHost(t)
		_, release := h.hold()
		defer release()
		seen := map[string]bool{}
		for range 5 {
			h.sleep(time.Minute)
			for _, key := range h.leases() {
				var l lease
				if err := h.repo.getObject(t.Context(), key, "lease", &l); err != nil || l.Root != h.level.Root || time.Since(l.Started) > 2*time.Minute {
					t.Errorf("%s: %v, %+v", key, err, l)
				}
				seen[key] = true
			}
		}
		if len(seen) < 4 || slices.ContainsFunc(h.disk.Log(), func(op mem.Op) bool {
			return !op.Deleted && strings.HasPrefix(op.Key, leasePrefix()) && len(op.Data) == 0
		}) {
			t.Errorf("%d holds", len(seen))
		}
		for key := range seen {
			n := 0
			for _, op := range h.disk.Log() {
				if op.Key == key && !op.Deleted {
					n++
				}
			}
			if n != 1 {
				t.Errorf("%s was put %d times", key, n)
			}
		}
	})
}
