package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"
)

// GCOptions are the choices of a gc. The zero value works.
type GCOptions struct {
	DryRun   bool          // only say what could be given back
	Removing []Removing    // with DryRun: levels that count as removed
	MaxWait  time.Duration // how long to wait for backups that had begun before; 0: as long as it takes
	Beat     time.Duration // how often it says that it moves on; 0: 30 s
	Progress *GCProgress   // may be nil
	// Waiting is told for which runs it waits, each time that changes; may be nil.
	Waiting func(who []string)
}

// Removing are levels of a name.
type Removing struct {
	Name   Name
	Levels []LevelNumber
}

// GCProgress is what a gc has done so far, polled by whoever shows it.
type GCProgress struct {
	Roots     atomic.Int64 // records to be marked; 0 while unknown
	Levels    atomic.Int64 // of these, done
	Nodes     atomic.Int64 // map nodes read
	Known     atomic.Int64 // map nodes known from the gc before
	Sentences atomic.Int64 // packs to be deleted or written anew
	Executed  atomic.Int64 // of these, done
	moved     atomic.Int64
}

// GCReport is what a gc found and did. A dry run says what one would do.
type GCReport struct {
	Levels    int64    `json:"levels"`    // that hold what is kept
	Nodes     int64    `json:"nodes"`     // distinct map nodes read
	Known     int64    `json:"known"`     // and those known on this machine from the gc before
	Packs     int64    `json:"packs"`     // objects that there were
	Deleted   int64    `json:"deleted"`   // packs deleted
	Rewritten int64    `json:"rewritten"` // packs written anew without their dead chunks
	Freed     int64    `json:"freed"`     // bytes given back
	Waiting   []string `json:"waiting"`   // backups that it did not wait for any longer; the next gc goes on
}

// gc is one run that holds the gc's place: it collects, or recovers.
type gc struct {
	repo   *Repository
	o      GCOptions
	run    RunID
	marker *marker

	// inherited is what earlier gcs condemned whose verdicts cannot be read.
	inherited inheritance

	tight bool // there is no room for more than a few objects
	more  bool // than one round takes was there to be condemned

	// condemning tells that something may be condemned in this run's name, so
	// that it must be fenced if it ends without a verdict.
	condemning bool

	// postponed is why an earlier verdict could not be carried out to its end: no
	// room to write packs anew. It stands, until there is.
	postponed error
	standing  []RunID

	mu     sync.Mutex // guards the report while a verdict is executed
	report GCReport
}

// hold runs work as the only run that collects or recovers. What it leaves in
// work/ when it fails to end cleanly, the next one settles.
func (g *gc) hold(ctx context.Context, work func(context.Context) (committed bool, err error)) error {
	r, o := g.repo, g.o
	now := r.clock()
	g.run = r.newRun(now)
	running.Store(g.run, struct{}{})
	defer running.Delete(g.run)
	claim := gcClaim{Run: g.run, Process: r.self, Started: now.UTC(), Beat: o.Beat.Seconds()}
	if err := r.putObject(ctx, gcKey("gc", g.run), "gc", &claim); err != nil {
		return fmt.Errorf("claim the gc: %w", err)
	}
	beatCtx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.keepBeating(beatCtx, g.run, o.Beat, func() int64 {
			return o.Progress.moved.Load() + o.Progress.Nodes.Load() + o.Progress.Known.Load() + o.Progress.Executed.Load()
		})
	}()
	err := g.waitOthers(ctx)
	committed := false
	if err == nil {
		committed, err = work(ctx)
	}
	stop()
	<-done
	return g.end(context.WithoutCancel(ctx), committed, err)
}

// end takes away what the run has in work/.
func (g *gc) end(ctx context.Context, committed bool, err error) error {
	r := g.repo
	if committed && err != nil {
		// The verdict, and so the claim, stay for the next gc, which goes on.
		return errors.Join(err, r.dropBeats(ctx, g.run))
	}
	if !committed && g.condemning {
		if fenceErr := r.fenceGC(ctx, g.run, g.run); fenceErr != nil {
			return errors.Join(err, fenceErr)
		}
	}
	var tidyErr error
	if committed {
		tidyErr = r.tidy(ctx, g.checkClaim)
	}
	return errors.Join(err, tidyErr, r.dropGC(ctx, g.run, committed, nil), r.dropBeats(ctx, g.run))
}

// round collects once, as a run of its own.
func (g *gc) round(ctx context.Context) error { return g.hold(ctx, g.collect) }

