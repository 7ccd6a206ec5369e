package store

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// A dry run refuses whatever the gc would refuse, with the same words, and
// changes nothing.
func TestDryRunRefusesWhatGCRefuses(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name  string
		spoil func(x *halting, h *host, r *Repository)
		busy  bool
	}{
		{name: "the newest record is lost", spoil: func(x *halting, _ *host, _ *Repository) { x.lose("levels/a/3.json") }},
		{name: "a number is missing", spoil: func(x *halting, _ *host, _ *Repository) { x.lose("levels/a/2.json") }},
		{name: "a name is lost", spoil: func(x *halting, _ *host, _ *Repository) { x.lose("levels/b/") }},
		{name: "another has the number", spoil: func(x *halting, h *host, r *Repository) {
			x.lose("levels/a/3.json")
			x.write(h, r, "a", 7)
		}},
		{name: "a verdict stands, and a record is lost", spoil: func(x *halting, _ *host, r *Repository) {
			x.lose("levels/b/")
			dead := process{Host: "elsewhere", BootID: "1", PID: 1}
			run := r.newRun(r.clock())
			for what, body := range map[string]any{
				"gc":      &gcClaim{Run: run, Process: dead, Started: r.clock().Add(-time.Hour), Beat: haltedBeat.Seconds()},
				"verdict": &verdict{Run: run},
			} {
				if err := r.putObject(ctx, gcKey(what, run), what, body); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{name: "a gc lives", busy: true, spoil: func(_ *halting, _ *host, r *Repository) {
			run := r.newRun(r.clock())
			running.Store(run, struct{}{})
			t.Cleanup(func() { running.Delete(run) })
			if err := r.putObject(ctx, gcKey("gc", run), "gc", &gcClaim{Run: run, Process: r.self, Started: r.clock(), Beat: 1}); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newHalting(t)
			h, _, r := x.host(1)
			x.write(h, r, "a", 1, 2, 3)
			x.write(h, r, "a", 4, 5)
			x.write(h, r, "a", 6, 7)
			x.write(h, r, "b", 8)
			c.spoil(x, h, r)
			before := len(x.disk.Log())
			report, dry := r.GC(ctx, GCOptions{DryRun: true, Beat: haltedBeat})
			if n := len(x.disk.Log()); n != before {
				t.Errorf("a dry run changed %v", x.disk.Log()[before:n])
			}
			_, err := r.GC(ctx, GCOptions{Beat: haltedBeat})
			if err == nil || fmt.Sprint(dry) != fmt.Sprint(err) {
				t.Errorf("the dry run says %v, the gc %v", dry, err)
			}
			var busy *BusyError
			if errors.As(dry, &busy) != c.busy || (lostOf(dry) == nil) != c.busy {
				t.Errorf("the dry run says %v", dry)
			}
			if report.Deleted+report.Rewritten != 0 {
				t.Errorf("the dry run offers %+v", report)
			}
		})
	}
}

// A dry run offers nothing of what a reader holds, and what a killed run left.
func TestDryRunOffersWhatGCFrees(t *testing.T) {
	ctx := context.Background()
	x := newHalting(t)
	h, _, r := x.host(1)
	x.write(h, r, "a", 1, 2, 3)
	l := x.write(h, r, "b", 4, 5)
	x.write(h, r, "b", 6, 7)
	_, release := r.Hold(ctx, &l, HoldOptions{})
	if err := r.Remove(ctx, "b", []LevelNumber{l.Number}); err != nil {
		t.Fatal(err)
	}
	for _, held := range []bool{true, false} {
		if !held {
			release()
		}
		dry, err := r.GC(ctx, GCOptions{DryRun: true})
		if err != nil {
			t.Fatal(err)
		}
		done, err := r.GC(ctx, GCOptions{})
		if err != nil || dry.Deleted != done.Deleted || held != (done.Deleted == 0) {
			t.Errorf("held %v: the dry run would delete %d packs, gc did %d: %v", held, dry.Deleted, done.Deleted, err)
		}
	}
}

// A dry run that goes with the removal of levels says what a gc would free after it.
func TestDryRunAfterARemoval(t *testing.T) {
	ctx := context.Background()
	x := newHalting(t)
	h, _, r := x.host(1)
	first := x.write(h, r, "a", 1, 2, 3)
	x.write(h, r, "a", 4, 5)
	numbers := []LevelNumber{first.Number}
	dry, err := r.GC(ctx, GCOptions{DryRun: true, Removing: []Removing{{Name: "a", Levels: numbers}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Remove(ctx, "a", numbers); err != nil {
		t.Fatal(err)
	}
	done, err := r.GC(ctx, GCOptions{})
	if err != nil || done.Deleted == 0 || dry.Deleted != done.Deleted || dry.Rewritten != done.Rewritten {
		t.Errorf("the dry run says %+v, gc %+v: %v", dry, done, err)
	}
}
