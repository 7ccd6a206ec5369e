package local

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"backy/engine"

	"golang.org/x/sys/unix"
)

// staleDevice is a block device whose page cache is wrong, and stays so, since a
// handle and a mapping keep it: its ground was changed underneath, as by another
// host on a shared disk, or by a client of an image that is mapped.
func staleDevice(t *testing.T, content []byte, change func(ground *os.File), options ...string) (device, ground string) {
	t.Helper()
	ground = writeFile(t, filepath.Join(t.TempDir(), "ground"), content)
	device = loop(t, ground, options...)
	held, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mustClose(t, held) })
	mapped, err := unix.Mmap(int(held.Fd()), 0, len(content)/os.Getpagesize()*os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(mapped) })
	if !bytes.Equal(mapped, content[:len(mapped)]) { // which reads all of it
		t.Fatal("the device is another")
	}
	f, err := os.OpenFile(ground, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	change(f)
	mustClose(t, f)
	if !bytes.Equal(mapped, content[:len(mapped)]) {
		t.Fatal("the page cache is not stale")
	}
	return device, ground
}

func writeAt(t *testing.T, f *os.File, p []byte, off int64) {
	t.Helper()
	if _, err := f.WriteAt(p, off); err != nil {
		t.Fatal(err)
	}
}

// A level of a device holds what the device has, and not what a page cache that
// somebody keeps still has of it; so says a deep scrub.
func TestDevicesAreReadFresh(t *testing.T) {
	const size = 2<<20 + 5*512 // no whole number of pages, nor of chunks
	for name, options := range map[string][]string{"blocks of 512": {"-b", "512"}, "blocks of 4096": {"-b", "4096"}} {
		t.Run(name, func(t *testing.T) {
			content := randomBytes(size)
			if options[1] == "4096" {
				content = content[:2<<20]
			}
			device, ground := staleDevice(t, content, func(f *os.File) {
				writeAt(t, f, []byte("changed"), 0)
				writeAt(t, f, randomBytes(100*kib+3), 1<<20+17)
				writeAt(t, f, []byte("the end"), int64(len(content)-7))
			}, options...)
			truth := readFile(t, ground)
			r := newRepository(t)
			var w warnings
			level := backup(t, r, NewSource(device, SourceOptions{}), &w)
			out := filepath.Join(t.TempDir(), "out")
			restore(t, r, level, out)
			if got := readFile(t, out); !bytes.Equal(got, truth) {
				t.Errorf("the level is not what the device has: as the page cache has it: %t", bytes.Equal(got, content))
			}
			view, closer, err := OpenView(device)
			if err != nil {
				t.Fatal(err)
			}
			defer mustClose(t, closer)
			if report, err := engine.Scrub(t.Context(), r, level, engine.ScrubOptions{Source: &view}); err != nil {
				t.Errorf("deep scrub: %v; %+v", err, report)
			}
			// Any piece, into any memory.
			for _, c := range []struct{ off, length, shift int64 }{
				{0, 1, 0},
				{1, 511, 1},
				{4095, 2, 0},
				{1<<20 + 16, 300, 3},
				{1 << 20, 300 * kib, 8},
				{int64(len(truth)) - 7, 7, 0},
				{0, int64(len(truth)), 1},
				{512, int64(len(truth)) - 512, 0},
				{4096, 4096, 1},
				{100, 0, 0},
			} {
				p := make([]byte, c.shift+c.length)[c.shift:]
				if n, err := view.Reader.ReadAt(p, c.off); err != nil || n != len(p) || !bytes.Equal(p, truth[c.off:c.off+c.length]) {
					t.Errorf("%+v: %d bytes, %v, or others than the device has", c, n, err)
				}
			}
			if n, err := view.Reader.ReadAt(make([]byte, 100), int64(len(truth))-50); err == nil || n > 50 {
				t.Errorf("read beyond the end: %d, %v", n, err)
			}
		})
	}
}

