package local

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"backy/engine"
	"backy/hints"
	"backy/store"
	"backy/store/mem"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func newRepository(t *testing.T) *store.Repository {
	t.Helper()
	r, err := store.Init(t.Context(), mem.New(), store.Parameters{ChunkSize: 16 * kib})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func backup(t *testing.T, r *store.Repository, source engine.Source, w *warnings) store.Level {
	t.Helper()
	level, err := engine.Backup(t.Context(), r, "image", source, engine.BackupOptions{Warn: w.add})
	if err != nil {
		t.Fatal(err)
	}
	return level
}

func restore(t *testing.T, r *store.Repository, level store.Level, path string) {
	t.Helper()
	if _, err := engine.Restore(t.Context(), r, level, NewTarget(path, TargetOptions{}), engine.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
}

// A file that is written to, punched, cut and grown is backed up at every step,
// by its holes or by hints of what was done to it, and restored to a new file,
// to the one restored before, and to a device.
func TestBackupAndRestoreOfAFile(t *testing.T) {
	const most = 1 << 20
	dir := t.TempDir()
	existing := writeFile(t, filepath.Join(dir, "existing"), randomBytes(100))
	device := loop(t, writeFile(t, filepath.Join(dir, "backing"), randomBytes(most)))
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.Int64Range(0, most).Draw(rt, "size")
		path := sparse(t, dir, size)
		defer os.Remove(path)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			rt.Fatal(err)
		}
		defer f.Close()
		r := newRepository(t)
		before := int64(0) // size of the level before
		var changed []hints.Extent
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			grown := rapid.Int64Range(0, most).Draw(rt, "other size")
			off := rapid.Int64Range(0, max(size-1, 0)).Draw(rt, "offset")
			length := min(rapid.Int64Range(1, 200*kib).Draw(rt, "length"), size-off)
			switch rapid.SampledFrom([]string{"write", "punch", "resize", "backup"}).Draw(rt, "step") {
			case "write":
				if length == 0 {
					continue
				}
				if _, err := f.WriteAt(randomBytes(int(length)), off); err != nil {
					rt.Fatal(err)
				}
				changed = append(changed, hints.Extent{Offset: off, Length: length, Exists: true})
			case "punch":
				if length == 0 {
					continue
				}
				if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length); err != nil {
					rt.Fatal(err)
				}
				// What was written there before is a hole now.
				left, err := hints.Collect(hints.Subtract(hints.Of(hints.Normalize(changed)), hints.Of([]hints.Extent{{Offset: off, Length: length}})))
				if err != nil {
					rt.Fatal(err)
				}
				changed = append(left, hints.Extent{Offset: off, Length: length})
			case "resize":
				if grown > size {
					// Growing what was cut since the last backup brings zeros.
					changed = append(changed, hints.Extent{Offset: size, Length: grown - size})
				}
				size = grown
				if err := f.Truncate(size); err != nil {
					rt.Fatal(err)
				}
				if changed, err = hints.Collect(hints.Clip(hints.Of(hints.Normalize(changed)), size)); err != nil {
					rt.Fatal(err)
				}
			case "backup":
				var w warnings
				level := backup(t, r, NewSource(path, SourceOptions{Hints: changed, HasHints: rapid.Bool().Draw(rt, "with hints")}), &w)
				changed = nil
				emptied := size == 0 && before > 0
				if len(w) > 0 != emptied || emptied && !strings.Contains(w[0], "is empty") {
					rt.Fatalf("warned: %q, of %d bytes and %d before", w, size, before)
				}
				before = size
				want := readFile(t, path)
				restore(t, r, level, existing)
				fresh := filepath.Join(dir, "fresh")
				restore(t, r, level, fresh)
				restore(t, r, level, device)
				got := map[string][]byte{"existing": readFile(t, existing), "fresh": readFile(t, fresh), "device": readFile(t, device)[:size]}
				for name, content := range got {
					if !bytes.Equal(content, want) {
						rt.Fatalf("level %s, restored to %s: other bytes", level.Number, name)
					}
				}
				if err := os.Remove(fresh); err != nil {
					rt.Fatal(err)
				}
			}
		}
	})
}

// Hints know bytes, the file system knows blocks, the engine knows chunks: data
// that a block has beside what the hints name is no lie of the hints.
func TestHintsFinerThanTheFilesBlocks(t *testing.T) {
	path := sparse(t, t.TempDir(), 256*kib, hints.Extent{Offset: 64*kib + 100, Length: 50})
	r := newRepository(t)
	var w warnings
	level := backup(t, r, NewSource(path, SourceOptions{
		Hints: []hints.Extent{{Offset: 64*kib + 100, Length: 50, Exists: true}}, HasHints: true,
	}), &w)
	w.mustHave(t)
	if level.Origin.Diff != store.DiffHints {
		t.Errorf("diff %s", level.Origin.Diff)
	}
	restored := filepath.Join(t.TempDir(), "restored")
	restore(t, r, level, restored)
	if !bytes.Equal(readFile(t, restored), readFile(t, path)) {
		t.Error("other bytes")
	}
}

func TestHintsThatLieAreFoundOut(t *testing.T) {
	content := randomBytes(512 * kib)
	file := writeFile(t, filepath.Join(t.TempDir(), "image"), content)
	device := loop(t, writeFile(t, filepath.Join(t.TempDir(), "backing"), content))
	for _, path := range []string{file, device} {
		r := newRepository(t)
		var w warnings
		level := backup(t, r, NewSource(path, SourceOptions{
			Hints: []hints.Extent{{Offset: 0, Length: 64 * kib, Exists: true}, {Offset: 128 * kib, Length: 64 * kib}}, HasHints: true,
		}), &w)
		w.mustHave(t, "reading and comparing everything")
		if level.Origin.Diff != store.DiffNone {
			t.Errorf("diff %s", level.Origin.Diff)
		}
		restored := filepath.Join(t.TempDir(), "restored")
		restore(t, r, level, restored)
		if !bytes.Equal(readFile(t, restored), content) {
			t.Error("other bytes")
		}
	}
}

func TestCommandThatFailsMakesNoLevel(t *testing.T) {
	r := newRepository(t)
	for _, line := range []string{"exit 1", "head -c 100000 /dev/urandom; exit 1", "head -c 4194304 /dev/zero; exit 1", "printf abc; kill -KILL $$"} {
		_, err := engine.Backup(t.Context(), r, "image", NewCommand(line, PipeOptions{}), engine.BackupOptions{})
		mustFail(t, err, "--from-command failed: ")
	}
	levels, err := r.Levels(t.Context(), "image")
	if err != nil || len(levels) > 0 {
		t.Errorf("levels %v, %v", levels, err)
	}
}
