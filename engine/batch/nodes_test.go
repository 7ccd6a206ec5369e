package batch_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"backy/engine"
	"backy/engine/batch"
	"backy/store"
)

const again = 2 * time.Millisecond

// Several nodes that do the same batch do each image once, and each says that
// all is well.
func TestNodes(t *testing.T) {
	var labels []string
	for n := range 20 {
		labels = append(labels, fmt.Sprintf("image%02d", n))
	}
	p, r := newPool(labels...), newRepository(t)
	for _, d := range p.disks {
		d.read = func(context.Context) error { time.Sleep(time.Millisecond); return nil }
	}
	for round := 1; round <= 3; round++ {
		done := make([]int, 3)
		var nodes, begun sync.WaitGroup
		begun.Add(len(done))
		for n := range done {
			nodes.Go(func() {
				results, err := batch.Run(t.Context(), r, &nodePool{pool: p, begun: &begun}, p.images(), batch.Options{Jobs: 2, Again: again})
				if err != nil {
					t.Errorf("node %d: %v", n, err)
				}
				for _, res := range results {
					switch res.Result {
					case batch.Done:
						done[n]++
					case batch.Elsewhere:
						if res.Level != store.LevelNumber(round) {
							t.Errorf("%s: done elsewhere as level %s in round %d", res.Image, res.Level, round)
						}
					default:
						t.Errorf("node %d: %s is %s", n, res.Image, res.Result)
					}
				}
			})
		}
		nodes.Wait()
		if done[0]+done[1]+done[2] != len(labels) {
			t.Errorf("round %d: %v images done", round, done)
		}
		for _, l := range labels {
			if got := len(levels(t, r, l)); got != round {
				t.Errorf("%s has %d levels after round %d", l, got, round)
			}
		}
	}
}

// nodePool lets a node go on when all of them have seen what there was when they
// began: what was made before is no other node's of this run.
type nodePool struct {
	*pool
	begun *sync.WaitGroup
	once  sync.Once
}

func (p *nodePool) Claim(ctx context.Context, i batch.Image) (batch.Claim, error) {
	p.once.Do(p.begun.Done)
	p.begun.Wait()
	return p.pool.Claim(ctx, i)
}

// A level that comes while a node is about to begin is found under the
// repository's claim, and no second one is made.
func TestDoneInBetween(t *testing.T) {
	p, r := newPool("a"), newRepository(t)
	results, err := batch.Run(t.Context(), r, &latePool{p, func(src engine.Source) {
		if _, err := engine.Backup(t.Context(), r, "a", src, engine.BackupOptions{}); err != nil {
			t.Error(err)
		}
	}}, p.images(), batch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, results, map[string]batch.Word{"a": batch.Elsewhere})
	if got := len(levels(t, r, "a")); got != 1 || results[0].Level != 1 {
		t.Errorf("%d levels, told of level %s", got, results[0].Level)
	}
}

// latePool lets others be quicker, at the last moment.
type latePool struct {
	*pool
	quicker func(engine.Source)
}

func (p *latePool) Source(i batch.Image) engine.Source {
	p.quicker(p.pool.Source(i))
	return p.pool.Source(i)
}