// collect does the work. committed tells that the verdict stands, so that the
// next gc will execute what is left of it.
func (g *gc) collect(ctx context.Context) (committed bool, err error) {
	// What an earlier version's verdict names may be a lost level's.
	refuse := func(context.Context, []sentence) error { return g.repo.refuseLost(ctx) }
	if err := g.settleOthers(ctx, refuse); err != nil {
		return false, err
	}
	if err := g.repo.checkNumbers(ctx); err != nil {
		return false, err
	}
	stock, err := g.repo.stock(ctx)
	if err != nil {
		return false, err
	}
	g.report.Packs = stock.objects
	g.marker = newMarker(g.repo, g.o.Progress)
	g.marker.known = g.repo.openKnown(stock)
	defer func() { g.marker.known.end(committed) }()
	condemned, waiting, err := g.condemn(ctx, stock)
	if err != nil {
		return false, err
	}
	left, err := g.wait(ctx, waiting.Claims)
	if err != nil || len(left) > 0 {
		g.report.Waiting = left
		return false, err
	}
	if err := g.markAgain(ctx, waiting.Removed); err != nil {
		return false, err
	}
	if err := g.refuseLostMeanwhile(ctx, waiting.Claims); err != nil {
		return false, err
	}
	v, sentences, err := g.judge(ctx, stock, condemned, waiting.Removed)
	if err != nil {
		return false, err
	}
	if err := g.checkClaim(ctx); err != nil {
		return false, err
	}
	if err := g.repo.putVerdict(ctx, v, sentences); err != nil {
		return false, err
	}
	err = g.execute(ctx, v, sentences)
	if err == nil && g.postponed != nil && g.report.Freed <= 0 {
		err = g.postponed
	} else if err == nil {
		g.more = g.more || g.postponed != nil
		err = g.dropNotes(ctx)
	}
	if err != nil {
		return true, err
	}
	return true, g.dropInherited(ctx)
}

// markAgain marks what has been committed since, and what has been removed
// since: a backup that began in between may be based on it.
func (g *gc) markAgain(ctx context.Context, removed []string) error {
	records, err := g.repo.recordKeys(ctx)
	if err != nil {
		return err
	}
	if err := g.marker.mark(ctx, records, set(removed)); err != nil {
		return err
	}
	err = g.marker.leases(ctx, true)
	g.counted()
	return err
}

// counted takes over into the report what has been marked.
func (g *gc) counted() {
	p := g.o.Progress
	g.report.Levels, g.report.Nodes, g.report.Known = p.Levels.Load(), p.Nodes.Load(), p.Known.Load()
}

