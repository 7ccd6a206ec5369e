package dir

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"backy/store/internal/key"
)

const object = "data/run/0"

var parts = [][]byte{[]byte("some "), []byte("bytes")}

// onDisk walks a repository's folder without the backend's help: the files
// that are no temporaries, with their content, and how many temporaries.
func onDisk(t *testing.T, d *Dir) (files map[string]string, temps int) {
	t.Helper()
	files = map[string]string{}
	err := filepath.WalkDir(d.root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if strings.HasPrefix(e.Name(), key.TempPrefix) {
			temps++
			return nil
		}
		p, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, d.root+"/")] = string(p)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files, temps
}

// stepsOf lists what a Put of the object asks of the file system.
func stepsOf(t *testing.T, d *Dir) (steps []step) {
	t.Helper()
	h := hooked(d, func(s step) error { steps = append(steps, s); return nil })
	if err := h.Put(t.Context(), object, parts...); err != nil {
		t.Fatal(err)
	}
	return steps
}

// script writes steps as lines.
func script(steps []step) string {
	var lines []string
	for _, s := range steps {
		name := s.path
		if strings.HasPrefix(path.Base(name), key.TempPrefix) {
			name = "temporary"
		}
		lines = append(lines, s.op+" "+name)
	}
	return strings.Join(lines, "\n")
}

func TestPutSteps(t *testing.T) {
	got := script(stepsOf(t, newDir(t)))
	const want = `stat data/run/0
create temporary
mkdir data/run
mkdir data
mkdir data/run
create temporary
write temporary
write temporary
sync temporary
flush temporary
link temporary
close temporary
unlink temporary
open data/run
sync data/run
open data
sync data
open .
sync .`
	if got != want {
		t.Errorf("a Put into new folders goes:\n%s\nwant:\n%s", got, want)
	}
}

func TestSyncSteps(t *testing.T) {
	d := newDir(t)
	if err := d.Put(t.Context(), object, parts...); err != nil {
		t.Fatal(err)
	}
	var steps []step
	if err := hooked(d, func(s step) error { steps = append(steps, s); return nil }).Sync(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	const want = `stat data/run/0
open data/run/0
sync data/run/0
open data/run
sync data/run
open data
sync data
open .
sync .`
	if got := script(steps); got != want {
		t.Errorf("a Sync goes:\n%s\nwant:\n%s", got, want)
	}
}

// TestPutKilled lets the process die before each step in turn.
func TestPutKilled(t *testing.T) {
	for n := range len(stepsOf(t, newDir(t))) {
		d := newDir(t)
		left := n
		dead := hooked(d, func(step) error {
			if left--; left < 0 {
				return errDead
			}
			return nil
		})
		if err := dead.Put(t.Context(), object, parts...); !errors.Is(err, errDead) {
			t.Fatalf("step %d: %v", n, err)
		}
		files, temps := onDisk(t, d)
		content, exists := files[object]
		if exists && content != "some bytes" || len(files) > 1 || temps > 1 {
			t.Errorf("dead before step %d: %q and %d temporary files", n, files, temps)
		}
		err := d.Put(t.Context(), object, parts...)
		if exists != errors.Is(err, fs.ErrExist) || !exists && err != nil {
			t.Errorf("dead before step %d: put again: %v", n, err)
		}
		if swept, err := d.Sweep(t.Context(), 1); swept != temps || err != nil {
			t.Errorf("dead before step %d: swept %d of %d: %v", n, swept, temps, err)
		}
		files, temps = onDisk(t, d)
		if files[object] != "some bytes" || len(files) != 1 || temps != 0 {
			t.Errorf("dead before step %d: %q and %d temporary files in the end", n, files, temps)
		}
	}
}

// TestPutFails lets each step fail in turn.
func TestPutFails(t *testing.T) {
	for _, injected := range []error{syscall.EIO, syscall.ENOSPC, syscall.EROFS, syscall.EDQUOT} {
		for n, failing := range stepsOf(t, newDir(t)) {
			d := newDir(t)
			at := 0
			h := hooked(d, func(step) error {
				if at++; at == n+1 {
					return injected
				}
				return nil
			})
			err := h.Put(t.Context(), object, parts...)
			var pathErr *fs.PathError
			if !errors.Is(err, injected) || !errors.As(err, &pathErr) || pathErr.Path != filepath.Join(d.root, object) {
				t.Errorf("%v in %s: %v", injected, failing.op, err)
			}
			files, temps := onDisk(t, d)
			if content, exists := files[object]; exists && content != "some bytes" || len(files) > 1 {
				t.Errorf("%v in %s: %q", injected, failing.op, files)
			}
			if temps > 0 && failing.op != "unlink" {
				t.Errorf("%v in %s: a temporary file is left", injected, failing.op)
			}
			if _, err := os.Stat(filepath.Join(d.root, "data/run")); len(files)+temps == 0 && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%v in %s: an empty folder is left: %v", injected, failing.op, err)
			}
			if err := d.Put(t.Context(), object, parts...); err != nil && (len(files) == 0 || !errors.Is(err, fs.ErrExist)) {
				t.Errorf("%v in %s: put again: %v", injected, failing.op, err)
			}
		}
	}
}

