package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A guard may be killed by somebody, or stopped: then it neither freezes nor thaws,
// and we take over.

// next waits for the guard's next report. It gives it up once it has ended, has been
// stopped for a while, or has said nothing for as long as its step may take.
// Error: errGuardLost, or the context's cause.
func (g *guard) next(ctx context.Context, patience time.Duration) (r report, err error) {
	timer, look := time.NewTimer(patience), time.NewTicker(wake)
	defer timer.Stop()
	defer look.Stop()
	late, stopped := false, 0
	for !g.lost {
		select {
		case r, ok := <-g.reports:
			if ok {
				return r, nil
			}
			g.lost = true
		case <-ctx.Done():
			return r, context.Cause(ctx)
		case <-timer.C:
			// We may have been stopped ourselves, and its report is on its way.
			g.lost = late
			late = true
			timer.Reset(grace)
		case <-look.C:
			if stopped++; !g.stopped() {
				stopped = 0
			}
			g.lost = stopped > int(grace/wake)
		}
	}
	return r, errGuardLost
}

// stopped reports whether a signal has stopped the guard.
func (g *guard) stopped() bool { return stateOf(g.cmd.Process.Pid) == 'T' }

// stateOf reads /proc/PID/stat: "PID (NAME) STATE …"; 0: there is no such process.
func stateOf(pid int) byte {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	if fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]); len(fields) > 0 {
		return fields[0][0]
	}
	return 0
}

// endFamily ends all that a guard which does not go on has started. All of it still
// descends from the guard, so this comes before that is killed.
func (g *guard) endFamily() {
	// One that only hung would go on with what is to be done in its place.
	if g.cmd.Process.Signal(unix.SIGSTOP) != nil {
		return // it has ended
	}
	for start := time.Now(); ; time.Sleep(wake) {
		left := slices.DeleteFunc(descendants(g.cmd.Process.Pid), func(pid int) bool {
			state := stateOf(pid)
			return state == 0 || state == 'Z' || state == 'X'
		})
		if g.stuck = len(left) > 0; !g.stuck || time.Since(start) > lastGrace {
			return
		}
		for _, pid := range left {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// endFreeze kills what a lost guard's freezing command still does, so that it
// does not freeze after the thaw.
func (g *guard) endFreeze() {
	if g.group == 0 {
		return
	}
	for start := time.Now(); time.Since(start) < lastGrace; time.Sleep(wake) {
		if err := unix.Kill(-g.group, unix.SIGKILL); errors.Is(err, unix.ESRCH) {
			return
		}
	}
}
