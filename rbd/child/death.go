package child

import (
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DeathError tells that a child process died by itself.
type DeathError struct {
	Signal syscall.Signal // 0: it exited
	Code   int            // of its exit
	Output string         // what it had printed
}

func (e *DeathError) Error() string {
	switch e.Signal {
	case 0:
		return fmt.Sprintf("librbd ended its process with exit code %d", e.Code)
	case syscall.SIGKILL:
		return "librbd crashed (SIGKILL): somebody killed its process, or the kernel did for want of memory"
	}
	return fmt.Sprintf("librbd crashed (%s)", unix.SignalName(e.Signal))
}

// SilentError tells that a child process was killed because it hung.
type SilentError struct{ For time.Duration }

func (e *SilentError) Error() string {
	return fmt.Sprintf("librbd hung: it gave no sign of life for %s, and its process was killed", e.For.Round(time.Second))
}

// UnkillableError tells that a child process does not die.
type UnkillableError struct{ Pid int }

func (e *UnkillableError) Error() string {
	return fmt.Sprintf("librbd hangs in the kernel, where its process %d cannot be killed: it was left there", e.Pid)
}
