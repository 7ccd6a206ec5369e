package store

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"backy/store/mem"
)

// The simulator runs writers, removers, gcs, recovers, scrubs and readers
// against one repository, each as if on a host of its own. Every call of the
// backend waits until a seeded scheduler lets it go on, in any order; hosts
// crash and start again, and hosts halt for so long that others take them for
// dead, and wake up; clocks are wrong and jump; calls fail, and what failed
// takes effect all the same; disks are full; stored bytes go bad; records are
// lost; an older copy of the repository is put back. The oracle are plain copies
// of what each level held.
//
// The files: the scheduler (here), its likings (sim_halt_test.go), the backend
// that each host sees (sim_backend_test.go), what the hosts do (sim_hosts_test.go,
// sim_roles_test.go), what befalls them (sim_faults_test.go, sim_harm_test.go,
// sim_loss_test.go), and what must hold (sim_oracle_test.go, sim_end_test.go).

var (
	schedules = flag.Int("schedules", 1000, "how many schedules the simulator tries")
	simSeed   = flag.Uint64("seed", 1, "the first of them; with -schedules 1 the one to replay")
)

// world is one schedule.
type world struct {
	t       *testing.T
	rnd     *rand.Rand
	slot    int // tells the run ids of worlds apart that go on at the same time
	disk    *mem.Mem
	calls   chan *simCall
	pending []*simCall
	hosts   []*host
	trace   []traced
	step    int

	plan     simPlan
	favorite *host // goes on for a while
	late     []latePut
	full     int64 // bytes that the disk holds; 0: any number

	oracle  oracle
	harmed  harmed
	copied  *olderCopy
	figures figures
}

// simPlan is what may happen in a schedule: with everything in all, what is rare
// would always be disturbed by something else.
type simPlan struct {
	burst  int // how many calls of a host are let go on in a row, on average
	halts  bool
	faults bool
	full   bool
	clocks bool
	lossAt int    // step; 0: nothing is lost
	flipAt int    // step at which a record goes bad; 0: none does
	linger string // calls before which hosts like to halt; "": none
	spite  string // calls that like to fail
}

// begin decides what will befall this world, and who lives in it.
func (w *world) begin() {
	one := func(in int) bool { return w.rnd.IntN(in) == 0 }
	w.plan = simPlan{
		burst: []int{1, 1, 4, 20}[w.rnd.IntN(4)], halts: !one(3), faults: one(2), full: one(8), clocks: one(3),
	}
	if one(4) {
		w.plan.lossAt = 200 + w.rnd.IntN(1200)
	}
	if one(4) {
		w.plan.flipAt = 200 + w.rnd.IntN(1200)
	}
	if one(3) {
		at := w.rnd.IntN(900)
		w.copied = &olderCopy{at: at, back: at + 1 + w.rnd.IntN(900)}
	}
	w.harmed.often = one(2)
	if one(2) {
		w.plan.linger = lingers[w.rnd.IntN(len(lingers))]
	}
	if one(3) {
		w.plan.spite = spites[w.rnd.IntN(len(spites))]
	}
	// A few of all kinds, and more of any.
	for _, role := range []string{"writer", "old writer", "pool", "gc", "gc", "remover"} {
		w.start(role)
	}
	if one(4) {
		w.start("gc")
		w.start("gc")
	}
	others := []string{"gc", "gc", "writer", "pool", "pool", "remover", "scrub", "reader", "old reader", "recover", "recover"}
	for range 2 + w.rnd.IntN(4) {
		w.start(others[w.rnd.IntN(len(others))])
	}
}

// figures count what schedules had in them, so that it is seen that they had.
type figures struct {
	Steps, Crashes, Halts, Jumps, Faults, Late, Full, Harms, Losses, Flips, PutBack              int
	Levels, Mended, Verdicts, Waited, Recovered, Abandoned, Removed, Read, Held, Fenced, Refused int
}

func (f *figures) add(o *figures) {
	for _, n := range [][2]*int{
		{&f.Steps, &o.Steps},
		{&f.Crashes, &o.Crashes},
		{&f.Halts, &o.Halts},
		{&f.Jumps, &o.Jumps},
		{&f.Faults, &o.Faults},
		{&f.Late, &o.Late},
		{&f.Full, &o.Full},
		{&f.Harms, &o.Harms},
		{&f.Losses, &o.Losses},
		{&f.Flips, &o.Flips},
		{&f.PutBack, &o.PutBack},
		{&f.Levels, &o.Levels},
		{&f.Mended, &o.Mended},
		{&f.Verdicts, &o.Verdicts},
		{&f.Waited, &o.Waited},
		{&f.Recovered, &o.Recovered},
		{&f.Abandoned, &o.Abandoned},
		{&f.Removed, &o.Removed},
		{&f.Read, &o.Read},
		{&f.Held, &o.Held},
		{&f.Fenced, &o.Fenced},
		{&f.Refused, &o.Refused},
	} {
		*n[0] += *n[1]
	}
}

// simCall is a call of the backend that waits.
type simCall struct {
	h        *host
	what     string
	size     int64 // of a put, in bytes
	lingered bool  // its host has halted before it
	resume   chan simAnswer
}

