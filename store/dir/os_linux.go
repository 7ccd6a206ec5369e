package dir

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func renameNoReplace(root int, from, to string) error {
	return unix.Renameat2(root, from, root, to, unix.RENAME_NOREPLACE)
}

// tryLock locks a file for as long as it is open. The lock is one of the open
// file description (fcntl_locking(2)), since these are what an NFS server
// keeps for its clients too: a sweep on the server sees their writers, which
// it would not with flock.
func tryLock(f *os.File) error {
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: %w", errBusy, err)
	}
	return err
}