// condemn marks what is reached and condemns packs of which nothing is, or
// little, and what it has inherited.
func (g *gc) condemn(ctx context.Context, s *stock) ([]packName, *gcWaiting, error) {
	found, err := g.repo.findRoots(ctx, func() { g.o.Progress.moved.Add(1) })
	if err != nil {
		return nil, nil, err
	}
	records := maxJSON / 2
	if g.tight {
		records = maxJSON / 64
	}
	w := &gcWaiting{Removed: found.removedRecords(records)}
	busy, err := g.repo.claims(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := g.marker.mark(ctx, found.levels, set(w.Removed)); err != nil {
		return nil, nil, err
	}
	if err := g.marker.leases(ctx, true); err != nil {
		return nil, nil, err
	}
	working := map[RunID]bool{}
	for _, c := range busy {
		over, err := g.fenceDead(ctx, &c)
		if err != nil {
			return nil, nil, err
		}
		working[c.Run] = !over
	}
	if err := g.refuseLost(ctx, s, working); err != nil {
		return nil, nil, err
	}
	condemned, err := g.choose(ctx, s, working)
	if err != nil {
		return nil, nil, err
	}
	g.condemning = true
	if err := g.repo.putCondemned(ctx, g.run, condemned); err != nil {
		return nil, nil, err
	}
	// Those who do not know what is condemned under this run's name are among
	// these, whatever another's name has had before.
	if w.Claims, err = g.repo.claims(ctx); err != nil {
		return nil, nil, err
	}
	return condemned, w, g.repo.putObject(ctx, gcKey("waiting", g.run), "waiting", w)
}

// choose returns the packs to be condemned, in the order of the stock.
func (g *gc) choose(ctx context.Context, s *stock, working map[RunID]bool) (condemned []packName, err error) {
	full := false
	for name, p := range s.all() {
		switch {
		case g.inherited.has(name):
			condemned = append(condemned, name)
			continue
		case full,
			working[name.id.Run],                         // being written; its level will name it
			s.isLast(name) && g.marker.runs[name.id.Run], // it has the copy of a level's record
			g.tight && g.liveIn(name).count(name.id) > 0: // there is no room to write it anew
			continue
		}
		dead, err := g.mostlyDead(ctx, name, p)
		if err != nil {
			return nil, err
		}
		if dead && len(condemned) >= g.most() {
			g.more, full = true, true
		} else if dead {
			condemned = append(condemned, name)
		}
	}
	return condemned, nil
}

// liveIn returns what is marked of a pack.
func (g *gc) liveIn(name packName) *liveSet {
	if name.folder == dataPrefix {
		return g.marker.chunks
	}
	return g.marker.nodes
}

// mostlyDead reports whether a pack is to be condemned: nothing of it is
// reached, or less than half of its entries. Only the header is read, and only
// where something is reached.
func (g *gc) mostlyDead(ctx context.Context, name packName, p *stocked) (bool, error) {
	live := g.liveIn(name).count(name.id)
	if live == 0 {
		return true, nil
	}
	g.o.Progress.moved.Add(1)
	entries, err := g.repo.entriesOf(ctx, name, p.newest)
	if errors.Is(err, errBadPack) || errors.Is(err, fs.ErrNotExist) {
		return false, nil // damaged: that is a scrub's matter
	}
	return err == nil && live*2 < entries, err
}

// judge makes the verdict on what is condemned still, after the second mark.
func (g *gc) judge(ctx context.Context, s *stock, condemned []packName, records []string) (*verdict, []sentence, error) {
	var list []sentence
	for _, name := range condemned {
		p := s.find(name)
		if p == nil || s.isLast(name) && g.marker.runs[name.id.Run] {
			continue // a level's last one
		}
		sn := sentence{Kind: kindOf(name.folder), Pack: name.id, Generation: p.newest}
		if live := g.liveIn(name).count(name.id); live > 0 {
			dead, err := g.worthRewriting(ctx, name, p, live)
			if err != nil {
				return nil, nil, err
			}
			if !dead {
				continue
			}
			sn.Keep = g.liveIn(name).of(name.id)
		}
		list = append(list, sn)
	}
	g.o.Progress.Sentences.Store(int64(len(list)))
	return &verdict{Run: g.run, Records: records}, list, nil
}

// worthRewriting reports whether a condemned pack of which something is reached
// is to be written anew. What was inherited is as soon as any of it is dead: the
// verdict that cannot be read may have named it.
func (g *gc) worthRewriting(ctx context.Context, name packName, p *stocked, live int) (bool, error) {
	if !g.inherited.has(name) {
		if g.tight {
			return false, nil
		}
		return g.mostlyDead(ctx, name, p)
	}
	g.o.Progress.moved.Add(1)
	entries, err := g.repo.entriesOf(ctx, name, p.newest)
	if errors.Is(err, errBadPack) || errors.Is(err, fs.ErrNotExist) {
		g.inherited.unsettled = fmt.Errorf("pack %s cannot be read, and a gc's verdict that cannot be read either may have named it: %w", name.id, err)
		return false, nil
	}
	return err == nil && live < entries, err
}

// putVerdict commits: first the parts, then the commit key.
func (r *Repository) putVerdict(ctx context.Context, v *verdict, list []sentence) error {
	for ; len(list) > 0; v.Parts++ {
		n := 0
		for words := 0; n < len(list) && n < partSize && words < partSize; n++ {
			words += len(list[n].Keep)
		}
		if err := r.putObject(ctx, gcPartKey("verdict", v.Run, v.Parts), "verdict part", verdictPart{list[:n]}); err != nil {
			return fmt.Errorf("put the verdict: %w", err)
		}
		list = list[n:]
	}
	err := r.putObject(ctx, gcKey("verdict", v.Run), "verdict", v)
	if errors.Is(err, fs.ErrExist) {
		return ErrFenced
	}
	return err
}

// fenceGC keeps a gc from committing, unless it has.
func (r *Repository) fenceGC(ctx context.Context, run, by RunID) error {
	err := r.putObject(ctx, gcKey("verdict", run), "tombstone", &gcTombstone{Run: run, By: by, Time: time.Now().UTC()})
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}
