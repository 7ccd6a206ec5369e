package local

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"backy/engine"
	"backy/hints"
	"backy/store"

	"golang.org/x/sys/unix"
)

// prepare prepares a target for a level of a size.
func prepare(t *testing.T, target *Target, size int64) (zeroed bool) {
	t.Helper()
	zeroed, err := target.Prepare(t.Context(), store.Level{Size: size})
	if err != nil {
		t.Fatal(err)
	}
	return zeroed
}

func mustWrite(t *testing.T, target *Target, p []byte, off int64) {
	t.Helper()
	if n, err := target.WriteAt(p, off); err != nil || n != len(p) {
		t.Errorf("wrote %d of %d bytes at %d: %v", n, len(p), off, err)
	}
}

func mustFinish(t *testing.T, target *Target) {
	t.Helper()
	if err := target.Finish(t.Context()); err != nil {
		t.Error(err)
	}
	if err := target.Abort(t.Context()); err != nil {
		t.Errorf("abort after finish: %v", err)
	}
}

func stat(t *testing.T, path string) *syscall.Stat_t {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t)
}

func mustNotExist(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is there: %v", path, err)
	}
}

func TestNewFileHasHolesAndIsPrivate(t *testing.T) {
	for _, size := range []int64{0, 1, 1<<20 + 5} {
		path := filepath.Join(t.TempDir(), "image")
		target := NewTarget(path, TargetOptions{})
		if !prepare(t, target, size) {
			t.Error("a new file reads as zeros")
		}
		want := make([]byte, size)
		if size > 4096 {
			copy(want[8192:], randomBytes(4096))
			mustWrite(t, target, want[8192:8192+4096], 8192)
		}
		mustFinish(t, target)
		if !bytes.Equal(readFile(t, path), want) {
			t.Error("other bytes")
		}
		if st := stat(t, path); st.Blocks*512 > 512*kib || st.Mode&0o777 != 0o600 {
			t.Errorf("%d bytes allocated, mode %o", st.Blocks*512, st.Mode)
		}
	}
}

func TestAbortRemovesANewFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	target := NewTarget(path, TargetOptions{})
	prepare(t, target, 1<<20)
	for range 2 {
		if err := target.Abort(t.Context()); err != nil {
			t.Error(err)
		}
	}
	mustNotExist(t, path)
}

func TestAbortLeavesWhatIsNotOurs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	target := NewTarget(path, TargetOptions{})
	prepare(t, target, 1<<20)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, []byte("another"))
	if err := target.Abort(t.Context()); err != nil {
		t.Error(err)
	}
	if string(readFile(t, path)) != "another" {
		t.Error("the other file was touched")
	}
}

func TestExistingFileIsOverwrittenInPlace(t *testing.T) {
	const size = 256*kib + 7
	for name, dir := range map[string]string{"disk": t.TempDir(), "tmpfs": mount(t, "tmpfs", "size=4m"), "ramfs": mount(t, "ramfs", "")} {
		for _, old := range []int{0, 1, size - 1, size, size + 1, 3 * size} {
			path := writeFile(t, filepath.Join(dir, "image"), randomBytes(old))
			if err := os.Chmod(path, 0o640); err != nil {
				t.Fatal(err)
			}
			link := filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(path, link); err != nil {
				t.Fatal(err)
			}
			before := stat(t, path)
			target := NewTarget(link, TargetOptions{})
			if !prepare(t, target, size) {
				t.Error("an emptied file reads as zeros")
			}
			want := make([]byte, size)
			copy(want[64*kib:], randomBytes(10))
			mustWrite(t, target, want[64*kib:64*kib+10], 64*kib)
			mustFinish(t, target)
			if !bytes.Equal(readFile(t, path), want) {
				t.Errorf("%s: over %d bytes: other bytes", name, old)
			}
			after := stat(t, path)
			if before.Ino != after.Ino || after.Mode&0o777 != 0o640 {
				t.Errorf("%s: over %d bytes: inode or mode changed", name, old)
			}
			if name != "ramfs" && after.Blocks*512 > 128*kib {
				t.Errorf("%s: over %d bytes: %d bytes allocated", name, old, after.Blocks*512)
			}
		}
	}
}

