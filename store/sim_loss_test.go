package store

import (
	"bytes"
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
		if slices.ContainsFunc(w.late, func(l latePut) bool { return l.key == key }) {
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

// flip changes what stands at a commit key: a level's record, or a tombstone. A
// record comes back as it was, under its number. A tombstone does not: a recover
// takes the number away from readers, or brings back the run's level, if whole.
func (w *world) flip() {
	ctx := context.Background()
	r := &Repository{backend: w.disk}
	keys, err := r.list(ctx, levelsPrefix)
	if err != nil {
		w.t.Fatal(err)
	}
	keys = slices.DeleteFunc(keys, func(key string) bool { return strings.HasSuffix(key, ".removed") })
	w.plan.flipAt = w.step + 20
	if len(keys) == 0 {
		return
	}
	key := keys[w.rnd.IntN(len(keys))]
	name, n, _, err := parseLevelKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := r.readCommit(ctx, name, n)
	if err != nil {
		return // it is bad already
	}
	p, err := readAll(ctx, w.disk, key, maxJSON)
	if err != nil {
		w.t.Fatal(err)
	}
	p, how := w.spoil(p)
	overwrite(w.t, w.disk, key, p)
	w.note("%s is %s", key, how)
	w.figures.Flips++
	w.oracle.flip(c.run())
	if c.tombstone != nil {
		w.oracle.lose(c.run(), tombstoneLost)
		if l, ok := w.oracle.level(c.run()); ok && l.promised {
			// Its record was lost, and the run was fenced then: see fencedLate.
			w.oracle.change(c.run(), func(l *simLevel) { l.promised = false })
		}
	}
	if w.plan.flipAt = 0; w.rnd.IntN(2) == 0 {
		w.plan.flipAt = w.step + w.rnd.IntN(800)
	}
}

// spoil changes bytes of an object; not all of them are read.
func (w *world) spoil(p []byte) ([]byte, string) {
	p = bytes.Clone(p)
	switch at := w.rnd.IntN(len(p)); w.rnd.IntN(8) {
	case 0:
		return p[:at], "cut"
	case 1:
		clear(p)
		return p, "zeroed"
	case 2:
		clear(p[at:min(len(p), at+100)])
		return p, "zeroed in part"
	default:
		p[at] ^= byte(1 << w.rnd.IntN(8))
		return p, "flipped"
	}
}
