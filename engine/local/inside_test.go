package local

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestInside(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	at := func(name string) string { return root + "/" + name } // not filepath.Join, which takes .. away
	for _, dir := range []string{"srv/repo/data", "srv/repository", "other/folder", "again", "loop"} {
		if err := os.MkdirAll(at(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, leads := range map[string]string{
		"other/to-data":   at("srv/repo/data"),
		"other/to-new":    at("srv/repo/new"),
		"other/to-to-new": "to-new",
		"other/up":        "../srv/repo",
		"srv/repo/out":    at("other"),
		"other/round":     "round",
	} {
		if err := os.Symlink(leads, at(name)); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, at("srv/repo/file"), nil)
	if err := unix.Mount(at("srv"), at("again"), "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at("again"), 0); err != nil {
			t.Error(err)
		}
	})
	repo := at("srv/repo")
	for _, test := range []struct {
		path string
		want bool
	}{
		{repo, true},
		{repo + "/", true},
		{repo + "/file", true},
		{repo + "/data/new", true},
		{repo + "/none/none/new", true},
		{repo + "/data/../../../other/x", false},
		{at("srv"), false},
		{at("srv/repository"), false},
		{at("srv/repository/x"), false},
		{at("srv/repo.img"), false},
		{at("other/x"), false},
		{at("other/../srv/repo/x"), true},
		{at("other/none/../../srv/repo/x"), true},
		{at("other/to-data"), true},
		{at("other/to-data/x"), true},
		{at("other/to-data/../x"), true}, // as the kernel goes; "other/x" by name
		{at("other/to-data/../../x"), false},
		{at("other/to-new"), true},
		{at("other/to-to-new"), true},
		{at("other/up/x"), true},
		{at("srv/repo/out/x"), false},
		{at("again/repo/x"), true},
		{at("again/repository/x"), false},
		{"/", false},
		{"/dev/null", false},
	} {
		got, err := Inside(test.path, repo)
		if err != nil || got != test.want {
			t.Errorf("%s: %t, %v, want %t", test.path, got, err, test.want)
		}
	}

	t.Chdir(at("srv/repo/data"))
	for path, want := range map[string]bool{"x": true, ".": true, "..": true, "../x": true, "../../x": false, "none/../../../x": false} {
		if got, err := Inside(path, repo); err != nil || got != want {
			t.Errorf("%s from within: %t, %v, want %t", path, got, err, want)
		}
	}
	if got, err := Inside("x", "../../repo"); err != nil || !got {
		t.Errorf("with a relative folder: %t, %v", got, err)
	}
	if got, err := Inside(at("other/x"), at("none")); err != nil || got {
		t.Errorf("a folder that does not exist: %t, %v", got, err)
	}
	for _, path := range []string{at("other/round"), ""} {
		if got, err := Inside(path, repo); err == nil {
			t.Errorf("%q: %t without an error", path, got)
		}
	}
}

func TestDeviceUnderTheFolderCountsAsInside(t *testing.T) {
	backing := writeFile(t, filepath.Join(t.TempDir(), "backing"), make([]byte, 8<<20))
	device, other := loop(t, backing), loop(t, writeFile(t, filepath.Join(t.TempDir(), "other"), make([]byte, 4096)))
	dir := mountDevice(t, device)
	if err := os.Mkdir(filepath.Join(dir, "repo"), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{device: true, other: false} {
		if got, err := Inside(path, filepath.Join(dir, "repo")); err != nil || got != want {
			t.Errorf("%s: %t, %v, want %t", path, got, err, want)
		}
	}
}
