package store

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
)

// harmed is what has gone bad, at most what may without a level being lost for
// good: any chunk, and of each map pack one of the two copies.
type harmed struct {
	often bool
	data  map[place]bool
	maps  map[PackID]string // the folder
	since map[PackID]int    // the step at which an object of a data pack went bad last
}

func newHarmed() harmed {
	return harmed{data: map[place]bool{}, maps: map[PackID]string{}, since: map[PackID]int{}}
}

func (x harmed) clone() harmed {
	return harmed{x.often, maps.Clone(x.data), maps.Clone(x.maps), maps.Clone(x.since)}
}

// has reports whether something befell a chunk.
func (x harmed) has(ref Ref) bool { return x.data[place{KindData, ref.Pack, ref.Index}] }

// hasMapOf reports whether a copy of a map pack of a run has gone bad.
func (x harmed) hasMapOf(run RunID) bool {
	for id := range x.maps {
		if id.Run == run {
			return true
		}
	}
	return false
}

// chunks are references to all that can be read of an object.
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
	// A pack of two generations is about to lose one.
	i := slices.IndexFunc(keys, func(key string) bool {
		return strings.HasPrefix(key, dataPrefix) && strings.Contains(key, ".") && slices.Contains(keys, key[:strings.IndexByte(key, '.')])
	})
	if i >= 0 && w.rnd.IntN(2) == 0 {
		key = keys[i]
	}
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
	w.harmed.since[id] = w.step
	w.blame(id, before, w.left(id, ""))
}

// left are references to all that can be read of a data pack's objects, but for
// one.
func (w *world) left(id PackID, but string) (refs []Ref) {
	keys, err := (&Repository{backend: w.disk}).copies(context.Background(), KindData, dataPrefix, id)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, key := range keys {
		if key != but {
			refs = append(refs, w.chunks(key, id)...)
		}
	}
	return refs
}

// blame takes for harmed what was there and is left nowhere.
func (w *world) blame(id PackID, before, left []Ref) (lost []Ref) {
	for _, ref := range before {
		if !slices.Contains(left, ref) {
			lost = append(lost, ref)
			w.harmed.data[place{KindData, id, ref.Index}] = true
		}
	}
	return lost
}

// replaced watches who deletes an older generation of a pack that has gone bad:
// the newer ones must have what levels need of it, as far as he can know. What has
// gone bad since he looked is blamed on the disk.
func (w *world) replaced(h *host, key string) {
	folder, id, generation, err := parsePackKey(key)
	if err != nil || folder != dataPrefix {
		return
	}
	since, harmed := w.harmed.since[id]
	looked := -1 // when the host read of a newer generation last
	for key, step := range h.looked {
		if _, other, g, err := parsePackKey(key); err == nil && other == id && g > generation {
			looked = max(looked, step)
		}
	}
	if !harmed || looked < 0 {
		return
	}
	r, err := (&host{w: w, id: len(w.hosts)}).open(w.disk)
	if err != nil {
		w.t.Fatal(err)
	}
	m, err := w.marked(context.Background(), r)
	var record *BadRecordError
	if err != nil && !errors.As(err, &record) {
		w.t.Error(err)
	}
	live := m.chunks // of the levels that can be read
	for _, ref := range w.blame(id, w.chunks(key, id), w.left(id, key)) {
		if live.has(id, ref.Index) && looked > since {
			w.t.Errorf("host %d deletes %s, and nothing newer has index %d, which a level needs", h.id, key, ref.Index)
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
		if h.doing != "" {
			c.running[h] = h.run
		}
	}
}

func (w *world) putBack(c *olderCopy) {
	w.note("the copy is put back")
	w.figures.PutBack++
	before := w.oracle
	w.disk, w.oracle, w.harmed, w.late = w.disk.At(c.changes), c.oracle, c.harmed, nil
	w.oracle.undecide(w.disk)
	for _, h := range w.hosts {
		switch {
		case h.done || h.crashed:
		case w.stopped(h, c):
			h.crashed, h.adrift = true, true
			w.note("host %d is stopped", h.id)
		case h.doing != "":
			h.adrift = true
			if l, ok := before.level(h.run); ok || h.doing == "backup" {
				w.oracle.doubt(h.run, l)
			}
			w.note("host %d lives through it", h.id)
		}
	}
	for _, role := range []string{"writer", "pool", "remover", "gc", "gc", "recover", "scrub", "reader"} {
		w.start(role)
	}
}

// stopped reports whether a host must not live through it.
func (w *world) stopped(h *host, c *olderCopy) bool {
	switch h.doing {
	case "", "open", "read", "scrub":
		return false
	case "remove", "forget":
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
