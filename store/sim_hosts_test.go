package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"time"
)

// host is one actor, with its own view of the repository.
type host struct {
	w        *world
	id       int
	boot     string // a host that starts again after a crash is a process of the same boot; "": it has its own
	role     string
	rnd      *rand.Rand
	skew     time.Duration // how wrong its clock is
	jumped   bool          // it has been, or is, wrong
	crashed  bool
	halted   int    // scheduler steps for which nothing of it goes on
	wakeAt   string // it wakes up when somebody is about to do this; "": for nothing
	bad      int    // calls of it fail
	slept    bool   // it was halted, so others may have taken it for dead
	troubled bool   // a call of it has failed
	unheld   bool   // somebody else has deleted a hold of it
	adrift   bool   // an older copy was put back while it was at something
	doing    string // what it is at; "": nothing
	done     bool
	runs     int
	run      RunID // the last one that it began
	old      []Level
	looked   map[string]int // the step at which it read of a data pack's object last
}

// start adds a host.
func (w *world) start(role string) *host {
	id := len(w.hosts)
	h := &host{w: w, id: id, role: role, rnd: rand.New(rand.NewPCG(w.rnd.Uint64(), uint64(id))), looked: map[string]int{}}
	if w.plan.clocks && w.rnd.IntN(3) == 0 {
		w.jump(h)
	}
	w.hosts = append(w.hosts, h)
	go h.live()
	return h
}

// simPID is of no process of the machine that runs the simulator: those that are
// not the asking one are dead.
const simPID = 1 << 30

// open opens the repository as this host sees it, with small packs.
func (h *host) open(b Backend) (*Repository, error) {
	r, err := Open(context.Background(), b, "")
	if err != nil {
		return nil, err
	}
	r.packSizes = map[Kind]int{KindData: 400, KindMap: 500}
	r.clock = func() time.Time { return time.Now().Add(h.skew) }
	r.newRun = func(now time.Time) RunID {
		h.runs++
		h.run = RunID(now.Unix())<<runRandomBits | RunID(h.id<<20|h.runs<<8|h.w.slot)
		return h.run
	}
	boot := cmp.Or(h.boot, fmt.Sprint("boot", h.id))
	r.self = process{Host: fmt.Sprint("host", h.id), BootID: boot, PIDNamespace: "pid:[1]", PID: simPID, Start: uint64(h.id) + 1}
	return r, nil
}

// live is what a host does until it has done enough or crashes.
func (h *host) live() {
	defer func() { h.done = true }()
	var r *Repository
	role, old := strings.CutPrefix(h.role, "old ") // keeps its caches from long ago
	often := 3 + h.rnd.IntN(4)
	if role == "pool" {
		often = 2
	}
	for range often {
		var err error
		h.doing = "open"
		if r == nil || !old && h.rnd.IntN(2) == 0 {
			if r, err = h.open(simBackend{h}); err != nil {
				h.explain(err)
				h.rest()
				continue
			}
		}
		name := simNames[h.rnd.IntN(len(simNames))]
		switch role {
		case "writer":
			err = h.backup(r, name)
		case "pool":
			err = h.pool(r)
		case "remover":
			err = h.remove(r, name)
		case "gc":
			err = h.gc(r)
		case "recover":
			err = h.recover(r)
		case "reader":
			err = h.check(r, name, old)
		case "scrub":
			err = h.scrub(r, name)
		}
		h.explain(err)
		if h.crashed {
			return
		}
		h.rest()
	}
}

// end ends what a host is at.
func (h *host) end() {
	h.doing, h.adrift, h.slept, h.troubled, h.run = "", false, false, false, 0
}

// rest ends it, and goes on some time later.
func (h *host) rest() {
	h.end()
	time.Sleep(time.Duration(h.rnd.IntN(60)) * time.Second)
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
func (h *host) explain(err error) {
	var busy *BusyError
	var bad *ChunkError
	var fault *injected
	var lost *LostError
	var gone *UnrecoverableError
	var record *BadRecordError
	var path *fs.PathError
	switch {
	case err == nil, h.crashed, errors.Is(err, errCrashed), errors.As(err, &busy):
	case errors.As(err, &fault):
	case h.w.oracle.spoilt() && errors.Is(err, fs.ErrNotExist) && errors.As(err, &path) && strings.HasPrefix(path.Path, levelsPrefix):
		// What is lost may have been listed just before.
	case h.adrift, h.w.oracle.doubtful(err):
		// What it was at is not there any more.
	case (h.slept || h.fenced()) && (errors.Is(err, fs.ErrNotExist) || errors.As(err, &bad)):
		// Whoever was taken for dead may find anything of his gone.
	case h.troubled && errors.Is(err, fs.ErrExist):
		// What was put all the same went bad before it was read back.
	case h.slept && errors.Is(err, fs.ErrExist) && h.w.harmed.hasMapOf(h.run):
		// Whoever would finish its level put a copy of its map, and that went bad before it woke up.
	case errors.As(err, &record) && h.w.oracle.flipped():
		h.w.figures.Refused++
	case errors.Is(err, ErrRemoved):
	case errors.Is(err, ErrFenced):
		h.w.figures.Fenced++
	case errors.As(err, &lost), errors.As(err, &gone):
		// What is lost keeps gcs from working; and where an older copy was put back, so
		// does what a run has stored that lives through it.
		h.w.figures.Refused++
		if !h.w.oracle.spoilt() && h.w.figures.PutBack == 0 {
			h.w.t.Errorf("host %d, %s: nothing was lost, but %v", h.id, h.doing, err)
		}
	default:
		h.w.t.Errorf("host %d, %s: %v", h.id, h.doing, err)
	}
}
