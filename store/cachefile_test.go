package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Whatever stands in the cache folder in place of a file or a folder: backups and
// gcs neither wait nor fail, nothing behind a link is touched, and what can be
// replaced is.
func TestIrregularCache(t *testing.T) {
	foreign := filepath.Join(t.TempDir(), "foreign")
	fill := func(path string) error {
		return errors.Join(os.Mkdir(path, 0o700), os.WriteFile(path+"/file", nil, 0o600))
	}
	if err := fill(foreign); err != nil {
		t.Fatal(err)
	}
	for name, put := range map[string]func(path string) error{
		"pipe":           func(path string) error { return unix.Mkfifo(path, 0o600) },
		"socket":         func(path string) error { return unix.Mknod(path, unix.S_IFSOCK|0o600, 0) },
		"lost link":      func(path string) error { return os.Symlink("/nowhere/at/all", path) },
		"link to folder": func(path string) error { return os.Symlink(foreign, path) },
		"link to file":   func(path string) error { return os.Symlink(foreign+"/file", path) },
		"folder":         func(path string) error { return os.Mkdir(path, 0o700) },
		"full folder":    fill,
	} {
		t.Run(name, func(t *testing.T) {
			cache := t.TempDir()
			x, n := newHalting(t), byte(0)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			round := func() {
				t.Helper()
				done := make(chan error, 1)
				go func() {
					defer close(done)
					n++
					h, _, r := x.host(int(n))
					r.cache, r.index = cache, openIndex(cache, r.ID)
					x.write(h, r, "a", n)
					_, err := r.GC(ctx, GCOptions{})
					done <- errors.Join(err, r.Close())
				}()
				select {
				case err := <-done:
					if err != nil {
						t.Fatal(err)
					}
				case <-ctx.Done():
					t.Fatal("it waits")
				}
			}
			round()
			var files []string
			_ = filepath.WalkDir(cache, func(path string, e fs.DirEntry, err error) error {
				if err == nil && e.Type().IsRegular() {
					files = append(files, path)
				}
				return err
			})
			if len(files) < 2 {
				t.Fatalf("in the cache: %q", files)
			}
			for _, path := range files {
				if err := errors.Join(os.Remove(path), put(path)); err != nil {
					t.Fatal(err)
				}
			}
			round()
			for _, path := range files {
				if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() && name != "full folder" {
					t.Errorf("%s is still %s", path, info.Mode())
				}
			}
			for _, folder := range []string{filepath.Dir(files[1]), filepath.Dir(files[0])} {
				if err := errors.Join(os.RemoveAll(folder), os.MkdirAll(filepath.Dir(folder), 0o700), put(folder)); err != nil {
					t.Fatal(err)
				}
				round()
			}
		})
	}
	if _, err := os.Stat(foreign + "/file"); err != nil {
		t.Errorf("behind a link: %v", err)
	}
}
