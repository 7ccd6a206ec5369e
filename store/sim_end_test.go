package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// finish checks, as a host that comes afterwards, that every promise is kept,
// that gc leaves nothing that no level reaches, and that all is whole again
// once somebody has had the bytes of what is bad.
func (w *world) finish() {
	ctx := context.Background()
	h := &host{w: w, id: len(w.hosts), boot: "end", rnd: w.rnd}
	w.step = math.MaxInt
	w.land()
	w.harmed.often, w.full = false, 0
	time.Sleep(leaseTime + time.Hour)
	if w.plan.clocks {
		time.Sleep(25 * 365 * 24 * time.Hour) // until no clock was ahead of this one
	}
	r, err := h.open(w.disk)
	if err != nil {
		w.t.Error(err)
		return
	}
	w.recoverAll(ctx, r)
	w.dismiss(ctx, h, r)
	w.promises(ctx, h, r)
	w.strangers(ctx, r)
	for range 2 { // the first one honours, for the last time, what dead readers held
		_, err := r.GC(ctx, GCOptions{})
		var lost *LostError
		if errors.As(err, &lost) && (w.oracle.lossy() || w.figures.PutBack > 0) {
			// A dead run's claim, which went without a tombstone, had hidden what it left.
			w.recoverAll(ctx, r)
			_, err = r.GC(ctx, GCOptions{})
		}
		if err != nil {
			w.t.Errorf("a gc afterwards: %v", err)
		}
	}
	for range 2 {
		w.heal(ctx, h)
	}
	if r, err = h.open(w.disk); err != nil {
		w.t.Error(err)
		return
	}
	if _, err := r.GC(ctx, GCOptions{}); err != nil {
		w.t.Errorf("the last gc: %v", err)
	}
	lost := w.lost(ctx, r)
	maps.DeleteFunc(w.harmed.data, func(at place, _ bool) bool { return !lost[at.pack] })
	w.promises(ctx, h, r)
	w.checkStock(ctx, r)
}

// recoverAll puts back what is lost, and gives up what no copy is left of: no level
// is among that.
func (w *world) recoverAll(ctx context.Context, r *Repository) {
	recovered, err := r.Recover(ctx)
	w.figures.Recovered += len(recovered)
	w.oracle.report(recovered)
	var gone *UnrecoverableError
	if !errors.As(err, &gone) {
		if err != nil {
			w.t.Errorf("recover afterwards: %v", err)
		}
		return
	}
	given, err := r.Abandon(ctx)
	if err != nil {
		w.t.Errorf("abandon afterwards: %v", err)
	}
	w.figures.Abandoned += len(given)
	for _, l := range given {
		for run, want := range w.oracle.levels {
			if want.name != l.Name || want.number != l.Number || l.Run != 0 && l.Run != run || !want.promised || want.removed {
				continue
			}
			if now, err := w.find(ctx, r, run, want); now == nil {
				w.t.Errorf("%s of run %s is given up, and it stood: %v", l, run, errors.Join(gone, err))
			}
		}
	}
}

// dismiss removes levels that came back though their runs never committed, and are
// not whole: gcs refuse to work beside them.
func (w *world) dismiss(ctx context.Context, h *host, r *Repository) {
	for run := range w.oracle.doubts {
		l, ok := w.oracle.level(run)
		if !ok || !w.stands(&Level{Name: l.name, Number: l.number, Run: run}) {
			continue
		}
		c, err := r.readCommit(ctx, l.name, l.number)
		if err != nil {
			w.t.Error(err)
			continue
		}
		if _, bad, err := h.read(ctx, r, c.level); err == nil && len(bad) == 0 {
			continue
		}
		w.oracle.remove(run)
		if err := r.Remove(ctx, l.name, []LevelNumber{l.number}); err != nil && !strings.Contains(err.Error(), "has no level") {
			w.t.Error(err)
		}
	}
}

