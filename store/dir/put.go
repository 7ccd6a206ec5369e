package dir

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"syscall"

	"backy/store/internal/key"
)

// maxTries bounds how often a Put begins again because others removed its
// folder or its temporary file. Each time needs another process to do so at
// the very moment.
const maxTries = 100

// Put creates an object from the parts. A cancelled Put has created all of it
// or nothing, and left no temporary file.
func (d *Dir) Put(ctx context.Context, key string, parts ...[]byte) error {
	if err := d.begin(ctx, "put", key); err != nil {
		return err
	}
	// To refuse what exists must not take space, nor a writable file system.
	// What decides is the link.
	switch i, err := d.fs.stat(key); {
	case err == nil && i.folder && !objectsOnly(key):
		return d.fail("put", key, syscall.EISDIR)
	case err == nil:
		return d.fail("put", key, fs.ErrExist)
	case errors.Is(err, syscall.ENOTDIR):
		return cmp.Or(d.noFolder("put", key), d.fail("put", key, err))
	case !errors.Is(err, fs.ErrNotExist):
		return d.fail("put", key, err)
	}
	var err error
	for range maxTries {
		if err = d.put(ctx, key, parts); !errors.Is(err, errSwept) {
			return err
		}
	}
	return cmp.Or(d.noFolder("put", key), err)
}

func (d *Dir) put(ctx context.Context, name string, parts [][]byte) error {
	temp := path.Join(path.Dir(name), key.TempPrefix+rand.Text())
	f, err := d.create(temp)
	if err != nil {
		d.prune(path.Dir(name))
		return d.fail("create temporary file of", name, swept(err))
	}
	err = d.place(ctx, f, temp, name, parts)
	closeErr := f.Close()
	unlinkErr := d.fs.unlink(temp)
	switch {
	case err != nil:
		d.prune(path.Dir(name))
		return swept(err)
	case closeErr != nil:
		return d.fail("close", name, closeErr)
	case unlinkErr != nil && !errors.Is(unlinkErr, fs.ErrNotExist):
		return d.fail("unlink temporary file of", name, unlinkErr)
	}
	return d.syncFolders(name)
}

// swept adds errSwept to the errors that tell that another process removed the
// folder or the temporary file.
func swept(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESTALE) {
		return fmt.Errorf("%w: %w", errSwept, err)
	}
	return err
}

// create makes a temporary file, and its folder where it is missing.
func (d *Dir) create(temp string) (tempFile, error) {
	f, err := d.fs.create(temp)
	if errors.Is(err, fs.ErrNotExist) {
		if err := d.mkdir(path.Dir(temp)); err != nil {
			return nil, err
		}
		f, err = d.fs.create(temp)
	}
	if errors.Is(err, fs.ErrExist) {
		err = errSwept // one name drawn twice: it must not be taken for the object's
	}
	return f, err
}

// mkdir makes a folder and the missing ones above it.
func (d *Dir) mkdir(folder string) error {
	err := d.fs.mkdir(folder)
	if errors.Is(err, fs.ErrNotExist) && folder != "." {
		if err := d.mkdir(path.Dir(folder)); err != nil {
			return err
		}
		err = d.fs.mkdir(folder)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// place writes the temporary file and gives it the object's name, too.
func (d *Dir) place(ctx context.Context, f tempFile, temp, name string, parts [][]byte) error {
	for _, p := range parts {
		if err := d.alive(ctx, "put", name); err != nil {
			return err
		}
		if n, err := f.Write(p); err != nil {
			return d.fail("write", name, err)
		} else if n < len(p) {
			return d.fail("write", name, io.ErrShortWrite)
		}
	}
	if err := f.Sync(); err != nil {
		return d.fail("sync", name, err)
	}
	if err := f.flush(); err != nil {
		return d.fail("close", name, err)
	}
	if err := d.alive(ctx, "put", name); err != nil {
		return err
	}
	return d.fail("link", name, d.publish(temp, name))
}

// publish links the temporary file to the object's name unless that exists, or
// renames it where links are not to be had.
func (d *Dir) publish(temp, name string) error {
	linkErr := d.fs.link(temp, name)
	if !errors.Is(linkErr, errNoWay) {
		return linkErr
	}
	err := d.fs.rename(temp, name)
	if errors.Is(err, errNoWay) {
		return fmt.Errorf("the file system can neither link files (%w) nor rename them without replacing others (%w), "+
			"so it cannot hold a repository: use another one", linkErr, err)
	}
	return err
}
