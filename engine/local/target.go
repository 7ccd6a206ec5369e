package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"backy/engine"
	"backy/store"
	"backy/store/pending"

	"golang.org/x/sys/unix"
)

// TargetOptions are the choices of a target. The zero value works.
type TargetOptions struct {
	Force bool // write to what is in use, too

	// Repository is the folder of the one that is read; no file of it is written to.
	// It may be "".
	Repository string
	Warn       engine.Warn // may be nil
}

// ErrInUse tells that a target is mounted, part of something else, or locked.
// Force overrides it.
var ErrInUse = errors.New("it is in use")

// Target is a file or a block device, by its path. Symbolic links are
// followed.
//
// A new file is made with holes, readable by its owner only, and removed if
// the restore fails. An existing file is overwritten in place and ends up with
// the level's size; once a restore has begun to write to it or to a device, its
// old content is lost, and if that restore fails, what is there is neither.
type Target struct {
	path string
	o    TargetOptions

	ctx     context.Context // Prepare's, for Zero, which can take long
	f       *os.File
	size    int64
	device  bool
	created bool

	// writing is held by who writes to a file: its kernel lets in one at a time, and
	// the others would spin instead of decoding.
	writing sync.Mutex

	readback engine.Readback

	noPunch, noZeroOut atomic.Bool // what this target was found unable to do
}

var _ engine.Target = (*Target)(nil)

// NewTarget makes a target of what the path names or will name. Nothing is
// opened or made before Prepare.
func NewTarget(path string, o TargetOptions) *Target {
	if o.Warn == nil {
		o.Warn = func(string, ...any) {}
	}
	return &Target{path: path, o: o}
}

// Prepare makes or opens the target. A file reads as zeros then. Errors:
// ErrInUse.
func (t *Target) Prepare(ctx context.Context, level store.Level) (zeroed bool, err error) {
	t.ctx, t.size = ctx, level.Size
	defer pending.Begin("open", "", t.path).End()
	info, err := os.Stat(t.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, t.create()
	case err != nil:
		return false, fmt.Errorf("open the target: %w", err)
	}
	k, err := kindOf(t.path, info)
	switch {
	case err != nil:
		return false, fmt.Errorf("open the target: %w", err)
	case k == kindPipe:
		return false, fmt.Errorf("%s is a pipe: restore to - and redirect that", t.path)
	case k == kindDevice:
		return false, t.openDevice()
	}
	return true, t.openFile()
}

// create makes a new file.
func (t *Target) create() (err error) {
	if link, err := os.Readlink(t.path); err == nil {
		return fmt.Errorf("%s is a symbolic link to %s, which does not exist: remove the link or make its target", t.path, link)
	}
	if _, err := os.Stat(filepath.Dir(t.path)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s cannot be made: the folder %s does not exist", t.path, filepath.Dir(t.path))
	}
	if t.f, err = os.OpenFile(t.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return fmt.Errorf("make the target: %w", err)
	}
	t.created = true
	if err := t.f.Truncate(t.size); err != nil {
		return errors.Join(fmt.Errorf("give the target %d bytes: %w", t.size, err), t.discard())
	}
	return nil
}

// openFile opens an existing file and empties it. Its new size comes first: if
// the file system refuses that, the content is still there.
func (t *Target) openFile() (err error) {
	if t.f, err = os.OpenFile(t.path, os.O_WRONLY, 0); err != nil {
		return fmt.Errorf("open the target: %w", err)
	}
	if err := errors.Join(t.refuseObject(), t.refuseLocked(), t.refuseAttached()); err != nil {
		return errors.Join(err, t.discard())
	}
	for _, size := range []int64{t.size, 0, t.size} {
		if err := t.f.Truncate(size); err != nil {
			return errors.Join(fmt.Errorf("give the target %d bytes: %w", t.size, err), t.discard())
		}
	}
	return nil
}

// openDevice opens a block device, for itself alone unless forced. The kernel
// refuses that for what is mounted, swapped to, part of a RAID or a volume
// group, or has such partitions.
func (t *Target) openDevice() (err error) {
	t.device = true
	t.f, err = os.OpenFile(t.path, os.O_RDWR|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		if !t.o.Force {
			return fmt.Errorf("%s is mounted, or part of something that is in use: %w", t.path, ErrInUse)
		}
		t.o.Warn("%s is in use and is overwritten all the same", t.path)
		t.f, err = os.OpenFile(t.path, os.O_RDWR, 0)
	}
	if err != nil {
		return fmt.Errorf("open the target: %w", err)
	}
	if err := t.refuseLocked(); err != nil {
		return errors.Join(err, t.discard())
	}
	// Not every kernel refuses to open a read-only device for writing.
	if readOnly, err := unix.IoctlGetInt(int(t.f.Fd()), unix.BLKROGET); err == nil && readOnly != 0 {
		return errors.Join(fmt.Errorf("%s is read-only", t.path), t.discard())
	}
	size, err := t.f.Seek(0, io.SeekEnd)
	// What is written is whole pages. Where the level ends inside of one, the rest of it
	// is written back as the page cache has it, which may be stale.
	forgetCached(t.f, 0, size)
	switch {
	case err != nil:
		return errors.Join(fmt.Errorf("measure the target: %w", err), t.discard())
	case size < t.size:
		return errors.Join(fmt.Errorf("%s is too small: it has %d bytes, the level %d", t.path, size, t.size), t.discard())
	case size > t.size:
		t.o.Warn("%s is longer than the level: its last %d bytes, from %d on, are left as they are", t.path, size-t.size, t.size)
	}
	return nil
}

