package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"backy/store/mem"
)

// host is one actor, with its own view of the repository.
type host struct {
	w       *world
	id      int
	role    string
	rnd     *rand.Rand
	crashed bool
	frozen  int  // scheduler steps for which nothing of it goes on
	slept   bool // it was frozen, so others may have taken it for dead
	adrift  bool // an older copy was put back while it was at something
	busy    bool // it is at something
	done    bool
	runs    int
	run     RunID // the last one that it began
	old     []Level
}

// start adds a host.
func (w *world) start(role string) {
	id := len(w.hosts)
	h := &host{w: w, id: id, role: role, rnd: rand.New(rand.NewPCG(w.rnd.Uint64(), uint64(id)))}
	w.hosts = append(w.hosts, h)
	go h.live()
}

var errCrashed = errors.New("the host has crashed")

// simBackend lets each call wait for the scheduler.
type simBackend struct{ h *host }

func (b simBackend) wait(what, key string) (*mem.Mem, error) {
	c := &simCall{h: b.h, what: what + key, resume: make(chan error)}
	b.h.w.calls <- c
	err := <-c.resume
	return b.h.w.disk, err
}

func (b simBackend) Put(ctx context.Context, key string, parts ...[]byte) error {
	d, err := b.wait("put ", key)
	if err != nil {
		return err
	}
	return d.Put(context.WithoutCancel(ctx), key, parts...)
}

func (b simBackend) Get(ctx context.Context, key string, p []byte, off int64) (int, error) {
	d, err := b.wait("get ", key)
	if err != nil {
		return 0, err
	}
	return d.Get(context.WithoutCancel(ctx), key, p, off)
}

func (b simBackend) List(ctx context.Context, prefix string, fn func(string, int64) error) error {
	d, err := b.wait("list ", prefix)
	if err != nil {
		return err
	}
	if prefix != levelsPrefix {
		return d.List(context.WithoutCancel(ctx), prefix, fn)
	}
	// What is long is listed by and by: in the middle, others go on.
	const middle = levelsPrefix + "a/2"
	half := func(second bool) error {
		return d.List(context.WithoutCancel(ctx), prefix, func(key string, size int64) error {
			if key > middle != second {
				return nil
			}
			return fn(key, size)
		})
	}
	if err := half(false); err != nil {
		return err
	}
	if d, err = b.wait("list more ", prefix); err != nil {
		return err
	}
	return half(true)
}

func (b simBackend) Delete(ctx context.Context, key string) error {
	d, err := b.wait("delete ", key)
	if err != nil {
		return err
	}
	return d.Delete(context.WithoutCancel(ctx), key)
}

// simEmpty is a repository without levels, and what it is open with.
var simEmpty = sync.OnceValue(func() *mem.Mem {
	m := mem.New()
	b, err := encodeObject("repository", &config{
		Format: formatVersion, ID: RepositoryID{1}, ChunkSize: 16 << 10, Fanout: simFanout, Checksum: "blake3-256",
	})
	if err == nil {
		err = m.Put(context.Background(), configKey, b)
	}
	if err != nil {
		panic(err)
	}
	return m
})

const (
	simFanout = 4
	simChunks = 24
	simKinds  = 12 // contents of a chunk; 0 is a hole
)

// open opens the repository as this host sees it, with small packs.
func (h *host) open(b Backend) (*Repository, error) {
	r, err := Open(context.Background(), b, "")
	if err != nil {
		return nil, err
	}
	r.packSizes = map[Kind]int{KindData: 400, KindMap: 500}
	r.newRun = func(now time.Time) RunID {
		h.runs++
		h.run = RunID(now.Unix())<<runRandomBits | RunID(h.id<<20|h.runs<<8|h.w.slot)
		return h.run
	}
	r.self = process{Host: fmt.Sprint("host", h.id), BootID: fmt.Sprint("boot", h.id), PIDNamespace: "pid:[1]", PID: 1, Start: 1}
	return r, nil
}

// simBytes are the raw bytes of a chunk that the oracle writes as one byte, and
// simSums their checksums.
var (
	simBytes [simKinds][]byte
	simSums  = map[Checksum]byte{}
)

func init() {
	for content := range simBytes {
		rnd := rand.New(rand.NewPCG(uint64(content), 1))
		p := make([]byte, 60)
		for i := range p {
			p[i] = byte(rnd.Uint32())
		}
		simBytes[content] = p
		simSums[Sum(p)] = byte(content)
	}
}

