package dir

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"

	"backy/store/internal/key"
)

// listBatch is how many names are read from a folder at a time.
const listBatch = 1024

// List calls fn for every object whose key begins with the prefix. It looks
// only into the folders where such objects can be.
func (d *Dir) List(ctx context.Context, prefix string, fn func(key string, size int64) error) error {
	folder, ok := strings.CutSuffix(prefix[:strings.LastIndexByte(prefix, '/')+1], "/")
	if !ok {
		folder = "."
	} else if key.Check(folder) != nil {
		return d.alive(ctx, "list", ".") // no key begins like this
	}
	err := d.walk(ctx, folder, prefix, func(name string, i info) error {
		if key.Reserved(path.Base(name)) {
			return nil
		}
		return fn(name, i.size)
	})
	if errors.Is(err, errNotThere) {
		return d.fail("list", folder, d.reachable(folder))
	}
	return err
}

// errNotThere tells that the folder where a walk was to begin does not exist.
var errNotThere = errors.New("no such folder")

// walk calls fn for everything below a folder that is no folder and whose path
// begins with the prefix, temporary files too. What vanishes meanwhile is left
// out.
func (d *Dir) walk(ctx context.Context, folder, prefix string, fn func(name string, i info) error) error {
	f, err := d.fs.openFolder(folder)
	if err != nil {
		if err = d.object("open", folder, err); errors.Is(err, fs.ErrNotExist) {
			return errNotThere
		}
		return err
	}
	defer f.Close()
	for {
		if err := d.alive(ctx, "list", folder); err != nil {
			return err
		}
		names, err := f.Readdirnames(listBatch)
		for _, name := range names {
			name = path.Join(folder, name)
			if err := d.visit(ctx, name, prefix, fn); err != nil && err != errNotThere {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err = d.object("list", folder, err); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return errNotThere
			}
			return err
		}
	}
}

func (d *Dir) visit(ctx context.Context, name, prefix string, fn func(name string, i info) error) error {
	if !strings.HasPrefix(name, prefix) {
		return nil
	}
	i, err := d.fs.stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return d.fail("stat", name, err)
	case i.lost && !objectsOnly(name):
		return d.fail("list", name, errLost) // it may stand for a folder of objects
	case i.folder && !objectsOnly(name):
		return d.walk(ctx, name, prefix, fn)
	case !i.folder && foldersOnly(name):
		if i.regular && mayBeNote(name) && !strings.HasPrefix(prefix, name) {
			return nil
		}
		return d.fail("list", name, errNoFolder)
	}
	return fn(name, i)
}

// errLost tells a symbolic link that leads nowhere: an unmounted disk must not
// look like an empty repository.
var errLost = errors.New("symbolic link to what does not exist (not mounted?)")

// reachable tells apart a folder that does not exist, which is nil, from one
// behind a symbolic link that leads nowhere.
func (d *Dir) reachable(folder string) error {
	for folder != "." {
		i, err := d.fs.stat(folder)
		if i.lost {
			return errLost
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		folder = path.Dir(folder)
	}
	return nil
}