// What another has written to a device through the page cache, and not yet
// brought to it, is what the device has, too.
func TestDirtyPagesOfADeviceAreRead(t *testing.T) {
	content := randomBytes(1 << 20)
	device := loop(t, writeFile(t, filepath.Join(t.TempDir(), "ground"), content))
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, f)
	copy(content[5000:], randomBytes(70000))
	writeAt(t, f, content[5000:75000], 5000)
	view, closer, err := OpenView(device)
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, closer)
	mustRead(t, view, content)
}

// A restore leaves what lies behind the level on a longer device as it is, not as
// a page cache has it.
func TestRestoreOntoAStaleDeviceLeavesItsTail(t *testing.T) {
	content := randomBytes(64 * kib)
	ground := writeFile(t, filepath.Join(t.TempDir(), "ground"), content)
	device := loop(t, ground)
	held, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, held)
	if _, err := held.ReadAt(make([]byte, len(content)), 0); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(ground, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	writeAt(t, f, []byte("a new tail"), 33*kib+100) // in the page in which the level ends
	mustClose(t, f)
	want := readFile(t, ground)
	r := newRepository(t)
	var w warnings
	image := randomBytes(33*kib + 50)
	level := backup(t, r, NewSource(writeFile(t, filepath.Join(t.TempDir(), "image"), image), SourceOptions{}), &w)
	restore(t, r, level, device)
	copy(want, image)
	if !bytes.Equal(readFile(t, ground), want) {
		t.Error("the device has something else than the level and its own tail")
	}
}

func TestDeviceOfNoBytes(t *testing.T) {
	device := loop(t, writeFile(t, filepath.Join(t.TempDir(), "ground"), nil))
	_, err := NewSource(device, SourceOptions{}).Begin(t.Context(), engine.Run{Warn: new(warnings).add})
	mustFail(t, err, device, "a block device of 0 bytes")
	_, _, err = OpenView(device)
	mustFail(t, err, "a block device of 0 bytes")
}

// A file whose size says nothing about what it holds is refused; nothing is lost
// silently.
func TestFileOfUnknownSize(t *testing.T) {
	for _, path := range []string{
		"/proc/version", "/proc/self/maps", "/proc/cpuinfo", // 0 bytes, with content
		"/sys/kernel/mm/transparent_hugepage/enabled", // a page, with less in it
		"/proc/kmsg", // would wait for more at its end
	} {
		_, err := NewSource(path, SourceOptions{}).Begin(t.Context(), engine.Run{Warn: new(warnings).add})
		mustFail(t, err, path, "its size")
		if _, _, err := OpenView(path); err == nil {
			t.Errorf("%s: a deep scrub takes it", path)
		}
	}
}

// A file that grows, and does not say so at once, as on a cluster's file system.
func TestFileThatGrowsIsRefused(t *testing.T) {
	file := writeFile(t, filepath.Join(t.TempDir(), "image"), randomBytes(100))
	var w warnings
	s := NewSource(file, SourceOptions{})
	begin(t, s, &w)
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, f)
	if _, err := f.Write([]byte("more")); err != nil {
		t.Fatal(err)
	}
	mustFail(t, s.Recheck(t.Context()), "resized")
}

// An empty source after one that was not may be a mistake.
func TestEmptySourceWarns(t *testing.T) {
	r := newRepository(t)
	file := writeFile(t, filepath.Join(t.TempDir(), "image"), nil)
	var w warnings
	backup(t, r, NewSource(file, SourceOptions{}), &w)
	w.mustHave(t)
	writeFile(t, file, randomBytes(100))
	backup(t, r, NewSource(file, SourceOptions{}), &w)
	w.mustHave(t)
	writeFile(t, file, nil)
	backup(t, r, NewSource(file, SourceOptions{}), &w)
	w.mustHave(t, "is empty", "level 2")
	w = nil
	backup(t, r, NewSource(file, SourceOptions{}), &w)
	w.mustHave(t)
}
