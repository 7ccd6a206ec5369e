//go:build unix && !linux

package dir

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func renameNoReplace(root int, from, to string) error { return unix.ENOSYS }

// tryLock locks a file for as long as it is open.
func tryLock(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%w: %w", errBusy, err)
	}
	return err
}
