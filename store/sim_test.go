package store

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"backy/store/mem"
)

// The simulator runs writers, a remover, gcs, scrubs and readers against one
// repository, each as if on a host of its own. Every call of the backend waits
// until a seeded scheduler lets it go on, in any order; hosts crash, and hosts
// freeze for so long that others take them for dead, and wake up; stored bytes
// go bad; an older copy of the repository is put back. The oracle are plain
// copies of what each level held.
//
// The files: the scheduler (here), what the hosts do (sim_hosts_test.go), what
// befalls them (sim_harm_test.go), and what must hold (sim_oracle_test.go).

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
	trace   []string

	oracle  oracle
	harmed  harmed
	copied  *olderCopy
	figures figures
}

// figures count what schedules had in them, so that it is seen that they had.
type figures struct {
	Steps, Crashes, Freezes, Harms, PutBack, Mended, Verdicts, Read int
}

func (f *figures) add(o figures) {
	f.Steps += o.Steps
	f.Crashes += o.Crashes
	f.Freezes += o.Freezes
	f.Harms += o.Harms
	f.PutBack += o.PutBack
	f.Mended += o.Mended
	f.Verdicts += o.Verdicts
	f.Read += o.Read
}

type simCall struct {
	h      *host
	what   string
	resume chan error
}

// run lets the hosts live until all are done.
func (w *world) run() {
	for _, role := range []string{"writer", "writer", "writer", "old writer", "remover", "remover", "gc", "gc", "scrub", "reader", "old reader"} {
		w.start(role)
	}
	for step := 0; ; step++ {
		synctest.Wait()
		w.collectCalls()
		ready := w.ready()
		if len(ready) == 0 {
			if w.allDone() {
				w.figures.Steps += step
				return
			}
			time.Sleep(time.Second) // timers run
			continue
		}
		if w.mishap(step) {
			continue // time has passed
		}
		w.release(ready[w.rnd.IntN(len(ready))])
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
				w.pending[dead].resume <- errCrashed
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

// ready returns the calls of hosts that are not frozen, and thaws those that
// have been for long enough.
func (w *world) ready() (ready []*simCall) {
	for _, h := range w.hosts {
		if h.frozen > 0 {
			if h.frozen--; h.frozen == 0 {
				h.slept = true
			}
		}
	}
	for _, c := range w.pending {
		if c.h.frozen == 0 {
			ready = append(ready, c)
		}
	}
	return ready
}

// release lets a call go on, and with it those of the same host that cannot be
// told from it.
func (w *world) release(c *simCall) {
	w.note("host %d %s", c.h.id, c.what)
	w.pending = slices.DeleteFunc(w.pending, func(o *simCall) bool {
		same := o.h == c.h && o.what == c.what
		if same {
			o.resume <- nil
		}
		return same
	})
}

func (w *world) allDone() bool {
	return !slices.ContainsFunc(w.hosts, func(h *host) bool { return !h.done })
}

func (w *world) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

// simulate runs one schedule, and returns its trace.
func simulate(t *testing.T, seed uint64, slot int, total *figures) (trace []string) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			t: t, rnd: rand.New(rand.NewPCG(seed, 7)), slot: slot, disk: simEmpty().At(1), calls: make(chan *simCall, 1000),
			oracle: newOracle(), harmed: newHarmed(),
		}
		w.plan()
		w.run()
		w.finish()
		total.add(w.figures)
		trace = w.trace
		if t.Failed() {
			file := fmt.Sprintf("%s/backy-schedule-%d", os.TempDir(), seed)
			_ = os.WriteFile(file, []byte(strings.Join(w.trace, "\n")), 0o600)
			t.Logf("replay with: go test ./store -run TestSchedules -schedules 1 -seed %d; the trace is in %s", seed, file)
		}
	})
	return trace
}

// simWorkers is how many schedules go on at a time.
const simWorkers = 2

// Whatever the order of the calls of many hosts, whoever crashes or sleeps,
// whatever goes bad: no level that stands loses a byte that can be had, none
// reads as wrong bytes, what is bad becomes whole as soon as somebody has its
// bytes, and nothing but what is reached stays.
func TestSchedules(t *testing.T) {
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
	for _, f := range total[1:] {
		total[0].add(f)
	}
	t.Logf("%d schedules: %+v", *schedules, total[0])
}

// A seed that fails would fail again: the same seed makes the same schedule.
func TestSchedulesReplay(t *testing.T) {
	for seed := range uint64(10) {
		var f figures
		first, second := simulate(t, seed+1, 0, &f), simulate(t, seed+1, 0, &f)
		for i := range first {
			if i >= len(second) || first[i] != second[i] {
				t.Fatalf("seed %d: step %d is %q, then it is %q", seed+1, i, first[i], second[min(i, len(second)-1)])
			}
		}
	}
}
