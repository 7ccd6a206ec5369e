package store

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"
	"testing/synctest"
	"time"
)

// harmed is what has gone bad, at most what may without a level being lost for
// good: any chunk, and of each map pack one of the two copies.
type harmed struct {
	often bool
	data  map[place]bool
	maps  map[PackID]string // the folder
}

func newHarmed() harmed { return harmed{data: map[place]bool{}, maps: map[PackID]string{}} }

func (x harmed) clone() harmed {
	return harmed{x.often, maps.Clone(x.data), maps.Clone(x.maps)}
}

// has reports whether something befell a chunk.
func (x harmed) has(ref Ref) bool { return x.data[place{KindData, ref.Pack, ref.Index}] }

// chunks are references to all that can be read of an object. What is in an
// older generation too does not count: that may be about to be deleted.
func (w *world) chunks(key string, id PackID) (refs []Ref) {
	r, err := (&host{w: w, id: len(w.hosts)}).open(w.disk)
	if err != nil {
		w.t.Fatal(err)
	}
	b, _, err := r.rebuild(context.Background(), KindData, id, []string{key}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return b.refs()
}

// olderCopy is a copy that is made of the repository and put back later.
//
// What holds then: all levels of the copy stand and can be read, whatever a
// process does that lives through it. It may be reading; it may be between two
// runs, with all that it remembers; and it may be in the midst of a backup or
// a gc that began after the copy was made. Such a run ends with an error as
// soon as it would commit or delete, since its claim is not in the copy.
//
// What must be stopped: runs that the copy shows at work, since they find
// their claims; whoever is removing levels; and who is just in the middle of
// the one call that commits or deletes, having looked for the claim before.
type olderCopy struct {
	at, back int // steps
	changes  int // of the log
	oracle   oracle
	harmed   harmed
	running  map[*host]RunID
}

// plan decides what will befall this world.
func (w *world) plan() {
	if w.rnd.IntN(3) == 0 {
		at := w.rnd.IntN(700)
		w.copied = &olderCopy{at: at, back: at + 1 + w.rnd.IntN(700)}
	}
	if w.rnd.IntN(2) == 0 {
		w.harmed.often = true
	}
}

// mishap lets something happen now and then, and reports whether other calls
// may wait now.
func (w *world) mishap(step int) (others bool) {
	switch c := w.copied; {
	case c == nil || step < c.at:
	case c.running == nil:
		w.copy(c)
	case step >= c.back:
		w.putBack(c)
		w.copied = nil
		return true
	}
	if w.harmed.often && w.rnd.IntN(150) == 0 {
		w.harm()
	}
	if w.rnd.IntN(20) == 0 {
		time.Sleep(time.Duration(w.rnd.IntN(20)) * time.Second)
		synctest.Wait()
		others = true
	}
	h := w.hosts[w.rnd.IntN(len(w.hosts))]
	if h.done || h.crashed {
		return others
	}
	switch w.rnd.IntN(500) {
	case 0:
		h.crashed = true
		w.figures.Crashes++
		w.note("host %d crashes", h.id)
		return true
	case 1, 2:
		h.frozen = 20 + w.rnd.IntN(500)
		w.figures.Freezes++
		w.note("host %d freezes for %d steps", h.id, h.frozen)
		time.Sleep(time.Duration(w.rnd.IntN(120)) * time.Second)
		return true
	}
	return others
}

// harm changes or loses an object.
func (w *world) harm() {
	var keys []string
	for _, folder := range []string{dataPrefix, mapsPrefix, twinsPrefix} {
		_ = w.disk.List(context.Background(), folder, func(key string, _ int64) error {
			_, id, _, _ := parsePackKey(key)
			if folder == dataPrefix || w.harmed.maps[id] == "" || w.harmed.maps[id] == folder {
				keys = append(keys, key)
			}
			return nil
		})
	}
	if len(keys) == 0 {
		return
	}
	slices.Sort(keys)
	key := keys[w.rnd.IntN(len(keys))]
	p, err := readAll(context.Background(), w.disk, key, maxPackBytes)
	if err != nil {
		w.t.Fatal(err)
	}
	p = bytes.Clone(p)
	folder, id, _, _ := parsePackKey(key)
	var before []Ref
	if folder == dataPrefix {
		before = w.chunks(key, id)
	}
	how := "lost"
	switch at := w.rnd.IntN(max(len(p), 1)); w.rnd.IntN(8) {
	case 0:
		p = nil
	case 1:
		how, p = "cut", p[:min(at, len(p))]
	case 2:
		how = "zeroed"
		clear(p[min(at, len(p)):min(len(p), at+100)])
	default:
		how = "flipped"
		if at < len(p) {
			p[at] ^= byte(1 << w.rnd.IntN(8))
		}
	}
	w.note("%s is %s", key, how)
	w.figures.Harms++
	overwrite(w.t, w.disk, key, p)
	if folder != dataPrefix {
		w.harmed.maps[id] = folder
		return
	}
	after := w.chunks(key, id)
	for _, ref := range before {
		if !slices.Contains(after, ref) {
			w.harmed.data[place{KindData, id, ref.Index}] = true
		}
	}
}

// overwrite does what a failing disk does; without bytes the object is lost.
func overwrite(t interface{ Fatal(...any) }, b Backend, key string, p []byte) {
	err := b.Delete(context.Background(), key)
	if err == nil && p != nil {
		err = b.Put(context.Background(), key, bytes.Clone(p))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) copy(c *olderCopy) {
	w.note("the repository is copied")
	c.changes, c.oracle, c.harmed = len(w.disk.Log()), w.oracle.clone(), w.harmed.clone()
	c.running = map[*host]RunID{}
	for _, h := range w.hosts {
		if h.busy {
			c.running[h] = h.run
		}
	}
}

func (w *world) putBack(c *olderCopy) {
	w.note("the copy is put back")
	w.figures.PutBack++
	w.disk, w.oracle, w.harmed = w.disk.At(c.changes), c.oracle, c.harmed
	w.oracle.forget(w.disk)
	for _, h := range w.hosts {
		switch {
		case h.done || h.crashed:
		case w.stopped(h, c):
			h.crashed = true
			w.note("host %d is stopped", h.id)
		case h.busy:
			h.adrift = true
			w.note("host %d lives through it", h.id)
		}
	}
	for _, role := range []string{"writer", "writer", "remover", "gc", "scrub", "reader"} {
		w.start(role)
	}
}

// stopped reports whether a host must not live through it.
func (w *world) stopped(h *host, c *olderCopy) bool {
	if !h.busy {
		return false
	}
	switch strings.TrimPrefix(h.role, "old ") {
	case "reader", "scrub":
		return false
	case "remover":
		return true
	}
	if h.run != 0 && c.running[h] == h.run {
		return true
	}
	return slices.ContainsFunc(w.pending, func(call *simCall) bool {
		return call.h == h && slices.ContainsFunc(decisive, func(what string) bool { return strings.HasPrefix(call.what, what) })
	})
}

// decisive calls commit, or delete what a level may reach.
var decisive = []string{"delete data/", "delete maps", "delete levels/", "put levels/", "put work/waiting.", "put work/verdict."}