// live is what a host does until it has done enough or crashes.
func (h *host) live() {
	defer func() { h.done = true }()
	names := []Name{"a", "b"}
	var r *Repository
	for range 3 + h.rnd.IntN(4) {
		var err error
		h.busy = true
		old := strings.HasPrefix(h.role, "old ") // keeps its caches from long ago
		if r == nil || !old && h.rnd.IntN(2) == 0 {
			if r, err = h.open(simBackend{h}); err != nil {
				h.explain("open", err)
				return
			}
		}
		name := names[h.rnd.IntN(2)]
		switch strings.TrimPrefix(h.role, "old ") {
		case "writer":
			err = h.backup(r, name)
		case "remover":
			err = h.remove(r, name)
		case "gc":
			err = h.gc(r)
		case "reader":
			err = h.check(r, name, old)
		case "scrub":
			err = h.scrub(r, name)
		}
		h.explain(h.role, err)
		h.busy, h.adrift, h.slept, h.run = false, false, false, 0
		if h.crashed {
			return
		}
		time.Sleep(time.Duration(h.rnd.IntN(60)) * time.Second)
	}
}

// backup makes a level of a name from contents that share much with others.
func (h *host) backup(r *Repository, name Name) error {
	ctx := context.Background()
	w, err := r.Begin(ctx, name, WriterOptions{Beat: 30 * time.Second})
	if err != nil {
		return err
	}
	var base *Level
	var contents [simChunks]byte
	if levels := w.History.Levels; len(levels) > 0 && h.rnd.IntN(4) > 0 {
		base = &levels[len(levels)-1]
		contents = h.w.oracle.of(base.Run)
	}
	for pos := range contents {
		if h.rnd.IntN(3) == 0 {
			contents[pos] = byte(h.rnd.IntN(simKinds)) // few: hosts write the same bytes all the time
		}
	}
	if err = h.write(ctx, r, w, base, contents); err == nil {
		return nil
	}
	return errors.Join(err, w.Abort(ctx))
}

// write makes a level, as the engine does: what is as in the base is left as it
// is, unless it is known to be bad.
func (h *host) write(ctx context.Context, r *Repository, w *Writer, base *Level, contents [simChunks]byte) error {
	m := Map{Fanout: simFanout}
	var before [simChunks]Ref
	if base != nil {
		m = base.Map()
		if err := simRefs(ctx, r, m, before[:]); err != nil {
			return err
		}
	}
	if err := w.BeginMap(ctx, m, simChunks); err != nil {
		return err
	}
	coder := r.NewCoder(CompressNone)
	for pos, content := range contents {
		ref, err := h.place(ctx, w, coder, before[pos], content)
		if err != nil {
			return err
		}
		if ref == before[pos] {
			continue
		}
		if err := w.Set(ctx, int64(pos), ref); err != nil {
			return err
		}
	}
	root, err := w.FinishMap(ctx, simChunks)
	if err != nil {
		return err
	}
	l := Level{
		Name: w.claim.Name, Number: w.Number, Run: w.ID, Size: simChunks * r.ChunkSize, ChunkSize: r.ChunkSize,
		Fanout: simFanout, Root: root, Time: time.Now(),
	}
	h.w.oracle.written(&l, contents)
	if err = w.Commit(ctx, &l); err == nil {
		h.w.oracle.promise(l.Run)
		h.w.figures.Mended += int(w.Mended())
	}
	return err
}

// place returns the reference for a content where the base has another, maybe
// the same.
func (h *host) place(ctx context.Context, w *Writer, coder *Coder, base Ref, content byte) (ref Ref, err error) {
	if content == 0 {
		return Ref{}, nil
	}
	raw := simBytes[content]
	sum := Sum(raw)
	bad := len(w.Damage.Of(sum)) > 0
	asBefore := base.Sum == sum
	if !bad {
		if asBefore {
			return base, nil
		}
		if ref, ok, err := w.Known(ctx, sum); ok || err != nil {
			return ref, err
		}
	}
	e, err := coder.Encode(raw, sum)
	if err != nil {
		return ref, err
	}
	if asBefore && w.Mendable(base) {
		return base, w.Mend(ctx, e, base)
	}
	if bad {
		if err := w.Mend(ctx, e, Ref{}); err != nil {
			return ref, err
		}
	}
	ref, _, err = w.PutChunk(ctx, e)
	return ref, err
}

// simRefs reads a map.
func simRefs(ctx context.Context, r *Repository, m Map, refs []Ref) error {
	c := r.Cursor(m)
	for pos := int64(0); pos < m.Chunks; {
		leaf, err := c.At(ctx, pos)
		if err != nil {
			return err
		}
		copy(refs[leaf.First:leaf.End()], leaf.Refs)
		pos = leaf.End()
	}
	return nil
}

// read returns what a level holds, with what of it cannot be had.
func (h *host) read(ctx context.Context, r *Repository, l *Level) (contents [simChunks]byte, bad map[int64]*ChunkError, err error) {
	var refs [simChunks]Ref
	if err := simRefs(ctx, r, l.Map(), refs[:]); err != nil {
		return contents, nil, err
	}
	var wanted []Ref
	var places []int64
	for pos, ref := range refs {
		if !ref.IsZero() {
			wanted, places = append(wanted, ref), append(places, int64(pos))
		}
	}
	bad = map[int64]*ChunkError{}
	err = r.Fetch(ctx, KindData, wanted, func(i int, raw []byte, err error) error {
		var e *ChunkError
		if errors.As(err, &e) {
			bad[places[i]] = e
			return nil
		}
		content, known := simSums[Sum(raw)]
		if !known {
			return fmt.Errorf("position %d: bytes that nobody wrote", places[i])
		}
		contents[places[i]] = content
		return err
	})
	return contents, bad, err
}

