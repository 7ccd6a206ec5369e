package engine_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"backy/engine"
	"backy/store"
)

func noise(n int, seed byte) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(p)
	return p
}

// A rate is kept by everything that shares it: no more is read than the time
// allows.
func TestRate(t *testing.T) {
	const perSecond, size = 32 << 20, 12 << 20
	r, _ := newRepository(t, 64<<10)
	rate := engine.NewRate(perSecond)
	started := time.Now()
	total := 0
	within := func(what string) {
		t.Helper()
		total += size
		if least := time.Duration(float64(total) / perSecond * float64(time.Second)); time.Since(started) < least {
			t.Errorf("%s: %d bytes in %s, not less than %s", what, total, time.Since(started), least)
		}
	}
	var both sync.WaitGroup
	for _, name := range []store.Name{"a", "b"} {
		both.Go(func() {
			o := engine.BackupOptions{Rate: rate}
			if _, err := engine.Backup(t.Context(), r, name, &image{data: noise(size, name[0])}, o); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	total += size
	within("two backups")
	l, err := r.Levels(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Scrub(t.Context(), r, l[0], engine.ScrubOptions{Rate: rate}); err != nil {
		t.Fatal(err)
	}
	within("a scrub")
	if _, err := engine.Restore(t.Context(), r, l[0], &disk{}, engine.RestoreOptions{Rate: rate}); err != nil {
		t.Fatal(err)
	}
	within("a restore")
	if _, err := engine.Stream(t.Context(), r, l[0], io.Discard, engine.RestoreOptions{Rate: rate}); err != nil {
		t.Fatal(err)
	}
	within("a restore to a pipe")
	// Holes are not read, so they cost nothing.
	o := engine.BackupOptions{Rate: engine.NewRate(1)}
	if _, err := engine.Backup(t.Context(), r, "empty", &image{data: []byte{}}, o); err != nil {
		t.Fatal(err)
	}
}

// Small backups need not wait for the whole of a large one that goes on at the
// same time: each gets its share.
func TestRateIsShared(t *testing.T) {
	r, _ := newRepository(t, 64<<10)
	rate := engine.NewRate(16 << 20)
	ctx, cancel := context.WithCancel(t.Context())
	var large sync.WaitGroup
	read := make(chan struct{})
	var once sync.Once
	large.Go(func() {
		src := &watched{image{data: noise(64<<20, 1)}, func() { once.Do(func() { close(read) }) }}
		if _, err := engine.Backup(ctx, r, "large", src, engine.BackupOptions{Rate: rate}); !errors.Is(err, context.Canceled) {
			t.Errorf("the large one came to its end: %v", err)
		}
	})
	<-read
	for _, name := range []store.Name{"a", "b", "c"} {
		if _, err := engine.Backup(t.Context(), r, name, &image{data: noise(64<<10, 2)}, engine.BackupOptions{Rate: rate}); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	large.Wait()
}

// watched is a source that tells of its reads.
type watched struct {
	image
	read func()
}

func (w *watched) Begin(ctx context.Context, run engine.Run) (*engine.State, error) {
	s, err := w.image.Begin(ctx, run)
	if err == nil {
		s.Reader = w
	}
	return s, err
}

func (w *watched) ReadAt(p []byte, off int64) (int, error) {
	w.read()
	return w.image.ReadAt(p, off)
}

// What waits for its turn ends with the context, by its cause.
func TestRateEnds(t *testing.T) {
	r, _ := newRepository(t, 64<<10)
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(enough) })
	src := &image{data: noise(8<<20, 1)}
	_, err := engine.Backup(ctx, r, "a", src, engine.BackupOptions{Rate: engine.NewRate(1000)})
	if !errors.Is(err, enough) || src.outcome != engine.Failed {
		t.Errorf("%v, outcome %d", err, src.outcome)
	}
}

// Backups that share a budget all come to their end, however small it is, and
// one that fails leaves the others their share.
func TestBudget(t *testing.T) {
	for _, readers := range []int{1, 3} {
		r, _ := newRepository(t, 64<<10)
		budget := engine.NewBudget(readers, 5)
		images := map[store.Name]*image{}
		for _, name := range []store.Name{"a", "b", "c", "d", "bad"} {
			images[name] = &image{data: noise(10<<20+int(name[0]), name[0])}
		}
		images["bad"].failAt = 6 << 20
		var all sync.WaitGroup
		for name, src := range images {
			all.Go(func() {
				l, err := engine.Backup(t.Context(), r, name, src, engine.BackupOptions{Budget: budget})
				if (err != nil) != (name == "bad") {
					t.Errorf("%s: %v", name, err)
				}
				if err == nil && !bytes.Equal(restored(t, r, l, nil), src.data) {
					t.Errorf("%s: not what was backed up", name)
				}
			})
		}
		all.Wait()
		// What was taken has been given back: another one has all of it.
		if _, err := engine.Backup(t.Context(), r, "after", images["a"], engine.BackupOptions{Budget: budget}); err != nil {
			t.Error(err)
		}
	}
}
