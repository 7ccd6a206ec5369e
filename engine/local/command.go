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

// grace is how long a command has to end after SIGTERM before SIGKILL, and
// what it left behind to let go of its standard error.
const grace = 2 * time.Second

// command is a running shell command, in a process group that its keeper leads.
// It may hold secrets: errors do not repeat it.
// Its first process is reaped only when the process group needs no more signals.
type command struct {
	ctx    context.Context
	cmd    *exec.Cmd
	keeper *keeper
	out    *os.File
	exited chan struct{} // closed when the first process has ended
	reaped bool
}

// startCommand runs a command with its output as the feed. The goroutine that
// waits for its end lives until the feed is stopped.
func startCommand(ctx context.Context, line string, stderr io.Writer) (*feed, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("run --from-command: %w", err)
	}
	g, err := startKeeper()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("run --from-command: %w", err), in.Close(), out.Close())
	}
	cmd := exec.Command("sh", "-c", line)
	cmd.Stdout, cmd.Stderr = in, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: g.group()}
	cmd.WaitDelay = grace
	err = cmd.Start()
	_ = in.Close() // only a write end for others to use
	if err != nil {
		g.dismiss()
		return nil, errors.Join(fmt.Errorf("run --from-command: %w", err), out.Close())
	}
	c := &command{ctx: ctx, cmd: cmd, keeper: g, out: out, exited: make(chan struct{})}
	go c.watch()
	return &feed{r: &interruptible{ctx: ctx, f: out}, ended: c.ended, stop: c.stop}, nil
}

// watch waits for the first process to end, and leaves it to be reaped.
func (c *command) watch() {
	defer close(c.exited)
	for {
		err := unix.Waitid(unix.P_PID, c.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// ended is the command's own verdict on the output that has just ended.
func (c *command) ended() error {
	select {
	case <-c.exited:
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	}
	err := c.reap()
	var status *exec.ExitError
	switch {
	case errors.As(err, &status):
		return fmt.Errorf("--from-command failed: %v", status.ProcessState)
	case err != nil:
		return fmt.Errorf("--from-command: %w", err)
	}
	return nil
}

// reap collects the first process, which has ended. That something it started
// still holds its standard error is none of our business.
func (c *command) reap() error {
	c.reaped = true
	if err := c.cmd.Wait(); !errors.Is(err, exec.ErrWaitDelay) {
		return err
	}
	return nil
}

// stop ends the process group unless the command has ended by itself.
func (c *command) stop() error {
	defer c.keeper.dismiss()
	if c.reaped {
		return c.out.Close()
	}
	deadline := time.Now().Add(grace)
	c.signal(unix.SIGTERM)
	// What the group still writes is thrown away, so that nobody in it is
	// stuck in a write; the end of it tells that all have gone.
	if err := c.out.SetReadDeadline(deadline); err == nil {
		_, _ = io.Copy(io.Discard, c.out)
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-c.exited:
	case <-timer.C:
	}
	c.signal(unix.SIGKILL)
	<-c.exited
	_ = c.reap() // how a killed command ended is of no interest
	return c.out.Close()
}

// signal reaches the whole process group; that it may have gone is no error.
func (c *command) signal(s unix.Signal) { _ = unix.Kill(-c.keeper.group(), s) }
