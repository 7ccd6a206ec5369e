package store

import (
	"context"
	"slices"
	"strings"
)

// lose takes something away below levels/ that ought to be there: a record, a
// removal, a tombstone, or all of a name. What cannot be lost now without harm
// that nobody could prevent is lost later.
func (w *world) lose() {
	name, all := simNames[w.rnd.IntN(len(simNames))], w.rnd.IntN(4) == 0
	var lost []string
	keys, err := (&Repository{backend: w.disk}).list(context.Background(), levelPrefix(name))
	if err != nil {
		w.t.Fatal(err)
	}
	what := map[string]simLoss{}
	runs := map[string]RunID{}
	for _, key := range keys {
		what[key], runs[key] = w.losable(key)
		if what[key] > 0 {
			lost = append(lost, key)
		}
	}
	if len(lost) == 0 || all && len(lost) < len(keys) {
		w.plan.lossAt = w.step + 20
		return
	}
	if !all {
		i := w.rnd.IntN(len(lost))
		lost = lost[i : i+1]
	}
	w.plan.lossAt = 0
	for _, key := range lost {
		if err := w.disk.Delete(context.Background(), key); err != nil {
			w.t.Fatal(err)
		}
		w.note("%s is lost", key)
		w.figures.Losses++
		w.oracle.lose(runs[key], max(what[key], w.oracle.lossOf(runs[key])))
	}
}

// losable reports what the loss of an object would be, and whose; 0: it cannot be
// lost now.
func (w *world) losable(key string) (simLoss, RunID) {
	ctx := context.Background()
	r, err := (&host{w: w}).open(w.disk)
	if err != nil {
		w.t.Fatal(err)
	}
	name, n, isRemoval, err := parseLevelKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	if isRemoval {
		var m removal
		// A gc may be deleting what the level had: that it stands again comes too late.
		if err := r.getObject(ctx, key, "removed", &m); err != nil || w.collecting(ctx, r) {
			return 0, 0
		}
		return removalLost, m.Run
	}
	c, err := r.readCommit(ctx, name, n)
	if err != nil {
		return 0, 0
	}
	if c.tombstone != nil {
		// Whoever is fenced and has only the put of his level before him would commit.
		if slices.ContainsFunc(w.hosts, func(h *host) bool { return !h.done && !h.crashed && h.run == c.run() }) {
			return 0, 0
		}
		return tombstoneLost, c.run()
	}
	l, ok := w.oracle.level(c.level.Run)
	if !ok || !l.promised || l.removed && w.collecting(ctx, r) {
		return 0, 0
	}
	if l.removed {
		return removalLost, c.level.Run
	}
	return recordLost, c.level.Run
}

// collecting reports whether a gc has begun and is not settled.
func (w *world) collecting(ctx context.Context, r *Repository) bool {
	keys, err := r.list(ctx, workPrefix)
	if err != nil {
		w.t.Fatal(err)
	}
	return slices.ContainsFunc(keys, func(key string) bool {
		kind, _, _ := strings.Cut(strings.TrimPrefix(key, workPrefix), ".")
		return kind == "gc" || kind == "waiting" || kind == "condemned"
	})
}
