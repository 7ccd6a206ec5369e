package store

import (
	"context"
	"errors"
	"io/fs"
)

// dryRun says what a gc would give back now. It changes nothing, and refuses
// whatever that gc would refuse.
func (g *gc) dryRun(ctx context.Context) error {
	if err := g.waitOthers(ctx); err != nil {
		return err
	}
	if err := g.checkStanding(ctx); err != nil {
		return err
	}
	if err := g.repo.checkNumbers(ctx); err != nil {
		return err
	}
	s, err := g.repo.stock(ctx)
	if err != nil {
		return err
	}
	g.marker = newMarker(g.repo, g.o.Progress)
	g.marker.known = g.repo.openKnown(s)
	defer g.marker.known.end(false)
	found, err := g.repo.findRoots(ctx, func() { g.o.Progress.moved.Add(1) })
	if err != nil {
		return err
	}
	for _, of := range g.o.Removing {
		for _, n := range of.Levels {
			found.removed[levelKey(of.Name, n)] = true
		}
	}
	busy, err := g.repo.claims(ctx)
	if err != nil {
		return err
	}
	if err := g.marker.mark(ctx, found.levels, found.removed); err != nil {
		return err
	}
	if err := g.marker.leases(ctx, false); err != nil {
		return err
	}
	g.report.Packs = s.objects
	g.counted()
	working := map[RunID]bool{}
	for _, c := range busy {
		working[c.Run] = !g.dead(&c)
	}
	if err := g.refuseLost(ctx, s, working); err != nil {
		return err
	}
	return g.estimate(ctx, s, working)
}

// checkStanding refuses what a gc refuses that finds an earlier one's verdict.
func (g *gc) checkStanding(ctx context.Context) error {
	runs, err := g.repo.gcRuns(ctx, "verdict")
	if err != nil {
		return err
	}
	for _, run := range runs {
		v, _, err := g.repo.sentences(ctx, run)
		switch {
		case errors.Is(err, errBadObject), errors.Is(err, fs.ErrNotExist), err == nil && v == nil:
			continue // named again, carried out already, or a tombstone
		case err != nil:
			return err
		}
		if claimed, err := g.repo.stands(ctx, gcKey("gc", run)); err != nil {
			return err
		} else if claimed {
			return g.repo.refuseLost(ctx)
		}
	}
	return nil
}

// estimate reports what would be deleted and what rewritten.
func (g *gc) estimate(ctx context.Context, s *stock, working map[RunID]bool) error {
	for name, p := range s.all() {
		if working[name.id.Run] || s.isLast(name) && g.marker.runs[name.id.Run] {
			continue
		}
		dead, err := g.mostlyDead(ctx, name, p)
		if err != nil {
			return err
		}
		live := int64(g.liveIn(name).count(name.id))
		switch {
		case !dead:
		case live == 0:
			g.report.Deleted++
			g.report.Freed += p.size
		default:
			entries, err := g.repo.entriesOf(ctx, name, p.newest)
			if err != nil {
				return err
			}
			g.report.Rewritten++
			g.report.Freed += p.size - p.size*live/int64(entries)
		}
	}
	return nil
}
