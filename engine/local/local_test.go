package local

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"backy/engine"
	"backy/hints"
	"backy/store"

	"golang.org/x/sys/unix"
)

const kib = 1 << 10

// needRoot fails, and does not skip, since nothing else proves what needs it.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts file systems and attaches loop devices: run it as root")
	}
}

// mount makes an empty file system of a kind that needs no device.
func mount(t *testing.T, kind, options string) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("backy-test", dir, kind, 0, options); err != nil {
		t.Fatalf("mount a %s: %v", kind, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount the %s: %v", kind, err)
		}
	})
	return dir
}

// loop attaches a file to a loop device and returns its path.
func loop(t *testing.T, file string, options ...string) string {
	t.Helper()
	needRoot(t)
	out, err := exec.Command("losetup", append(options, "--find", "--show", file)...).Output()
	if err != nil {
		t.Fatalf("losetup: %v", err)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("losetup --detach: %v: %s", err, out)
		}
	})
	return device
}

// mountDevice makes an ext4 on a device and mounts it.
func mountDevice(t *testing.T, device string) string {
	t.Helper()
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", device).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4 (package e2fsprogs): %v: %s", err, out)
	}
	dir := t.TempDir()
	if err := unix.Mount(device, dir, "ext4", 0, ""); err != nil {
		t.Fatalf("mount the ext4: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount the ext4: %v", err)
		}
	})
	return dir
}

func randomBytes(n int) []byte {
	p := make([]byte, n)
	rand.Read(p)
	return p
}

func writeFile(t *testing.T, path string, content []byte) string {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// sparse makes a file of a size with random data in the extents.
func sparse(t *testing.T, dir string, size int64, data ...hints.Extent) string {
	t.Helper()
	f, err := os.CreateTemp(dir, "sparse")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, e := range data {
		if _, err := f.WriteAt(randomBytes(int(e.Length)), e.Offset); err != nil {
			t.Fatal(err)
		}
	}
	return f.Name()
}

// warnings collects what a source or target says.
type warnings []string

func (w *warnings) add(format string, args ...any) { *w = append(*w, fmt.Sprintf(format, args...)) }

// mustHave fails unless there is one warning, with all of the words, or none
// where no words are given.
func (w warnings) mustHave(t *testing.T, words ...string) {
	t.Helper()
	if len(words) == 0 {
		if len(w) > 0 {
			t.Errorf("warned: %q", w)
		}
		return
	}
	if len(w) != 1 || slices.ContainsFunc(words, func(s string) bool { return !strings.Contains(w[0], s) }) {
		t.Errorf("warnings %q, want one with %q", w, words)
	}
}

// begin begins a source against levels, newest first, and ends it with the
// test.
func begin(t *testing.T, s engine.Source, w *warnings, levels ...store.Level) *engine.State {
	t.Helper()
	state, err := s.Begin(t.Context(), engine.Run{Name: "image", Levels: levels, Warn: w.add})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.End(context.Background(), engine.Failed); err != nil {
			t.Error(err)
		}
	})
	return state
}

func mustCollect(t *testing.T, seq hints.Seq) []hints.Extent {
	t.Helper()
	if seq == nil {
		return nil
	}
	extents, err := hints.Collect(seq)
	if err != nil {
		t.Fatal(err)
	}
	return extents
}

// mustRead fails unless a view has the content, with zeros where its extents
// leave something out.
func mustRead(t *testing.T, v engine.View, want []byte) {
	t.Helper()
	if v.Size != int64(len(want)) {
		t.Fatalf("size %d, want %d", v.Size, len(want))
	}
	extents := v.Extents
	if extents == nil {
		extents = hints.Whole(v.Size)
	}
	got := make([]byte, v.Size)
	for _, e := range mustCollect(t, extents) {
		if _, err := v.Reader.ReadAt(got[e.Offset:e.End()], e.Offset); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, want) {
		t.Error("other bytes than the source has")
	}
}

// mustFail fails unless the error has all of the words.
func mustFail(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", words)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q has no %q", err, word)
		}
	}
}

func TestOpenView(t *testing.T) {
	content := make([]byte, 300*kib+5)
	copy(content[100*kib:], randomBytes(50*kib))
	file := writeFile(t, filepath.Join(t.TempDir(), "image"), nil)
	if err := os.Truncate(file, int64(len(content))); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(content[100*kib:150*kib], 100*kib); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}

	view, closer, err := OpenView(file)
	if err != nil {
		t.Fatal(err)
	}
	mustRead(t, view, content)
	if extents := mustCollect(t, view.Extents); len(extents) != 1 {
		t.Errorf("extents %v, want the one with data", extents)
	}
	mustClose(t, closer)

	device := loop(t, file)
	view, closer, err = OpenView(device)
	if err != nil {
		t.Fatal(err)
	}
	mustRead(t, view, content[:300*kib]) // a loop device has whole sectors
	if view.Extents != nil {
		t.Error("a device cannot tell its holes")
	}
	mustClose(t, closer)

	if _, _, err := OpenView(t.TempDir()); err == nil {
		t.Error("opened a folder")
	}
}

func mustClose(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