// choose returns a random level of a name, which may be removed meanwhile: for
// those who read with what they saw long ago, one that stood then.
func (h *host) choose(ctx context.Context, r *Repository, name Name, old bool) (*Level, error) {
	levels := h.old
	if !old || len(levels) == 0 {
		var err error
		if levels, err = r.Levels(ctx, name); err != nil {
			return nil, err
		}
		h.old = append(h.old, levels...)
	}
	if len(levels) == 0 {
		return nil, nil
	}
	return &levels[h.rnd.IntN(len(levels))], nil
}

// check reads a random level and compares.
func (h *host) check(r *Repository, name Name, old bool) error {
	ctx := context.Background()
	l, err := h.choose(ctx, r, name, old)
	if l == nil {
		return err
	}
	_, release := r.Hold(ctx, l, HoldOptions{})
	contents, bad, err := h.read(ctx, r, l)
	release()
	h.w.figures.Read++
	return h.judge(l, contents, bad, err)
}

// scrub reads a random level with both copies of its map, and notes what is
// bad.
func (h *host) scrub(r *Repository, name Name) error {
	ctx := context.Background()
	l, err := h.choose(ctx, r, name, false)
	if l == nil {
		return err
	}
	_, release := r.Hold(ctx, l, HoldOptions{})
	defer release()
	return h.note(ctx, r, l)
}

func (h *host) note(ctx context.Context, r *Repository, l *Level) error {
	note := func(e *ChunkError) error {
		if err := r.CheckRemoved(ctx, l); err != nil {
			return err
		}
		return r.NoteDamage(ctx, l, e)
	}
	c := r.Cursor(l.Map())
	c.OnNodes(func(refs []Ref) error { return r.CheckNodes(ctx, refs, note) })
	for pos := int64(0); pos < simChunks; {
		leaf, err := c.At(ctx, pos)
		if err != nil {
			return h.judge(l, [simChunks]byte{}, nil, err)
		}
		pos = leaf.End()
	}
	contents, bad, err := h.read(ctx, r, l)
	for _, pos := range sortedKeys(bad) {
		if noteErr := note(bad[pos]); noteErr != nil {
			err = errors.Join(err, noteErr)
			break
		}
	}
	return h.judge(l, contents, bad, err)
}

func sortedKeys[V any](m map[int64]V) (keys []int64) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (h *host) remove(r *Repository, name Name) error {
	ctx := context.Background()
	levels, err := r.Levels(ctx, name)
	if err != nil || len(levels) == 0 {
		return err
	}
	l := levels[h.rnd.IntN(len(levels))]
	h.w.oracle.remove(l.Run)
	err = r.Remove(ctx, name, []LevelNumber{l.Number})
	if err != nil && strings.Contains(err.Error(), "has no level") {
		return nil // another remover was faster
	}
	return err
}

// gc collects, mostly without waiting long.
func (h *host) gc(r *Repository) error {
	o := GCOptions{Beat: 30 * time.Second}
	if h.rnd.IntN(2) == 0 {
		o.MaxWait = time.Duration(h.rnd.IntN(200)) * time.Second
	}
	report, err := r.GC(context.Background(), o)
	if report.Deleted+report.Rewritten > 0 {
		h.w.figures.Verdicts++
	}
	return err
}

// fenced reports whether another gc has taken this one for dead: it need not have
// slept for that, where its calls were the last to go on for long.
func (h *host) fenced() bool {
	r, err := (&host{w: h.w}).open(h.w.disk)
	if err != nil {
		h.w.t.Fatal(err)
	}
	var t gcTombstone
	err = r.getObject(context.Background(), gcKey("verdict", h.run), "tombstone", &t)
	return err == nil && t.By != h.run
}

// explain fails the test for an error that no part of the simulation accounts
// for.
func (h *host) explain(what string, err error) {
	var busy *BusyError
	var bad *ChunkError
	switch {
	case err == nil, h.crashed, errors.Is(err, errCrashed), errors.As(err, &busy):
	case h.adrift:
		// What it was at is not there any more.
	case (h.slept || h.fenced()) && (errors.Is(err, fs.ErrNotExist) || errors.As(err, &bad)):
		// Whoever was taken for dead may find anything of his gone.
	case errors.Is(err, ErrRemoved), errors.Is(err, ErrFenced):
	default:
		h.w.t.Errorf("host %d, %s: %v", h.id, what, err)
	}
}