// run lets the hosts live until all are done.
func (w *world) run() {
	for ; ; w.step++ {
		if w.step == simSteps {
			w.t.Errorf("it goes on for ever: after %d steps there is no end", w.step)
			for _, h := range w.hosts {
				h.crashed = true
			}
		}
		synctest.Wait()
		w.collectCalls()
		ready := w.ready()
		if len(ready) == 0 {
			if w.allDone() {
				w.figures.Steps += w.step
				return
			}
			time.Sleep(time.Second) // timers run
			continue
		}
		w.land()
		if w.mishap() {
			continue // time has passed
		}
		if c := w.choose(ready); !w.linger(c) {
			w.release(c)
		}
	}
}

// collectCalls takes in the calls that wait. Those of a host that has crashed
// fail at once: in which order it stops its work is not for the seed to say.
func (w *world) collectCalls() {
	for {
		dead := slices.IndexFunc(w.pending, func(c *simCall) bool { return c.h.crashed })
		select {
		case c := <-w.calls:
			w.pending = append(w.pending, c)
		default:
			if dead >= 0 {
				w.pending[dead].resume <- simAnswer{err: errCrashed}
				w.pending = slices.Delete(w.pending, dead, dead+1)
				synctest.Wait()
				continue
			}
			slices.SortStableFunc(w.pending, func(a, b *simCall) int {
				return cmp.Or(cmp.Compare(a.h.id, b.h.id), cmp.Compare(a.what, b.what))
			})
			return
		}
	}
}

// ready returns the calls of hosts that are not halted, and wakes those that
// have been for long enough.
func (w *world) ready() (ready []*simCall) {
	for _, h := range w.hosts {
		if h.halted > 0 {
			if h.halted--; h.halted == 0 || w.wakes(h) {
				h.halted, h.wakeAt, h.slept = 0, "", true
			}
		}
	}
	for _, c := range w.pending {
		if c.h.halted == 0 {
			ready = append(ready, c)
		}
	}
	return ready
}

// release lets a call go on, and with it those of the same host that cannot be
// told from it.
func (w *world) release(c *simCall) {
	a := w.answer(c)
	w.trace = append(w.trace, traced{h: c.h, what: c.what, answer: a})
	w.pending = slices.DeleteFunc(w.pending, func(o *simCall) bool {
		same := o.h == c.h && o.what == c.what
		if same {
			o.resume <- a
		}
		return same
	})
	w.halt(c)
}

func (w *world) allDone() bool {
	return !slices.ContainsFunc(w.hosts, func(h *host) bool { return !h.done })
}

// traced is something that happened in a schedule.
type traced struct {
	h      *host // whose call; nil: it was none
	what   string
	answer simAnswer
}

func (e traced) String() string {
	if e.h == nil {
		return e.what
	}
	return fmt.Sprintf("host %d %s%s", e.h.id, e.what, e.answer)
}

func (w *world) note(format string, args ...any) {
	w.trace = append(w.trace, traced{what: fmt.Sprintf(format, args...)})
}

// simulate runs one schedule, and returns its trace.
func simulate(t *testing.T, seed uint64, slot int, total *figures) (trace []traced) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			t: t, rnd: rand.New(rand.NewPCG(seed, 7)), slot: slot, disk: simEmpty().At(2), calls: make(chan *simCall, 1000),
			oracle: newOracle(), harmed: newHarmed(),
		}
		w.begin()
		w.run()
		w.finish()
		total.add(&w.figures)
		trace = w.trace
		if t.Failed() {
			file := fmt.Sprintf("%s/backy-schedule-%d", os.TempDir(), seed)
			var text strings.Builder
			for _, e := range w.trace {
				fmt.Fprintln(&text, e)
			}
			_ = os.WriteFile(file, []byte(text.String()), 0o600)
			t.Logf("replay with: go test ./store -run TestSchedules -schedules 1 -seed %d; the trace is in %s", seed, file)
		}
	})
	return trace
}

// simSteps is far more than a schedule takes.
const simSteps = 100_000

// simWorkers is how many schedules go on at a time.
const simWorkers = 2

// Whatever the order of the calls of many hosts, whoever crashes or sleeps or
// has a wrong clock, whatever fails, goes bad or is lost: no level that stands
// loses a byte that can be had, none reads as wrong bytes, none comes back that
// was removed, what is bad becomes whole as soon as somebody has its bytes, and
// nothing but what is reached stays.
func TestSchedules(t *testing.T) {
	// Schedules make much garbage and keep little.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	var total [simWorkers]figures
	t.Run("all", func(t *testing.T) {
		var mu sync.Mutex
		next, end := *simSeed, *simSeed+uint64(*schedules)
		for slot := range simWorkers {
			t.Run(fmt.Sprint("worker ", slot), func(t *testing.T) {
				t.Parallel()
				for !t.Failed() {
					mu.Lock()
					seed := next
					next++
					mu.Unlock()
					if seed >= end {
						return
					}
					simulate(t, seed, slot, &total[slot])
				}
			})
		}
	})
	for i := range total[1:] {
		total[0].add(&total[i+1])
	}
	t.Logf("schedules %d to %d: %+v", *simSeed, *simSeed+uint64(*schedules)-1, total[0])
}

// A seed that fails would fail again: the same seed makes the same schedule.
func TestSchedulesReplay(t *testing.T) {
	for seed := range uint64(10) {
		var f figures
		first, second := simulate(t, seed+1, 0, &f), simulate(t, seed+1, 0, &f)
		for i := range first {
			if i >= len(second) || first[i].String() != second[i].String() {
				t.Fatalf("seed %d: step %d is %q, then it is %q", seed+1, i, first[i], second[min(i, len(second)-1)])
			}
		}
	}
}
