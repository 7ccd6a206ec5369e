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

// WriterOptions are the choices of a run that writes. The zero value works.
type WriterOptions struct {
	Beat     time.Duration // how often it says that it moves on; 0: 30 s
	OnStored func(n int64) // told of bytes put; may be nil

	// PackMemory is how many bytes the packs in the making may take, of which
	// there are two; 0: twice the usual size. Below it, packs are smaller.
	PackMemory int64
}

// Writer is a run that makes the next level of a name. From Begin to Commit or
// Abort it is the only one of its name.
//
// Known and Mendable may be called from many goroutines at a time; all else is
// for one.
type Writer struct {
	ID      RunID
	Number  LevelNumber
	History History // as it was when the run began
	Damage  *Damage // what is known to be bad, likewise
	Present *Presence

	// What was condemned when the run began, and the tables it has read since:
	// one read before might name what has been collected.
	condemned *condemned
	tables    tableCache

	repo  *Repository
	claim *claim
	coder *Coder
	data  *packWriter
	nodes *packWriter
	maps  *mapWriter
	mends mender

	moved    atomic.Int64
	stopBeat context.CancelFunc
	beating  sync.WaitGroup
	ended    bool
	left     error // see ClaimLeft
}

// Begin claims a name. Errors: *BusyError.
func (r *Repository) Begin(ctx context.Context, name Name, o WriterOptions) (*Writer, error) {
	if o.Beat == 0 {
		o.Beat = defaultBeat
	}
	c, err := r.takeClaim(ctx, name, o.Beat)
	if err != nil {
		return nil, err
	}
	w := &Writer{ID: c.Run, Number: c.Number, Present: r.Presence(), repo: r, claim: c, coder: newCoder(maxMetaRaw, CompressZstd), tables: tableCache{repo: r}}
	onStored := func(n int64) {
		w.Moved()
		if o.OnStored != nil {
			o.OnStored(n)
		}
	}
	w.data = newPackWriter(ctx, r, KindData, c.Run, onStored)
	w.data.shrink(o.PackMemory)
	w.nodes = newPackWriter(ctx, r, KindMap, c.Run, onStored)
	w.mends = mender{repo: r, mayDelete: w.checkClaim}
	beatCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	w.stopBeat = stop
	w.beating.Go(func() { r.keepBeating(beatCtx, c.Run, c.beat(), w.moved.Load) })
	if err := w.prepare(ctx); err != nil {
		return nil, errors.Join(err, w.Abort(context.WithoutCancel(ctx)))
	}
	return w, nil
}

// prepare reads, after the claim is there, what a run must know.
func (w *Writer) prepare(ctx context.Context) (err error) {
	if w.condemned, err = w.repo.condemnedPacks(ctx, w.ID); err != nil {
		return err
	}
	if w.Damage, err = w.repo.Damage(ctx); err != nil {
		return err
	}
	if w.History, err = w.repo.History(ctx, w.claim.Name); err != nil {
		return err
	}
	return w.repo.meetRuns(ctx, w.History.Fenced)
}

// Mendable reports whether the bytes behind a reference of the base are known
// to be bad, and may be given back to its pack: nothing may refer anew to a
// condemned one.
func (w *Writer) Mendable(base Ref) bool {
	return !base.IsZero() && w.Damage.Has(KindData, base) && !w.condemned.has(base.Pack)
}

// Moved says that the work goes on; else another host may take the run for
// dead after two beats.
func (w *Writer) Moved() { w.moved.Add(1) }

// Stored is how many bytes have been put so far, and what Commit will put
// besides the level's record.
func (w *Writer) Stored() int64 {
	return w.data.stored.Load() + w.nodes.stored.Load() + w.nodes.pending() + w.mends.stored
}

// BeginMap begins the level's map of so many chunks from a base's, whose Root
// is zero where there is none. A negative number stands for one that only
// FinishMap will tell. A map begun earlier is forgotten.
func (w *Writer) BeginMap(ctx context.Context, base Map, chunks int64) (err error) {
	if chunks < 0 {
		chunks = unknownChunks
	}
	w.maps, err = newMapWriter(ctx, w.repo, base, chunks, w.coder, w.nodes.Append)
	return err
}

