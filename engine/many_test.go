package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"backy/engine"
	"backy/hints"
	"backy/store"
)

// dear is an image whose reads are dear, so that it does many at a time.
type dear struct {
	image
	calls, reads atomic.Int64
	gauge        *gauge // may be nil
}

// gauge keeps the most of what goes on at a time.
type gauge struct {
	mu        sync.Mutex
	now, most int
}

func (g *gauge) add(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now += n
	g.most = max(g.most, g.now)
}

func (s *dear) Begin(ctx context.Context, run engine.Run) (*engine.State, error) {
	st, err := s.image.Begin(ctx, run)
	st.Reader = s
	return st, err
}

func (s *dear) ReadMany(pieces []engine.Piece, atOnce int) error {
	s.calls.Add(1)
	s.reads.Add(int64(len(pieces)))
	if s.gauge != nil {
		s.gauge.add(atOnce)
		defer s.gauge.add(-atOnce)
		time.Sleep(time.Millisecond)
	}
	total := 0
	for _, p := range pieces {
		total += len(p.Data)
		if n, err := s.ReadAt(p.Data, p.Offset); n < len(p.Data) {
			return err
		}
	}
	if total > 4<<20 || atOnce < 1 || len(pieces) < 2 {
		return errors.New("what no caller asks for")
	}
	return nil
}

// A sample that is read many chunks at a time finds what one read at a time does,
// whichever of them differs, and the last one, which is shorter.
func TestSampleOfManyReads(t *testing.T) {
	r, _ := newRepository(t, chunk)
	rnd := rand.New(rand.NewPCG(5, 6))
	data := make([]byte, 15*chunk+100)
	fill(rnd, data)
	mustBackup(t, r, "image", &image{data: data})
	unchanged := func() *dear {
		return &dear{image: image{data: data, changed: []hints.Extent{}, outside: engine.Unchanged}}
	}
	s := unchanged()
	checkLevel(t, r, mustBackup(t, r, "image", s), data)
	if s.calls.Load() != 1 || s.reads.Load() < 8 {
		t.Errorf("an unchanged image: %d chunks in %d reads", s.reads.Load(), s.calls.Load())
	}
	data[len(data)-1]++ // is always looked at
	if l := mustBackup(t, r, "image", unchanged()); l.Origin.Diff != "none" {
		t.Errorf("the last chunk differs: diff %q", l.Origin.Diff)
	}
	for i := range 15 {
		data[i*chunk]++
	}
	s = unchanged()
	l := mustBackup(t, r, "image", s)
	checkLevel(t, r, l, data)
	if l.Origin.Diff != "none" {
		t.Errorf("most chunks differ: diff %q", l.Origin.Diff)
	}
	s = unchanged()
	s.failAt = int64(len(data)) - 1
	if _, err := engine.Backup(t.Context(), r, "image", s, engine.BackupOptions{}); err == nil {
		t.Error("a read fails: no error")
	}
}

// However many backups read many chunks at a time, all together read no more at once
// than their budget has.
func TestBudgetOfManyReads(t *testing.T) {
	r, _ := newRepository(t, chunk)
	data := make([]byte, 64*chunk)
	fill(rand.New(rand.NewPCG(7, 8)), data)
	const backups = 4
	for n := range backups {
		mustBackup(t, r, store.Name(fmt.Sprint(n)), &image{data: data})
	}
	var g gauge
	o := engine.BackupOptions{Budget: engine.NewBudget(5, backups)}
	var all sync.WaitGroup
	for n := range backups {
		all.Go(func() {
			for range 5 {
				s := &dear{image: image{data: data, changed: []hints.Extent{}, outside: engine.Unchanged}, gauge: &g}
				if _, err := engine.Backup(t.Context(), r, store.Name(fmt.Sprint(n)), s, o); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if g.most < 2 || g.most > 5 {
		t.Errorf("%d reads at once, of 5", g.most)
	}
}
