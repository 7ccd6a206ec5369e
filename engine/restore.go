package engine

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"backy/hints"
	"backy/store"
)

// RestoreOptions are the choices of a restore. The zero value works.
type RestoreOptions struct {
	Writers  int       // units in work at a time; 0: 8
	Rate     *Rate     // caps reading; may be nil
	Progress *Progress // may be nil
	Warn     Warn      // of what does not end a restore; may be nil

	// Beat is how often the repository is told that the level is still being read,
	// and asked whether it is still there; 0: a minute.
	Beat time.Duration

	// SkipDamaged writes zeros in place of what cannot be read, on a target that
	// had something there too, so that nothing stale looks valid.
	SkipDamaged bool
}

// RestoreReport is what a restore did, in bytes.
type RestoreReport struct {
	Size    int64   `json:"size"`    // of the level
	Written int64   `json:"written"` // data written to the target
	Zeroed  int64   `json:"zeroed"`  // holes made on a target that had something there
	Seconds float64 `json:"seconds"`

	Damaged []hints.Extent `json:"damaged"` // what was skipped
}

// restore is one run of Restore or Stream.
type restore struct {
	noter
	target  Target
	zeroed  bool  // the target reads as zeros where nothing is written
	unit    int64 // chunks of a piece
	o       RestoreOptions
	written atomic.Int64
	holes   atomic.Int64

	mu      sync.Mutex
	skipped []hints.Extent
	cause   error // of one of those
}

// piece is a stretch of a level on its way to the target. Its refs are nil
// where all of it is a hole.
type piece struct {
	first, count int64
	refs         []store.Ref
	data         []byte
}

// Restore writes a level to a target. After an error the target has been
// aborted. Errors: *DamagedError where chunks of the level are bad; if they
// are known to be, before anything is written. store.ErrRemoved where the level
// was removed meanwhile. Where bad chunks are to be skipped,
// the rest has been written and the target is finished.
func Restore(ctx context.Context, repo *store.Repository, level store.Level, t Target, o RestoreOptions) (RestoreReport, error) {
	started := time.Now()
	r := newRestore(repo, &level, o, t.WriteSize())
	r.target = t
	held, release := r.hold(ctx)
	defer release()
	if err := r.refuseDamaged(held); err != nil {
		return RestoreReport{}, err
	}
	var err error
	if r.zeroed, err = t.Prepare(held, level); err != nil {
		return RestoreReport{}, err
	}
	err = pipeline(held, workers(o.Writers), r.produce, r.write, func(context.Context, *piece) error { return nil })
	if err == nil {
		if err := t.Finish(ctx); err != nil {
			return r.report(started), err
		}
		return r.report(started), r.damage()
	}
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	return r.report(started), errors.Join(err, t.Abort(cleanup))
}

// Stream writes a level's bytes in order, holes as zeros.
func Stream(ctx context.Context, repo *store.Repository, level store.Level, w io.Writer, o RestoreOptions) (RestoreReport, error) {
	started := time.Now()
	r := newRestore(repo, &level, o, unitBytes)
	held, release := r.hold(ctx)
	defer release()
	if err := r.refuseDamaged(held); err != nil {
		return RestoreReport{}, err
	}
	err := pipeline(held, workers(o.Writers), r.produce, r.read, func(ctx context.Context, p *piece) error {
		if p.refs == nil {
			return r.streamZeros(ctx, w, p)
		}
		defer putBuffer(p.data)
		r.written.Add(int64(len(p.data)))
		_, err := w.Write(p.data)
		return err
	})
	if err == nil {
		err = r.damage()
	}
	return r.report(started), err
}

// newRestore makes a run whose pieces are as long as Target.WriteSize says.
func newRestore(repo *store.Repository, level *store.Level, o RestoreOptions, writeSize int64) *restore {
	if o.Progress == nil {
		o.Progress = &Progress{}
	}
	o.Progress.Total.Store(level.Size)
	return &restore{noter: noter{repo: repo, level: level, warn: o.Warn}, o: o, unit: max(min(writeSize, unitBytes)/level.ChunkSize, 1)}
}

// hold keeps the level from being collected until release, which also notes
// what was found on the way.
func (r *restore) hold(ctx context.Context) (held context.Context, release func()) {
	held, done := r.repo.Hold(ctx, r.level, store.HoldOptions{Beat: r.o.Beat, Moved: r.o.Progress.Done.Load, Warn: r.o.Warn})
	return held, func() {
		r.copies(ctx)
		done()
	}
}

func (r *restore) report(started time.Time) RestoreReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.skipped = hints.Normalize(r.skipped)
	return RestoreReport{
		Size: r.level.Size, Written: r.written.Load(), Zeroed: r.holes.Load(), Seconds: time.Since(started).Seconds(),
		Damaged: r.skipped,
	}
}