// Known returns where a chunk is kept already, having looked that it is. It
// never answers with a chunk that is known to be bad.
func (w *Writer) Known(ctx context.Context, sum Checksum) (Ref, bool, error) {
	ref, ok := w.repo.index.lookup(sum)
	if !ok || w.condemned.has(ref.Pack) || w.Damage.Has(KindData, ref) {
		return Ref{}, false, nil
	}
	if ref.Pack.Run == w.ID {
		if got, ok := w.data.flyingSum(ref); ok {
			return ref, got == sum, nil
		}
	}
	sums, err := w.tables.sums(ctx, ref.Pack)
	if err != nil {
		return Ref{}, false, err
	}
	if int(ref.Index) >= len(sums) || sums[ref.Index] != sum {
		return Ref{}, false, nil
	}
	return ref, true, nil
}

// PutChunk stores a chunk, unless the run has stored the same bytes meanwhile.
// It may be durable only after Commit.
func (w *Writer) PutChunk(ctx context.Context, e Encoded) (ref Ref, stored bool, err error) {
	if ref, ok := w.repo.index.lookup(e.Sum); ok && ref.Pack.Run == w.ID {
		ref, ok, err := w.Known(ctx, e.Sum)
		if ok || err != nil {
			return ref, false, err
		}
	}
	w.Moved()
	if ref, err = w.data.Append(e, FrameChunk); err != nil {
		return ref, false, err
	}
	w.repo.index.insert(ref)
	return ref, true, nil
}

// Set names the chunk at a position of the map, in ascending order; a zero
// reference makes a hole.
func (w *Writer) Set(ctx context.Context, pos int64, ref Ref) error {
	w.Moved()
	return w.maps.Set(ctx, pos, ref)
}

// Drop makes positions from from to below to holes.
func (w *Writer) Drop(ctx context.Context, from, to int64) error {
	w.Moved()
	return w.maps.Drop(ctx, from, to)
}

// FinishMap makes all data durable, ends the map at a number of chunks and
// returns its root.
func (w *Writer) FinishMap(ctx context.Context, chunks int64) (Ref, error) {
	w.data.Flush()
	if err := w.data.Wait(); err != nil {
		return Ref{}, err
	}
	if err := w.mends.flush(ctx); err != nil {
		return Ref{}, err
	}
	if err := w.mends.flushMaps(ctx, w.Damage); err != nil {
		return Ref{}, err
	}
	if err := w.mends.flushTables(ctx, w.Damage, w.condemned); err != nil {
		return Ref{}, err
	}
	return w.maps.Finish(ctx, chunks)
}

// FlushMap makes the map that FinishMap ended durable, so that it can be read
// before Commit, which else does that.
func (w *Writer) FlushMap() error {
	w.nodes.Flush()
	return w.nodes.Settle()
}

// ErrUndecided tells that it is not known whether a level was committed: the
// repository did not answer. A later run settles it.
var ErrUndecided = errors.New("it is not known whether the level was committed")

// Commit makes the maps durable and puts the level's record, whose Root came
// from FinishMap. Errors: ErrFenced, ErrUndecided. After any other error there
// is no level and there will be none.
func (w *Writer) Commit(ctx context.Context, l *Level) error {
	if err := l.Validate(); err != nil {
		return err
	}
	if l.Name != w.claim.Name || l.Number != w.Number || l.Run != w.ID {
		return fmt.Errorf("level %s %s of run %s is not this run's", l.Name, l.Number, l.Run)
	}
	record, err := encodeObject("level", l)
	if err != nil {
		return err
	}
	// The record also goes into the last map pack, so that a lost level file can be
	// made again. That pack is put when all others are durable: whoever finds the
	// record finds the level.
	if err := w.nodes.Settle(); err != nil {
		return err
	}
	if len(record) <= maxMetaRaw {
		e, err := w.coder.Encode(record, Sum(record))
		if err != nil {
			return err
		}
		if _, err := w.nodes.Append(e, FrameLevel); err != nil {
			return err
		}
	}
	w.nodes.Flush()
	err = w.nodes.Wait()
	if err == nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = w.checkClaim(ctx)
	}
	if err != nil {
		return w.withdraw(context.WithoutCancel(ctx), err)
	}
	return w.end(ctx, w.repo.put(ctx, levelKey(l.Name, l.Number), record))
}

// withdraw ends a run whose record may be among its maps already, so that whoever
// settles its claim, or a recovery, may finish its level.
func (w *Writer) withdraw(ctx context.Context, why error) error {
	err := w.Abort(ctx)
	c, readErr := w.repo.readCommit(ctx, w.claim.Name, w.Number)
	if errors.Is(readErr, fs.ErrNotExist) {
		readErr = nil
	}
	if ours := c.level != nil && c.level.Run == w.ID; ours || err != nil || readErr != nil {
		return errors.Join(fmt.Errorf("%w: %w", ErrUndecided, why), err, readErr)
	}
	return why
}

