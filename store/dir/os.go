package dir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"backy/store"
	"backy/store/pending"

	"golang.org/x/sys/unix"
)

// osFS is the operating system's file system below a folder. Paths are
// resolved from the open folder, not by its name: whoever unmounts a file
// system while a backup goes on must not send the rest of it to the mount
// point below.
type osFS struct {
	root *os.File
	conn syscall.RawConn
}

func openOS(path string) (*osFS, error) {
	defer pending.Begin("open", "", path).End()
	root, err := os.OpenFile(path, unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	conn, err := root.SyscallConn()
	if err != nil {
		root.Close()
		return nil, err
	}
	return &osFS{root: root, conn: conn}, nil
}

func (o *osFS) Close() error { return o.root.Close() }

// at calls f with the descriptor of the repository's folder, again where a
// signal came between. What it does to a path is noted while it lasts.
func (o *osFS) at(op, path string, f func(root int) error) error {
	defer pending.Begin(op, o.root.Name(), path).End()
	var err error
	controlErr := o.conn.Control(func(fd uintptr) {
		for {
			if err = f(int(fd)); err != unix.EINTR {
				return
			}
		}
	})
	if controlErr != nil {
		return fs.ErrClosed
	}
	return err
}

func (o *osFS) openat(path string, flags int, mode uint32) (*os.File, error) {
	fd := -1
	err := o.at("open", path, func(root int) (err error) {
		fd, err = unix.Openat(root, path, flags|unix.O_CLOEXEC, mode)
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), filepath.Join(o.root.Name(), path)), nil
}

func (o *osFS) create(path string) (tempFile, error) {
	f, err := o.openat(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := own(f); err != nil {
		f.Close()
		if !errors.Is(err, errSwept) {
			o.unlink(path)
		}
		return nil, err
	}
	return osTemp{osFile{f}}, nil
}

// own locks a new file. A sweep may have come between its creation and the
// lock; then the file is lost. Where locks are not to be had, the file's age
// alone keeps a sweep away.
func own(f *os.File) error {
	if err := tryLock(f); errors.Is(err, errBusy) {
		return errSwept
	}
	var s unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &s); err != nil {
		return err
	}
	if s.Nlink == 0 {
		return errSwept
	}
	if s.Mode&0o777 == 0o600 {
		return nil
	}
	return ignoreNoModes(f.Chmod(0o600))
}

// ignoreNoModes lets file systems pass that have no modes of their own, such
// as vfat: their mount options say who may read.
func ignoreNoModes(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

func (o *osFS) open(path string) (openFile, error) {
	fd := -1
	err := o.at("open", path, func(root int) (err error) {
		const flags = unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NOCTTY
		fd, err = unix.Openat(root, path, flags|unix.O_NONBLOCK, 0)
		if err == unix.EAGAIN && o.isRegular(root, path) {
			// Another program has a lease on it, as a file server takes. To wait for
			// that is right.
			fd, err = unix.Openat(root, path, flags, 0)
		}
		return err
	})
	switch {
	case errors.Is(err, unix.ELOOP):
		return nil, fmt.Errorf("%w: it is a symbolic link", store.ErrIrregular)
	case errors.Is(err, unix.ENXIO): // a socket, or a device that is not there
		return nil, store.ErrIrregular
	case err != nil:
		return nil, err
	}
	if err := onlyRegular(fd); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return osFile{os.NewFile(uintptr(fd), filepath.Join(o.root.Name(), path))}, nil
}

func (o *osFS) isRegular(root int, path string) bool {
	var s unix.Stat_t
	return unix.Fstatat(root, path, &s, unix.AT_SYMLINK_NOFOLLOW) == nil && s.Mode&unix.S_IFMT == unix.S_IFREG
}

// onlyRegular refuses what is no regular file, and has the rest read as one.
func onlyRegular(fd int) error {
	var s unix.Stat_t
	if err := unix.Fstat(fd, &s); err != nil {
		return err
	}
	switch s.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, 0)
		return err
	case unix.S_IFDIR:
		return unix.EISDIR
	}
	return store.ErrIrregular
}

func (o *osFS) openFolder(path string) (openFile, error) {
	f, err := o.openat(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (o *osFS) link(from, to string) error {
	err := o.at("link", from, func(root int) error { return unix.Linkat(root, from, root, to, 0) })
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: %w", errNoWay, err)
	}
	return err
}

func (o *osFS) rename(from, to string) error {
	err := o.at("rename", from, func(root int) error { return renameNoReplace(root, from, to) })
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: %w", errNoWay, err)
	}
	return err
}

