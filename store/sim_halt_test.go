package store

import (
	"slices"
	"strings"
	"testing/synctest"
	"time"
)

// choose says which call goes on. In some schedules hosts go on for many calls in
// a row: that one of them does a lot while all others stand still is next to
// impossible where each call is drawn by lot.
func (w *world) choose(ready []*simCall) *simCall {
	if w.favorite != nil && w.rnd.IntN(w.plan.burst) > 0 {
		for _, c := range ready {
			if c.h == w.favorite {
				return c
			}
		}
	}
	c := ready[w.rnd.IntN(len(ready))]
	w.favorite = c.h
	return c
}

// lingers are the calls before which some schedules like to stop hosts, and
// spites those that like to fail in some.
var (
	lingers = []string{
		"delete data/", "delete maps", "delete work/waiting.", "delete work/condemned.", "delete work/gc.", "delete work/claim.",
		"put work/verdict.", "put work/waiting.", "put work/condemned.", "put levels/", "put maps/", "list work/claim.", "list levels/", "list data/",
	}
	spites = []string{
		"put work/verdict.", "put work/waiting.", "put work/condemned.", "put work/gc.", "put work/claim.", "put work/", "put levels/", "put data/",
		"put maps", "delete work/", "delete work/claim.", "delete work/claim.", "delete data/", "delete maps", "delete levels/", "get work/", "get levels/", "list work/", "list levels/", "list ",
	}
)

// tender calls are those after which much depends on what others do before the
// host goes on: it has looked at something and is about to act on that.
var tender = []string{
	"list ", "get work/gc.", "get work/claim.", "put work/condemned.", "put work/waiting.", "put work/verdict.",
	"put work/claim.", "put work/gc.", "delete work/", "put levels/",
}

// wakers are the calls of others that a halted host likes to wake up at.
var wakers = []string{
	"delete data/", "delete work/condemned.", "delete work/gc.", "put levels/", "put work/verdict.", "put work/waiting.",
	"put work/condemned.", "list levels/", "list data/", "list work/condemned.", "put work/claim.", "put data/",
}

// linger stops the host of a call that is about to be let go on, if this schedule
// likes to stop hosts just there.
func (w *world) linger(c *simCall) bool {
	if w.plan.linger == "" || c.lingered || !strings.HasPrefix(c.what, w.plan.linger) || w.rnd.IntN(5) > 0 {
		return false
	}
	c.lingered = true
	w.stop(c.h)
	return true
}

// halt stops a host after a call, now and then.
func (w *world) halt(c *simCall) {
	if w.plan.halts && w.rnd.IntN(100) == 0 && slices.ContainsFunc(tender, func(p string) bool { return strings.HasPrefix(c.what, p) }) {
		w.stop(c.h)
	}
}

// stop halts a host until others take it for dead, and maybe until one of them is
// just at something.
func (w *world) stop(h *host) {
	h.halted = 50 + w.rnd.IntN(800)
	if w.rnd.IntN(3) > 0 {
		h.wakeAt = wakers[w.rnd.IntN(len(wakers))]
	}
	w.figures.Halts++
	w.note("host %d halts, until somebody's %q", h.id, h.wakeAt)
	synctest.Wait()
	time.Sleep(time.Duration(w.rnd.IntN(120)) * time.Second)
}

// wakes reports whether a host wakes up now. Whoever is at what it woke for
// stands still meanwhile, more often than not.
func (w *world) wakes(h *host) bool {
	if h.wakeAt == "" {
		return false
	}
	for _, c := range w.pending {
		if c.h == h || c.h.halted > 0 || !strings.HasPrefix(c.what, h.wakeAt) || w.rnd.IntN(4) > 0 {
			continue
		}
		if w.rnd.IntN(2) == 0 {
			c.h.halted = 5 + w.rnd.IntN(60)
			w.note("host %d halts for host %d", c.h.id, h.id)
		}
		w.note("host %d wakes up", h.id)
		w.favorite = h
		return true
	}
	return false
}

// jump sets a host's clock to a wrong time.
func (w *world) jump(h *host) {
	skews := []time.Duration{time.Minute, time.Hour, 30 * time.Hour, 24 * 365 * time.Hour, 24 * 365 * 20 * time.Hour}
	h.skew = skews[w.rnd.IntN(len(skews))]
	switch w.rnd.IntN(4) {
	case 0:
		h.skew = 0
	case 1:
		h.skew = -h.skew
	}
	h.jumped = true
	w.figures.Jumps++
	w.note("host %d has a clock that is wrong by %s", h.id, h.skew)
}
