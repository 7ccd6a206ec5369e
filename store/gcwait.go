package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"
)

// settleOthers finishes what earlier gcs have left: a verdict is executed;
// what was condemned without one is adopted. It fails with a *BusyError while
// another gc lives.
func (g *gc) settleOthers(ctx context.Context) error {
	if err := g.waitOthers(ctx); err != nil {
		return err
	}
	for _, what := range []string{"verdict", "waiting", "condemned"} {
		runs, err := g.repo.gcRuns(ctx, what)
		if err != nil {
			return err
		}
		for _, run := range runs {
			if run == g.run || run == g.adopted {
				continue
			}
			if err := g.settle(ctx, run); err != nil {
				return err
			}
		}
	}
	return nil
}

// adopt reads what the adopted gc had condemned, and for whom it waited.
func (g *gc) adopt(ctx context.Context) (condemned []packName, w *gcWaiting, err error) {
	w = &gcWaiting{}
	if err := g.repo.getObject(ctx, gcKey("waiting", g.adopted), "waiting", w); err != nil {
		return nil, nil, err
	}
	keys, err := g.repo.list(ctx, gcKey("condemned", g.adopted)+".")
	if err != nil {
		return nil, nil, err
	}
	for _, key := range keys {
		var lists []packList
		if err := g.repo.getObject(ctx, key, "condemned", &lists); err != nil {
			return nil, nil, err
		}
		for _, list := range lists {
			for run, seqs := range list.Packs {
				for _, seq := range seqs {
					condemned = append(condemned, packName{foldersOf(list.Kind)[0], PackID{run, seq}})
				}
			}
		}
	}
	return condemned, w, nil
}

// waitOthers fences gcs that are dead.
func (g *gc) waitOthers(ctx context.Context) error {
	runs, err := g.repo.gcRuns(ctx, "gc")
	if err != nil {
		return err
	}
	for _, run := range runs {
		if run == g.run {
			continue
		}
		c := gcClaim{Run: run, Beat: defaultBeat.Seconds()}
		err := g.repo.getObject(ctx, gcKey("gc", run), "gc", &c)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil && !errors.Is(err, errBadObject) {
			return err
		}
		if err := g.repo.waitDead(ctx, &claim{Name: "gc", Run: run, Process: c.Process, Started: c.Started, Beat: c.Beat}); err != nil {
			return err
		}
		if err := g.repo.fenceGC(ctx, run, g.run); err != nil {
			return err
		}
	}
	return nil
}

// settle ends one earlier gc.
func (g *gc) settle(ctx context.Context, run RunID) error {
	if err := g.repo.fenceGC(ctx, run, g.run); err != nil {
		return err
	}
	v, err := g.repo.readVerdict(ctx, run)
	if err != nil {
		return err
	}
	if v == nil {
		waiting, err := g.repo.list(ctx, gcKey("waiting", run))
		if err == nil && len(waiting) > 0 && g.adopted == 0 {
			g.adopted = run
			return nil
		}
		return errors.Join(err, g.repo.dropGC(ctx, run, false))
	}
	var list []sentence
	for part := range v.Parts {
		var p verdictPart
		if err := g.repo.getObject(ctx, gcPartKey("verdict", run, part), "verdict part", &p); err != nil {
			return err
		}
		list = append(list, p.Sentences...)
	}
	if err := g.execute(ctx, v, list); err != nil {
		return err
	}
	return g.repo.dropGC(ctx, run, true)
}

// wait returns once every backup of a list is over, having fenced those that
// are dead; after MaxWait it returns those that are not.
func (g *gc) wait(ctx context.Context, claims []claim) (left []string, err error) {
	deadline := time.Now().Add(g.o.MaxWait)
	watched := map[RunID]*watch{}
	for told := -1; ; {
		var open []claim
		left = nil
		for _, c := range claims {
			over, err := g.over(ctx, &c, watched)
			if err != nil {
				return nil, err
			}
			if !over {
				open = append(open, c)
				left = append(left, fmt.Sprintf("%s (%s)", c.Name, c.who()))
			}
		}
		claims = open
		if len(claims) == 0 {
			return nil, nil
		}
		if told != len(left) && g.o.Waiting != nil {
			g.o.Waiting(left)
		}
		told = len(left)
		if g.o.MaxWait > 0 && time.Now().After(deadline) {
			return left, nil
		}
		g.o.Progress.moved.Add(1)
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(min(time.Second, max(g.o.Beat/10, time.Millisecond))):
		}
	}
}

// watch is what was last seen of a run of another host, and when.
type watch struct {
	beats int
	last  string
	since time.Time
}

// over reports whether a backup has ended. One that is dead is fenced.
func (g *gc) over(ctx context.Context, c *claim, watched map[RunID]*watch) (bool, error) {
	decided, err := g.repo.decided(ctx, c.Name, c.Number)
	if decided || err != nil {
		return decided, err
	}
	there, err := g.repo.list(ctx, claimKey(c.Name, c.Number))
	if err != nil {
		return false, err
	}
	if !slices.Contains(there, claimKey(c.Name, c.Number)) {
		return true, nil // withdrawn: its number was taken by another
	}
	dead := c.Process.sameHost(g.repo.self) && !c.Process.runs(c.Run, g.repo.self)
	if !c.Process.sameHost(g.repo.self) {
		beats, err := g.repo.list(ctx, beatPrefix(c.Run))
		if err != nil {
			return false, err
		}
		now := watch{beats: len(beats), since: time.Now()}
		if len(beats) > 0 {
			now.last = beats[len(beats)-1]
		}
		w := watched[c.Run]
		if w == nil || w.beats != now.beats || w.last != now.last {
			watched[c.Run] = &now
			return false, nil
		}
		dead = time.Since(w.since) > 2*c.beat()
	}
	if !dead {
		return false, nil
	}
	return true, g.repo.fence(ctx, c.Name, c.Number, c.Run, g.run)
}

// tidy deletes what dead runs have left: halves of objects, claims that are
// decided, and beats of runs that have neither a claim nor a gc.
func (r *Repository) tidy(ctx context.Context) error {
	if s, ok := r.backend.(Sweeper); ok {
		if _, err := s.Sweep(ctx, 0); err != nil {
			return err
		}
	}
	beats, err := r.list(ctx, workPrefix+"beat.")
	if err != nil {
		return err
	}
	claims, err := r.list(ctx, workPrefix+"claim.")
	if err != nil {
		return err
	}
	working, err := r.gcRuns(ctx, "gc")
	if err != nil {
		return err
	}
	for _, key := range claims {
		var c claim
		if err := r.getObject(ctx, key, "claim", &c); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			if c, err = parseClaimKey(key); err != nil {
				continue
			}
		}
		over, err := r.decided(ctx, c.Name, c.Number)
		if err != nil {
			return err
		}
		if !over {
			working = append(working, c.Run)
		} else if err := r.backend.Delete(ctx, key); err != nil {
			return err
		}
	}
	for _, key := range beats {
		name, _, _ := strings.Cut(strings.TrimPrefix(key, workPrefix+"beat."), ".")
		if run, err := ParseRunID(name); err != nil || slices.Contains(working, run) {
			continue
		}
		if err := r.backend.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}
