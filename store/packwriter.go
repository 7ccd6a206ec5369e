package store

import (
	"context"
	"fmt"
	"hash/crc32"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// Sizes at which packs are closed, in bytes of frames.
const (
	dataPackSize = 32 << 20
	mapPackSize  = 2 << 20
)

// packEntries closes a pack of chunks that shrink to next to nothing: its
// table, which readers keep, would grow larger than its frames.
const packEntries = 1 << 14

// packBuilder collects the frames of one pack in memory.
type packBuilder struct {
	id      PackID
	entries []entry // Offset counts from the first frame until sealed
	frames  []byte
	full    int // the length that frames will not exceed by much
}

func (b *packBuilder) reset(id PackID) {
	b.id, b.entries, b.frames = id, b.entries[:0], b.frames[:0]
}

func (b *packBuilder) append(e Encoded, t FrameType) (index uint32) {
	index = uint32(len(b.entries))
	b.entries = append(b.entries, entry{
		Sum: e.Sum, Offset: int64(len(b.frames)), Stored: len(e.Stored),
		Raw: e.Raw, Codec: e.Codec, Type: t, CRC: e.CRC,
	})
	if need := len(b.frames) + frameHeaderSize + len(e.Stored); need > cap(b.frames) && need > largePack {
		// What has become large will become full: grow once.
		b.frames = append(getPackBuffer(max(need, b.full)), b.frames...)
	}
	b.frames = appendFrameHeader(b.frames, index, &b.entries[index])
	b.frames = append(b.frames, e.Stored...)
	return index
}

// appendAbsent keeps an index without a frame, so that later ones stay true.
func (b *packBuilder) appendAbsent(sum Checksum) {
	b.entries = append(b.entries, entry{Sum: sum, Codec: Absent})
}

// seal returns the pack's parts. The frames alias the builder.
func (b *packBuilder) seal(kind Kind, r *Repository, generation uint32) [][]byte {
	head := packHeaderSize + len(b.entries)*entrySize
	p := make([]byte, packHeaderSize, head)
	absent := uint32(0)
	for i := range b.entries {
		e := b.entries[i]
		if e.Codec == Absent {
			absent++
		} else {
			e.Offset += int64(head)
		}
		p = e.appendTo(p)
	}
	h := packHeader{
		Kind: kind, ChunkSize: r.ChunkSize, Fanout: r.fanout, Repository: r.ID, Pack: b.id, Generation: generation,
		Entries: uint32(len(b.entries)), Length: int64(head + len(b.frames)),
		TableCRC: crc32.Checksum(p[packHeaderSize:], castagnoli), Absent: absent,
	}
	h.appendTo(p[:0])
	return [][]byte{p, b.frames}
}

// packWriter numbers, fills and puts the packs of one kind of one run. While
// one is put, the next fills; memory is bounded by two of them.
type packWriter struct {
	repo  *Repository
	kind  Kind
	run   RunID
	limit int

	cur  *packBuilder
	next uint32
	free chan *packBuilder
	puts errgroup.Group

	ctx  context.Context // ends with the first put that failed
	fail context.CancelCauseFunc

	mu      sync.Mutex
	flying  map[PackID]*packBuilder // not yet durable, the filling one included
	stored  atomic.Int64
	onStore func(n int64)
}

func newPackWriter(ctx context.Context, repo *Repository, kind Kind, run RunID, onStore func(int64)) *packWriter {
	w := &packWriter{
		repo: repo, kind: kind, run: run, limit: repo.packSize(kind), onStore: onStore,
		free: make(chan *packBuilder, 2), flying: map[PackID]*packBuilder{},
	}
	w.ctx, w.fail = context.WithCancelCause(ctx)
	for range 2 {
		w.free <- &packBuilder{full: w.limit + maxRawOf(kind, repo.ChunkSize) + frameHeaderSize}
	}
	return w
}

// shrink makes the packs small enough for two of them to fit into a number of
// bytes, 0 for any. It is called before anything is appended.
func (w *packWriter) shrink(memory int64) {
	if memory <= 0 || memory/2 >= int64(w.limit) {
		return
	}
	w.limit = int(memory / 2)
	for range 2 {
		b := <-w.free
		b.full = min(b.full, w.limit+maxRawOf(w.kind, w.repo.ChunkSize)+frameHeaderSize)
		w.free <- b
	}
}

// Append adds a frame and returns where it will be. It is for one goroutine.
func (w *packWriter) Append(e Encoded, t FrameType) (Ref, error) {
	if err := context.Cause(w.ctx); err != nil {
		return Ref{}, err
	}
	if w.cur == nil {
		select {
		case w.cur = <-w.free:
		case <-w.ctx.Done():
			return Ref{}, context.Cause(w.ctx)
		}
		w.mu.Lock()
		w.cur.reset(PackID{Run: w.run, Seq: w.next})
		w.flying[w.cur.id] = w.cur
		w.mu.Unlock()
		w.next++
	}
	w.mu.Lock()
	ref := Ref{Sum: e.Sum, Pack: w.cur.id, Index: w.cur.append(e, t)}
	w.mu.Unlock()
	if len(w.cur.frames) >= w.limit || len(w.cur.entries) >= packEntries {
		w.Flush()
	}
	return ref, nil
}

// Flush puts what has been appended, in the background.
func (w *packWriter) Flush() {
	b := w.cur
	w.cur = nil
	if b == nil {
		return
	}
	w.puts.Go(func() error {
		err := w.put(b)
		if err != nil {
			w.fail(err)
		}
		w.mu.Lock()
		delete(w.flying, b.id)
		w.mu.Unlock()
		w.free <- b
		return err
	})
}

// Settle returns once all that was flushed is durable, or the first error.
func (w *packWriter) Settle() error { return w.puts.Wait() }

// Wait returns once all that was flushed is durable, or the first error. The
// writer must not be used after it.
func (w *packWriter) Wait() error {
	defer w.fail(nil)
	if err := w.puts.Wait(); err != nil {
		return err // a put that failed may have left behind what uses its buffer still
	}
	for range len(w.free) {
		b := <-w.free
		putPackBuffer(b.frames)
	}
	return nil
}

// Abort ends what is being put and waits for it.
func (w *packWriter) Abort() {
	w.fail(context.Canceled)
	w.puts.Wait()
}

func (w *packWriter) put(b *packBuilder) error {
	if err := context.Cause(w.ctx); err != nil {
		return err
	}
	parts := b.seal(w.kind, w.repo, 0)
	var n int64
	for _, p := range parts {
		n += int64(len(p))
	}
	for _, folder := range foldersOf(w.kind) {
		if err := w.repo.put(w.ctx, packKey(folder, b.id, 0), parts...); err != nil {
			return fmt.Errorf("write pack: %w", err)
		}
		w.stored.Add(n)
		if w.onStore != nil {
			w.onStore(n)
		}
	}
	return nil
}

// pending is how many bytes the pack that is filling will take in all copies.
// It is for the goroutine that appends.
func (w *packWriter) pending() int64 {
	if w.cur == nil {
		return 0
	}
	size := packHeaderSize + len(w.cur.entries)*entrySize + len(w.cur.frames)
	return int64(size * len(foldersOf(w.kind)))
}

// flyingSum returns the checksum behind a reference to a pack of this run that
// is not durable yet.
func (w *packWriter) flyingSum(ref Ref) (Checksum, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.flying[ref.Pack]
	if b == nil || int(ref.Index) >= len(b.entries) {
		return Checksum{}, false
	}
	return b.entries[ref.Index].Sum, true
}

// foldersOf returns where packs of a kind are kept, the preferred one first.
func foldersOf(kind Kind) []string {
	if kind == KindMap {
		return []string{mapsPrefix, twinsPrefix}
	}
	return []string{dataPrefix}
}
