package local

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"backy/store"
	"backy/store/dir"

	"golang.org/x/sys/unix"
)

// realRepository makes one with an object of each kind in a folder.
func realRepository(t *testing.T, path string) (objects []string) {
	t.Helper()
	b, err := dir.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := store.Init(t.Context(), b, store.Parameters{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(r.Close(), b.Close()); err != nil {
			t.Error(err)
		}
	})
	w, err := r.Begin(t.Context(), "image", store.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.BeginMap(t.Context(), store.Map{Fanout: 2}, 1); err != nil {
		t.Fatal(err)
	}
	raw := bytes.Repeat([]byte("backy"), 1000)
	enc, err := r.NewCoder(store.CompressZstd).Encode(raw, store.Sum(raw))
	if err != nil {
		t.Fatal(err)
	}
	ref, _, err := w.PutChunk(t.Context(), enc)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Set(t.Context(), 0, ref); err != nil {
		t.Fatal(err)
	}
	root, err := w.FinishMap(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	l := store.Level{
		Name: "image", Number: w.Number, Run: w.ID, Size: int64(len(raw)), ChunkSize: r.ChunkSize, Fanout: r.Fanout(), Root: root,
		Time: time.Now(), Committed: time.Now(),
	}
	if err := w.Commit(t.Context(), &l); err != nil {
		t.Fatal(err)
	}
	if _, release := r.Hold(context.Background(), &l, store.HoldOptions{}); release != nil {
		t.Cleanup(release)
	}
	for _, pattern := range []string{"*.json", "data/*/*", "maps/*/*", "maps2/*/*", "levels/*/*", "work/*"} {
		found, err := filepath.Glob(filepath.Join(path, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("no %s: %v", pattern, err)
		}
		objects = append(objects, found...)
	}
	return objects
}

// No file of a repository is restored to under another name, forced or not; other
// files of several names are.
func TestTargetIsNoObject(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	repo, other := filepath.Join(root, "repo"), filepath.Join(root, "other")
	objects := append(realRepository(t, repo), realRepository(t, other)...)
	// One of which the head is bad is known by its inode.
	spoilt := filepath.Join(repo, "data/0123456789abcdef/00000000")
	if err := os.MkdirAll(filepath.Dir(spoilt), 0o700); err != nil {
		t.Fatal(err)
	}
	objects = append(objects, writeFile(t, spoilt, []byte("what a disk made of it")))
	mounted := filepath.Join(root, "mounted")
	if err := os.Mkdir(mounted, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(filepath.Join(repo, "data"), mounted, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mounted, 0); err != nil {
			t.Error(err)
		}
	})
	refused := func(path string) {
		t.Helper()
		before := readFile(t, path)
		for _, force := range []bool{false, true} {
			target := NewTarget(path, TargetOptions{Force: force, Repository: repo})
			_, err := target.Prepare(t.Context(), store.Level{Size: 10})
			if err == nil || !strings.Contains(err.Error(), "is a file of a repository") {
				t.Errorf("%s: %v", path, err)
			}
			if !bytes.Equal(readFile(t, path), before) {
				t.Fatalf("%s was overwritten", path)
			}
		}
	}
	for _, object := range objects {
		link := filepath.Join(root, "link")
		if err := os.Link(object, link); err != nil {
			t.Fatal(err)
		}
		refused(link)
		if err := os.Symlink(link, link+".link"); err != nil {
			t.Fatal(err)
		}
		refused(link + ".link")
		for _, name := range []string{link, link + ".link"} {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	again, err := filepath.Glob(mounted + "/*/*")
	if err != nil || len(again) < 2 {
		t.Fatal(err, again)
	}
	refused(again[len(again)-1])
	if inside, err := Inside(filepath.Join(mounted, "new"), repo); err != nil || !inside {
		t.Errorf("in a folder of the repository that is mounted again: %v, %v", inside, err)
	}

	// A copy of an object is nobody's, and so is a file of two names.
	plain := writeFile(t, filepath.Join(root, "plain"), readFile(t, objects[0]))
	linked := writeFile(t, filepath.Join(root, "linked"), []byte("some bytes"))
	if err := os.Link(linked, linked+".2"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{plain, linked} {
		target := NewTarget(path, TargetOptions{Repository: repo})
		prepare(t, target, 10)
		mustWrite(t, target, []byte("0123456789"), 0)
		mustFinish(t, target)
	}
}

// A device is refused on which a repository lies, at whatever depth, and one that
// is made of its files.
func TestBeneath(t *testing.T) {
	needRoot(t)
	disk := loop(t, sparse(t, t.TempDir(), 64<<20))
	dir := mountDevice(t, disk)
	inner := loop(t, sparse(t, dir, 32<<20))
	deep := mountDevice(t, inner)
	repo := filepath.Join(deep, "repo")
	objects := realRepository(t, repo)
	own := loop(t, objects[0])
	other := loop(t, sparse(t, t.TempDir(), 1<<20))
	for path, want := range map[string]bool{disk: true, inner: true, own: true, other: false, "/dev/null": false, repo: false, "/nowhere": false} {
		if got, err := Beneath(path, repo); err != nil || got != want {
			t.Errorf("%s: %v, %v", path, got, err)
		}
	}
	if got, err := Beneath(disk, filepath.Join(deep, "none")); err != nil || got {
		t.Errorf("a repository that does not exist: %v, %v", got, err)
	}
}

// A disk is refused of which a partition has the repository, and the other
// partitions are not.
func TestBeneathPartition(t *testing.T) {
	needRoot(t)
	disk := loop(t, sparse(t, t.TempDir(), 64<<20), "--partscan")
	for i, sectors := range [][]string{{"2048", "60000"}, {"64000", "60000"}} {
		if out, err := exec.Command("addpart", disk, strconv.Itoa(i+1), sectors[0], sectors[1]).CombinedOutput(); err != nil {
			t.Fatalf("addpart: %v: %s", err, out)
		}
	}
	first, second := disk+"p1", disk+"p2"
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(second); err == nil {
			break
		} else if time.Since(start) > time.Minute {
			t.Fatal(err)
		}
	}
	repo := filepath.Join(mountDevice(t, first), "repo")
	realRepository(t, repo)
	for path, want := range map[string]bool{disk: true, first: true, second: false} {
		if got, err := Beneath(path, repo); err != nil || got != want {
			t.Errorf("%s: %v, %v", path, got, err)
		}
	}
}