// skip leaves out a stretch that cannot be read.
func (r *restore) skip(first, count int64, cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.skipped, r.cause = append(r.skipped, extentOf(r.level, first, count)), cause
}

// damage is nil where nothing was skipped.
func (r *restore) damage() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.skipped) == 0 {
		return nil
	}
	return &DamagedError{Name: r.level.Name, Level: r.level.Number, Extents: hints.Normalize(r.skipped), Cause: r.cause}
}

// skipMap leaves out what hangs, from a position on, below a map node that cannot
// be read, and returns where the map goes on. Any other error ends the restore.
func (r *restore) skipMap(ctx context.Context, pos int64, err error) (next int64, _ error) {
	var lost *store.NodeError
	if !r.o.SkipDamaged || !errors.As(err, &lost) || context.Cause(ctx) != nil {
		return 0, r.damagedMap(ctx, err)
	}
	if err := r.note(ctx, err); err != nil {
		return 0, err
	}
	next = lost.First + lost.Count
	r.skip(pos, next-pos, err)
	return next, nil
}

// refuseDamaged fails where chunks of the level are known to be bad and are so
// still: what was noted may have been a read that failed for a while.
func (r *restore) refuseDamaged(ctx context.Context) error {
	if r.o.SkipDamaged {
		return nil
	}
	damage, err := r.repo.Damage(ctx)
	if err != nil {
		return err
	}
	bad, err := damagedRanges(ctx, r.repo, damage, r.level)
	if err != nil {
		return r.damagedMap(ctx, err)
	}
	still, cause, err := r.confirm(ctx, bad)
	if err != nil || len(still) == 0 {
		return err
	}
	return &DamagedError{Name: r.level.Name, Level: r.level.Number, Extents: r.extents(still), Cause: cause}
}

// confirmAtOnce bounds the references that confirm holds.
const confirmAtOnce = 4096

