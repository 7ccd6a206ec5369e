package dir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"testing"
	"time"
)

// abandon leaves what a Put leaves that died before its link.
func abandon(t *testing.T, d *Dir, temp string, age time.Duration) {
	t.Helper()
	f, err := d.create(temp)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	then := time.Now().Add(-age)
	if err := os.Chtimes(d.path(temp), then, then); err != nil {
		t.Fatal(err)
	}
}

func exists(t *testing.T, d *Dir, path string) bool {
	t.Helper()
	_, err := os.Lstat(d.path(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func TestSweep(t *testing.T) {
	const day = 24 * time.Hour
	for _, tc := range []struct {
		unchanged, age time.Duration
		goes           bool
	}{
		{2 * day, 0, true},
		{day - time.Hour, 0, false},
		{2 * time.Hour, time.Hour, true},
		{30 * time.Minute, time.Hour, false},
		{-day, time.Hour, false},
	} {
		d := newDir(t)
		put(t, d, "data/r/0")
		abandon(t, d, "data/r/.tmp-a", tc.unchanged)
		abandon(t, d, "data/r2/.tmp-b", tc.unchanged)
		abandon(t, d, ".tmp-c", tc.unchanged)
		removed, err := d.Sweep(t.Context(), tc.age)
		if err != nil {
			t.Fatal(err)
		}
		if want := map[bool]int{true: 3}[tc.goes]; removed != want {
			t.Errorf("unchanged for %v, swept after %v: %d removed, want %d", tc.unchanged, tc.age, removed, want)
		}
		for _, path := range []string{"data/r/.tmp-a", "data/r2/.tmp-b", "data/r2", ".tmp-c"} {
			if exists(t, d, path) == tc.goes {
				t.Errorf("unchanged for %v, swept after %v: %s", tc.unchanged, tc.age, path)
			}
		}
		if keys, err := listed(t, d, ""); len(keys) != 1 || err != nil {
			t.Errorf("%q, %v", keys, err)
		}
	}
}

func TestSweepLeavesWhatALiveProcessWrites(t *testing.T) {
	d := newDir(t)
	f, err := d.create("data/r/.tmp-live")
	if err != nil {
		t.Fatal(err)
	}
	then := time.Now().AddDate(-1, 0, 0)
	if err := os.Chtimes(d.path("data/r/.tmp-live"), then, then); err != nil {
		t.Fatal(err)
	}
	for _, flushed := range []bool{false, true} {
		if n, err := d.Sweep(t.Context(), 1); n != 0 || err != nil || !exists(t, d, "data/r/.tmp-live") {
			t.Errorf("flushed %t: %d removed, %v", flushed, n, err)
		}
		if err := f.flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Sweep(t.Context(), 1); n != 1 || err != nil || exists(t, d, "data/r") {
		t.Errorf("after its end: %d removed, %v", n, err)
	}
}

func TestSweepKeepsTheObjectOfALinkedTemporary(t *testing.T) {
	d := newDir(t)
	abandon(t, d, "data/r/.tmp-a", time.Hour)
	if err := os.Link(d.path("data/r/.tmp-a"), d.path("data/r/0")); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Sweep(t.Context(), time.Minute); n != 1 || err != nil {
		t.Errorf("%d removed, %v", n, err)
	}
	p := make([]byte, 4)
	if _, err := d.Get(t.Context(), "data/r/0", p, 0); err != nil || string(p) != "half" {
		t.Errorf("%q, %v", p, err)
	}
}

// TestCreateNoticesASweep lets a sweep come between a file's creation and its
// lock, as far as it came.
func TestCreateNoticesASweep(t *testing.T) {
	for _, removed := range []bool{false, true} {
		d := newDir(t)
		f, err := os.Create(d.path(".tmp-a"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		lock, err := d.fs.lock(".tmp-a")
		if err != nil {
			t.Fatal(err)
		}
		if removed {
			if err := d.fs.unlink(".tmp-a"); err != nil {
				t.Fatal(err)
			}
			lock.Close()
		}
		if err := own(f); !errors.Is(err, errSwept) {
			t.Errorf("removed %t: %v", removed, err)
		}
		lock.Close()
	}
}

// TestSweepBesidePuts sweeps without pause and without patience. Every Put
// must succeed all the same, and nothing may be left.
func TestSweepBesidePuts(t *testing.T) {
	d := newDir(t)
	const workers, rounds = 4, 40
	var putting, sweeping sync.WaitGroup
	over := make(chan struct{})
	sweeping.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
				if _, err := d.Sweep(t.Context(), 1); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for w := range workers {
		putting.Go(func() {
			for i := range rounds {
				if err := d.Put(t.Context(), fmt.Sprintf("data/%d/%d", i, w), []byte("x")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	putting.Wait()
	close(over)
	sweeping.Wait()
	files, temps := onDisk(t, d)
	if len(files) != workers*rounds || temps != 0 {
		t.Errorf("%d objects, want %d; %d temporary files", len(files), workers*rounds, temps)
	}
}
