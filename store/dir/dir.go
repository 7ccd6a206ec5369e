// Package dir keeps a repository's objects in a folder, local or on a network
// file system: one file per object, its key being its path.
//
// An object is written to a temporary file beside its place, made durable, and
// linked there, so that its name never stands for half of it and never
// replaces anything; then the folders up to the repository's are made durable.
// What a crash can leave is a temporary file, .tmp-* and random digits, which
// Sweep removes, and empty folders.
//
// Errors are *fs.PathError: the step that failed, the object's file, and the
// operating system's error. Hence a key cannot have an object both at it and
// below it; a Put of the second fails.
package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"syscall"

	"backy/store"
	"backy/store/internal/key"
)

// Dir is a backend in a folder. It is a store.Backend and a store.Syncer, and
// safe for concurrent use by many processes and hosts.
type Dir struct {
	root string
	fs   fileSystem
	shut func() error
}

// Open opens a folder, which must exist. Until Close, Dir holds it open: its
// file system cannot be unmounted, and should it be replaced, everything goes
// on in the folder that was opened.
func Open(path string) (*Dir, error) {
	fs, err := openOS(path)
	if err != nil {
		return nil, err
	}
	return &Dir{root: path, fs: fs, shut: fs.Close}, nil
}

// Create is Open for a folder that need not exist: it and the missing folders
// above it are made with mode 0700, durably.
func Create(path string) (*Dir, error) {
	if err := makeFolder(filepath.Clean(path)); err != nil {
		return nil, err
	}
	return Open(path)
}

// Close lets go of the folder. Later calls of other methods fail.
func (d *Dir) Close() error { return d.shut() }

// Get reads from an object as io.ReaderAt does.
func (d *Dir) Get(ctx context.Context, key string, p []byte, off int64) (int, error) {
	if err := d.begin(ctx, "read", key); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, d.fail("read", key, fmt.Errorf("offset %d: %w", off, fs.ErrInvalid))
	}
	if len(p) == 0 {
		return 0, d.object("read", key, d.isObject(key))
	}
	f, err := d.fs.open(key)
	if err != nil {
		return 0, d.object("open", key, err)
	}
	defer f.Close()
	n, err := f.ReadAt(p, off)
	return n, d.object("read", key, err)
}

// Delete removes an object, durably, and the folder that it leaves empty.
func (d *Dir) Delete(ctx context.Context, key string) error {
	if err := d.begin(ctx, "delete", key); err != nil {
		return err
	}
	err := d.fs.unlink(key)
	if errors.Is(err, syscall.EISDIR) && objectsOnly(key) {
		err = d.fs.rmdir(key) // only an empty one goes
	}
	err = d.object("delete", key, err)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Where it was missing, whoever removed it may not have come to the sync.
	for folder := path.Dir(key); ; folder = path.Dir(folder) {
		err := d.syncFolder(folder)
		if err == nil {
			break
		}
		if folder == "." || !errors.Is(err, fs.ErrNotExist) {
			return d.fail("sync folder of", key, err)
		}
	}
	d.prune(path.Dir(key))
	return nil
}

// Sync makes an object durable that another process may have put just now.
func (d *Dir) Sync(ctx context.Context, key string) error {
	if err := d.begin(ctx, "sync", key); err != nil {
		return err
	}
	err := d.isObject(key)
	if err == nil {
		err = d.syncObject(key)
	}
	if err != nil {
		return d.object("sync", key, err)
	}
	return d.syncFolders(key)
}

func (d *Dir) syncObject(key string) error {
	f, err := d.fs.open(key)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// isObject fails where no object is to be read.
func (d *Dir) isObject(key string) error {
	i, err := d.fs.stat(key)
	switch {
	case err != nil:
		return err
	case i.folder:
		return syscall.EISDIR
	case !i.regular:
		return store.ErrIrregular
	}
	return nil
}

// syncFolders makes the names in an object's folder durable and those in the
// folders above it. All of them, every time: any may be new, and the process
// that made it may not have come to its own sync yet. A folder that is gone
// held nothing.
func (d *Dir) syncFolders(key string) error {
	for folder := path.Dir(key); ; folder = path.Dir(folder) {
		if err := d.syncFolder(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return d.fail("sync folder of", key, err)
		}
		if folder == "." {
			return nil
		}
	}
}

func (d *Dir) syncFolder(folder string) error {
	f, err := d.fs.openFolder(folder)
	if errors.Is(err, syscall.ENOTDIR) {
		return fs.ErrNotExist // a file is in its place
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return ignoreNoSync(f.Sync())
}

// ignoreNoSync lets file systems pass that cannot sync folders: the names in
// them are as durable as they get.
func ignoreNoSync(err error) error {
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.EOPNOTSUPP) {
		return nil
	}
	return err
}

// prune removes a folder if it is empty and then those above it. The folders
// in the repository's own stay, as they would be made again all the time. It
// is tidiness only: errors do not matter, and Put knows that folders can go.
func (d *Dir) prune(folder string) {
	for path.Dir(folder) != "." && d.fs.rmdir(folder) == nil {
		folder = path.Dir(folder)
	}
}

// begin checks what every call checks.
func (d *Dir) begin(ctx context.Context, op, k string) error {
	if err := key.Check(k); err != nil {
		return &fs.PathError{Op: op, Path: d.root, Err: err}
	}
	return d.alive(ctx, op, k)
}

func (d *Dir) alive(ctx context.Context, op, key string) error {
	if ctx.Err() != nil {
		return d.fail(op, key, context.Cause(ctx))
	}
	return nil
}

// object is fail for what should be an object's file: a folder in its place,
// or a file in the place of a folder above it, means that there is none, but
// not where the repository has folders.
func (d *Dir) object(op, key string, err error) error {
	if errors.Is(err, syscall.EISDIR) && objectsOnly(key) {
		return d.fail(op, key, fmt.Errorf("%w: it is a folder", store.ErrIrregular))
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		if err := d.noFolder(op, key); err != nil {
			return err
		}
	}
	if errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ENOTDIR) {
		err = fs.ErrNotExist
	}
	return d.fail(op, key, err)
}

// fail makes an error that names the step and the object's file; nil stays
// nil, io.EOF stays bare.
func (d *Dir) fail(op, key string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if inner := (*fs.PathError)(nil); errors.As(err, &inner) {
		err = inner.Err
	}
	return &fs.PathError{Op: op, Path: filepath.Join(d.root, key), Err: err}
}