func TestAbortDoesNotRemoveAnExistingFile(t *testing.T) {
	path := writeFile(t, filepath.Join(t.TempDir(), "image"), randomBytes(100))
	target := NewTarget(path, TargetOptions{})
	prepare(t, target, 50)
	if err := target.Abort(t.Context()); err != nil {
		t.Error(err)
	}
	if len(readFile(t, path)) != 50 {
		t.Error("the file is not what a broken restore leaves")
	}
}

func TestRefusedTargetsAreLeftAlone(t *testing.T) {
	dir := mountDevice(t, loop(t, sparse(t, t.TempDir(), 16<<20))) // files of an ext4 have a greatest size
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.Symlink("nowhere", at("dangling")), unix.Mkfifo(at("fifo"), 0o600), os.Mkdir(at("folder"), 0o700)); err != nil {
		t.Fatal(err)
	}
	writeFile(t, at("file"), []byte("old"))
	for _, test := range []struct {
		path, word string
		size       int64
	}{
		{at("dangling"), "is a symbolic link to nowhere", 10},
		{at("fifo"), "is a pipe", 10},
		{at("folder"), "is a folder", 10},
		{at("none/file"), "the folder " + at("none") + " does not exist", 10},
		{at("file/file"), "not a directory", 10},
		{"/dev/null", "is a character device", 10},
		{at("file"), "bytes: ", 1<<63 - 1},
		{at("new"), "bytes: ", 1<<63 - 1},
	} {
		_, err := NewTarget(test.path, TargetOptions{Force: true}).Prepare(t.Context(), store.Level{Size: test.size})
		mustFail(t, err, test.path, test.word)
	}
	if string(readFile(t, at("file"))) != "old" {
		t.Error("the refused file has changed")
	}
	mustNotExist(t, at("new"))
	mustNotExist(t, at("nowhere"))
}

func TestFileThatIsInUse(t *testing.T) {
	const size = 64 * kib
	locked := writeFile(t, filepath.Join(t.TempDir(), "locked"), randomBytes(size))
	f, err := os.OpenFile(locked, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// qemu holds shared locks on single bytes from 100 on.
	lock := unix.Flock_t{Type: unix.F_RDLCK, Start: 101, Len: 1}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		t.Fatal(err)
	}
	attached := writeFile(t, filepath.Join(t.TempDir(), "attached"), randomBytes(size))
	loop(t, attached)
	for path, word := range map[string]string{locked: "is locked", attached: "is attached to /dev/loop"} {
		before := readFile(t, path)
		_, err := NewTarget(path, TargetOptions{}).Prepare(t.Context(), store.Level{Size: size})
		mustFail(t, err, path, word)
		if !errors.Is(err, ErrInUse) {
			t.Errorf("%v is no ErrInUse", err)
		}
		if !bytes.Equal(readFile(t, path), before) {
			t.Error("the refused file has changed")
		}
		var w warnings
		target := NewTarget(path, TargetOptions{Force: true, Warn: w.add})
		prepare(t, target, size)
		mustFinish(t, target)
		w.mustHave(t, word, "all the same")
	}
}

func TestFullFileSystem(t *testing.T) {
	path := filepath.Join(mount(t, "tmpfs", "size=1m"), "image")
	target := NewTarget(path, TargetOptions{})
	prepare(t, target, 4<<20)
	_, err := target.WriteAt(randomBytes(2<<20), 0)
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v", err)
	}
	if err := target.Abort(t.Context()); err != nil {
		t.Error(err)
	}
	mustNotExist(t, path)
}

