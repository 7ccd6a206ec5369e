package local

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"backy/engine"
	"backy/hints"
	"backy/store"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func TestSparseFileIsReadByItsData(t *testing.T) {
	for _, kind := range []string{"disk", "tmpfs"} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			if kind != "disk" {
				dir = mount(t, kind, "size=16m")
			}
			const size = 64*kib*10 + 100
			data := []hints.Extent{{Offset: 64 * kib, Length: 64 * kib, Exists: true}, {Offset: 5 * 64 * kib, Length: 4 * kib, Exists: true}}
			file := sparse(t, dir, size, data...)
			var w warnings
			state := begin(t, NewSource(file, SourceOptions{}), &w)
			if got := mustCollect(t, state.Extents); !slices.Equal(got, data) {
				t.Errorf("extents %v, want %v", got, data)
			}
			if state.Outside != engine.Hole || state.Doubt != nil || state.Base != nil {
				t.Errorf("outside %v, doubt %v, base %v", state.Outside, state.Doubt != nil, state.Base)
			}
			if state.Expected < 68*kib || state.Expected >= size { // file systems allocate ahead
				t.Errorf("expects %d bytes", state.Expected)
			}
			o := state.Origin
			if o.Kind != "file" || o.Source != file || o.Diff != store.DiffAllocated || time.Since(o.Time) > time.Minute {
				t.Errorf("origin %+v", o)
			}
			mustRead(t, state.View, readFile(t, file))
			w.mustHave(t)
		})
	}
}

func TestFileSystemThatCannotTellHolesHasItAllAsData(t *testing.T) {
	file := sparse(t, mount(t, "ramfs", ""), 100*kib, hints.Extent{Offset: 4 * kib, Length: 1})
	var w warnings
	state := begin(t, NewSource(file, SourceOptions{}), &w)
	if got, want := mustCollect(t, state.Extents), (hints.Extent{Offset: 0, Length: 100 * kib, Exists: true}); !slices.Equal(got, []hints.Extent{want}) {
		t.Errorf("extents %v, want %v", got, want)
	}
	mustRead(t, state.View, readFile(t, file))
}

func TestEmptyFile(t *testing.T) {
	file := writeFile(t, filepath.Join(t.TempDir(), "empty"), nil)
	for _, o := range []SourceOptions{{}, {HasHints: true}} {
		var w warnings
		state := begin(t, NewSource(file, o), &w)
		if state.Size != 0 || state.Extents == nil || mustCollect(t, state.Extents) != nil || mustCollect(t, state.Doubt) != nil {
			t.Errorf("with hints %t: %+v", o.HasHints, state)
		}
	}
}

func TestDataExtentsLeaveNoByteOut(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.Int64Range(1, 600*kib).Draw(rt, "size")
		var data []hints.Extent
		for range rapid.IntRange(0, 6).Draw(rt, "extents") {
			off := rapid.Int64Range(0, size-1).Draw(rt, "offset")
			data = append(data, hints.Extent{Offset: off, Length: rapid.Int64Range(1, min(size-off, 70*kib)).Draw(rt, "length"), Exists: true})
		}
		file := sparse(t, dir, size, data...)
		defer os.Remove(file)
		view, closer, err := OpenView(file)
		if err != nil {
			rt.Fatal(err)
		}
		defer closer.Close()
		mustRead(t, view, readFile(t, file))
	})
}

func TestDeviceIsReadWhole(t *testing.T) {
	file := sparse(t, t.TempDir(), 1<<20, hints.Extent{Offset: 64 * kib, Length: 64 * kib})
	device := loop(t, file)
	var w warnings
	level := store.Level{Number: 3, Size: 1 << 20}
	s := NewSource(device, SourceOptions{})
	state := begin(t, s, &w, level, store.Level{Number: 2})
	if state.Extents != nil || state.Base == nil || state.Base.Number != 3 || state.Origin.Kind != "device" || state.Origin.Diff != store.DiffNone {
		t.Errorf("state %+v", state)
	}
	mustRead(t, state.View, readFile(t, file))
	if err := s.Recheck(t.Context()); err != nil {
		t.Error(err)
	}
	w.mustHave(t)
}