// confirm reads chunks again and returns those that are bad.
func (r *restore) confirm(ctx context.Context, chunks []hints.Range) (bad []hints.Range, cause, err error) {
	look := refsOf(r.repo, r.level.Map())
	for batch := range slices.Chunk(chunks, confirmAtOnce) {
		refs := make([]store.Ref, len(batch))
		for i, c := range batch {
			one, err := look(ctx, c.First, 1)
			if err != nil {
				return nil, nil, r.damagedMap(ctx, err)
			}
			refs[i] = one[0]
		}
		err := r.repo.Fetch(ctx, store.KindData, refs, func(i int, _ []byte, err error) error {
			if err != nil {
				bad, cause = append(bad, batch[i]), err
			}
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
	}
	return bad, cause, nil
}

// damagedMap notes an unreadable part of the level's map and turns it into a
// *DamagedError.
func (r *restore) damagedMap(ctx context.Context, err error) error {
	var lost *store.NodeError
	if !errors.As(err, &lost) {
		return err
	}
	if err := r.note(ctx, err); err != nil {
		return err
	}
	e := extentOf(r.level, lost.First, lost.Count)
	return &DamagedError{Name: r.level.Name, Level: r.level.Number, Extents: []hints.Extent{e}, Cause: err}
}

// extentOf returns the bytes of a run of chunks.
func extentOf(l *store.Level, first, count int64) hints.Extent {
	off := first * l.ChunkSize
	return hints.Extent{Offset: off, Length: min(count*l.ChunkSize, l.Size-off), Exists: true}
}

func (r *restore) extents(chunks []hints.Range) []hints.Extent {
	var list []hints.Extent
	for _, c := range chunks {
		list = append(list, extentOf(r.level, c.First, c.Count))
	}
	return hints.Normalize(list)
}

// holeBytes bounds a hole handed to the target at once, so that several are
// zeroed at a time and a cancelled restore ends soon.
const holeBytes = 64 * unitBytes

// produce walks the level's map and emits it all, holes as wide as they are.
func (r *restore) produce(ctx context.Context, emit func(*piece) error) error {
	m := r.level.Map()
	c := r.repo.Cursor(m)
	skipped := int64(0) // there is nothing to be had before this position
	at := func(pos int64) (leaf store.Leaf, err error) {
		if pos >= skipped {
			if leaf, err = c.At(ctx, pos); err == nil {
				return leaf, nil
			}
			if skipped, err = r.skipMap(ctx, pos, err); err != nil {
				return leaf, err
			}
		}
		return store.Leaf{First: pos, Count: skipped - pos}, nil // as a hole
	}
	for pos := int64(0); pos < m.Chunks; {
		leaf, err := at(pos)
		if err != nil {
			return err
		}
		if leaf.Refs == nil {
			end := min(leaf.End(), pos+holeBytes/r.level.ChunkSize)
			if err := emit(&piece{first: pos, count: end - pos}); err != nil {
				return err
			}
			pos = end
			continue
		}
		// A leaf may be more or less than that.
		end := min((pos/r.unit+1)*r.unit, m.Chunks)
		p := &piece{first: pos, count: end - pos, refs: make([]store.Ref, end-pos)}
		for pos < end {
			if leaf, err = at(pos); err != nil {
				return err
			}
			stop := min(leaf.End(), end)
			if leaf.Refs != nil {
				copy(p.refs[pos-p.first:], leaf.Refs[pos-leaf.First:stop-leaf.First])
			}
			pos = stop
		}
		if err := emit(p); err != nil {
			return err
		}
	}
	return nil
}

// read fetches a piece's chunks into its data, zeros between them.
func (r *restore) read(ctx context.Context, p *piece) error {
	if p.refs == nil {
		return nil
	}
	e := extentOf(r.level, p.first, p.count)
	if err := r.o.Rate.wait(ctx, dataBytes(p.refs, e.Length, r.level.ChunkSize)); err != nil {
		return err
	}
	p.data = getBuffer(int(e.Length))
	bad, err := r.fetchInto(ctx, p.first, p.refs, p.data)
	if err != nil {
		return err
	}
	if r.o.SkipDamaged {
		for _, b := range bad {
			p.refs[b.pos-p.first] = store.Ref{} // as a hole
			r.skip(b.pos, 1, b.err)
		}
	} else if len(bad) > 0 {
		var list []hints.Range
		var cause error
		for _, b := range bad {
			list = append(list, hints.Range{First: b.pos, Count: 1})
			cause = b.err
		}
		return &DamagedError{Name: r.level.Name, Level: r.level.Number, Extents: r.extents(list), Cause: cause}
	}
	r.o.Progress.Done.Add(e.Length)
	return nil
}

// dataBytes is how many of a piece's bytes are no holes.
func dataBytes(refs []store.Ref, length, chunkSize int64) (n int64) {
	for i, ref := range refs {
		if !ref.IsZero() {
			n += min(chunkSize, length-int64(i)*chunkSize)
		}
	}
	return n
}

// badChunk is a chunk of a level that cannot be read.
type badChunk struct {
	pos int64
	err error
}

// fetchInto reads the chunks of positions from first on into data, which
// begins there; holes and bad chunks become zeros. Bad ones are noted in the
// repository and returned.
func (n *noter) fetchInto(ctx context.Context, first int64, refs []store.Ref, data []byte) (bad []badChunk, err error) {
	l := n.level
	var wanted []store.Ref
	var places []int
	room := func(i int) []byte {
		at := int64(i) * l.ChunkSize
		return data[at:min(at+l.ChunkSize, int64(len(data)))]
	}
	for i, ref := range refs {
		if ref.IsZero() {
			clear(room(i))
			continue
		}
		wanted, places = append(wanted, ref), append(places, i)
	}
	into := func(i int) []byte { return room(places[i]) }
	err = n.repo.FetchInto(ctx, store.KindData, wanted, into, func(i, got int, err error) error {
		if err == nil {
			clear(into(i)[got:])
			return nil
		}
		clear(into(i))
		bad = append(bad, badChunk{first + int64(places[i]), err})
		return n.note(ctx, err)
	})
	return bad, err
}

// write brings a piece to the target.
func (r *restore) write(ctx context.Context, p *piece) error {
	off := p.first * r.level.ChunkSize
	if p.refs == nil {
		e := extentOf(r.level, p.first, p.count)
		r.o.Progress.Done.Add(e.Length)
		return r.zero(e.Offset, e.Length)
	}
	if err := r.read(ctx, p); err != nil {
		return err
	}
	for i := 0; i < len(p.refs); {
		j := i + 1
		for j < len(p.refs) && p.refs[j].IsZero() == p.refs[i].IsZero() {
			j++
		}
		from := int64(i) * r.level.ChunkSize
		to := min(int64(j)*r.level.ChunkSize, int64(len(p.data)))
		var err error
		if p.refs[i].IsZero() {
			err = r.zero(off+from, to-from)
		} else {
			_, err = r.target.WriteAt(p.data[from:to], off+from)
			r.written.Add(to - from)
		}
		if err != nil {
			return err
		}
		i = j
	}
	putBuffer(p.data)
	return nil
}

func (r *restore) zero(off, length int64) error {
	if r.zeroed {
		return nil
	}
	r.holes.Add(length)
	return r.target.Zero(off, length)
}

// streamZeros writes a hole of any length.
func (r *restore) streamZeros(ctx context.Context, w io.Writer, p *piece) error {
	e := extentOf(r.level, p.first, p.count)
	page := zeroPage()
	for left := e.Length; left > 0; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n := min(left, int64(len(page)))
		if _, err := w.Write(page[:n]); err != nil {
			return err
		}
		r.o.Progress.Done.Add(n)
		left -= n
	}
	return nil
}

var zeroPage = sync.OnceValue(func() []byte { return make([]byte, 1<<20) })
