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

// waitOthers fences gcs that are dead; a dry run only waits until they are known
// to be. It fails with a *BusyError while one lives.
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
			return g.repo.explainBusy(ctx, run, err)
		}
		if g.o.DryRun {
			continue
		}
		if err := g.repo.fenceGC(ctx, run, g.run); err != nil {
			return err
		}
	}
	return nil
}

// explainBusy adds to the error of a gc that lives for which backups it waits.
func (r *Repository) explainBusy(ctx context.Context, run RunID, err error) error {
	var busy *BusyError
	var w gcWaiting
	if errors.As(err, &busy) && r.getObject(ctx, gcKey("waiting", run), "waiting", &w) == nil && len(w.Claims) > 0 {
		busy.Who += fmt.Sprintf("; it had to wait for %s", w.Claims[0].Name)
		if n := len(w.Claims) - 1; n > 0 {
			busy.Who += fmt.Sprintf(" and %d more", n)
		}
	}
	return err
}

// settleOthers finishes what earlier gcs have left. They are fenced. A verdict
// is executed, after allow has agreed to it; what was condemned without one is
// nothing any more, and goes. What was condemned for a verdict that cannot be
// read is inherited.
func (g *gc) settleOthers(ctx context.Context, allow func(context.Context, []sentence) error) error {
	for _, what := range []string{"verdict", "waiting", "condemned"} {
		runs, err := g.repo.gcRuns(ctx, what)
		if err != nil {
			return err
		}
		for _, run := range runs {
			if run == g.run || slices.Contains(g.standing, run) || slices.Contains(g.inherited.runs, run) {
				continue
			}
			if err := g.settle(ctx, run, allow); err != nil {
				return err
			}
		}
	}
	return nil
}

// settle ends one earlier gc. A verdict counts only while its gc's claim
// stands, which goes after it: without, it came from a gc that lived through an
// older copy of the repository being put back, and is not about this one.
func (g *gc) settle(ctx context.Context, run RunID, allow func(context.Context, []sentence) error) error {
	// One that came later lives, and has taken this one for dead.
	if err := g.checkClaim(ctx); err != nil {
		return err
	}
	if err := g.repo.fenceGC(ctx, run, g.run); err != nil {
		return err
	}
	v, list, err := g.repo.sentences(ctx, run)
	switch {
	case errors.Is(err, errBadObject):
		return g.inherit(ctx, run)
	case errors.Is(err, fs.ErrNotExist):
		return nil // it has been executed, and is being dropped
	case err != nil:
		return err
	}
	if v == nil {
		return g.repo.dropGC(ctx, run, false, g.checkClaim)
	}
	claimed, err := g.repo.stands(ctx, gcKey("gc", run))
	if err != nil {
		return err
	}
	if claimed {
		err := allow(ctx, list)
		if err == nil {
			err = g.execute(ctx, v, list)
		}
		if IsFull(err) {
			g.postponed, g.standing = err, append(g.standing, run)
			return nil
		}
		if err != nil {
			return err
		}
	}
	return g.repo.dropGC(ctx, run, true, g.checkClaim)
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
	dead := g.dead(c)
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
	return g.fenceClaim(ctx, c)
}

// fenceDead reports whether a backup is over since its process, of this host, is
// gone.
func (g *gc) fenceDead(ctx context.Context, c *claim) (bool, error) {
	if !g.dead(c) {
		return false, nil
	}
	return g.fenceClaim(ctx, c)
}

// dead reports whether a run's process, of this host, is known to be gone.
func (g *gc) dead(c *claim) bool {
	return c.Process.sameHost(g.repo.self) && !c.Process.runs(c.Run, g.repo.self)
}

// fenceClaim fences a run that is dead, unless its claim went meanwhile.
func (g *gc) fenceClaim(ctx context.Context, c *claim) (bool, error) {
	if there, err := g.repo.claimed(ctx, claimKey(c.Name, c.Number), c.Run); !there {
		return false, err
	}
	return true, g.repo.settleDead(ctx, c, g.run)
}

// tidy deletes what dead runs have left: halves of objects, claims that are
// decided, and beats of runs that have neither a claim nor a gc.
func (r *Repository) tidy(ctx context.Context, mayDelete func(context.Context) error) error {
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
		} else if err := r.deleteAll(ctx, []string{key}, mayDelete); err != nil {
			return err
		}
	}
	beats = slices.DeleteFunc(beats, func(key string) bool {
		name, _, _ := strings.Cut(strings.TrimPrefix(key, workPrefix+"beat."), ".")
		run, err := ParseRunID(name)
		return err != nil || slices.Contains(working, run)
	})
	return r.deleteAll(ctx, beats, mayDelete)
}
