package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"backy/store"
	"backy/store/pending"
)

// RepositoryAt returns the repository, any, that a path leads into, or "". The
// path need not exist; links are followed as by Inside. A folder counts as a
// repository if its configuration is there, be it damaged or not.
func RepositoryAt(path string) (dir string, err error) {
	defer pending.Begin("look at", "", path).End()
	real, err := resolve(path, maxLinks)
	for at := real; err == nil; at = filepath.Dir(at) {
		_, err = os.Lstat(filepath.Join(at, store.ConfigName))
		switch {
		case err == nil:
			return at, nil
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
			err = nil
		}
		if at == "/" {
			break
		}
	}
	if err != nil {
		err = fmt.Errorf("find out whether %s lies in a repository: %w", path, err)
	}
	return "", err
}
