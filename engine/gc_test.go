package engine_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"backy/engine"
	"backy/store"
	"backy/store/mem"

	"pgregory.net/rapid"
)

func mustGC(t interface{ Fatal(...any) }, r *store.Repository) store.GCReport {
	report, err := r.GC(context.Background(), store.GCOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func size(t testing.TB, b *mem.Mem, prefixes ...string) (n int64) {
	t.Helper()
	for _, prefix := range prefixes {
		if err := b.List(context.Background(), prefix, func(_ string, size int64) error {
			n += size
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// Whatever is removed, gc leaves every other level whole, gives back what
// nothing reaches, and leaves nothing of its own.
func TestGC(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r, b := newRepository(t, chunk)
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		names := []store.Name{"a", "b"}
		data := map[store.Name][]byte{}
		want := map[store.Name]map[store.LevelNumber][]byte{"a": {}, "b": {}}
		for _, n := range names {
			data[n] = make([]byte, 70*chunk)
			fill(rnd, data[n][:rapid.IntRange(0, 70).Draw(rt, "filled")*chunk])
		}
		for range rapid.IntRange(1, 15).Draw(rt, "steps") {
			name := rapid.SampledFrom(names).Draw(rt, "name")
			switch rapid.IntRange(0, 4).Draw(rt, "step") {
			case 0, 1:
				data[name], _ = change(rt, rnd, data[name], nil)
				l := mustBackup(t, r, name, &image{data: data[name]})
				want[name][l.Number] = bytes.Clone(data[name])
			case 2:
				for n := range want[name] {
					if err := engine.Remove(context.Background(), r, name, []store.LevelNumber{n}); err != nil {
						rt.Fatal(err)
					}
					delete(want[name], n)
					break
				}
			case 3:
				copy(data[name], data["a"][:min(len(data[name]), len(data["a"]))])
			case 4:
				mustGC(rt, r)
				if left := keys(t, b, "work/"); len(left) > 0 {
					rt.Fatalf("left in work/: %s", left)
				}
			}
			if rapid.Bool().Draw(rt, "reopen") {
				r = reopen(t, b)
			}
		}
		mustGC(rt, r)
		for _, name := range names {
			levels, err := r.Levels(context.Background(), name)
			if err != nil || len(levels) != len(want[name]) {
				rt.Fatalf("%d levels, %v", len(levels), err)
			}
			for _, l := range levels {
				checkLevel(t, r, l, want[name][l.Number])
				if _, err := engine.Scrub(context.Background(), r, l, engine.ScrubOptions{}); err != nil {
					rt.Fatal(err)
				}
				if err := engine.Remove(context.Background(), r, name, []store.LevelNumber{l.Number}); err != nil {
					rt.Fatal(err)
				}
			}
		}
		mustGC(rt, r)
		for _, prefix := range []string{"data/", "maps/", "maps2/", "work/", "damaged/"} {
			if left := keys(t, b, prefix); len(left) > 0 {
				rt.Fatalf("nothing is reached, but there is %s", left)
			}
		}
		for _, name := range names { // numbers never come back
			h, err := r.History(context.Background(), name)
			if err != nil {
				rt.Fatal(err)
			}
			if l := mustBackup(t, r, name, &image{data: data[name]}); l.Number != h.Last+1 {
				rt.Fatalf("number %s after %s", l.Number, h.Last)
			}
		}
	})
}

// A pack of which little is reached is written anew, once.
func TestGCRewrites(t *testing.T) {
	r, b := newRepository(t, chunk)
	rnd := rand.New(rand.NewPCG(21, 22))
	data := make([]byte, 100*chunk)
	fill(rnd, data)
	first := mustBackup(t, r, "image", &image{data: data})
	fill(rnd, data[20*chunk:])
	second := mustBackup(t, r, "image", &image{data: data})
	if report := mustGC(t, r); report.Deleted+report.Rewritten != 0 {
		t.Errorf("with all levels there: %+v", report)
	}
	before := size(t, b, "data/")
	if err := engine.Remove(context.Background(), r, "image", []store.LevelNumber{first.Number}); err != nil {
		t.Fatal(err)
	}
	dry, err := r.GC(context.Background(), store.GCOptions{DryRun: true})
	if err != nil || size(t, b, "data/") != before {
		t.Fatalf("a dry run: %+v, %v", dry, err)
	}
	report := mustGC(t, r)
	freed := before - size(t, b, "data/")
	if report.Rewritten == 0 || freed < 79*chunk || dry.Freed < 79*chunk || dry.Rewritten != report.Rewritten || dry.Deleted != report.Deleted {
		t.Errorf("freed %d, %+v; the dry run said %+v", freed, report, dry)
	}
	checkLevel(t, r, second, data)
	checkLevel(t, reopen(t, b), second, data)
	if report := mustGC(t, r); report.Rewritten+report.Deleted != 0 {
		t.Errorf("again: %+v", report)
	}
}

// A gc waits for a backup that began before it; left to the next one, that goes
// on where it was, and what the backup stored stays.
func TestGCBesideABackup(t *testing.T) {
	r, _ := newRepository(t, chunk)
	rnd := rand.New(rand.NewPCG(23, 24))
	data := make([]byte, 100*chunk)
	fill(rnd, data)
	first := mustBackup(t, r, "image", &image{data: data})
	if err := engine.Remove(context.Background(), r, "image", []store.LevelNumber{first.Number}); err != nil {
		t.Fatal(err)
	}
	// While it runs, the bytes of the removed level come back under another name.
	gate := &gated{image: image{data: data}, reached: make(chan struct{}), release: make(chan struct{})}
	done := make(chan store.Level)
	go func() {
		done <- mustBackup(t, r, "other", gate)
	}()
	<-gate.reached
	for range 2 {
		report, err := r.GC(context.Background(), store.GCOptions{MaxWait: 1})
		if err != nil || len(report.Waiting) != 1 || report.Deleted != 0 {
			t.Fatalf("beside a backup: %+v, %v", report, err)
		}
	}
	close(gate.release)
	l := <-done
	if report := mustGC(t, r); len(report.Waiting) > 0 {
		t.Errorf("after it: %+v", report)
	}
	checkLevel(t, r, l, data)
}

// gated is a source that stops before its first read.
type gated struct {
	image
	reached, release chan struct{}
}

func (g *gated) Begin(ctx context.Context, run engine.Run) (*engine.State, error) {
	st, err := g.image.Begin(ctx, run)
	close(g.reached)
	<-g.release
	return st, err
}

// Without a record, or a number's trace, nothing is collected.
func TestGCRefuses(t *testing.T) {
	data := make([]byte, 10*chunk)
	fill(rand.New(rand.NewPCG(25, 26)), data)
	r, clean := newRepository(t, chunk)
	mustBackup(t, r, "image", &image{data: data})
	mustBackup(t, r, "image", &image{data: data})
	for what, damage := range map[string]func(b *mem.Mem){
		"record lost":    func(b *mem.Mem) { b.Delete(context.Background(), "levels/image/1.json") },
		"record garbage": func(b *mem.Mem) { overwrite(t, b, "levels/image/1.json", []byte("{")) },
		"map lost": func(b *mem.Mem) {
			for _, folder := range []string{"maps/", "maps2/"} {
				for _, key := range keys(t, b, folder) {
					b.Delete(context.Background(), key)
				}
			}
		},
	} {
		b := clean.At(len(clean.Log()))
		damage(b)
		before := size(t, b, "data/")
		if _, err := reopen(t, b).GC(context.Background(), store.GCOptions{}); err == nil || size(t, b, "data/") != before {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Two gcs do not wait for each other.
func TestTwoGCs(t *testing.T) {
	r, _ := newRepository(t, chunk)
	gate := &gated{image: image{data: make([]byte, 1)}, reached: make(chan struct{}), release: make(chan struct{})}
	done := make(chan store.Level)
	go func() { done <- mustBackup(t, r, "image", gate) }()
	<-gate.reached
	waits := make(chan struct{}, 10)
	first := make(chan error)
	go func() {
		_, err := r.GC(context.Background(), store.GCOptions{Waiting: func([]string) { waits <- struct{}{} }})
		first <- err
	}()
	<-waits
	var busy *store.BusyError
	if _, err := r.GC(context.Background(), store.GCOptions{}); !errors.As(err, &busy) {
		t.Errorf("a second gc: %v", err)
	}
	close(gate.release)
	<-done
	if err := <-first; err != nil {
		t.Errorf("the first: %v", err)
	}
}

// A lost record comes back from the copy in the map packs, after a gc too; a
// removed level does not, nor one that did not commit.
func TestRecover(t *testing.T) {
	ctx := context.Background()
	r, b := newRepository(t, chunk)
	rnd := rand.New(rand.NewPCG(29, 30))
	data := make([]byte, 30*chunk)
	want := map[store.LevelNumber][]byte{}
	for i := range 4 {
		if i != 2 { // level 3 is the same as level 2: its map pack holds only its record
			fill(rnd, data[i*chunk:(i+5)*chunk])
		}
		want[mustBackup(t, r, "image", &image{data: data}).Number] = bytes.Clone(data)
	}
	if _, err := engine.Backup(ctx, r, "image", &image{data: data, recheck: errors.New("no")}, engine.BackupOptions{}); err == nil {
		t.Fatal("committed")
	}
	if err := engine.Remove(ctx, r, "image", []store.LevelNumber{1}); err != nil {
		t.Fatal(err)
	}
	mustGC(t, r)
	if recovered, err := r.Recover(ctx); err != nil || len(recovered) != 0 {
		t.Errorf("nothing was lost, but %v: %v", recovered, err)
	}
	for _, key := range []string{"levels/image/2.json", "levels/image/3.json", "levels/image/4.json", "levels/image/5.json"} {
		if err := b.Delete(ctx, key); err != nil {
			t.Fatal(err)
		}
	}
	r = reopen(t, b)
	if recovered, err := r.Recover(ctx); err != nil || len(recovered) != 3 {
		t.Errorf("recovered %v: %v", recovered, err)
	}
	levels, err := r.Levels(ctx, "image")
	if err != nil || len(levels) != 3 {
		t.Fatalf("%d levels: %v", len(levels), err)
	}
	for _, l := range levels {
		checkLevel(t, r, l, want[l.Number])
	}
}

// A level that is being read when it is removed can be read to its end; then
// its space is given back.
func TestGCLeavesWhatIsRead(t *testing.T) {
	r, b := newRepository(t, chunk)
	data := make([]byte, 70*chunk)
	fill(rand.New(rand.NewPCG(5, 5)), data)
	l := mustBackup(t, r, "image", &image{data: data})
	_, release := r.Hold(t.Context(), &l, store.HoldOptions{})
	if err := engine.Remove(t.Context(), r, "image", []store.LevelNumber{l.Number}); err != nil {
		t.Fatal(err)
	}
	mustGC(t, r)
	mustGC(t, reopen(t, b))
	checkLevel(t, r, l, data)
	release()
	mustGC(t, r)
	if left := size(t, b, "data/", "maps/", "maps2/"); left > 0 {
		t.Errorf("%d bytes are left that nobody reads any more", left)
	}
}
