package store

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
)

var simNames = []Name{"a", "b", "c"}

// backup makes a level of a name from contents that share much with others.
func (h *host) backup(r *Repository, name Name) error {
	h.doing = "backup"
	ctx := context.Background()
	w, err := r.Begin(ctx, name, WriterOptions{Beat: 30 * time.Second})
	if err != nil {
		return err
	}
	var base *Level
	var contents [simChunks]byte
	if levels := w.History.Levels; len(levels) > 0 && h.rnd.IntN(4) > 0 {
		base = &levels[len(levels)-1]
		contents = h.w.oracle.of(base.Run)
	}
	for pos := range contents {
		if h.rnd.IntN(3) == 0 {
			contents[pos] = byte(h.rnd.IntN(simKinds)) // few: hosts write the same bytes all the time
		}
	}
	if err = h.write(ctx, r, w, base, contents); err == nil {
		return nil
	}
	return errors.Join(err, w.Abort(ctx))
}

// pool backs up one name after the other, and removes old levels of each as soon
// as the new one stands.
func (h *host) pool(r *Repository) error {
	for _, name := range simNames {
		err := h.backup(r, name)
		if err == nil {
			err = h.forget(r, name)
		}
		h.explain(err)
		if h.crashed {
			return nil
		}
		h.end()
	}
	return nil
}

// forget removes all but the newest levels of a name.
func (h *host) forget(r *Repository, name Name) error {
	h.doing = "forget"
	levels, err := r.Levels(context.Background(), name)
	keep := 1 + h.rnd.IntN(2)
	if err != nil || len(levels) <= keep {
		return err
	}
	return h.removeAll(r, name, levels[:len(levels)-keep])
}

// remove removes any level of a name.
func (h *host) remove(r *Repository, name Name) error {
	h.doing = "remove"
	levels, err := r.Levels(context.Background(), name)
	if err != nil || len(levels) == 0 {
		return err
	}
	at := h.rnd.IntN(len(levels))
	return h.removeAll(r, name, levels[at:at+1])
}

func (h *host) removeAll(r *Repository, name Name, levels []Level) error {
	numbers := make([]LevelNumber, len(levels))
	for i := range levels {
		numbers[i] = levels[i].Number
		h.w.oracle.remove(levels[i].Run)
	}
	err := r.Remove(context.Background(), name, numbers)
	if err != nil && strings.Contains(err.Error(), "has no level") {
		return nil // another remover was faster
	}
	if err == nil && !h.adrift && !h.crashed {
		h.w.figures.Removed += len(levels)
		for i := range levels {
			h.w.oracle.bury(levels[i].Run)
		}
	}
	return err
}

// gc collects, mostly without waiting long.
func (h *host) gc(r *Repository) error {
	h.doing = "gc"
	o := GCOptions{Beat: 30 * time.Second}
	if h.rnd.IntN(2) == 0 {
		o.MaxWait = time.Duration(h.rnd.IntN(200)) * time.Second
	}
	report, err := r.GC(context.Background(), o)
	if report.Deleted+report.Rewritten > 0 {
		h.w.figures.Verdicts++
	}
	if len(report.Waiting) > 0 {
		h.w.figures.Waited++
	}
	return err
}

// recover puts back what records are lost.
func (h *host) recover(r *Repository) error {
	h.doing = "recover"
	recovered, err := r.Recover(context.Background())
	h.w.figures.Recovered += len(recovered)
	h.w.oracle.report(recovered)
	return err
}

// choose returns a random level of a name, which may be removed meanwhile: for
// those who read with what they saw long ago, one that stood then.
func (h *host) choose(ctx context.Context, r *Repository, name Name, old bool) (*Level, error) {
	levels := h.old
	if !old || len(levels) == 0 {
		var err error
		if levels, err = r.Levels(ctx, name); err != nil {
			return nil, err
		}
		h.old = append(h.old, levels...)
	}
	if len(levels) == 0 {
		return nil, nil
	}
	return &levels[h.rnd.IntN(len(levels))], nil
}

// check reads a random level and compares. A reader with a hold that sees after
// that that the level is not removed reads it to its end, whatever others do.
func (h *host) check(r *Repository, name Name, old bool) error {
	h.doing = "read"
	ctx := context.Background()
	l, err := h.choose(ctx, r, name, old)
	if l == nil {
		return err
	}
	h.unheld = false
	ctx, release := r.Hold(ctx, l, HoldOptions{Beat: 20 * time.Second})
	held := h.holds() && r.CheckRemoved(ctx, l) == nil && h.w.stands(l)
	contents, bad, err := h.read(ctx, r, l)
	held = held && h.holds() && !h.adrift && !h.w.oracle.lossy()
	release()
	h.w.figures.Read++
	if held {
		h.w.figures.Held++
	}
	return h.judgeHeld(l, contents, bad, err, held)
}

// holds reports whether the hold of this host's last run stands, and always has.
func (h *host) holds() bool {
	keys, err := (&Repository{backend: h.w.disk}).list(context.Background(), leaseKey(h.run))
	return err == nil && len(keys) > 0 && !h.unheld
}

// stands reports whether a level's record is there.
func (w *world) stands(l *Level) bool {
	c, err := (&Repository{backend: w.disk}).readCommit(context.Background(), l.Name, l.Number)
	return err == nil && c.level != nil && c.level.Run == l.Run
}

// scrub reads a random level with both copies of its map, and notes what is
// bad.
func (h *host) scrub(r *Repository, name Name) error {
	h.doing = "scrub"
	ctx := context.Background()
	l, err := h.choose(ctx, r, name, false)
	if l == nil {
		return err
	}
	ctx, release := r.Hold(ctx, l, HoldOptions{Beat: 20 * time.Second})
	defer release()
	return h.note(ctx, r, l)
}

func (h *host) note(ctx context.Context, r *Repository, l *Level) error {
	note := func(e *ChunkError) error {
		if err := r.CheckRemoved(ctx, l); err != nil {
			return err
		}
		return r.NoteDamage(ctx, l, e)
	}
	c := r.Cursor(l.Map())
	c.OnNodes(func(refs []Ref) error { return r.CheckNodes(ctx, refs, note) })
	for pos := int64(0); pos < simChunks; {
		leaf, err := c.At(ctx, pos)
		if err != nil {
			return h.judge(l, [simChunks]byte{}, nil, err)
		}
		pos = leaf.End()
	}
	contents, bad, err := h.read(ctx, r, l)
	for _, pos := range sortedKeys(bad) {
		if noteErr := note(bad[pos]); noteErr != nil {
			err = errors.Join(err, noteErr)
			break
		}
	}
	return h.judge(l, contents, bad, err)
}

func sortedKeys[V any](m map[int64]V) (keys []int64) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