// refuseLocked fails where another program has locked the target, as qemu does
// with the images of virtual machines that run.
func (t *Target) refuseLocked() error {
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	err := unix.FcntlFlock(t.f.Fd(), unix.F_OFD_GETLK, &lock)
	switch {
	case err != nil || lock.Type == unix.F_UNLCK: // not every file system has locks
		return nil
	case t.o.Force:
		t.o.Warn("%s is locked by another program and is overwritten all the same", t.path)
		return nil
	}
	return fmt.Errorf("%s is locked by another program, such as a virtual machine that runs: %w", t.path, ErrInUse)
}

// refuseAttached fails where the file is a loop device's: what is mounted from
// there would lose its ground.
func (t *Target) refuseAttached() error {
	info, err := t.f.Stat()
	if err != nil {
		return err
	}
	names, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return err
	}
	for _, name := range names {
		backing, err := os.ReadFile(name)
		if err != nil {
			continue // detached meanwhile
		}
		other, err := os.Stat(strings.TrimSuffix(string(backing), "\n"))
		if err != nil || !os.SameFile(info, other) {
			continue
		}
		loop := "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(name)))
		if !t.o.Force {
			return fmt.Errorf("%s is attached to %s: %w", t.path, loop, ErrInUse)
		}
		t.o.Warn("%s is attached to %s and is overwritten all the same", t.path, loop)
	}
	return nil
}

// WriteSize is what a processor's cache holds until the kernel has copied it.
func (t *Target) WriteSize() int64 { return 256 << 10 }

// WriteAt writes all of p inside the level's size.
func (t *Target) WriteAt(p []byte, off int64) (int, error) {
	if err := t.inside(off, int64(len(p))); err != nil {
		return 0, err
	}
	n, err := t.write(p, off)
	if err == nil {
		t.readback.Wrote(p, off)
	}
	return n, err
}

func (t *Target) write(p []byte, off int64) (int, error) {
	if !t.device {
		t.writing.Lock()
		defer t.writing.Unlock()
	}
	defer pending.Begin("write", "", t.path).End()
	return t.f.WriteAt(p, off)
}

// inside guards what lies behind the level on a longer device.
func (t *Target) inside(off, length int64) error {
	if off < 0 || length < 0 || off > t.size || length > t.size-off {
		return fmt.Errorf("%s: %d bytes at %d reach beyond the level's %d", t.path, length, off, t.size)
	}
	return nil
}

// Finish makes the target durable, a new file's name too, and makes sure that it
// has what was written. After an error the target is as Abort leaves it. Errors:
// engine.ErrOverwritten.
func (t *Target) Finish(context.Context) error {
	defer pending.Begin("sync", "", t.path).End()
	if err := t.f.Sync(); err != nil {
		return errors.Join(fmt.Errorf("make the target durable: %w", err), t.discard())
	}
	if t.created {
		if err := syncFolder(filepath.Dir(t.path)); err != nil {
			return errors.Join(fmt.Errorf("make the target durable: %w", err), t.discard())
		}
	}
	if err := t.vouch(); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", t.path, err), t.discard())
	}
	err := t.f.Close()
	t.f = nil
	if err != nil {
		return fmt.Errorf("close the target: %w", err)
	}
	return nil
}

// vouch reads a sample of what was written. A target that may be written to but
// not read is believed.
func (t *Target) vouch() error {
	ours, err := t.f.Stat()
	if err != nil {
		return err
	}
	f, err := os.Open(t.path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil
	case err != nil:
		return err
	}
	defer f.Close()
	if there, err := f.Stat(); err != nil || !os.SameFile(ours, there) {
		return errors.Join(err, errors.New("it was replaced by something else during the restore"))
	}
	if t.device {
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) // from the device itself, where that can be had
	}
	return t.readback.Check(f)
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Abort closes the target and removes the file if Prepare made it. After Finish
// it does nothing.
func (t *Target) Abort(context.Context) error { return t.discard() }

// discard closes the target and removes it if it is ours and still under its
// name.
func (t *Target) discard() error {
	if t.f == nil {
		return nil
	}
	defer pending.Begin("close", "", t.path).End()
	defer func() { t.f = nil }()
	if !t.created {
		return t.f.Close()
	}
	ours, err := t.f.Stat()
	if err == nil {
		if there, statErr := os.Lstat(t.path); statErr == nil && os.SameFile(ours, there) {
			err = os.Remove(t.path)
		}
	}
	return errors.Join(err, t.f.Close())
}
