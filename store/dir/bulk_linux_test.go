package dir

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// residentPages tells how many pages of a file are in memory.
func residentPages(t *testing.T, path string) (n int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	i, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, int(i.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mapped)
	pages := make([]byte, (len(mapped)+os.Getpagesize()-1)/os.Getpagesize())
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mapped[0])), uintptr(len(mapped)), uintptr(unsafe.Pointer(&pages[0])))
	if errno != 0 {
		t.Fatal(errno)
	}
	for _, p := range pages {
		n += int(p & 1)
	}
	return n
}

// What is read in bulk is what is kept, and does not stay in memory where there
// is a disk below.
func TestBulk(t *testing.T) {
	ctx := context.Background()
	root := t.TempDir()
	d, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16+5)
	if err := d.Put(ctx, "data/pack", data); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "data/pack")
	before := residentPages(t, path)
	o, err := d.OpenBulk(ctx, "data/pack")
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data)+1)
	for off := 0; off < len(got); off += 300_000 {
		n, err := o.ReadAt(got[off:min(off+300_000, len(got))], int64(off))
		if err != nil && !(errors.Is(err, io.EOF) && off+n == len(data)) {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got[:len(data)], data) {
		t.Error("other bytes")
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	after := residentPages(t, path)
	t.Logf("pages in memory: %d before, %d after", before, after)
	var s unix.Statfs_t
	if err := unix.Statfs(root, &s); err != nil {
		t.Fatal(err)
	}
	switch s.Type {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC:
		if after > before/4 {
			t.Errorf("%d of %d pages are in memory still", after, before)
		}
	}
	if _, err := d.OpenBulk(ctx, "data/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing object: %v", err)
	}
}
