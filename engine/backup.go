package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"backy/hints"
	"backy/store"
)

// BackupOptions are the choices of a backup. The zero value works.
type BackupOptions struct {
	Labels      map[string]string
	Source      string // recorded as Origin.Source where the source leaves it empty
	Readers     int    // units in work at a time; 0: 8
	Compression store.Compression
	Beat        time.Duration // how often other hosts are told that the run lives; 0: 30 s
	Rate        *Rate         // caps reading; may be nil
	Budget      *Budget       // shared with other backups; may be nil
	Progress    *Progress     // may be nil
	Warn        Warn          // may be nil
}

// cleanupTime bounds what a run does after it was cancelled or has failed.
const cleanupTime = 30 * time.Second

// Backup makes the next level of a name from a source and returns its record.
//
// Errors: *store.BusyError while another run is at work on the name;
// store.ErrUndecided where the repository did not tell whether the level
// stands. After any other error there is no new level.
func Backup(ctx context.Context, repo *store.Repository, name store.Name, src Source, o BackupOptions) (store.Level, error) {
	if o.Progress == nil {
		o.Progress = &Progress{}
	}
	if o.Warn == nil {
		o.Warn = func(string, ...any) {}
	}
	started := time.Now()
	w, err := repo.Begin(ctx, name, store.WriterOptions{
		Beat:       o.Beat,
		PackMemory: o.Budget.packMemory(),
		OnStored:   func(n int64) { o.Progress.Stored.Add(n) },
	})
	if err != nil {
		return store.Level{}, err
	}
	b := &backup{repo: repo, name: name, src: src, o: o, w: w, started: started}
	b.coders.New = func() any { return repo.NewCoder(o.Compression) }
	level, err := b.run(ctx)
	if err == nil {
		return level, nil
	}
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	return level, errors.Join(err, w.Abort(cleanup))
}

// backup is one run of Backup.
type backup struct {
	repo    *store.Repository
	name    store.Name
	src     Source
	o       BackupOptions
	w       *store.Writer
	started time.Time

	state *State
	base  *store.Level // state.Base, or nil where its map cannot be read
	stats store.Stats
	grown int64 // by how much more than the base the level holds, holes apart
	size  int64

	// stop ends the context that the source began with, so that a stalled
	// input does not hold up a run that has failed.
	stop context.CancelCauseFunc

	gone    gonePacks     // that the base refers to
	without []hints.Range // chunks of the base whose packs are missing
	walked  bool          // the base's map, for those

	sampled atomic.Int64 // bytes read to verify what was left out
	coders  sync.Pool
}

func (b *backup) run(ctx context.Context) (level store.Level, err error) {
	run, err := b.describe(ctx)
	if err != nil {
		return level, err
	}
	sourceCtx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	b.stop = stop
	if b.state, err = b.src.Begin(sourceCtx, run); err != nil {
		return level, err
	}
	b.noteOwner(run)
	govern(sourceCtx, b.state, b.o.Rate, b.o.Budget)
	outcome := Failed
	defer func() {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
		defer cancel()
		if outcome == Committed {
			cleanup = ctx // removing old snapshots may take its time
		}
		if endErr := b.src.End(cleanup, outcome); endErr != nil {
			if outcome == Committed {
				b.o.Warn("the level is safe, but cleaning up after it failed: %v", endErr)
				return
			}
			err = errors.Join(err, endErr)
		}
	}()
	root, err := b.copy(ctx)
	if b.base != nil {
		b.noter().copies(ctx)
	}
	b.tellGone()
	if err != nil {
		return level, err
	}
	if err := b.src.Recheck(ctx); err != nil {
		return level, err
	}
	b.doubtEmpty(run)
	level = b.record(root)
	err = b.w.Commit(ctx, &level)
	switch {
	case err == nil:
		outcome = Committed
		if left := b.w.ClaimLeft(); left != nil {
			b.o.Warn("%s level %s is safe, but the run's claim could not be removed: %v; the next backup of it, or gc, removes it", level.Name, level.Number, left)
		}
		for _, u := range FindUnusual(level, b.w.History.Levels) {
			b.o.Warn("%s level %s: %s", level.Name, level.Number, u)
		}
	case errors.Is(err, store.ErrUndecided):
		outcome = Undecided
	}
	return level, err
}

