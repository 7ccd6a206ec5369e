package store

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"sync"
)

// oracle knows which levels there are to be, and every content that any ever
// had, a byte a chunk.
type oracle struct {
	mu     *sync.Mutex
	levels map[RunID]simLevel
	all    map[RunID][simChunks]byte
	losses map[RunID]simLoss
	doubts map[RunID]bool
	flips  map[RunID]bool // whose records have gone bad
}

type simLevel struct {
	name     Name
	number   LevelNumber
	promised bool // Commit said that it stands
	denied   bool // Commit said that it does not, and never will
	removed  bool // it may be removed
	buried   bool // Remove said that it is
}

// simLoss is what was lost of a run below levels/.
type simLoss int

const (
	recordLost    simLoss = iota + 1 // of a level that stood: recover brings it back
	removalLost                      // of a level that may come back, if whole
	tombstoneLost                    // of a run that did not commit: likewise
)

func newOracle() oracle {
	return oracle{mu: &sync.Mutex{}, levels: map[RunID]simLevel{}, all: map[RunID][simChunks]byte{}, losses: map[RunID]simLoss{}, doubts: map[RunID]bool{}, flips: map[RunID]bool{}}
}

func (o oracle) clone() oracle {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.levels, o.losses, o.doubts, o.flips = maps.Clone(o.levels), maps.Clone(o.losses), maps.Clone(o.doubts), maps.Clone(o.flips)
	return o
}

// written tells that a level is about to be committed.
func (o oracle) written(l *Level, contents [simChunks]byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.levels[l.Run] = simLevel{name: l.Name, number: l.Number}
	o.all[l.Run] = contents
}

func (o oracle) change(run RunID, change func(l *simLevel)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.levels[run]
	change(&l)
	o.levels[run] = l
}

func (o oracle) promise(run RunID) { o.change(run, func(l *simLevel) { l.promised = true }) }

func (o oracle) deny(run RunID) { o.change(run, func(l *simLevel) { l.denied = true }) }

func (o oracle) remove(run RunID) { o.change(run, func(l *simLevel) { l.removed = true }) }

func (o oracle) bury(run RunID) { o.change(run, func(l *simLevel) { l.buried = true }) }

func (o oracle) lose(run RunID, what simLoss) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.losses[run] = what
}

func (o oracle) flip(run RunID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flips[run] = true
}

// spoilt reports whether any record below levels/ has been lost, or gone bad.
func (o oracle) spoilt() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.losses)+len(o.flips) > 0
}

// flipped reports whether any has gone bad.
func (o oracle) flipped() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.flips) > 0
}

// doubt tells that a run lives through an older copy being put back. It never
// commits, but what it stores looks to a recover like what is left of a level that
// was lost, and may be put back, whole or not.
func (o oracle) doubt(run RunID, l simLevel) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.doubts[run] = true
	if l.name != "" {
		o.levels[run] = simLevel{name: l.name, number: l.number}
	}
}

// report takes note of what a recover says that it put back, and that it is not
// whole: what was removed, or never committed, may come back so, but not in secret.
func (o oracle) report(recovered []Recovered) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range recovered {
		if l.Damaged > 0 && o.losses[l.Run] != recordLost {
			o.doubts[l.Run] = true
		}
	}
}

// doubtful reports whether an error is about what such a run has stored, or one
// that came back.
func (o oracle) doubtful(err error) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	var bad *ChunkError
	return errors.As(err, &bad) && (o.doubts[bad.Ref.Pack.Run] || o.losses[bad.Ref.Pack.Run] > recordLost)
}

// lossy reports whether anything was lost below levels/.
func (o oracle) lossy() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.losses) > 0
}

// wrote returns what a run was about to commit, ever.
func (o oracle) wrote(run RunID) (contents [simChunks]byte, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	contents, ok = o.all[run]
	return contents, ok
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

func (o oracle) lossOf(run RunID) simLoss {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.losses[run]
}

// undecide is about levels that were about to be committed and are not there: what
// is left of them may be put back some time, whole or not.
func (o oracle) undecide(b Backend) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for run, l := range o.levels {
		if _, err := b.Get(context.Background(), levelKey(l.name, l.number), nil, 0); errors.Is(err, fs.ErrNotExist) && !l.promised {
			o.doubts[run] = true
		}
	}
}

// judge holds what was read of a level against the oracle: whatever is read is
// right, and only what has gone bad cannot be read, unless the level was
// removed meanwhile.
func (h *host) judge(l *Level, contents [simChunks]byte, bad map[int64]*ChunkError, err error) error {
	return h.judgeHeld(l, contents, bad, err, false)
}

// judgeHeld is judge for a reader whose hold stands all the time: a removal does
// not excuse what it cannot read.
func (h *host) judgeHeld(l *Level, contents [simChunks]byte, bad map[int64]*ChunkError, err error, held bool) error {
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
	if !held && (!ok || stands.removed || h.w.oracle.lossOf(l.Run) > 0 || h.w.oracle.doubts[l.Run]) || h.adrift || h.troubled {
		return nil
	}
	if err != nil {
		h.w.t.Errorf("host %d: %s level %s cannot be read, held %t: %v", h.id, l.Name, l.Number, held, err)
	}
	for _, e := range bad {
		if !h.w.harmed.has(e.Ref) {
			h.w.t.Errorf("host %d: %s level %s, held %t: nothing befell it, but %v", h.id, l.Name, l.Number, held, e)
		}
	}
	return nil
}