func TestWritesStayWithinTheLevel(t *testing.T) {
	target := NewTarget(filepath.Join(t.TempDir(), "image"), TargetOptions{})
	prepare(t, target, 100)
	defer target.Abort(t.Context())
	for _, test := range []struct {
		off, length int64
		fits        bool
	}{
		{0, 100, true},
		{99, 1, true},
		{100, 0, true},
		{99, 2, false},
		{100, 1, false},
		{-1, 1, false},
		{1 << 62, 1, false},
	} {
		_, err := target.WriteAt(make([]byte, test.length), test.off)
		zeroErr := target.Zero(test.off, test.length)
		if (err == nil) != test.fits || (zeroErr == nil) != test.fits {
			t.Errorf("%d+%d: write %v, zero %v", test.off, test.length, err, zeroErr)
		}
	}
}

// devices are block devices of a size that differ in how they can be zeroed.
func devices(t *testing.T, content []byte) map[string]string {
	t.Helper()
	file := func(dir string) string { return writeFile(t, filepath.Join(dir, "backing"), content) }
	return map[string]string{
		"punching":     loop(t, file(t.TempDir())),
		"not punching": loop(t, file(mount(t, "ramfs", ""))),
		"4K sectors":   loop(t, file(t.TempDir()), "--sector-size", "4096"),
	}
}

func TestDeviceIsOverwrittenAndItsTailLeft(t *testing.T) {
	const length = 1 << 20
	for _, size := range []int64{0, 1, 4096, 300*kib + 13, length - 1, length} {
		old := randomBytes(length)
		for name, device := range devices(t, old) {
			var w warnings
			target := NewTarget(device, TargetOptions{Warn: w.add})
			if prepare(t, target, size) {
				t.Errorf("%s: a device holds what it held", name)
			}
			want := bytes.Clone(old)
			clear(want[:size])
			if err := target.Zero(0, size); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if size > 100 {
				copy(want[50:100], randomBytes(50))
				mustWrite(t, target, want[50:100], 50)
			}
			mustFinish(t, target)
			if !bytes.Equal(readFile(t, device), want) {
				t.Errorf("%s, size %d: other bytes", name, size)
			}
			if size < length {
				w.mustHave(t, "longer than the level")
			} else {
				w.mustHave(t)
			}
		}
	}
}

func TestZeroingADevicePunchesIt(t *testing.T) {
	backing := writeFile(t, filepath.Join(t.TempDir(), "backing"), randomBytes(1<<20))
	target := NewTarget(loop(t, backing), TargetOptions{})
	prepare(t, target, 1<<20)
	if err := target.Zero(0, 1<<20); err != nil {
		t.Error(err)
	}
	mustFinish(t, target)
	if st := stat(t, backing); st.Blocks*512 > 64*kib {
		t.Errorf("%d bytes still allocated", st.Blocks*512)
	}
}