// noteOwner says where an image's levels go on with something that is none. Whose
// image it is, an RBD source says itself.
func (b *backup) noteOwner(run Run) {
	if b.state.Origin.RBD != nil || len(run.Levels) == 0 || run.Levels[0].Origin.RBD == nil {
		return
	}
	l := &run.Levels[0]
	b.o.Warn("level %s of %s is of %s: this source, which is no RBD image, is compared with it by checksum", l.Number, b.name, l.Origin.Source)
}

// doubtEmpty warns of an image that has become empty. A stream's source does that
// itself.
func (b *backup) doubtEmpty(run Run) {
	if b.size == 0 && b.state.Stream == nil && len(run.Levels) > 0 && run.Levels[0].Size > 0 {
		b.o.Warn("the source of %s is empty, and level %s was not: is it the right one?", b.name, run.Levels[0].Number)
	}
}

// describe collects what the source is to know.
func (b *backup) describe(ctx context.Context) (Run, error) {
	h := &b.w.History
	for _, bad := range h.Bad {
		b.o.Warn("%s level %s cannot be read and is passed over: %v", b.name, bad.Number, bad.Err)
	}
	distrust, err := b.repo.Distrusted(ctx, b.name, h.Levels)
	if err != nil {
		return Run{}, err
	}
	run := Run{
		Repository: b.repo.ID, Repo: b.repo, Name: b.name, ID: b.w.ID, Distrust: distrust,
		Over: h.Over, Unfinished: h.Unfinished, Warn: b.o.Warn,
	}
	for i := range h.Levels {
		run.Levels = append(run.Levels, h.Levels[len(h.Levels)-1-i])
	}
	return run, nil
}

// copy brings the source's bytes into the repository and returns the map's
// root.
func (b *backup) copy(ctx context.Context) (store.Ref, error) {
	s := b.state
	b.base, b.size = s.Base, s.Size
	if s.Stream != nil {
		return b.copyStream(ctx)
	}
	enough := b.expect(ctx)
	defer enough()
	p := plan{extents: s.Extents, outside: s.Outside}
	if p.extents == nil {
		p = everything(s.Size)
	}
	doubt := b.vouch(ctx)
	for {
		wrong, err := int64(-1), doubt
		if doubt = nil; err == nil {
			wrong, err = b.follow(ctx, &p)
		}
		var lost *store.NodeError
		switch {
		case errors.Is(err, errPackGone) && !b.walked:
			doubt, p.extra = b.findGone(ctx), nil
			enough()
			b.o.Progress.Total.Store(b.o.Progress.Done.Load() + s.Size)
			continue
		case errors.As(err, &lost) && b.base != nil:
			b.loseBase(ctx, lost)
		case err != nil:
			return store.Ref{}, err
		case wrong >= 0:
			b.o.Warn("at byte %d the source has changed where nothing was said to have: reading and comparing everything; do not trust what named the changes", wrong)
		default:
			return b.finish(ctx)
		}
		enough()
		b.o.Progress.Total.Store(b.o.Progress.Done.Load() + s.Size)
		p = everything(s.Size)
		b.state.Origin.Diff = store.DiffNone
	}
}

// finish ends the map, and reads all of the source again if it has to.
func (b *backup) finish(ctx context.Context) (store.Ref, error) {
	root, err := b.w.FinishMap(ctx, b.chunks())
	if err == nil && b.state.Again != nil {
		err = b.again(ctx, root)
	}
	return root, err
}

// follow reads what a plan names and compares a sample of the rest. It returns
// the offset of something that the plan should have named, or -1.
func (b *backup) follow(ctx context.Context, p *plan) (wrong int64, err error) {
	if err := b.addDoubtful(ctx, p); err != nil {
		return -1, err
	}
	if err := b.pass(ctx, p); err != nil {
		return -1, err
	}
	if !b.walked && b.gone.any() {
		return -1, errPackGone
	}
	return b.verifyOutside(ctx, p)
}

// loseBase goes on without the base, whose map cannot be read.
func (b *backup) loseBase(ctx context.Context, lost *store.NodeError) {
	// Where the base was removed meanwhile, there is nothing to note; where ctx has
	// ended, the next step says so.
	_ = b.noter().note(ctx, lost)
	b.o.Warn("the map of level %s is damaged (%v): reading everything instead of what changed", b.base.Number, lost)
	b.base = nil
}

// noter notes what is bad in the base.
func (b *backup) noter() *noter { return &noter{repo: b.repo, level: b.base, warn: b.o.Warn} }

func (b *backup) chunks() int64 { return (b.size + b.repo.ChunkSize - 1) / b.repo.ChunkSize }

