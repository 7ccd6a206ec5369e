package dir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"backy/store"
	"backy/store/backendtest"
)

var (
	_ store.Backend = (*Dir)(nil)
	_ store.Syncer  = (*Dir)(nil)
)

func TestBackend(t *testing.T) {
	backendtest.Run(t, func(t *testing.T) store.Backend { return newDir(t) })
}

func newDir(t *testing.T) *Dir {
	t.Helper()
	d, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func (d *Dir) path(name string) string { return filepath.Join(d.root, name) }

func put(t *testing.T, d *Dir, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if err := d.Put(t.Context(), key, []byte(key)); err != nil {
			t.Fatal(err)
		}
	}
}

func listed(t *testing.T, d *Dir, prefix string) (keys []string, err error) {
	t.Helper()
	err = d.List(t.Context(), prefix, func(key string, _ int64) error { keys = append(keys, key); return nil })
	return keys, err
}

func TestOpenNeedsAFolder(t *testing.T) {
	root := t.TempDir()
	if _, err := Open(filepath.Join(root, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of nothing: %v", err)
	}
	file := filepath.Join(root, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "below")} {
		if _, err := Open(path); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("Open(%s): %v", path, err)
		}
		if _, err := Create(path); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("Create(%s): %v", path, err)
		}
	}
}

func TestCreate(t *testing.T) {
	root := t.TempDir()
	t.Chdir(root)
	for _, path := range []string{root, filepath.Join(root, "a/b/c"), filepath.Join(root, "a/b/c"), "d/e", "d/f/", "./g", "."} {
		d, err := Create(path)
		if err != nil {
			t.Fatal(err)
		}
		put(t, d, "k")
		if _, err := os.Stat(filepath.Join(path, "k")); err != nil {
			t.Error(err)
		}
		if err := d.Delete(t.Context(), "k"); err != nil {
			t.Error(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestModesWhateverTheUmask(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o077, 0o277, 0o777} {
		t.Run(fmt.Sprintf("%04o", umask), func(t *testing.T) {
			root := t.TempDir()
			defer syscall.Umask(syscall.Umask(umask))
			d, err := Create(filepath.Join(root, "new/repository"))
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			put(t, d, "data/run/0", "k")
			for path, want := range map[string]fs.FileMode{
				"new": 0o700, "new/repository": 0o700, "new/repository/data": 0o700, "new/repository/data/run": 0o700,
				"new/repository/data/run/0": 0o600, "new/repository/k": 0o600,
			} {
				i, err := os.Stat(filepath.Join(root, path))
				if err != nil {
					t.Fatal(err)
				}
				if i.Mode().Perm() != want {
					t.Errorf("%s: mode %04o, want %04o", path, i.Mode().Perm(), want)
				}
			}
		})
	}
}

func TestDeleteRemovesTheFoldersItEmpties(t *testing.T) {
	d := newDir(t)
	put(t, d, "data/r1/0", "data/r1/1", "data/r2/0", "a/b/c/d", "k")
	for _, step := range []struct{ key, stays, goes string }{
		{"data/r1/0", "data/r1", ""},
		{"data/r1/1", "data/r2", "data/r1"},
		{"data/r2/0", "data", "data/r2"},
		{"a/b/c/d", "a", "a/b"},
		{"k", ".", ""},
	} {
		if err := d.Delete(t.Context(), step.key); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(d.path(step.stays)); err != nil {
			t.Errorf("after %s: %v", step.key, err)
		}
		if _, err := os.Stat(d.path(step.goes)); step.goes != "" && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after %s: %s is still there: %v", step.key, step.goes, err)
		}
	}
}

func TestWhatIsNoObject(t *testing.T) {
	d := newDir(t)
	put(t, d, "data/r/0")
	for _, path := range []string{"data/.tmp-1", "data/r/.tmp-2", ".tmp-3", "data/r/.nfs00000001"} {
		if err := os.WriteFile(d.path(path), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(d.path("lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"", "data/", "data/r/", "data/.tmp-", ".", "data/r/."} {
		keys, err := listed(t, d, prefix)
		if want := strings.HasPrefix("data/r/0", prefix); err != nil || len(keys) != 0 != want || want && keys[0] != "data/r/0" {
			t.Errorf("List(%q): %q, %v", prefix, keys, err)
		}
	}
	for _, key := range []string{"data", "data/r"} {
		if err := d.Put(t.Context(), key); err == nil || errors.Is(err, fs.ErrExist) {
			t.Errorf("Put(%q) where a folder is: %v", key, err)
		}
	}
	if err := d.Put(t.Context(), "data/r/0/x"); err == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Put below an object: %v", err)
	}
}

func TestSymbolicLinks(t *testing.T) {
	d := newDir(t)
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(disk, d.path("data")); err != nil {
		t.Fatal(err)
	}
	put(t, d, "data/r/0", "k")
	if _, err := os.Stat(filepath.Join(disk, "r/0")); err != nil {
		t.Error("not where the link leads:", err)
	}
	for _, prefix := range []string{"", "d", "data/", "data/r/"} {
		if keys, err := listed(t, d, prefix); err != nil || len(keys) == 0 {
			t.Errorf("List(%q): %q, %v", prefix, keys, err)
		}
	}

	if err := os.Rename(disk, disk+".unmounted"); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"", "d", "data", "data/", "data/r", "data/r/", "data/r/0"} {
		if keys, err := listed(t, d, prefix); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the disk is gone and List(%q) says %q, %v", prefix, keys, err)
		}
	}
	if err := d.Put(t.Context(), "data/r/1"); err == nil {
		t.Error("the disk is gone and Put succeeds")
	}
}

func TestAfterClose(t *testing.T) {
	d := newDir(t)
	put(t, d, "k")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	_, getErr := d.Get(t.Context(), "k", make([]byte, 1), 0)
	_, listErr := listed(t, d, "")
	for call, err := range map[string]error{
		"Get": getErr, "List": listErr, "Put": d.Put(t.Context(), "l"), "Delete": d.Delete(t.Context(), "k"), "Sync": d.Sync(t.Context(), "k"),
	} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: %v", call, err)
		}
	}
}

func TestErrorsNameTheFile(t *testing.T) {
	d := newDir(t)
	put(t, d, "a/b")
	_, getErr := d.Get(t.Context(), "a/c", make([]byte, 1), 0)
	for _, tc := range []struct {
		err  error
		want string
	}{
		{getErr, "open " + d.path("a/c") + ": no such file or directory"},
		{d.Put(t.Context(), "a/b"), "put " + d.path("a/b") + ": file already exists"},
		{d.Put(t.Context(), "a/b/c"), "put " + d.path("a/b/c") + ": not a directory"},
		{d.Put(t.Context(), "../x"), "put " + d.root + `: key "../x": invalid argument`},
	} {
		if tc.err == nil || tc.err.Error() != tc.want {
			t.Errorf("%v, want %s", tc.err, tc.want)
		}
	}
}