func TestRefusedDevicesAreLeftAlone(t *testing.T) {
	const length = 8 << 20
	content := randomBytes(length)
	small := loop(t, writeFile(t, filepath.Join(t.TempDir(), "small"), content))
	held := loop(t, writeFile(t, filepath.Join(t.TempDir(), "held"), content))
	holder, err := os.OpenFile(held, os.O_RDONLY|unix.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	mounted := loop(t, writeFile(t, filepath.Join(t.TempDir(), "mounted"), content))
	mountDevice(t, mounted)
	readOnly := loop(t, writeFile(t, filepath.Join(t.TempDir(), "read-only"), content), "--read-only")
	for _, test := range []struct {
		device string
		size   int64
		force  bool
		words  []string
		inUse  bool
	}{
		{small, length + 1, false, []string{"too small", "8388608", "8388609"}, false},
		{small, length + 1, true, []string{"too small"}, false},
		{held, length, false, []string{"in use"}, true},
		{mounted, length, false, []string{"mounted"}, true},
		{mounted, length + 1, true, []string{"too small"}, false},
		{readOnly, length, true, []string{"is read-only"}, false},
	} {
		before := readFile(t, test.device)
		_, err := NewTarget(test.device, TargetOptions{Force: test.force}).Prepare(t.Context(), store.Level{Size: test.size})
		mustFail(t, err, append(test.words, test.device)...)
		if errors.Is(err, ErrInUse) != test.inUse {
			t.Errorf("%v: is ErrInUse: %t", err, !test.inUse)
		}
		if !bytes.Equal(readFile(t, test.device), before) {
			t.Errorf("%s has changed", test.device)
		}
	}

	var w warnings
	target := NewTarget(held, TargetOptions{Force: true, Warn: w.add})
	prepare(t, target, length)
	mustWrite(t, target, make([]byte, 10), 0)
	mustFinish(t, target)
	w.mustHave(t, held, "in use", "all the same")
	copy(content, make([]byte, 10))
	if !bytes.Equal(readFile(t, held), content) {
		t.Error("forced: other bytes")
	}
}

func TestCancelledRestoreStopsZeroing(t *testing.T) {
	device := loop(t, writeFile(t, filepath.Join(t.TempDir(), "backing"), randomBytes(1<<20)))
	ctx, cancel := context.WithCancel(t.Context())
	target := NewTarget(device, TargetOptions{})
	if _, err := target.Prepare(ctx, store.Level{Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := target.Zero(0, 1<<20); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := target.Abort(t.Context()); err != nil {
		t.Error(err)
	}
}

// Pieces of any alignment are written and zeroed side by side, as a restore's
// goroutines do.
func TestConcurrentWritesAndZeros(t *testing.T) {
	const length = 4 << 20
	old := randomBytes(length)
	targets := devices(t, old)
	targets["file"] = writeFile(t, filepath.Join(t.TempDir(), "file"), old)
	targets["file on ramfs"] = writeFile(t, filepath.Join(mount(t, "ramfs", ""), "file"), old)
	for name, path := range targets {
		seed := rand.Uint64()
		random := rand.New(rand.NewPCG(seed, 0))
		var pieces []hints.Extent
		for pos := int64(0); pos < length; {
			n := min(1+random.Int64N(40*kib), length-pos)
			if random.IntN(2) == 0 {
				n = min((pos/(64*kib)+1)*64*kib-pos, length-pos)
			}
			pieces = append(pieces, hints.Extent{Offset: pos, Length: n, Exists: random.IntN(2) == 0})
			pos += n
		}
		random.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })

		want := randomBytes(length)
		target := NewTarget(path, TargetOptions{})
		prepare(t, target, length)
		var group sync.WaitGroup
		for worker := range 8 {
			group.Go(func() {
				for i := worker; i < len(pieces); i += 8 {
					e := pieces[i]
					if e.Exists {
						mustWrite(t, target, want[e.Offset:e.End()], e.Offset)
						continue
					}
					clear(want[e.Offset:e.End()])
					if err := target.Zero(e.Offset, e.Length); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				}
			})
		}
		group.Wait()
		mustFinish(t, target)
		if !bytes.Equal(readFile(t, path), want) {
			t.Errorf("%s: other bytes (seed %d)", name, seed)
		}
	}
}

// A restore does not end well where another program wrote to the same target.
func TestTargetThatOthersWriteTo(t *testing.T) {
	needRoot(t)
	const size = 8 << 20
	for what, path := range map[string]string{
		"new file": filepath.Join(t.TempDir(), "new"),
		"file":     writeFile(t, filepath.Join(t.TempDir(), "file"), []byte("old")),
		"device":   loop(t, sparse(t, t.TempDir(), size)),
	} {
		for _, hole := range []bool{false, true} {
			target := NewTarget(path, TargetOptions{})
			prepare(t, target, size)
			for off := int64(0); off < size; off += 256 * kib {
				if hole {
					if err := target.Zero(off, 256*kib); err != nil {
						t.Fatal(err)
					}
				} else {
					mustWrite(t, target, randomBytes(256*kib), off)
				}
			}
			other, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			for off := int64(0); off < size; off += 512 * kib {
				if _, err := other.WriteAt(randomBytes(512*kib), off); err != nil {
					t.Fatal(err)
				}
			}
			if err := other.Close(); err != nil {
				t.Fatal(err)
			}
			if err := target.Finish(t.Context()); !errors.Is(err, engine.ErrOverwritten) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s, holes %t: %v", what, hole, err)
			}
			if what == "new file" {
				mustNotExist(t, path)
			}
		}
	}
}