// TestPutCancelled cancels the context before each step in turn.
func TestPutCancelled(t *testing.T) {
	why := errors.New("why")
	outcomes := map[bool]int{}
	for n, s := range stepsOf(t, newDir(t)) {
		d := newDir(t)
		c, cancel := context.WithCancelCause(t.Context())
		at := 0
		h := hooked(d, func(step) error {
			if at++; at == n+1 {
				cancel(why)
			}
			return nil
		})
		err := h.Put(c, object, parts...)
		files, temps := onDisk(t, d)
		if err != nil && !errors.Is(err, why) || temps != 0 || (err == nil) != (files[object] == "some bytes") || err != nil && len(files) != 0 {
			t.Errorf("cancelled before %s: %v, %q, %d temporary files", s.op, err, files, temps)
		}
		outcomes[err == nil]++
	}
	if outcomes[true] == 0 || outcomes[false] == 0 {
		t.Errorf("all Puts ended alike: %v", outcomes)
	}
}

// TestPutMeetsOthers does, before a step of a Put, what another process may do
// at that moment.
func TestPutMeetsOthers(t *testing.T) {
	inRoot := func(d *Dir, path string) string { return filepath.Join(d.root, path) }
	for _, tc := range []struct {
		name   string
		before string // the step
		do     func(*testing.T, *Dir, step) error
		want   error
		holds  string
	}{
		{"the folder is removed before the temporary file is made", "create", func(t *testing.T, d *Dir, _ step) error {
			err := os.Remove(inRoot(d, "data/run"))
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}, nil, "some bytes"},
		{"both folders are removed before the second is made", "mkdir", func(t *testing.T, d *Dir, _ step) error {
			return os.RemoveAll(inRoot(d, "data"))
		}, nil, "some bytes"},
		{"the temporary file is swept before it is linked", "link", func(t *testing.T, d *Dir, s step) error {
			return os.Remove(inRoot(d, s.path))
		}, nil, "some bytes"},
		{"the temporary file and its folder are swept before it is linked", "link", func(t *testing.T, d *Dir, _ step) error {
			return os.RemoveAll(inRoot(d, "data"))
		}, nil, "some bytes"},
		{"the temporary file goes stale on a file server", "write", func(*testing.T, *Dir, step) error {
			return syscall.ESTALE
		}, nil, "some bytes"},
		{"the temporary file is swept after it was linked", "unlink", func(t *testing.T, d *Dir, s step) error {
			return os.Remove(inRoot(d, s.path))
		}, nil, "some bytes"},
		{"the object is put before it is linked", "link", func(t *testing.T, d *Dir, _ step) error {
			return d.Put(t.Context(), object, []byte("other"))
		}, fs.ErrExist, "other"},
		{"the object is deleted, and its folder, before that is synced", "open", func(t *testing.T, d *Dir, _ step) error {
			return d.Delete(t.Context(), object)
		}, nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDir(t)
			times := 0
			h := hooked(d, func(s step) error {
				if s.op != tc.before {
					return nil
				}
				if times++; times > 3 {
					return nil
				}
				return tc.do(t, d, s)
			})
			if err := h.Put(t.Context(), object, parts...); !errors.Is(err, tc.want) {
				t.Error(err)
			}
			files, temps := onDisk(t, d)
			if files[object] != tc.holds || temps != 0 || times == 0 {
				t.Errorf("%q, %d temporary files, %d times", files, temps, times)
			}
		})
	}
}