func (w *Writer) checkClaim(ctx context.Context) error {
	return w.repo.checkClaim(ctx, claimKey(w.claim.Name, w.Number), w.ID)
}

// end settles what became of the commit and lets go of the name.
func (w *Writer) end(ctx context.Context, putErr error) error {
	ctx = context.WithoutCancel(ctx)
	defer running.Delete(w.ID)
	w.ended = true
	w.stopBeat()
	w.beating.Wait()
	if putErr != nil {
		// Keep a put that may yet arrive from taking effect, and see what is there.
		var fenceErr error
		if !errors.Is(putErr, fs.ErrExist) {
			fenceErr = w.repo.fence(ctx, w.claim.Name, w.Number, w.ID, w.ID)
		}
		c, readErr := w.repo.readCommit(ctx, w.claim.Name, w.Number)
		ours := c.level != nil && c.level.Run == w.ID
		if ours && readErr == nil {
			// It can be read, but the put that failed may not have made it durable.
			readErr = w.repo.sync(ctx, levelKey(w.claim.Name, w.Number))
		}
		switch {
		case readErr != nil || ours && fenceErr != nil:
			return fmt.Errorf("%w: %w", ErrUndecided, errors.Join(putErr, fenceErr, readErr))
		case ours:
			putErr = nil
		case c.tombstone != nil && c.tombstone.By != w.ID:
			putErr = ErrFenced
		case errors.Is(putErr, fs.ErrExist):
			putErr = ErrFenced
		}
	}
	if errors.Is(putErr, ErrFenced) {
		putErr = errors.Join(putErr, w.discard(ctx))
	}
	if w.left = w.repo.dropClaim(ctx, w.claim); putErr != nil {
		return errors.Join(putErr, w.left)
	}
	return nil
}

// ClaimLeft is why the claim of a run that has committed could not be removed; nil:
// it is gone. The next backup of the name, or gc, removes it.
func (w *Writer) ClaimLeft() error { return w.left }

// Abort ends a run that makes no level. It fences itself, so that the number
// says for ever that the run is over. After Commit it does nothing.
func (w *Writer) Abort(ctx context.Context) error {
	if w.ended {
		return nil
	}
	defer running.Delete(w.ID)
	w.data.Abort()
	w.nodes.Abort()
	w.ended = true
	w.stopBeat()
	w.beating.Wait()
	switch err := w.checkClaim(ctx); {
	case errors.Is(err, ErrFenced):
		// The number is decided; or it is not this run's any more, and a tombstone
		// might leave a gap behind the numbers that there are now. A copy of its
		// record would look like a level that was lost.
		return errors.Join(w.giveUp(ctx), w.repo.dropBeats(ctx, w.ID))
	case err != nil:
		return err // the claim stays: the next run finds this one gone and fences it
	}
	if err := w.repo.fence(ctx, w.claim.Name, w.Number, w.ID, w.ID); err != nil {
		return err // the claim stays: the next run finds this one gone and fences it
	}
	if c, err := w.repo.readCommit(ctx, w.claim.Name, w.Number); err == nil && c.run() != w.ID {
		// A lost level was put back there.
		if err := w.discard(ctx); err != nil {
			return err
		}
	}
	return w.repo.dropClaim(ctx, w.claim)
}

// giveUp is discard for a run that does not know what stands at its number. Where
// that may be its own level, finished by another run, it keeps everything: not even
// the mark may stand against it.
func (w *Writer) giveUp(ctx context.Context) error {
	c, err := w.repo.readCommit(ctx, w.claim.Name, w.Number)
	switch {
	case err == nil && c.run() == w.ID:
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return w.discard(ctx)
}

// discard deletes the maps of a run whose claim is gone. A recovery may just
// have read the copy of its record, and put it back: it looks whether the run was
// given up after that, and this looks for the record after it gave the run up, so
// that one of the two sees the other.
func (w *Writer) discard(ctx context.Context) error {
	r := w.repo
	if err := r.abandon(ctx, w.ID, w.ID); err != nil {
		return err
	}
	c, err := r.readCommit(ctx, w.claim.Name, w.Number)
	if err == nil && c.run() == w.ID {
		// It was put back. A recovery that has seen the mark takes it away again, and a
		// gc the maps; else the level stays, and the mark must not stand against it.
		return r.backend.Delete(ctx, abandonedPrefix+w.ID.String())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // it may be its own; what is left is for a gc
	}
	if err := r.discardMaps(ctx, w.ID); err != nil {
		return err
	}
	return r.backend.Delete(ctx, abandonedPrefix+w.ID.String())
}