func (o *osFS) unlink(path string) error {
	return o.at("delete", path, func(root int) error { return unix.Unlinkat(root, path, 0) })
}

func (o *osFS) rmdir(path string) error {
	return o.at("delete", path, func(root int) error { return unix.Unlinkat(root, path, unix.AT_REMOVEDIR) })
}

func (o *osFS) mkdir(path string) error {
	return o.at("make", path, func(root int) error {
		if err := unix.Mkdirat(root, path, 0o700); err != nil {
			return err
		}
		var s unix.Stat_t
		if err := unix.Fstatat(root, path, &s, unix.AT_SYMLINK_NOFOLLOW); err == nil && s.Mode&0o777 == 0o700 {
			return nil
		}
		err := unix.Fchmodat(root, path, 0o700, 0)
		if errors.Is(err, unix.ENOENT) {
			return nil // removed again: whoever needs it makes it anew
		}
		return ignoreNoModes(err)
	})
}

func (o *osFS) stat(path string) (info, error) {
	var s unix.Stat_t
	err := o.at("look at", path, func(root int) error { return unix.Fstatat(root, path, &s, unix.AT_SYMLINK_NOFOLLOW) })
	if err == nil && s.Mode&unix.S_IFMT == unix.S_IFLNK {
		err = o.at("look at", path, func(root int) error { return unix.Fstatat(root, path, &s, 0) })
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) {
			return info{lost: true}, nil
		}
		return info{folder: err == nil && s.Mode&unix.S_IFMT == unix.S_IFDIR}, err
	}
	if err != nil {
		return info{}, err
	}
	return info{
		folder:  s.Mode&unix.S_IFMT == unix.S_IFDIR,
		regular: s.Mode&unix.S_IFMT == unix.S_IFREG,
		size:    s.Size,
		changed: time.Unix(s.Mtim.Unix()),
	}, nil
}

func (o *osFS) lock(path string) (io.Closer, error) {
	f, err := o.openat(path, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := tryLock(f); errors.Is(err, errBusy) {
		f.Close()
		return nil, err
	}
	return f, nil
}

// osFile is an open file or folder. What is done to it is noted while it lasts.
type osFile struct{ *os.File }

func (f osFile) ReadAt(p []byte, off int64) (int, error) {
	defer pending.Begin("read", "", f.Name()).End()
	return f.File.ReadAt(p, off)
}

func (f osFile) Readdirnames(n int) ([]string, error) {
	defer pending.Begin("list", "", f.Name()).End()
	return f.File.Readdirnames(n)
}

func (f osFile) Write(p []byte) (int, error) {
	defer pending.Begin("write", "", f.Name()).End()
	return f.File.Write(p)
}

func (f osFile) Sync() error {
	defer pending.Begin("sync", "", f.Name()).End()
	return f.File.Sync()
}

func (f osFile) Close() error {
	defer pending.Begin("close", "", f.Name()).End()
	return f.File.Close()
}

// osTemp is a file that is being written.
type osTemp struct{ osFile }

// flush closes a duplicate of the descriptor: this flushes as every close
// does, and the lock stays with the other one.
func (f osTemp) flush() error {
	defer pending.Begin("close", "", f.Name()).End()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return os.NewFile(uintptr(fd), f.Name()).Close()
}

// makeFolder makes a folder and the missing ones above it, durably.
func makeFolder(path string) error {
	defer pending.Begin("make", "", path).End()
	err := os.Mkdir(path, 0o700)
	parent := filepath.Dir(path)
	if errors.Is(err, fs.ErrNotExist) && parent != path {
		if err := makeFolder(parent); err != nil {
			return err
		}
		err = os.Mkdir(path, 0o700)
	}
	if errors.Is(err, fs.ErrExist) {
		// Another process may have made it just now and not yet have synced it.
		// Where we may not read the parent, it was not made by one of us.
		_ = syncPath(parent)
		return nil
	}
	if err != nil {
		return err
	}
	if i, err := os.Stat(path); err != nil || i.Mode().Perm() != 0o700 {
		if err := ignoreNoModes(os.Chmod(path, 0o700)); err != nil {
			return err
		}
	}
	return syncPath(parent)
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return ignoreNoSync(f.Sync())
}
