package local

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// GuardVerb is the only argument of a program that is to call Guard and nothing
// else.
const GuardVerb = "freeze-guard"

// Guard freezes and thaws in a process of its own, and returns its exit status.
//
// It does both, one after the other: freezing is its child, and all that this
// started is ended and waited for before it thaws, so that nothing freezes after
// the thaw. It thaws when it is told to, when whoever started it has died, and
// when twice the limit has gone by since it began to freeze, as when that one is
// stopped. Signals that can be caught do not end it. One that ended the thawing
// command makes it thaw again: systemd, for one, sends SIGTERM to all processes
// of a service at once.
func Guard() int {
	// None of these ends it; for the commands they are as they were.
	ends, others := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(ends, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT)
	signal.Notify(others, unix.SIGPIPE, unix.SIGALRM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU)
	orders := bufio.NewReader(os.Stdin)
	line, err := orders.ReadBytes('\n')
	if err != nil {
		return 0 // nothing is frozen
	}
	var o order
	if err := json.Unmarshal(line, &o); err != nil {
		fmt.Fprintln(os.Stderr, "backy: "+GuardVerb+": this is for backy itself")
		return 2
	}
	told := make(chan bool, 1)
	go func() { told <- isThaw(orders) }()
	out, err := newOutlet(os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "backy:", err)
		return 1
	}
	s := &sentry{order: o, told: told, ends: ends, out: out}
	s.run()
	return 0
}

// isThaw waits for the next order, and reports whether it is to thaw; otherwise
// the one who gives orders is dead.
func isThaw(orders *bufio.Reader) bool {
	line, err := orders.ReadString('\n')
	return err == nil && strings.TrimSuffix(line, "\n") == orderThaw
}

// sentry is a guard as it sees itself.
type sentry struct {
	order  order
	told   <-chan bool
	ends   <-chan os.Signal // that would have ended it
	out    *outlet
	family family
}

func (s *sentry) run() {
	early, stuck := "", false
	if s.order.Freeze != "" {
		early = s.freeze()
		stuck = !s.family.end()
	}
	err := s.thaw()
	s.out.flush()
	r := report{Step: stepThawed, Early: early, Stuck: stuck}
	if err != nil {
		r.Error = err.Error()
	}
	s.report(r)
	if stuck {
		<-s.family.gone()
		_ = s.thaw() // nobody listens
	}
}

// freeze freezes and returns when it is time to thaw; why, if it was not told to.
func (s *sentry) freeze() (early string) {
	limit, late := time.NewTimer(s.order.Limit), time.NewTimer(2*s.order.Limit)
	defer limit.Stop()
	defer late.Stop()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		s.report(report{Step: stepFrozen, Error: fmt.Sprintf("become the parent of orphans: %v", err)})
		return ""
	}
	pid, err := s.family.start(s.command(s.order.Freeze))
	if err != nil {
		s.report(report{Step: stepFrozen, Error: fmt.Sprintf("run --freeze: %v", err)})
		return ""
	}
	s.report(report{Step: stepFreezing, Group: pid})
	select {
	case status := <-s.family.ended(pid):
		s.report(report{Step: stepFrozen, Error: failure("--freeze", status)})
		if !status.Exited() || status.ExitStatus() != 0 {
			return ""
		}
	case <-limit.C:
		s.report(report{Step: stepFrozen, Error: fmt.Sprintf("--freeze did not end within %s", s.order.Limit)})
		return ""
	case told := <-s.told:
		return hungUp(told)
	}
	select {
	case told := <-s.told:
		return hungUp(told)
	case <-late.C:
		return fmt.Sprintf("it came by itself, since nobody had asked for it within %s (twice --freeze-limit) of freezing", 2*s.order.Limit)
	}
}

func hungUp(told bool) (early string) {
	if told {
		return ""
	}
	return "backy was killed"
}

// thaw runs the thawing command, a few times if it fails or a signal of somebody's
// ends it, all within the limit.
func (s *sentry) thaw() error {
	deadline := time.NewTimer(s.order.Limit)
	defer deadline.Stop()
	const tries = 5
	for try := 1; ; try++ {
		s.signaled() // earlier ones are of no interest
		pid, err := s.family.start(s.command(s.order.Thaw))
		if err != nil {
			return fmt.Errorf("run --thaw: %w", err)
		}
		select {
		case status := <-s.family.ended(pid):
			text := failure("--thaw", status)
			if text == "" {
				return nil
			}
			if try == tries {
				return fmt.Errorf("%s, %d times", text, tries)
			}
			// A command such as ssh exits with a status of its own at a signal.
			if status.Signaled() || s.signaled() {
				continue
			}
			select {
			case <-time.After(min(time.Second, s.order.Limit/(2*tries))):
			case <-deadline.C:
				return fmt.Errorf("%s", text)
			}
		case <-deadline.C:
			_ = unix.Kill(-pid, unix.SIGKILL)
			return fmt.Errorf("--thaw did not end within %s", s.order.Limit)
		}
	}
}

// signaled reports whether a signal that ends processes came since it was last
// asked.
func (s *sentry) signaled() bool {
	select {
	case <-s.ends:
		return true
	default:
		return false
	}
}

// command is a shell command in a process group of its own.
func (s *sentry) command(line string) *exec.Cmd {
	cmd := exec.Command("sh", "-c", line)
	if s.out.in != nil {
		cmd.Stdout, cmd.Stderr = s.out.in, s.out.in
	}
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	return cmd
}

// report tells whoever started the guard, if it is still there.
func (s *sentry) report(r report) {
	if line, err := json.Marshal(r); err == nil {
		_, _ = os.Stdout.Write(append(line, '\n'))
	}
}

// failure says how a command failed; "" if it did not.
func failure(flag string, status unix.WaitStatus) string {
	switch {
	case status.Signaled():
		return fmt.Sprintf("%s was ended by a signal: %v", flag, status.Signal())
	case status.ExitStatus() != 0:
		return fmt.Sprintf("%s failed: exit status %d", flag, status.ExitStatus())
	}
	return ""
}

// outlet passes on what the commands print. They never wait for a reader that is
// stopped, nor die because it is gone: then the rest is dropped.
type outlet struct {
	in   *os.File // for the commands
	r    *os.File
	to   *os.File
	done chan struct{}
}

// outputGrace is how long a reader may take, and how long output that something in the
// background holds open is waited for.
const outputGrace = time.Second

func newOutlet(to *os.File) (*outlet, error) {
	r, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	// A file that is known not to wait takes deadlines.
	if err := unix.SetNonblock(int(to.Fd()), true); err != nil {
		return nil, err
	}
	o := &outlet{in: in, r: r, to: os.NewFile(to.Fd(), to.Name()), done: make(chan struct{})}
	go o.pump()
	return o, nil
}

func (o *outlet) pump() {
	defer close(o.done)
	p := make([]byte, 32<<10)
	for heard := true; ; {
		n, err := o.r.Read(p)
		if heard && n > 0 {
			_ = o.to.SetWriteDeadline(time.Now().Add(outputGrace))
			_, writeErr := o.to.Write(p[:n])
			heard = writeErr == nil
		}
		if err != nil {
			return
		}
	}
}

// flush passes on what is there after the last command.
func (o *outlet) flush() {
	_ = o.r.SetReadDeadline(time.Now().Add(outputGrace))
	_ = o.in.Close()
	o.in = nil
	<-o.done
}
