package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"
)

// A gc works in rounds, each a run of its own, so that neither memory nor the
// objects that it puts grow with what there is to collect. On a full disk it
// needs some room to begin with: for its claim, what it condemns, its verdict.
// That is what the reserve is for, an object put when a repository is made and
// at the end of each gc. Whoever removes levels takes it, too, where there is no
// room to say so. It is deleted, and a round follows that deletes a few
// packs that are dead altogether, which takes a few kilobytes to say. Then there
// is room for the rest.
//
// The reserve means nothing, so whoever deletes it does no harm. A backup beside
// may take the room first; then the gc fails as it would without.
const (
	reserveKey  = "reserve.json"
	reserveSize = 192 << 10 // bytes, before they become JSON

	roundPacks = 250_000 // condemned in a round, 60 MB of memory
	tightPacks = 200     // and on a full disk
)

// reserve keeps room.
type reserve struct {
	Filler []byte `json:"filler"` // random, so that no file system makes it smaller
}

// putReserve makes the reserve where it is missing. Without room there is none.
func (r *Repository) putReserve(ctx context.Context) {
	// What is no file keeps no room, whoever put it there.
	_, err := r.backend.Get(ctx, reserveKey, make([]byte, 1), 0)
	if errors.Is(err, ErrIrregular) {
		_ = r.backend.Delete(ctx, reserveKey)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return
	}
	e := reserve{Filler: make([]byte, reserveSize)}
	rand.Read(e.Filler)
	_ = r.putObject(ctx, reserveKey, "reserve", &e)
}

// IsFull tells an error for want of room.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// GC gives back the space of what no level reaches, while backups go on.
//
// Invariant: nothing is deleted that a level which is not removed reaches, or
// will reach when a backup that is under way commits. It rests on this order:
// condemned packs are put before the backups under way are listed, so each
// backup has either read what is condemned and makes no new reference into it,
// or is waited for (or fenced), and its level is marked before the verdict.
//
// Errors: *BusyError while another gc is at work. Where a level's record or
// map cannot be read, nothing is condemned.
func (r *Repository) GC(ctx context.Context, o GCOptions) (GCReport, error) {
	if err := r.writable(ctx); err != nil {
		return GCReport{}, err
	}
	if o.Progress == nil {
		o.Progress = &GCProgress{}
	}
	if o.Beat == 0 {
		o.Beat = defaultBeat
	}
	if o.DryRun {
		g := &gc{repo: r, o: o, report: GCReport{Waiting: []string{}}}
		err := g.dryRun(ctx)
		return g.report, err
	}
	total := GCReport{Waiting: []string{}}
	var noRoom error
	for tight, deadline := false, time.Now().Add(o.MaxWait); ; {
		g := &gc{repo: r, o: o, tight: tight, report: GCReport{Waiting: []string{}}}
		err := g.round(ctx)
		total.add(g.report)
		full := IsFull(err)
		switch {
		case full && !tight:
			_ = r.backend.Delete(ctx, reserveKey) // else it is not there
			tight, noRoom = true, err
		case full, err != nil, len(g.report.Waiting) > 0:
			return total, err
		case tight && g.report.Freed > 0, g.more:
			tight = false
		case tight:
			return total, fmt.Errorf("there is no room to write packs anew, and none can be deleted as a whole: %w", noRoom)
		default:
			r.putReserve(ctx)
			return total, nil
		}
		if o.MaxWait > 0 {
			o.MaxWait = max(time.Until(deadline), time.Millisecond)
		}
		o.Progress.Levels.Store(0)
	}
}

// add sums up rounds.
func (t *GCReport) add(r GCReport) {
	t.Levels, t.Packs = r.Levels, max(t.Packs, r.Packs)
	t.Nodes, t.Known = r.Nodes, r.Known // the progress counts on
	t.Deleted += r.Deleted
	t.Rewritten += r.Rewritten
	t.Freed += r.Freed
	t.Waiting = r.Waiting
}

// most is how many packs a round condemns.
func (g *gc) most() int {
	if g.tight {
		return tightPacks
	}
	return roundPacks
}
