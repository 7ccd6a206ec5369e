package store

import (
	"context"
	"fmt"
	"slices"
)

// While a level's record is lost, a gc collects nothing: it looks for that before
// it condemns anything, and again when it has marked for the second time, for what
// was lost meanwhile. What is lost after that has been marked.

// refuseLost refuses while the record of a level is lost whose run did not go on.
// Only runs are looked at of which nothing was reached.
func (g *gc) refuseLost(ctx context.Context, s *stock, working map[RunID]bool) error {
	found, err := g.recordCopies(ctx, s, working)
	if err != nil {
		return err
	}
	return refuse(lostError(found.lost, nil, found.unreadable))
}

func (g *gc) recordCopies(ctx context.Context, s *stock, working map[RunID]bool) (*recordCopies, error) {
	return g.repo.lostRecords(ctx, s, func(run RunID) bool {
		g.o.Progress.moved.Add(1)
		return working[run] || g.marker.runs[run] || g.marker.nodes.count(PackID{run, s.last[run]}) > 0
	})
}

func refuse(lost *LostError) error {
	if lost == nil {
		return nil
	}
	return fmt.Errorf("nothing is collected: %w", lost)
}

// refuseLostMeanwhile refuses after the second mark. waited are the backups that
// it has waited for; whatever began later makes no reference to what is condemned.
func (g *gc) refuseLostMeanwhile(ctx context.Context, waited []claim) error {
	r := g.repo
	busy, err := r.claims(ctx)
	if err != nil {
		return err
	}
	working := map[RunID]bool{}
	for _, c := range busy {
		if !slices.ContainsFunc(waited, func(w claim) bool { return w.Run == c.Run && w.Name == c.Name && w.Number == c.Number }) {
			working[c.Run] = true
			continue
		}
		// Its number was decided.
		if decided, err := r.decided(ctx, c.Name, c.Number); err != nil {
			return err
		} else if !decided {
			return refuse(&LostError{Levels: []LostLevel{{Name: c.Name, Number: c.Number, Run: c.Run}}})
		}
	}
	if err := r.checkNumbers(ctx); err != nil {
		return err
	}
	s, err := r.mapStock(ctx)
	if err != nil {
		return err
	}
	found, err := g.recordCopies(ctx, s, working)
	if err != nil {
		return err
	}
	lost := found.lost
	for _, l := range found.standing {
		// The number was marked as another run's: that level is lost, and this one was
		// not marked.
		if g.marker.done[levelKey(l.Name, l.Number)] {
			lost = append(lost, lostRecord{LostLevel: l})
		}
	}
	return refuse(lostError(lost, nil, found.unreadable))
}
