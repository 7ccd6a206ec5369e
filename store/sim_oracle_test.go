package store

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// oracle knows which levels there are to be, and every content that any ever
// had, a byte a chunk.
type oracle struct {
	mu     *sync.Mutex
	levels map[RunID]simLevel
	all    map[RunID][simChunks]byte
}

type simLevel struct {
	name     Name
	number   LevelNumber
	promised bool // Commit said that it stands
	removed  bool // it may be removed
}

func newOracle() oracle {
	return oracle{mu: &sync.Mutex{}, levels: map[RunID]simLevel{}, all: map[RunID][simChunks]byte{}}
}

func (o oracle) clone() oracle {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.levels = maps.Clone(o.levels)
	return o
}

// written tells that a level is about to be committed.
func (o oracle) written(l *Level, contents [simChunks]byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.levels[l.Run] = simLevel{name: l.Name, number: l.Number}
	o.all[l.Run] = contents
}

func (o oracle) promise(run RunID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.levels[run]
	l.promised = true
	o.levels[run] = l
}

func (o oracle) remove(run RunID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.levels[run]
	l.removed = true
	o.levels[run] = l
}

func (o oracle) of(run RunID) [simChunks]byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all[run]
}

func (o oracle) level(run RunID) (simLevel, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l, ok := o.levels[run]
	return l, ok && l.name != ""
}

// forget drops levels that were about to be committed and are not there.
func (o oracle) forget(b Backend) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for run, l := range o.levels {
		if _, err := b.Get(context.Background(), levelKey(l.name, l.number), nil, 0); errors.Is(err, fs.ErrNotExist) && !l.promised {
			delete(o.levels, run)
		}
	}
}

// judge holds what was read of a level against the oracle: whatever is read is
// right, and only what has gone bad cannot be read, unless the level was
// removed meanwhile.
func (h *host) judge(l *Level, contents [simChunks]byte, bad map[int64]*ChunkError, err error) error {
	if h.crashed {
		return err
	}
	want := h.w.oracle.of(l.Run)
	for pos := range contents {
		if err == nil && bad[int64(pos)] == nil && contents[pos] != want[pos] {
			h.w.t.Errorf("%s level %s holds %v instead of %v", l.Name, l.Number, contents, want)
			break
		}
	}
	stands, ok := h.w.oracle.level(l.Run)
	if !ok || stands.removed || h.adrift {
		return nil
	}
	if err != nil {
		h.w.t.Errorf("host %d: %s level %s cannot be read: %v", h.id, l.Name, l.Number, err)
	}
	for _, e := range bad {
		if !h.w.harmed.has(e.Ref) {
			h.w.t.Errorf("host %d: %s level %s: nothing befell it, but %v", h.id, l.Name, l.Number, e)
		}
	}
	return nil
}

// finish checks, as a host that comes afterwards, that every promise is kept,
// that gc leaves nothing that no level reaches, and that all is whole again
// once somebody has had the bytes of what is bad.
func (w *world) finish() {
	ctx := context.Background()
	h := &host{w: w, id: len(w.hosts), rnd: w.rnd}
	time.Sleep(leaseTime + time.Hour)
	if r, err := h.open(w.disk); err != nil {
		w.t.Error(err)
	} else {
		w.promises(ctx, h, r)
		for range 2 { // the first one honours, for the last time, what dead readers held
			if _, err := r.GC(ctx, GCOptions{}); err != nil {
				w.t.Errorf("a gc afterwards: %v", err)
			}
		}
	}
	for range 2 {
		w.heal(ctx, h)
	}
	r, err := h.open(w.disk)
	if err != nil {
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

// promises finds every level that must stand, and no other.
func (w *world) promises(ctx context.Context, h *host, r *Repository) {
	for run, want := range w.oracle.levels {
		if want.removed || want.name == "" {
			continue
		}
		c, err := r.readCommit(ctx, want.name, want.number)
		theirs := err == nil && (c.level == nil || c.level.Run != run)
		if !want.promised && (errors.Is(err, fs.ErrNotExist) || theirs) {
			continue
		}
		if err != nil || theirs {
			w.t.Errorf("%s level %s is gone: %v", want.name, want.number, err)
			continue
		}
		contents, bad, err := h.read(ctx, r, c.level)
		_ = h.judge(c.level, contents, bad, err)
	}
}

// heal notes all that is bad, and has every byte backed up again.
func (w *world) heal(ctx context.Context, h *host) {
	r, err := h.open(w.disk)
	if err != nil {
		w.t.Error(err)
		return
	}
	for _, name := range []Name{"a", "b", "healer"} {
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
	for _, name := range []Name{"a", "b", "healer"} {
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
	m := w.marked(ctx, r)
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
func (w *world) marked(ctx context.Context, r *Repository) *marker {
	m := newMarker(r, &GCProgress{})
	found, err := r.listRoots(ctx)
	if err == nil {
		err = m.mark(ctx, found.levels, found.removed)
	}
	if err != nil {
		w.t.Error(err)
	}
	return m
}

// checkStock fails for packs that no level reaches, and for traces in work/
// other than the tombstones of gcs.
func (w *world) checkStock(ctx context.Context, r *Repository) {
	s, err := r.stock(ctx)
	if err != nil {
		w.t.Error(err)
		return
	}
	m := w.marked(ctx, r)
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
