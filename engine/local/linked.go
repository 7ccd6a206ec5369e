package local

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"backy/store"
)

// refuseObject fails where the target is an object of a repository under
// another name: a hard link of it, or the file itself through a second mount.
// Whoever writes there breaks each level that shares it. Force changes nothing.
//
// A file of one name that does not begin as an object does is none. Of the rest,
// those of several names that do are refused, of whichever repository they are,
// and the others looked for in the repository that is read.
func (t *Target) refuseObject() error {
	info, err := t.f.Stat()
	if err != nil {
		return err
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	links := ok && s.Nlink > 1
	object := t.beginsAsObject(info)
	switch {
	case !links && !object:
		return nil
	case !links || !object:
		if object, err = isIn(info, t.o.Repository); err != nil {
			return fmt.Errorf("find out whether %s is a file of the repository: %w", t.path, err)
		}
	}
	if !object {
		return nil
	}
	return fmt.Errorf("%s is a file of a repository, under another name: to write to it would destroy backups: remove that name, or restore to another file", t.path)
}

// beginsAsObject looks at the target's first bytes. What may not be read shows
// nothing.
func (t *Target) beginsAsObject(info fs.FileInfo) bool {
	f, err := os.Open(t.path)
	if err != nil {
		return false
	}
	defer f.Close()
	if same, err := f.Stat(); err != nil || !os.SameFile(same, info) {
		return false
	}
	head := make([]byte, store.HeadBytes)
	n, err := f.ReadAt(head, 0)
	return (err == nil || errors.Is(err, io.EOF)) && store.IsObject(head[:n])
}

// isIn reports whether a file is one of a repository's.
func isIn(file fs.FileInfo, repository string) (found bool, err error) {
	if repository == "" {
		return false, nil
	}
	for _, folder := range append([]string{"."}, store.Folders()...) {
		path := filepath.Join(repository, folder)
		if i, err := os.Lstat(path); folder != "." && (err != nil || i.Mode().Type() != fs.ModeSymlink) {
			continue // it is walked with the first
		}
		err := filepath.WalkDir(path+"/", func(_ string, e fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil // deleted meanwhile
			case err != nil:
				return err
			case e.IsDir() || found:
				return nil
			}
			info, err := e.Info()
			if err == nil && os.SameFile(info, file) {
				found = true
				return fs.SkipAll
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
		if err != nil || found {
			return found, err
		}
	}
	return false, nil
}