// promises finds every level that must stand, and no other.
func (w *world) promises(ctx context.Context, h *host, r *Repository) {
	for run, want := range w.oracle.levels {
		if want.removed || want.name == "" {
			continue
		}
		l, err := w.find(ctx, r, run, want)
		switch {
		case err == nil && l != nil:
			contents, bad, err := h.read(ctx, r, l)
			_ = h.judge(l, contents, bad, err)
		case err == nil && !want.promised:
		case err == nil && w.oracle.lossOf(run) == recordLost && w.fencedLate(ctx, r, run, want):
		default:
			w.t.Errorf("%s level %s of run %s is gone: %v", want.name, want.number, run, err)
		}
	}
}

// find returns a level; nil: it is not there. One whose record was lost may have
// another number, since a backup has taken its own.
func (w *world) find(ctx context.Context, r *Repository, run RunID, want simLevel) (*Level, error) {
	c, err := r.readCommit(ctx, want.name, want.number)
	if err == nil && c.level != nil && c.level.Run == run {
		return c.level, nil
	}
	givenUp := false
	if errors.Is(err, errBadObject) {
		if givenUp, err = r.stands(ctx, removedKey(want.name, want.number)); err == nil && !givenUp {
			return nil, fmt.Errorf("the record of %s level %s is still bad", want.name, want.number)
		}
	}
	if err != nil && !givenUp && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if w.oracle.lossOf(run) != recordLost {
		return nil, nil
	}
	levels, err := r.Levels(ctx, want.name)
	if i := slices.IndexFunc(levels, func(l Level) bool { return l.Run == run }); i >= 0 {
		return &levels[i], nil
	}
	return nil, err
}

// fencedLate reports whether the run of a level whose record was lost was fenced
// then, by somebody who had seen its claim before it committed.
func (w *world) fencedLate(ctx context.Context, r *Repository, run RunID, l simLevel) bool {
	c, err := r.readCommit(ctx, l.name, l.number)
	return err == nil && c.tombstone != nil && c.run() == run
}

// strangers finds levels that may not stand.
func (w *world) strangers(ctx context.Context, r *Repository) {
	for _, name := range simNames {
		levels, err := r.Levels(ctx, name)
		if err != nil {
			w.t.Error(err)
		}
		for i := range levels {
			l, ok := w.oracle.level(levels[i].Run)
			switch loss := w.oracle.lossOf(levels[i].Run); {
			case (!ok || l.number != levels[i].Number) && (w.figures.PutBack > 0 || w.oracle.lossy()):
				// Where an older copy was put back, or a record below its number was lost,
				// a run's claim goes without a tombstone: the copy of its record is then
				// taken for a lost level's.
				w.orphan(ctx, r, &levels[i])
			case !ok || l.name != name || l.number != levels[i].Number && loss == 0:
				w.t.Errorf("%s level %s of run %s was never written", name, levels[i].Number, levels[i].Run)
			case loss > recordLost:
				w.returned(ctx, r, &levels[i])
			case l.denied && !w.oracle.lossy() && !w.oracle.doubts[levels[i].Run]:
				w.t.Errorf("%s level %s stands, and Commit said that it never will", name, levels[i].Number)
			case l.buried:
				w.t.Errorf("%s level %s stands, and Remove said that it is removed", name, levels[i].Number)
			}
		}
	}
}

// returned is about a level that came back, since the loss took what said that
// it is removed, or fenced: then it is whole.
func (w *world) returned(ctx context.Context, r *Repository, l *Level) {
	h := &host{w: w, id: len(w.hosts)}
	contents, bad, err := h.read(ctx, r, l)
	_ = h.judge(l, contents, bad, err)
	if err != nil {
		w.t.Errorf("%s level %s came back and cannot be read: %v", l.Name, l.Number, err)
	}
	for _, e := range bad {
		if !w.harmed.has(e.Ref) {
			w.t.Errorf("%s level %s came back without all that it had: %v", l.Name, l.Number, e)
		}
	}
}

