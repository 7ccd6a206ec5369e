package store

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// The cache folder is this machine's, and anything may come to stand in it. Only
// regular files are used; whoever opens something else might wait for ever, or do
// what a device does. It is removed: nothing there is worth keeping.

var errNoCache = errors.New("not a regular file")

// openCache opens a file of the cache, and makes it if flags say so.
func openCache(path string, flags int) (*os.File, error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(path, flags|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(errNoCache, err, f.Close())
	}
	return f, nil
}

// readCache reads a file of the cache.
func readCache(path string) ([]byte, error) {
	f, err := openCache(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// cacheFolder makes a folder of the cache. A link in its place is refused: what is
// tidied away behind it may be anybody's.
func cacheFolder(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if err == nil && !info.IsDir() {
		err = errNoCache
	}
	return err
}
