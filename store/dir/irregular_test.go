package dir

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"backy/store"

	"golang.org/x/sys/unix"
)

// irregular are the things that can stand in an object's place.
var irregular = map[string]func(path string) error{
	"pipe":   func(path string) error { return unix.Mkfifo(path, 0o600) },
	"socket": func(path string) error { return unix.Mknod(path, unix.S_IFSOCK|0o600, 0) },
	"link":   func(path string) error { return os.Symlink("/etc/hostname", path) },
	"link to one": func(path string) error {
		return errors.Join(unix.Mkfifo(path+".pipe", 0o600), os.Symlink(path+".pipe", path))
	},
	"folder":     func(path string) error { return os.Mkdir(path, 0o700) },
	"lost link":  func(path string) error { return os.Symlink("/nowhere/at/all", path) },
	"link to it": func(path string) error { return os.Symlink(path, path) },
}

// What is no regular file is no object, and says so at once: nobody waits for a
// pipe's writer.
func TestIrregular(t *testing.T) {
	for name, make := range irregular {
		t.Run(name, func(t *testing.T) {
			d := newDir(t)
			put(t, d, "data/r/1")
			if err := make(d.path("data/r/0")); err != nil {
				t.Fatal(err)
			}
			checkIrregular(t, d)
		})
	}
	if os.Geteuid() != 0 {
		return // devices are root's to make
	}
	t.Run("device", func(t *testing.T) {
		d := newDir(t)
		put(t, d, "data/r/1")
		if err := unix.Mknod(d.path("data/r/0"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))); err != nil {
			t.Fatal(err)
		}
		checkIrregular(t, d)
	})
}

func checkIrregular(t *testing.T, d *Dir) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		const key = "data/r/0"
		_, readErr := d.Get(ctx, key, make([]byte, 10), 0)
		_, lookErr := d.Get(ctx, key, nil, 0)
		_, bulkErr := d.OpenBulk(ctx, key)
		for call, err := range map[string]error{"Get": readErr, "Get of nothing": lookErr, "OpenBulk": bulkErr, "Sync": d.Sync(ctx, key)} {
			if !errors.Is(err, store.ErrIrregular) {
				t.Errorf("%s: %v", call, err)
			}
		}
		if err := d.Put(ctx, key, []byte("new")); !errors.Is(err, fs.ErrExist) {
			t.Errorf("Put: %v", err)
		}
		keys, err := listed(t, d, "data/")
		if err != nil || !slices.Contains(keys, key) || !slices.Contains(keys, "data/r/1") {
			t.Errorf("List: %q, %v", keys, err)
		}
		if _, err := d.Sweep(ctx, time.Nanosecond); err != nil {
			t.Errorf("Sweep: %v", err)
		}
		if err := d.Delete(ctx, key); err != nil {
			t.Errorf("Delete: %v", err)
		}
		if err := d.Put(ctx, key, []byte("new")); err != nil {
			t.Errorf("Put after Delete: %v", err)
		}
	}()
	select {
	case <-done:
	case <-ctx.Done():
		t.Fatal("it waits")
	}
}

// A file that another program has a lease on, as a file server takes, is an
// object like any other.
func TestLeased(t *testing.T) {
	d := newDir(t)
	if err := d.Put(t.Context(), "data/r/0", []byte("good")); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(d.path("data/r/0"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	time.AfterFunc(300*time.Millisecond, func() {
		defer close(ended)
		_, _ = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	})
	p := make([]byte, 4)
	if _, err := d.Get(t.Context(), "data/r/0", p, 0); err != nil || string(p) != "good" {
		t.Errorf("%q, %v", p, err)
	}
	<-ended
}

// What stands in the place of one of the repository's folders is no empty folder:
// neither a listing nor a look at an object says that nothing is there.
func TestIrregularFolder(t *testing.T) {
	const run = "0123456789abcdef"
	makers := map[string]func(path string) error{
		"file": func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"pipe": irregular["pipe"], "link": irregular["link"], "lost link": irregular["lost link"],
	}
	for folder, key := range map[string]string{
		"data": "data/" + run + "/0", "maps/" + run: "maps/" + run + "/0", "maps2": "maps2/" + run + "/0", "data/" + run: "data/" + run + "/0.1",
		"levels": "levels/n/1.json", "levels/n": "levels/n/1.removed", "levels/a%2Fb.c-d_e": "levels/a%2Fb.c-d_e/1.json",
		"work": "work/claim.n.1", "damaged": "damaged/x", "marks": "marks/protected.n.1",
	} {
		for name, make := range makers {
			t.Run(folder+" "+name, func(t *testing.T) {
				d := newDir(t)
				put(t, d, key)
				if err := os.RemoveAll(d.path(folder)); err != nil {
					t.Fatal(err)
				}
				if err := make(d.path(folder)); err != nil {
					t.Fatal(err)
				}
				_, readErr := d.Get(t.Context(), key, []byte{0}, 0)
				_, bulkErr := d.OpenBulk(t.Context(), key)
				found := map[string]error{"Get": readErr, "OpenBulk": bulkErr, "Sync": d.Sync(t.Context(), key), "Put": d.Put(t.Context(), key, nil), "Delete": d.Delete(t.Context(), key)}
				for _, prefix := range []string{folder, folder + "/", path.Dir(key) + "/", key, ""} {
					if prefix == "" && (name == "file" || name == "link") && mayBeNote(folder) {
						continue
					}
					_, found["List "+prefix] = listed(t, d, prefix)
				}
				for call, err := range found {
					if err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), d.path(folder)) {
						t.Errorf("%s: %v", call, err)
					}
				}
			})
		}
	}
}

// What lies beside the folders and is not called like one is nobody's.
func TestBesideFolders(t *testing.T) {
	d := newDir(t)
	put(t, d, "levels/n/1.json")
	put(t, d, "data/0123456789abcdef/0")
	for _, name := range []string{"levels/.DS_Store", "levels/a b", "levels/README", "data/README", "README"} {
		if err := os.WriteFile(d.path(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for prefix, want := range map[string]string{"levels/": "levels/n/1.json", "data/": "data/0123456789abcdef/0"} {
		if keys, err := listed(t, d, prefix); err != nil || !slices.Contains(keys, want) {
			t.Errorf("List(%q): %q, %v", prefix, keys, err)
		}
	}
}