func TestPutGivesUpWhereItsFolderNeverStays(t *testing.T) {
	d := newDir(t)
	h := hooked(d, func(s step) error {
		if s.op == "create" {
			return fs.ErrNotExist
		}
		return nil
	})
	if err := h.Put(t.Context(), object, parts...); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestWithoutHardLinks(t *testing.T) {
	noLinks := func(d *Dir, noRename bool) *Dir {
		return hooked(d, func(s step) error {
			if s.op == "link" || s.op == "rename" && noRename {
				return errNoWay
			}
			return nil
		})
	}
	d := newDir(t)
	h := noLinks(d, false)
	if err := h.Put(t.Context(), object, parts...); err != nil {
		t.Fatal(err)
	}
	if err := h.publish(object, object+"x"); err != nil {
		t.Fatal(err)
	}
	if err := h.Put(t.Context(), object, parts...); err != nil {
		t.Fatal(err)
	}
	if err := h.publish(object, object+"x"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a rename replaced an object: %v", err)
	}
	files, temps := onDisk(t, d)
	if len(files) != 2 || files[object] != "some bytes" || temps != 0 {
		t.Errorf("%q, %d temporary files", files, temps)
	}

	d = newDir(t)
	err := noLinks(d, true).Put(t.Context(), object, parts...)
	if err == nil || !strings.Contains(err.Error(), "cannot hold a repository") || errors.Is(err, fs.ErrExist) {
		t.Errorf("neither links nor renames: %v", err)
	}
	if files, temps := onDisk(t, d); len(files)+temps != 0 {
		t.Errorf("neither links nor renames: %q and %d temporary files are left", files, temps)
	}
}

// TestErrorsOfOtherCalls lets each step of the calls that are no Put fail.
func TestErrorsOfOtherCalls(t *testing.T) {
	for name, call := range map[string]func(context.Context, *Dir) error{
		"Get": func(c context.Context, d *Dir) error {
			_, err := d.Get(c, object, make([]byte, 3), 0)
			return err
		},
		"List": func(c context.Context, d *Dir) error {
			return d.List(c, "data/", func(string, int64) error { return nil })
		},
		"Sync":   func(c context.Context, d *Dir) error { return d.Sync(c, object) },
		"Delete": func(c context.Context, d *Dir) error { return d.Delete(c, object) },
	} {
		for n, over := 0, false; !over; n++ {
			d := newDir(t)
			if err := d.Put(t.Context(), object, slices.Concat(parts...)); err != nil {
				t.Fatal(err)
			}
			at, tidy := 0, false
			h := hooked(d, func(s step) error {
				if at++; at == n+1 {
					tidy = s.op == "rmdir"
					return syscall.EIO
				}
				return nil
			})
			err := call(t.Context(), h)
			over = at <= n
			if failed := errors.Is(err, syscall.EIO); failed == (over || tidy) || !failed && err != nil {
				t.Errorf("%s: EIO in step %d: %v", name, n, err)
			}
			if name != "Delete" {
				p := make([]byte, 10)
				if _, err := d.Get(t.Context(), object, p, 0); err != nil || !bytes.Equal(p, slices.Concat(parts...)) {
					t.Errorf("%s: EIO in step %d: then %q, %v", name, n, p, err)
				}
			}
		}
	}
}
