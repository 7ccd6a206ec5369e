package store

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"backy/store/mem"
)

// The simulator runs writers, a remover, gcs and readers against one
// repository, each as if on a host of its own. Every call of the backend waits
// until a seeded scheduler lets it go on, in any order; hosts crash, and hosts
// freeze for so long that others take them for dead, and wake up. The oracle is
// what each committed level held.

var (
	schedules = flag.Int("schedules", 150, "how many schedules the simulator tries")
	simSeed   = flag.Uint64("seed", 0, "the one schedule to replay; 0: many")
)

// world is one schedule.
type world struct {
	t       *testing.T
	rnd     *rand.Rand
	disk    *mem.Mem
	calls   chan *simCall
	pending []*simCall
	hosts   []*host
	trace   []string

	// What a level holds if it stands, a byte a chunk, 0 for a hole; of which
	// Commit said that they do; and which may be removed.
	levels   map[simLevel][]byte
	promised map[simLevel]bool
	removed  map[simLevel]bool
}

type simLevel struct {
	name   Name
	number LevelNumber
}

// host is one actor, with its own view of the repository.
type host struct {
	w       *world
	id      int
	rnd     *rand.Rand
	crashed bool
	frozen  int // scheduler steps for which nothing of it goes on
	done    bool
	runs    int
}

type simCall struct {
	h      *host
	what   string
	resume chan error
}

var errCrashed = errors.New("the host has crashed")

// backend lets each call wait for the scheduler.
type simBackend struct{ h *host }

func (b simBackend) wait(what string) error {
	c := &simCall{h: b.h, what: what, resume: make(chan error)}
	b.h.w.calls <- c
	return <-c.resume
}

func (b simBackend) Put(_ context.Context, key string, parts ...[]byte) error {
	if err := b.wait("put " + key); err != nil {
		return err
	}
	return b.h.w.disk.Put(context.Background(), key, parts...)
}

func (b simBackend) Get(_ context.Context, key string, p []byte, off int64) (int, error) {
	if err := b.wait("get " + key); err != nil {
		return 0, err
	}
	return b.h.w.disk.Get(context.Background(), key, p, off)
}

func (b simBackend) List(_ context.Context, prefix string, fn func(string, int64) error) error {
	if err := b.wait("list " + prefix); err != nil {
		return err
	}
	return b.h.w.disk.List(context.Background(), prefix, fn)
}

func (b simBackend) Delete(_ context.Context, key string) error {
	if err := b.wait("delete " + key); err != nil {
		return err
	}
	return b.h.w.disk.Delete(context.Background(), key)
}

// open opens the repository as this host sees it, with small packs.
func (h *host) open() (*Repository, error) {
	r, err := Open(context.Background(), simBackend{h}, "")
	if err != nil {
		return nil, err
	}
	r.fanout = simFanout
	r.packSizes = map[Kind]int{KindData: 400, KindMap: 500}
	r.newRun = func(now time.Time) RunID {
		h.runs++
		return RunID(now.Unix())<<runRandomBits | RunID(h.id<<16|h.runs)
	}
	r.self = process{Host: fmt.Sprint("host", h.id), BootID: fmt.Sprint("boot", h.id), PIDNamespace: "pid:[1]", PID: 1, Start: 1}
	return r, nil
}

const (
	simFanout = 4
	simChunks = 24
)

// simBytes are the raw bytes of a chunk that the oracle writes as one byte.
func simBytes(content byte) []byte {
	p := make([]byte, 60)
	rnd := rand.New(rand.NewPCG(uint64(content), 1))
	for i := range p {
		p[i] = byte(rnd.Uint32())
	}
	return p
}

// backup makes a level of a name from contents that share much with others.
func (h *host) backup(r *Repository, name Name) error {
	ctx := context.Background()
	w, err := r.Begin(ctx, name, WriterOptions{Beat: 30 * time.Second})
	if err != nil {
		return err
	}
	level := simLevel{name, w.Number}
	err = h.write(ctx, r, w, level)
	if err == nil {
		return nil
	}
	return errors.Join(err, w.Abort(ctx))
}

