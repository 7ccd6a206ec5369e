package store

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing/synctest"
	"time"
)

// simAnswer is what becomes of a call.
type simAnswer struct {
	err  error // what it says; nil: what it did
	done bool  // it takes effect, whatever it says
	late bool  // it takes effect some time afterwards
	cut  int   // a list goes on after as many keys only when it is let again; 0: never
}

func (a simAnswer) String() string {
	switch {
	case a.err == nil:
		return ""
	case a.late:
		return fmt.Sprintf(": %v, but it lands later", a.err)
	case a.done:
		return fmt.Sprintf(": %v, but it is done", a.err)
	}
	return fmt.Sprintf(": %v", a.err)
}

// injected is an error that a disk or a network gives.
type injected struct{ errno syscall.Errno }

func (e *injected) Error() string { return "injected: " + e.errno.Error() }

func (e *injected) Unwrap() error { return e.errno }

// latePut is a put that was answered with an error and takes effect later: it is
// under way in a network, or in a system call of a process that is gone.
type latePut struct {
	step int
	key  string
	data []byte
}

// answer decides what becomes of a call.
func (w *world) answer(c *simCall) (a simAnswer) {
	put := strings.HasPrefix(c.what, "put ")
	if strings.HasPrefix(c.what, "list ") && w.rnd.IntN(6) == 0 {
		a.cut = 1 + w.rnd.IntN(12)
	}
	switch {
	case put && w.full > 0 && w.disk.Size()+c.size > w.full:
		a.err = &injected{syscall.ENOSPC}
	case !w.strikes(c):
		return a
	default:
		a.err = &injected{syscall.EIO}
		a.done = w.rnd.IntN(2) == 0
		if put && w.rnd.IntN(2) == 0 {
			a.err = &injected{syscall.ENOSPC}
		}
		a.late = put && w.rnd.IntN(4) == 0
	}
	c.h.troubled = true
	w.figures.Faults++
	return a
}

// strikes reports whether a call fails.
func (w *world) strikes(c *simCall) bool {
	if w.plan.spite != "" && strings.HasPrefix(c.what, w.plan.spite) && w.rnd.IntN(8) == 0 {
		return true
	}
	return c.h.bad > 0 && w.rnd.IntN(3) == 0
}

// delay keeps a put that takes effect later.
func (w *world) delay(key string, parts [][]byte) {
	l := latePut{step: w.step + 1 + w.rnd.IntN(300), key: key}
	for _, p := range parts {
		l.data = append(l.data, p...)
	}
	w.late = append(w.late, l)
}

// land lets late puts take effect whose time has come.
func (w *world) land() {
	var left []latePut
	for _, l := range w.late {
		if l.step > w.step {
			left = append(left, l)
			continue
		}
		err := w.disk.Put(context.Background(), l.key, l.data)
		w.note("%s lands: %v", l.key, err)
		w.figures.Late++
	}
	w.late = left
}

// mishap lets something happen now and then, and reports whether time has
// passed, so that other calls may wait now.
func (w *world) mishap() (others bool) {
	switch c := w.copied; {
	case c == nil || w.step < c.at:
	case c.running == nil:
		w.copy(c)
	case w.step >= c.back:
		w.putBack(c)
		w.copied = nil
		return true
	}
	if w.plan.lossAt > 0 && w.step >= w.plan.lossAt {
		w.lose()
	}
	if w.plan.flipAt > 0 && w.step >= w.plan.flipAt {
		w.flip()
	}
	if w.harmed.often && w.rnd.IntN(150) == 0 {
		w.harm()
	}
	if w.plan.full && w.rnd.IntN(300) == 0 {
		if w.full > 0 {
			w.full = 0
		} else {
			w.full = w.disk.Size() + int64(w.rnd.IntN(4000))
			w.figures.Full++
		}
		w.note("the disk holds %d bytes", w.full)
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
	if h.bad > 0 {
		h.bad--
	} else if w.plan.faults && w.rnd.IntN(150) == 0 {
		h.bad = 1 + w.rnd.IntN(6) // as often as it is drawn
	}
	if w.plan.clocks && w.rnd.IntN(200) == 0 {
		w.jump(h)
	}
	switch w.rnd.IntN(500) {
	case 0:
		w.crash(h)
		return true
	case 1, 2:
		h.halted = 20 + w.rnd.IntN(500)
		w.figures.Halts++
		w.note("host %d halts", h.id)
		time.Sleep(time.Duration(w.rnd.IntN(120)) * time.Second)
		return true
	}
	return others
}

// crash ends a host. Sometimes it starts again, and what is left of the process
// that ran on it is known to be dead.
func (w *world) crash(h *host) {
	h.crashed = true
	w.figures.Crashes++
	w.note("host %d crashes", h.id)
	if w.rnd.IntN(2) == 0 {
		w.start(h.role).boot = cmp.Or(h.boot, fmt.Sprint("boot", h.id))
	}
}
