package local

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// wake is how often a read that waits for input looks whether it is still
// wanted.
const wake = 100 * time.Millisecond

// interruptible reads a file that may have to wait for its input, until ctx
// ends. It leaves the file's mode as it is: a standard input may be shared with
// other processes.
type interruptible struct {
	ctx context.Context
	f   *os.File

	// fifo: the file was opened without waiting. Until its first writer comes,
	// reading it gives an end of file, which is none.
	fifo bool

	ready bool // the next read will not wait, or says so
}

func (r *interruptible) Read(p []byte) (n int, err error) {
	conn, err := r.f.SyscallConn()
	if err != nil {
		return 0, err
	}
	for {
		if err := context.Cause(r.ctx); err != nil {
			return 0, err
		}
		var readErr error
		if err := conn.Control(func(fd uintptr) { n, readErr = r.try(int(fd), p) }); err != nil {
			return 0, err
		}
		switch {
		case errors.Is(readErr, unix.EAGAIN), errors.Is(readErr, unix.EINTR):
			continue
		case readErr != nil:
			return 0, &os.PathError{Op: "read", Path: r.f.Name(), Err: readErr}
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// try waits a little for input and reads it; EAGAIN while there is none.
func (r *interruptible) try(fd int, p []byte) (int, error) {
	if !r.ready {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		switch n, err := unix.Poll(fds, int(wake.Milliseconds())); {
		case err != nil:
			return 0, err
		case n == 0:
			return 0, unix.EAGAIN
		}
	}
	n, err := unix.Read(fd, p)
	r.ready = r.fifo && err == nil
	return max(n, 0), err
}