func (h *host) write(ctx context.Context, r *Repository, w *Writer, level simLevel) error {
	base := Map{Fanout: simFanout}
	contents := make([]byte, simChunks)
	if levels := w.History.Levels; len(levels) > 0 && h.rnd.IntN(4) > 0 {
		l := levels[len(levels)-1]
		base = l.Map()
		held, err := h.read(ctx, r, &l)
		if err != nil {
			return err
		}
		copy(contents, held)
	}
	if err := w.BeginMap(ctx, base, simChunks); err != nil {
		return err
	}
	coder := r.NewCoder(CompressNone)
	for pos := range contents {
		if h.rnd.IntN(3) > 0 {
			continue
		}
		contents[pos] = byte(h.rnd.IntN(12)) // few: hosts write the same bytes all the time
		var ref Ref
		if contents[pos] != 0 {
			raw := simBytes(contents[pos])
			sum := Sum(raw)
			known, ok, err := w.Known(ctx, sum)
			if err != nil {
				return err
			}
			if ref = known; !ok {
				e, err := coder.Encode(raw, sum)
				if err != nil {
					return err
				}
				if ref, _, err = w.PutChunk(ctx, e); err != nil {
					return err
				}
			}
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
		Name: level.name, Number: level.number, Run: w.ID, Size: simChunks * r.ChunkSize, ChunkSize: r.ChunkSize,
		Fanout: simFanout, Root: root, Time: time.Now(),
	}
	h.w.levels[level] = slices.Clone(contents)
	if err = w.Commit(ctx, &l); err == nil {
		h.w.promised[level] = true
	}
	return err
}

// read returns what a level holds, or the first error.
func (h *host) read(ctx context.Context, r *Repository, l *Level) ([]byte, error) {
	defer r.Lease(ctx, l)()
	contents := make([]byte, simChunks)
	c := r.Cursor(l.Map())
	for pos := int64(0); pos < simChunks; {
		leaf, err := c.At(ctx, pos)
		if err != nil {
			return nil, err
		}
		var refs []Ref
		var places []int64
		for p := pos; p < leaf.End(); p++ {
			if ref := leaf.Ref(p); !ref.IsZero() {
				refs, places = append(refs, ref), append(places, p)
			}
		}
		err = r.Fetch(ctx, KindData, refs, func(i int, raw []byte, err error) error {
			if err != nil {
				return err
			}
			for content := range byte(12) {
				if Sum(simBytes(content)) == refs[i].Sum {
					contents[places[i]] = content
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		pos = leaf.End()
	}
	return contents, nil
}

// check reads a random level, which may be removed meanwhile, and compares.
func (h *host) check(r *Repository, name Name) error {
	ctx := context.Background()
	levels, err := r.Levels(ctx, name)
	if err != nil || len(levels) == 0 {
		return err
	}
	l := levels[h.rnd.IntN(len(levels))]
	contents, err := h.read(ctx, r, &l)
	id := simLevel{l.Name, l.Number}
	if h.crashed || h.w.removed[id] {
		return err
	}
	if err != nil {
		h.w.t.Errorf("%s level %s cannot be read: %v", l.Name, l.Number, err)
	} else if want := h.w.levels[id]; !slices.Equal(contents, want) {
		h.w.t.Errorf("%s level %s holds %v instead of %v", l.Name, l.Number, contents, want)
	}
	return nil
}

func (h *host) remove(r *Repository, name Name) error {
	ctx := context.Background()
	levels, err := r.Levels(ctx, name)
	if err != nil || len(levels) == 0 {
		return err
	}
	n := levels[h.rnd.IntN(len(levels))].Number
	h.w.removed[simLevel{name, n}] = true
	return r.Remove(ctx, name, []LevelNumber{n})
}

// gc collects, mostly without waiting long.
func (h *host) gc(r *Repository) error {
	o := GCOptions{Beat: 30 * time.Second}
	if h.rnd.IntN(2) == 0 {
		o.MaxWait = time.Duration(h.rnd.IntN(200)) * time.Second
	}
	_, err := r.GC(context.Background(), o)
	return err
}

// live is what a host does until it has done enough or crashes.
func (h *host) live(role string) {
	defer func() { h.done = true }()
	names := []Name{"a", "b"}
	var r *Repository
	for range 3 + h.rnd.IntN(4) {
		var err error
		if r == nil || h.rnd.IntN(2) == 0 { // else with what it remembers
			if r, err = h.open(); err != nil {
				h.explain("open", err)
				return
			}
		}
		name := names[h.rnd.IntN(2)]
		switch role {
		case "writer":
			err = h.backup(r, name)
		case "remover":
			err = h.remove(r, name)
		case "gc":
			err = h.gc(r)
		case "reader":
			err = h.check(r, name)
		}
		h.explain(role, err)
		if h.crashed {
			return
		}
		time.Sleep(time.Duration(h.rnd.IntN(60)) * time.Second)
	}
}

// explain fails the test for an error that no part of the simulation accounts
// for.
func (h *host) explain(role string, err error) {
	var busy *BusyError
	var bad *ChunkError
	switch {
	case err == nil, h.crashed, errors.Is(err, errCrashed), errors.As(err, &busy), errors.Is(err, ErrFenced):
	case errors.Is(err, fs.ErrNotExist), errors.As(err, &bad):
		// A base or a level that was removed while it was read.
		for id := range h.w.removed {
			if id.name != "" {
				return
			}
		}
		h.w.t.Errorf("host %d, %s: %v", h.id, role, err)
	default:
		if strings.Contains(err.Error(), "has no level") || h.frozenOnce() {
			return
		}
		h.w.t.Errorf("host %d, %s: %v", h.id, role, err)
	}
}

// frozenOnce: whoever was taken for dead may find anything of his gone.
func (h *host) frozenOnce() bool { return h.frozen < 0 }

// run lets the hosts live until all are done.
func (w *world) run() {
	roles := []string{"writer", "writer", "writer", "remover", "gc", "gc", "reader"}
	for i, role := range roles {
		h := &host{w: w, id: i, rnd: rand.New(rand.NewPCG(w.rnd.Uint64(), uint64(i)))}
		w.hosts = append(w.hosts, h)
		go h.live(role)
	}
	for step := 0; ; step++ {
		synctest.Wait()
		w.collectCalls()
		ready := w.ready()
		if len(ready) == 0 {
			if w.allDone() {
				return
			}
			time.Sleep(time.Second) // timers run
			continue
		}
		w.mishap(step)
		c := ready[w.rnd.IntN(len(ready))]
		w.release(c)
	}
}

// collectCalls takes in the calls that wait.
func (w *world) collectCalls() {
	for {
		select {
		case c := <-w.calls:
			w.pending = append(w.pending, c)
			synctest.Wait()
		default:
			slices.SortStableFunc(w.pending, func(a, b *simCall) int {
				return cmp.Or(cmp.Compare(a.h.id, b.h.id), cmp.Compare(a.what, b.what))
			})
			return
		}
	}
}

// ready returns the calls of hosts that are not frozen, and thaws those that
// have been for long enough.
func (w *world) ready() (ready []*simCall) {
	for _, h := range w.hosts {
		if h.frozen > 0 {
			if h.frozen--; h.frozen == 0 {
				h.frozen = -1
			}
		}
	}
	for _, c := range w.pending {
		if c.h.frozen <= 0 {
			ready = append(ready, c)
		}
	}
	return ready
}

// mishap makes a host crash or freeze now and then.
func (w *world) mishap(step int) {
	h := w.hosts[w.rnd.IntN(len(w.hosts))]
	if h.done || h.crashed {
		return
	}
	switch w.rnd.IntN(400) {
	case 0:
		h.crashed = true
		w.note("host %d crashes", h.id)
	case 1, 2:
		h.frozen = 20 + w.rnd.IntN(400)
		w.note("host %d freezes for %d steps", h.id, h.frozen)
		time.Sleep(time.Duration(w.rnd.IntN(120)) * time.Second)
	}
	if w.rnd.IntN(20) == 0 {
		time.Sleep(time.Duration(w.rnd.IntN(20)) * time.Second)
	}
}

func (w *world) release(c *simCall) {
	w.pending = slices.DeleteFunc(w.pending, func(o *simCall) bool { return o == c })
	w.note("host %d %s", c.h.id, c.what)
	if c.h.crashed {
		c.resume <- errCrashed
		return
	}
	c.resume <- nil
}

func (w *world) allDone() bool {
	for _, h := range w.hosts {
		if !h.done {
			return false
		}
	}
	return true
}

func (w *world) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

// finish checks, as a host that comes afterwards, that every promise is kept
// and that a gc leaves nothing that no level reaches.
func (w *world) finish() {
	ctx := context.Background()
	r, err := Open(ctx, w.disk, "")
	if err != nil {
		w.t.Error(err)
		return
	}
	r.fanout = simFanout
	r.self = process{Host: "last", BootID: "last", PIDNamespace: "pid:[1]", PID: 1, Start: 1}
	h := &host{w: w, rnd: w.rnd}
	time.Sleep(leaseTime + time.Hour)
	for range 2 {
		for id, want := range w.levels {
			if w.removed[id] {
				continue
			}
			c, err := r.readCommit(ctx, id.name, id.number)
			if !w.promised[id] && (errors.Is(err, fs.ErrNotExist) || err == nil && c.level == nil) {
				continue
			}
			if err != nil || c.level == nil {
				w.t.Errorf("%s level %s is gone: %v", id.name, id.number, err)
				continue
			}
			got, err := h.read(ctx, r, c.level)
			if err != nil || !slices.Equal(got, want) {
				w.t.Errorf("%s level %s holds %v instead of %v: %v", id.name, id.number, got, want, err)
			}
		}
		if _, err := r.GC(ctx, GCOptions{}); err != nil {
			w.t.Errorf("the last gc: %v", err)
		}
	}
	w.checkStock(ctx, r)
}

// checkStock fails for packs that no level reaches, and for traces in work/
// other than the tombstones of gcs.
func (w *world) checkStock(ctx context.Context, r *Repository) {
	s, err := r.stock(ctx)
	if err != nil {
		w.t.Error(err)
		return
	}
	m := newMarker(r, &GCProgress{})
	found, err := r.listRoots(ctx)
	if err == nil {
		err = m.mark(ctx, found.levels, found.removed)
	}
	if err != nil {
		w.t.Error(err)
		return
	}
	for name := range s.packs {
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
	for _, key := range keys {
		if !strings.HasPrefix(key, workPrefix+"verdict.") {
			w.t.Errorf("left in work/: %s", key)
		}
	}
}

func simulate(t *testing.T, seed uint64) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			t: t, rnd: rand.New(rand.NewPCG(seed, 7)), disk: mem.New(), calls: make(chan *simCall, 1000),
			levels: map[simLevel][]byte{}, promised: map[simLevel]bool{}, removed: map[simLevel]bool{},
		}
		if _, err := Init(context.Background(), w.disk, Parameters{ChunkSize: 16 << 10}); err != nil {
			t.Fatal(err)
		}
		w.run()
		w.finish()
		if t.Failed() {
			file := fmt.Sprintf("%s/backy-schedule-%d", os.TempDir(), seed)
			_ = os.WriteFile(file, []byte(strings.Join(w.trace, "\n")), 0o600)
			t.Logf("replay with: go test ./store -run TestSchedules -seed %d; the trace is in %s", seed, file)
		}
	})
}

// Whatever the order of the calls of many hosts, whoever crashes or sleeps: no
// level that stands loses a byte, and nothing but what is reached stays.
func TestSchedules(t *testing.T) {
	if *simSeed != 0 {
		simulate(t, *simSeed)
		return
	}
	for seed := range uint64(*schedules) {
		simulate(t, seed+1)
		if t.Failed() {
			return
		}
	}
}