// Of a file with data in the chunks 1, 2 and 5 of eight.
func TestHints(t *testing.T) {
	const c = 64 * kib
	data := func(first, count int64) hints.Extent {
		return hints.Extent{Offset: first * c, Length: count * c, Exists: true}
	}
	hole := func(first, count int64) hints.Extent { return hints.Extent{Offset: first * c, Length: count * c} }
	base := func(size int64) []store.Level { return []store.Level{{Number: 7, Size: size}} }
	file := sparse(t, t.TempDir(), 8*c, data(1, 2), data(5, 1))
	device := loop(t, file)
	type state struct {
		outside engine.Outside
		extents []hints.Extent
		doubt   []hints.Extent
		sample  int
		diff    string
	}
	for _, test := range []struct {
		name         string
		hints        []hints.Extent
		levels       []store.Level
		distrust     store.LevelNumber
		unfinished   bool
		file, device state
		warns        []string
	}{
		{
			name: "first level", hints: []hints.Extent{data(5, 1), data(1, 1), data(1, 1)},
			file:   state{engine.Hole, []hints.Extent{data(1, 1), data(5, 1)}, []hints.Extent{data(2, 1)}, 0, store.DiffHints},
			device: state{engine.Hole, []hints.Extent{data(1, 1), data(5, 1)}, nil, 256, store.DiffHints},
		}, {
			name: "first level without any extent",
			file: state{engine.Hole, nil, []hints.Extent{data(1, 2), data(5, 1)}, 0, store.DiffHints}, device: state{engine.Hole, nil, nil, 256, store.DiffHints},
		}, {
			name: "first level with holes", hints: []hints.Extent{data(1, 1), hole(2, 6)},
			file:   state{engine.Hole, []hints.Extent{data(1, 1)}, []hints.Extent{data(2, 1), data(5, 1)}, 0, store.DiffHints},
			device: state{engine.Hole, []hints.Extent{data(1, 1)}, nil, 256, store.DiffHints},
		}, {
			name: "against a base", hints: []hints.Extent{data(5, 1)}, levels: base(8 * c),
			file:   state{engine.Unchanged, []hints.Extent{data(5, 1)}, nil, 0, store.DiffHints},
			device: state{engine.Unchanged, []hints.Extent{data(5, 1)}, nil, 0, store.DiffHints},
		}, {
			name: "nothing against a base", levels: base(8 * c),
			file: state{engine.Unchanged, nil, nil, 0, store.DiffHints}, device: state{engine.Unchanged, nil, nil, 0, store.DiffHints},
		}, {
			name: "holes against a base", hints: []hints.Extent{hole(2, 2), data(7, 1)}, levels: base(8 * c),
			file:   state{engine.Unchanged, []hints.Extent{data(2, 1), hole(3, 1), data(7, 1)}, nil, 0, store.DiffHints},
			device: state{engine.Unchanged, []hints.Extent{data(2, 2), data(7, 1)}, nil, 0, store.DiffHints},
		}, {
			name: "grown", hints: []hints.Extent{data(0, 1)}, levels: base(4 * c),
			file:   state{engine.Unchanged, []hints.Extent{data(0, 1), hole(4, 1), data(5, 1), hole(6, 2)}, nil, 0, store.DiffHints},
			device: state{engine.Unchanged, []hints.Extent{data(0, 1), data(4, 4)}, nil, 0, store.DiffHints},
		}, {
			name: "shrunk", hints: []hints.Extent{data(0, 1)}, levels: base(20 * c),
			file:   state{engine.Unchanged, []hints.Extent{data(0, 1)}, nil, 0, store.DiffHints},
			device: state{engine.Unchanged, []hints.Extent{data(0, 1)}, nil, 0, store.DiffHints},
		}, {
			name: "a base not to be trusted", hints: []hints.Extent{data(0, 1)}, levels: base(8 * c), distrust: 7,
			file:   state{engine.Hole, []hints.Extent{data(1, 2), data(5, 1)}, nil, 0, store.DiffAllocated},
			device: state{engine.Hole, nil, nil, 0, store.DiffNone},
			warns:  []string{"deep scrub", "level 7"},
		}, {
			name: "an older level not to be trusted", hints: []hints.Extent{data(0, 1)}, levels: base(8 * c), distrust: 6,
			file:   state{engine.Unchanged, []hints.Extent{data(0, 1)}, nil, 0, store.DiffHints},
			device: state{engine.Unchanged, []hints.Extent{data(0, 1)}, nil, 0, store.DiffHints},
		}, {
			name: "after a run that did not finish", hints: []hints.Extent{data(0, 1)}, levels: base(8 * c), unfinished: true,
			file:   state{engine.Unchanged, []hints.Extent{data(0, 1)}, nil, 0, store.DiffHints},
			device: state{engine.Unchanged, []hints.Extent{data(0, 1)}, nil, 0, store.DiffHints},
			warns:  []string{"did not finish", "level 7"},
		}, {
			name: "first level after a run that did not finish", hints: []hints.Extent{data(1, 2), data(5, 1)}, unfinished: true,
			file:   state{engine.Hole, []hints.Extent{data(1, 2), data(5, 1)}, nil, 0, store.DiffHints},
			device: state{engine.Hole, []hints.Extent{data(1, 2), data(5, 1)}, nil, 256, store.DiffHints},
		},
	} {
		for path, want := range map[string]state{file: test.file, device: test.device} {
			t.Run(test.name+" of "+path, func(t *testing.T) {
				var w warnings
				s := NewSource(path, SourceOptions{Hints: test.hints, HasHints: true})
				got, err := s.Begin(t.Context(), engine.Run{
					Levels: test.levels, Distrust: test.distrust, Unfinished: test.unfinished, Warn: w.add,
				})
				if err != nil {
					t.Fatal(err)
				}
				w.mustHave(t, test.warns...)
				if extents := mustCollect(t, got.Extents); !slices.Equal(extents, want.extents) {
					t.Errorf("extents %v, want %v", extents, want.extents)
				}
				if doubt := mustCollect(t, got.Doubt); !slices.Equal(doubt, want.doubt) {
					t.Errorf("doubt %v, want %v", doubt, want.doubt)
				}
				if got.Outside != want.outside || got.SampleMin != want.sample || got.Origin.Diff != want.diff {
					t.Errorf("outside %v, sample %d, diff %s, want %+v", got.Outside, got.SampleMin, got.Origin.Diff, want)
				}
				if (got.Base != nil) != (len(test.levels) > 0) {
					t.Errorf("base %v", got.Base)
				}
				if err := s.End(t.Context(), engine.Committed); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestHintsOutOfBounds(t *testing.T) {
	const size = 100*kib + 5
	file := sparse(t, t.TempDir(), size)
	for _, levels := range [][]store.Level{nil, {{Number: 1, Size: 10 * size}}} {
		for _, distrust := range []store.LevelNumber{0, 1} {
			for _, test := range []struct {
				extent hints.Extent
				fits   bool
			}{
				{hints.Extent{Offset: 0, Length: size}, true},
				{hints.Extent{Offset: 0, Length: size + 1}, false},
				{hints.Extent{Offset: size, Length: 1}, false},
			} {
				s := NewSource(file, SourceOptions{Hints: []hints.Extent{test.extent}, HasHints: true})
				_, err := s.Begin(t.Context(), engine.Run{Levels: levels, Distrust: distrust, Warn: new(warnings).add})
				var bounds *hints.BoundsError
				if test.fits != (err == nil) || !test.fits && (!errors.As(err, &bounds) || bounds.Extent != test.extent) {
					t.Errorf("%v: got %v", test.extent, err)
				}
				if err == nil {
					mustClose(t, s.in.f)
				}
			}
		}
	}
}

func TestWhatIsNoSource(t *testing.T) {
	dir := t.TempDir()
	socket, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if err := os.Symlink("nowhere", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for path, word := range map[string]string{
		dir:                          "is a folder",
		filepath.Join(dir, "socket"): "is a socket",
		"/dev/null":                  "is a character device",
		filepath.Join(dir, "none"):   "no such file",
		filepath.Join(dir, "link"):   "no such file",
	} {
		_, err := NewSource(path, SourceOptions{}).Begin(t.Context(), engine.Run{Warn: new(warnings).add})
		mustFail(t, err, path, word)
	}
}

func TestSourceThatChangesDuringTheBackup(t *testing.T) {
	const size = 256 * kib
	for _, test := range []struct {
		name   string
		change func(file string) error
		words  []string // of the error
		warns  []string
	}{
		{name: "not at all", change: func(string) error { return nil }},
		{name: "cut", change: func(f string) error { return os.Truncate(f, size-1) }, words: []string{"resized", "262143"}},
		{name: "grown", change: func(f string) error { return os.Truncate(f, size+1) }, words: []string{"resized", "262145"}},
		{name: "removed", change: os.Remove, words: []string{"no such file"}},
		{name: "replaced", change: func(f string) error {
			other := f + ".new"
			return errors.Join(os.WriteFile(other, randomBytes(size), 0o600), os.Rename(other, f))
		}, words: []string{"replaced"}},
		{name: "replaced by a folder", change: func(f string) error {
			return errors.Join(os.Remove(f), os.Mkdir(f, 0o700))
		}, words: []string{"replaced"}},
		{name: "written to", change: func(f string) error {
			return os.Chtimes(f, time.Time{}, time.Now().Add(time.Hour))
		}, warns: []string{"written to during the backup"}},
		{name: "read by others", change: func(f string) error {
			return os.Chtimes(f, time.Now().Add(time.Hour), time.Time{})
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := sparse(t, t.TempDir(), size, hints.Extent{Length: 4096})
			var w warnings
			s := NewSource(file, SourceOptions{})
			begin(t, s, &w)
			if err := test.change(file); err != nil {
				t.Fatal(err)
			}
			err := s.Recheck(t.Context())
			if test.words == nil && err != nil {
				t.Error(err)
			} else if test.words != nil {
				mustFail(t, err, test.words...)
			}
			w.mustHave(t, test.warns...)
		})
	}
}

func TestReadingWhatWasCutOffIsAnErrorAndNoZeros(t *testing.T) {
	file := writeFile(t, filepath.Join(t.TempDir(), "image"), randomBytes(200*kib))
	var w warnings
	state := begin(t, NewSource(file, SourceOptions{}), &w)
	if err := os.Truncate(file, 100*kib); err != nil {
		t.Fatal(err)
	}
	n, err := state.Reader.ReadAt(make([]byte, 64*kib), 64*kib)
	if n != 36*kib {
		t.Errorf("read %d bytes", n)
	}
	mustFail(t, err, "cut off", "102400", "204800")
}

func TestLargeFileIsNotLeftInThePageCache(t *testing.T) {
	// In a tmpfs, the page cache is all there is: it has to be a disk.
	disk := mountDevice(t, loop(t, sparse(t, t.TempDir(), 2*dropFrom)))
	content := randomBytes(1 << 20)
	file := sparse(t, disk, dropFrom)
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil { // what is dirty would stay
		t.Fatal(err)
	}
	resident := func() (pages int) {
		mapped, err := unix.Mmap(int(f.Fd()), 0, len(content), unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Munmap(mapped)
		in := make([]byte, len(content)/os.Getpagesize())
		if err := mincore(mapped, in); err != nil {
			t.Fatal(err)
		}
		for _, p := range in {
			pages += int(p & 1)
		}
		return pages
	}
	if resident() == 0 {
		t.Fatal("nothing in the page cache to begin with")
	}
	var w warnings
	state := begin(t, NewSource(file, SourceOptions{}), &w)
	if _, err := state.Reader.ReadAt(make([]byte, len(content)), 0); err != nil {
		t.Fatal(err)
	}
	if n := resident(); n > 0 {
		t.Errorf("%d pages left", n)
	}
}

func TestFIFO(t *testing.T) {
	fifo := func(t *testing.T) string {
		path := filepath.Join(t.TempDir(), "fifo")
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Run("its writer comes late", func(t *testing.T) {
		path := fifo(t)
		want := randomBytes(300 * kib)
		var w warnings
		s := NewSource(path, SourceOptions{})
		state := begin(t, s, &w)
		if state.Size != -1 || state.Extents != nil || state.Origin.Kind != "pipe" || state.Origin.Source != path {
			t.Errorf("state %+v", state)
		}
		written := make(chan error, 1)
		go func() {
			time.Sleep(3 * wake / 2) // so that the reader has looked in vain
			written <- os.WriteFile(path, want, 0)
		}()
		mustStream(t, state.Stream, want)
		if err := <-written; err != nil {
			t.Error(err)
		}
		if err := s.Recheck(t.Context()); err != nil {
			t.Error(err)
		}
		w.mustHave(t)
	})
	t.Run("its writer pauses", func(t *testing.T) {
		path := fifo(t)
		var w warnings
		state := begin(t, NewSource(path, SourceOptions{}), &w)
		go func() {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return
			}
			defer f.Close()
			for range 3 {
				_, _ = f.WriteString("abc")
				time.Sleep(3 * wake / 2)
			}
		}()
		mustStream(t, state.Stream, []byte("abcabcabc"))
	})
	t.Run("no writer comes and the run is cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := NewSource(fifo(t), SourceOptions{})
		state, err := s.Begin(ctx, engine.Run{Warn: new(warnings).add})
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(wake/2, cancel)
		if _, err := state.Stream.Read(make([]byte, 10)); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		mustFail(t, s.Recheck(t.Context()), "not read to its end")
		if err := s.End(t.Context(), engine.Failed); err != nil {
			t.Error(err)
		}
	})
	t.Run("hints", func(t *testing.T) {
		_, err := NewSource(fifo(t), SourceOptions{HasHints: true}).Begin(t.Context(), engine.Run{Warn: new(warnings).add})
		if !errors.Is(err, ErrHintsForPipe) {
			t.Errorf("got %v", err)
		}
	})
}
