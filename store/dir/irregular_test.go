package dir

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
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
