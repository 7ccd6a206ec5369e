package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// A guard's orders come on its standard input: a line of JSON that says what it
// is for, and later the line that lets it thaw. If the input ends without that
// line, we have died. What it did it reports on its standard output, a line of
// JSON each. The commands' own output goes to its standard error.

// order is the first line.
type order struct {
	Freeze string        `json:"freeze"` // "": thaw at once
	Thaw   string        `json:"thaw"`
	Limit  time.Duration `json:"limit"`
}

// orderThaw is the second line.
const orderThaw = "thaw"

// step is how far a guard is.
type step string

const (
	stepFreezing step = "freezing" // the command runs
	stepFrozen   step = "frozen"   // it has ended, well unless there is an error
	stepThawed   step = "thawed"   // so has the other; the last report
)

// report is a guard's word on a step.
type report struct {
	Step  step   `json:"step"`
	Group int    `json:"group,omitempty"` // process group of the freezing command, as it begins
	Error string `json:"error,omitempty"` // of the command

	// Early says why it thawed without having been told to.
	Early string `json:"early,omitempty"`
	// Stuck says that something of the freezing command cannot be killed.
	Stuck bool `json:"stuck,omitempty"`
}

// err is what the last report means: nil if all was as it should be.
func (r *report) err() error {
	switch {
	case r.Error != "":
		return fmt.Errorf("thaw: %w: %s", ErrThaw, r.Error)
	case r.Stuck:
		return fmt.Errorf("thaw: %w: something that --freeze started cannot be killed, and may freeze again; --thaw runs again when it ends", ErrThaw)
	case r.Early != "":
		return fmt.Errorf("thaw: %s: the snapshot does not count", r.Early)
	}
	return nil
}

// guard is a running Guard, as we see it.
type guard struct {
	cmd     *exec.Cmd
	hold    io.WriteCloser
	reports <-chan report // closed at its end
	exited  <-chan struct{}

	group int     // process group of the freezing command while that runs
	last  *report // that it has thawed, once it has
	lost  bool    // it has ended, or does not go on, without having said so
	stuck bool    // and something that it started cannot be killed
}

// startGuard starts this very program as a guard. It is in a session of its own, so
// that what ends us by the keyboard or by our process group does not end it.
func startGuard(env []string, stderr io.Writer) (*guard, error) {
	cmd := exec.Command("/proc/self/exe", GuardVerb)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if stderr != nil {
		cmd.Stderr = struct{ io.Writer }{stderr} // never a file, whose mode the guard would change
	}
	cmd.WaitDelay = grace
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the process that freezes and thaws: %w", err)
	}
	const most = 4 // reports that a guard makes
	reports, exited := make(chan report, most), make(chan struct{})
	go func() {
		defer close(exited)
		for lines := json.NewDecoder(out); ; {
			var r report
			if lines.Decode(&r) != nil {
				break
			}
			reports <- r
		}
		close(reports)
		_ = cmd.Wait() // what it did, it has reported
	}()
	return &guard{cmd: cmd, hold: in, reports: reports, exited: exited}, nil
}

// send gives the first order. One that is lost says nothing, which thaw finds.
func (g *guard) send(o order) {
	if err := json.NewEncoder(g.hold).Encode(o); err != nil && !errors.Is(err, syscall.EPIPE) {
		_ = g.cmd.Process.Kill()
	}
}

// leave lets go of the guard: it has thawed, or is lost. One that waits for what
// it cannot kill is left to that.
func (g *guard) leave() {
	_ = g.hold.Close()
	if g.last == nil {
		_ = g.cmd.Process.Kill() // of no effect on one that has ended
		<-g.exited
		return
	}
	if g.last.Stuck {
		return
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select { // for the rest of the commands' output
	case <-g.exited:
	case <-timer.C:
	}
}
