package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Freeze is what is done before and after a snapshot, to stop what writes to an
// image: shell commands.
type Freeze struct {
	Freeze, Thaw string
	Limit        time.Duration // for both commands, each, and for the time in between
	Stderr       io.Writer     // of both commands, and their stdout; nil: none
}

// ErrThaw tells that thawing failed: something may be frozen still.
var ErrThaw = errors.New("it may be frozen still")

// Around runs the freezing command, take, and the thawing command, the latter
// whatever becomes of the others: also where freezing failed half-way, the
// context or the limit ended, or this process was killed. For that, a process
// that waits for our end is started before anything is frozen; it thaws.
//
// env are variables for the commands, KEY=VALUE. Where anything fails, the error
// says so, even if take succeeded.
func (f Freeze) Around(ctx context.Context, env []string, take func(context.Context) error) error {
	guard, err := f.guard(env)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeoutCause(ctx, f.Limit, fmt.Errorf("%q did not end within %s", f.Freeze, f.Limit))
	err = f.freeze(limited, env)
	cancel()
	if err == nil {
		limited, cancel := context.WithTimeoutCause(ctx, f.Limit, fmt.Errorf("the snapshot was not made within %s of freezing", f.Limit))
		err = take(limited)
		cancel()
	}
	return errors.Join(err, guard.thaw(f.Limit))
}

func (f Freeze) command(line string, env []string) *exec.Cmd {
	cmd := exec.Command("sh", "-c", line)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = f.Stderr, f.Stderr
	// Of its own group: what ends us by the keyboard does not end it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = grace
	return cmd
}

// freeze runs the freezing command until ctx ends.
func (f Freeze) freeze(ctx context.Context, env []string) error {
	cmd := f.command(f.Freeze, env)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("freeze: run %q: %w", f.Freeze, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- waited(cmd) }()
	select {
	case err := <-ended:
		if err != nil {
			return fmt.Errorf("freeze: the command %q failed: %w", f.Freeze, err)
		}
		return nil
	case <-ctx.Done():
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		<-ended
		return fmt.Errorf("freeze: %w", context.Cause(ctx))
	}
}

// waited waits for a command. That something it started still holds its output
// is none of our business.
func waited(cmd *exec.Cmd) error {
	err := cmd.Wait()
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	return err
}

// guard is a process that thaws as soon as its standard input ends: when we say
// so, or have died.
type guard struct {
	line  string
	cmd   *exec.Cmd
	hold  io.Closer
	ended chan error
}

// guardScript gets the thawing command as $1. Signals that go to everything in
// a service's group at once make it thaw, not die.
const guardScript = `trap : HUP INT TERM
cat >/dev/null
exec sh -c "$1" </dev/null`

func (f Freeze) guard(env []string) (*guard, error) {
	cmd := f.command(guardScript, env)
	cmd.Args = append(cmd.Args, "thaw", f.Thaw)
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("thaw: prepare to run %q: %w", f.Thaw, err)
	}
	g := &guard{line: f.Thaw, cmd: cmd, hold: in, ended: make(chan error, 1)}
	go func() { g.ended <- waited(cmd) }()
	return g, nil
}

// thaw lets the guard thaw and waits for it.
func (g *guard) thaw(limit time.Duration) error {
	early := false
	select {
	case err := <-g.ended:
		early = true
		g.ended <- err
	default:
	}
	_ = g.hold.Close() // ends the guard's wait; if it has ended, nothing waits
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-g.ended:
		switch {
		case err != nil:
			return fmt.Errorf("thaw: %w: the command %q failed: %w", ErrThaw, g.line, err)
		case early:
			return errors.New("thaw: a signal made it come too early: the snapshot does not count")
		}
		return nil
	case <-timer.C:
		_ = unix.Kill(-g.cmd.Process.Pid, unix.SIGKILL)
		<-g.ended
		return fmt.Errorf("thaw: %w: the command %q did not end within %s", ErrThaw, g.line, limit)
	}
}