// chunkLength is that of the chunk at a position: the last may be shorter.
func chunkLength(pos, chunkSize, size int64) int64 { return min(chunkSize, size-pos*chunkSize) }

func (b *backup) baseMap() store.Map {
	if b.base == nil {
		return store.Map{Fanout: 2}
	}
	return b.base.Map()
}

// record makes the level's record.
func (b *backup) record(root store.Ref) store.Level {
	b.stats.Read += b.sampled.Load()
	b.stats.Stored = b.w.Stored()
	b.stats.Mended = b.w.Mended()
	b.stats.Data = b.holds()
	b.stats.Compression = b.o.Compression.String()
	b.stats.Seconds = time.Since(b.started).Seconds()
	l := store.Level{
		Name: b.name, Number: b.w.Number, Run: b.w.ID,
		Time: b.state.Origin.Time.UTC(), Committed: time.Now().UTC(),
		Size: b.size, ChunkSize: b.repo.ChunkSize, Fanout: b.repo.Fanout(), Root: root,
		Origin: b.state.Origin, Stats: b.stats, Labels: b.o.Labels,
	}
	l.Origin.Time = l.Time
	if l.Time.IsZero() {
		l.Time = b.started.UTC()
		l.Origin.Time = l.Time
	}
	if l.Origin.Source == "" {
		l.Origin.Source = b.o.Source
	}
	if b.base != nil {
		l.Base = b.base.Number
	}
	return l
}

// plan says what of the source is read.
type plan struct {
	extents hints.Seq
	outside Outside
	extra   []hints.Range // chunks read besides, ascending
	sample  *sampler      // filled by the pass with what lies outside
}

func everything(size int64) plan { return plan{extents: hints.Whole(size), outside: Unknown} }

// addDoubtful makes the plan read chunks that the extents cannot vouch for:
// the one in which the shorter of two images ends, and those whose stored
// bytes are known to be bad. Errors: *store.NodeError where the base's map is
// known to be bad, and is, so that no part of it is shared unseen.
func (b *backup) addDoubtful(ctx context.Context, p *plan) error {
	if b.base == nil || p.outside == Unknown {
		return nil // all is read anyway
	}
	edge := min(b.base.Size, b.size)
	if b.base.Size != b.size && edge%b.repo.ChunkSize != 0 {
		p.extra = append(p.extra, hints.Range{First: edge / b.repo.ChunkSize, Count: 1})
	}
	bad, err := damagedRanges(ctx, b.repo, b.w.Damage, b.base)
	if err != nil {
		return err
	}
	bad = collect(hints.MergeRanges(ranges(bad), ranges(b.without)))
	if len(bad) == 0 {
		return nil
	}
	var inside []hints.Range
	for _, r := range bad {
		r.Count = min(r.Count, b.chunks()-r.First)
		if r.Count > 0 {
			inside = append(inside, r)
		}
	}
	p.extra = collect(hints.MergeRanges(ranges(p.extra), ranges(inside)))
	return nil
}

// damagedRanges finds the positions of a level whose chunks are known to be
// bad. It walks the whole map, and only where anything is known to be bad.
func damagedRanges(ctx context.Context, repo *store.Repository, d *store.Damage, l *store.Level) (bad []hints.Range, err error) {
	if !d.Any() {
		return nil, nil
	}
	err = eachLeaf(ctx, repo, l.Map(), func(leaf store.Leaf) {
		for i, ref := range leaf.Refs {
			if !ref.IsZero() && d.Has(store.KindData, ref) {
				bad = append(bad, hints.Range{First: leaf.First + int64(i), Count: 1})
			}
		}
	})
	return bad, err
}

// eachLeaf reads a whole map. Errors: *store.NodeError.
func eachLeaf(ctx context.Context, repo *store.Repository, m store.Map, fn func(store.Leaf)) error {
	c := repo.Cursor(m)
	for pos := int64(0); pos < m.Chunks; {
		leaf, err := c.At(ctx, pos)
		if err != nil {
			return err
		}
		fn(leaf)
		pos = leaf.End()
	}
	return nil
}

func ranges(list []hints.Range) func(yield func(hints.Range, error) bool) {
	return func(yield func(hints.Range, error) bool) {
		for _, r := range list {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// collect is for streams that cannot fail.
func collect(seq func(yield func(hints.Range, error) bool)) (list []hints.Range) {
	for r, err := range seq {
		if err != nil {
			panic(fmt.Sprintf("ranges made here do not ascend: %v", err))
		}
		list = append(list, r)
	}
	return list
}