// heal notes all that is bad, and has every byte backed up again.
func (w *world) heal(ctx context.Context, h *host) {
	r, err := h.open(w.disk)
	if err != nil {
		w.t.Error(err)
		return
	}
	for _, name := range append([]Name{"healer"}, simNames...) {
		levels, err := r.Levels(ctx, name)
		if err != nil {
			w.t.Error(err)
		}
		for i := range levels {
			if err := h.note(ctx, r, &levels[i]); err != nil {
				w.t.Errorf("scrub: %v", err)
			}
		}
	}
	var all [simChunks]byte
	for pos := range all {
		all[pos] = byte(pos % simKinds)
	}
	for _, name := range append([]Name{"healer"}, simNames...) {
		writer, err := r.Begin(ctx, name, WriterOptions{})
		if err != nil {
			w.t.Errorf("the next backup of %s: %v", name, err)
			continue
		}
		var base *Level
		contents := all
		if levels := writer.History.Levels; len(levels) > 0 {
			base = &levels[len(levels)-1]
			contents = w.oracle.of(base.Run)
		}
		if err := h.write(ctx, r, writer, base, contents); err != nil {
			w.t.Errorf("the next backup of %s: %v", name, errors.Join(err, writer.Abort(ctx)))
		}
	}
}

// lost are the data packs of which nothing is left: no newest level has them.
func (w *world) lost(ctx context.Context, r *Repository) map[PackID]bool {
	d, err := r.Damage(ctx)
	if err != nil {
		w.t.Error(err)
		return nil
	}
	m, err := w.marked(ctx, r)
	if err != nil {
		w.t.Error(err)
	}
	lost := map[PackID]bool{}
	for at := range d.places {
		left, err := r.copies(ctx, at.kind, foldersOf(at.kind)[0], at.pack)
		switch {
		case err != nil:
			w.t.Error(err)
		case at.kind == KindMap && !hasBit(m.nodes.of(at.pack), at.index):
			// Nobody has a node's bytes but its copies; it goes with its pack.
		case at.kind == KindMap || len(left) > 0:
			w.t.Errorf("pack %s is noted as damaged still: %s", at.pack, left)
		default:
			lost[at.pack] = true
		}
	}
	return lost
}

// marked is what the levels reach.
func (w *world) marked(ctx context.Context, r *Repository) (*marker, error) {
	m := newMarker(r, &GCProgress{})
	found, err := r.listRoots(ctx)
	if err == nil {
		err = m.mark(ctx, found.levels, found.removed)
	}
	return m, err
}

// checkStock fails for packs that no level reaches, and for traces in work/
// other than the tombstones of gcs.
func (w *world) checkStock(ctx context.Context, r *Repository) {
	s, err := r.stock(ctx)
	if err != nil {
		w.t.Error(err)
		return
	}
	m, err := w.marked(ctx, r)
	if err != nil {
		w.t.Error(err)
	}
	for name := range s.all() {
		live := m.chunks
		if name.folder != dataPrefix {
			live = m.nodes
		}
		if live.count(name.id) == 0 && !(s.isLast(name) && m.runs[name.id.Run]) {
			w.t.Errorf("%s%s is left, and no level reaches it", name.folder, name.id)
		}
	}
	keys, err := r.list(ctx, workPrefix)
	if err != nil {
		w.t.Error(err)
	}
	keys = slices.DeleteFunc(keys, func(key string) bool { return strings.HasPrefix(key, workPrefix+"verdict.") })
	if len(keys) > 0 {
		w.t.Errorf("left in work/: %s", keys)
	}
}

// orphan checks a level that nobody promised, or under another number than it was
// promised under: what can be read of it is what its run wrote, and what cannot
// be read has gone bad, or is noted.
func (w *world) orphan(ctx context.Context, r *Repository, l *Level) {
	want, known := w.oracle.wrote(l.Run)
	if !known {
		w.t.Errorf("%s level %s: nobody ever wrote what it holds", l.Name, l.Number)
		return
	}
	contents, bad, err := (&host{w: w, id: len(w.hosts)}).read(ctx, r, l)
	if err != nil {
		w.t.Errorf("%s level %s, which was put back: %v", l.Name, l.Number, err)
		return
	}
	d, err := r.Damage(ctx)
	if err != nil {
		w.t.Error(err)
		return
	}
	for pos := range contents {
		switch e := bad[int64(pos)]; {
		case e == nil && contents[pos] != want[pos]:
			w.t.Errorf("%s level %s holds %v instead of %v", l.Name, l.Number, contents, want)
			return
		case e != nil && !w.harmed.has(e.Ref) && !d.Has(KindData, e.Ref):
			w.t.Errorf("%s level %s: nobody has noted that %v", l.Name, l.Number, e)
		}
	}
}