// An image whose node gives it up is taken over; one that the other node has
// done is left alone.
func TestClaimedElsewhere(t *testing.T) {
	p, r := newPool("abandoned", "done"), newRepository(t)
	abandoned, done := p.seize("abandoned"), p.seize("done")
	w := &watcher{waiting: make(chan int, 1)}
	go func() {
		<-w.waiting
		if _, err := engine.Backup(t.Context(), r, "done", p.Source(batch.Image{Label: "done"}), engine.BackupOptions{}); err != nil {
			t.Error(err)
		}
		if err := errors.Join(abandoned.Release(t.Context()), done.Release(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	results, err := batch.Run(t.Context(), r, p, p.images(), batch.Options{Again: again, Watcher: w})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, results, map[string]batch.Word{"abandoned": batch.Done, "done": batch.Elsewhere})
	for _, name := range []string{"abandoned", "done"} {
		if got := len(levels(t, r, name)); got != 1 {
			t.Errorf("%s has %d levels", name, got)
		}
	}
}

// watcher tells the first time that a run waits for others.
type watcher struct{ waiting chan int }

func (*watcher) Begin(batch.Image, *engine.Progress) {}
func (*watcher) End(batch.Image, batch.Result)       {}
func (*watcher) Warn(batch.Image, string)            {}

func (w *watcher) Wait(n int) {
	select {
	case w.waiting <- n:
	default:
	}
}

// A node that loses its claim in the middle ends its work there, and counts on
// the one that has it now.
func TestLostClaim(t *testing.T) {
	p, r := newPool("a"), newRepository(t)
	var once sync.Once
	p.disks["a"].read = func(ctx context.Context) (err error) {
		once.Do(func() {
			heir := p.seize("a")
			<-ctx.Done() // the read hangs until it is told to end
			err = context.Cause(ctx)
			go func() { // the heir waits for the name, and does the image
				for {
					_, err := engine.Backup(context.WithoutCancel(ctx), r, "a", p.Source(batch.Image{Label: "a"}), engine.BackupOptions{})
					var busy *store.BusyError
					if !errors.As(err, &busy) {
						if err != nil {
							t.Error(err)
						}
						break
					}
				}
				if err := heir.Release(context.WithoutCancel(ctx)); err != nil {
					t.Error(err)
				}
			}()
		})
		return err
	}
	results, err := batch.Run(t.Context(), r, p, p.images(), batch.Options{Again: again})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, results, map[string]batch.Word{"a": batch.Elsewhere})
	if got := len(levels(t, r, "a")); got != 1 || len(results[0].Warnings) == 0 {
		t.Errorf("%d levels, warnings %q", got, results[0].Warnings)
	}
}

// A name at which a run without a claim is at work is waited for: until that
// run has made its level, but not for ever.
func TestBusyName(t *testing.T) {
	p, r := newPool("a"), newRepository(t)
	hold := make(chan struct{})
	begun := make(chan struct{})
	stuck := &disk{id: "a", data: make([]byte, chunk), read: func(context.Context) error { close(begun); <-hold; return nil }}
	ended := make(chan error)
	go func() {
		_, err := engine.Backup(t.Context(), r, "a", &source{pool: newPool(), disk: stuck}, engine.BackupOptions{})
		ended <- err
	}()
	<-begun
	o := batch.Options{Again: again, Backup: engine.BackupOptions{Beat: 5 * time.Millisecond}}
	results, err := batch.Run(t.Context(), r, p, p.images(), o)
	var busy *store.BusyError
	if err == nil || !errors.As(results[0].Err, &busy) {
		t.Errorf("a run that never ends: %v, %+v", err, results[0])
	}
	w := &watcher{waiting: make(chan int, 1)}
	o.Backup.Beat, o.Watcher = 0, w
	go func() { <-w.waiting; close(hold) }()
	results, err = batch.Run(t.Context(), r, p, p.images(), o)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, results, map[string]batch.Word{"a": batch.Elsewhere})
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// An image that others have claimed has a snapshot in the end: by this run once
// the claim of a node that died has run out, or by a node that is known to live.
func TestSnapshotsElsewhere(t *testing.T) {
	p, r := newPool("dead", "backed up", "prepared", "slow"), newRepository(t)
	dead := p.seize("dead")
	for _, label := range []string{"backed up", "prepared", "slow"} {
		p.seize(label)
	}
	p.note("prepare prepared")
	reading, done, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	p.disks["backed up"].read = func(context.Context) error { close(reading); <-done; return nil }
	go func() {
		_, err := engine.Backup(t.Context(), r, "backed up", p.Source(batch.Image{Label: "backed up"}), engine.BackupOptions{})
		ended <- err
	}()
	<-reading
	began := time.Now()
	time.AfterFunc(outlives, func() {
		if err := dead.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
	time.AfterFunc(3*outlives, func() { p.note("prepare slow") })
	results, err := batch.Run(t.Context(), r, p, p.images(), batch.Options{Snapshots: batch.Only, Again: again})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, results, map[string]batch.Word{
		"dead": batch.Prepared, "backed up": batch.Elsewhere, "prepared": batch.Elsewhere, "slow": batch.Elsewhere,
	})
	if time.Since(began) < 3*outlives {
		t.Error("a snapshot that was not there was counted on")
	}
	close(done)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
