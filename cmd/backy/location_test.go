package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"backy/store"
)

// tree makes files and folders (with a slash at the end) below a new folder.
func tree(t *testing.T, paths ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, p := range paths {
		full := filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(p, "/") {
			if err := os.MkdirAll(full, 0o700); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(full, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestLocate(t *testing.T) {
	root := tree(t,
		"repo/backy.json",
		"repo/data/",
		"repo/inner/deep/repo/backy.json",
		"empty/",
		"fresh/lost+found/",
		"full/file",
		"full/folder/",
		"mounted/lost+found/",
		"mounted/other",
		"killed/work/probe.0123456789abcdef",
		"killed/.tmp-1",
		"job/work/report",
	)
	if err := os.Symlink(filepath.Join(root, "repo"), filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	const occupied = "it has other things in it"
	for _, tt := range []struct {
		backupDir, arg string
		dir            string
		name           store.Name
		exists         bool
		why            string
	}{
		// A path: the nearest repository at or above it.
		{"", "repo/web1", "repo", "web1", true, ""},
		{"", "repo/vms/web1", "repo", "vms/web1", true, ""},
		{"", "repo/vms/web1/", "repo", "vms/web1", true, ""},
		{"", "repo/./x/../web1", "repo", "web1", true, ""},
		{"", "repo/data/web1", "repo", "data/web1", true, ""},
		{"", "repo/inner/deep/repo/web1", "repo/inner/deep/repo", "web1", true, ""},
		{"", "repo/inner/deep/web1", "repo", "inner/deep/web1", true, ""},
		{"", "link/web1", "link", "web1", true, ""},
		{"", "repo", "repo", "", true, ""},
		{"", "repo/", "repo", "", true, ""},
		{"", "repo/backy.json/web1", "repo", "backy.json/web1", true, ""},
		// No repository: the parent folder.
		{"", "empty/web1", "empty", "web1", false, ""},
		{"", "missing/web1", "missing", "web1", false, ""},
		{"", "missing/deep/web1", "missing/deep", "web1", false, ""},
		{"", "fresh/web1", "fresh", "web1", false, ""},
		{"", "full/web1", "full", "web1", false, occupied},
		{"", "full/file", "full", "file", false, occupied},
		{"", "full/folder", "full/folder", "", false, ""},
		{"", "empty/", "empty", "", false, ""},
		{"", "full/folder/..", "full", "", false, ""},
		{"", "mounted/web1", "mounted", "web1", false, occupied},
		{"", "killed/web1", "killed", "web1", false, ""},
		{"", "job/web1", "job", "web1", false, occupied},
		// A BACKUPDIR: names are in it.
		{"repo", "web1", "repo", "web1", true, ""},
		{"repo", "vms/web1", "repo", "vms/web1", true, ""},
		{"repo/", "vms/web1", "repo", "vms/web1", true, ""},
		{"empty", "web1", "empty", "web1", false, ""},
		{"missing", "vms/web1", "missing", "vms/web1", false, ""},
		{"fresh", "web1", "fresh", "web1", false, ""},
		{"full", "web1", "full", "web1", false, occupied},
		{"repo/vms", "web1", "repo/vms", "web1", false, "it lies inside the repository ROOT/repo"},
	} {
		t.Chdir(root)
		for _, absolute := range []bool{false, true} {
			backupDir, arg := tt.backupDir, tt.arg
			switch {
			case absolute && backupDir != "":
				backupDir = filepath.Join(root, backupDir)
			case absolute:
				arg = root + "/" + arg
			}
			got, err := locate(backupDir, arg)
			want := place{filepath.Join(root, tt.dir), tt.name, tt.exists, strings.ReplaceAll(tt.why, "ROOT", root)}
			if err != nil || got != want {
				t.Errorf("-b %q %q: got %+v, %v; want %+v", backupDir, arg, got, err, want)
			}
		}
	}
}

func TestLocateRefuses(t *testing.T) {
	root := tree(t, "repo/backy.json", "empty/", "full/folder/", "file")
	t.Chdir(root)
	for _, tt := range []struct {
		backupDir, arg string
		usage          bool
		want           string
	}{
		{"repo", "/web1", true, "is absolute"},
		{"repo", root + "/repo/web1", true, "is absolute"},
		{"repo", "../web1", true, `a part ".."`},
		{"repo", "vms/../../web1", true, `a part ".."`},
		{"repo", "vms/../web1", true, `a part ".."`},
		{"repo", "./web1", true, `a part "."`},
		{"repo", "web1/", true, "begins or ends with a slash"},
		{"repo", "", true, "empty"},
		{"repo", "a\nb", true, "control characters"},
		{"", "", true, "empty"},
		{"", "rbd:pool/image", true, "not a backup name"},
		{"", "-", true, "not a backup name"},
		{"repo", "rbd:pool/image", true, "not a backup name"},
		{"repo", "-", true, "not a backup name"},
		{"", "repo/a\nb", true, "control characters"},
		{"", "repo/" + strings.Repeat("x", 201), true, "longer than 200 bytes"},
		{"", "file/web1", false, "file: not a folder"},
		{"file", "web1", false, "file: not a folder"},
	} {
		_, err := locate(tt.backupDir, tt.arg)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("-b %q %q: got error %v, want %s", tt.backupDir, tt.arg, err, tt.want)
			continue
		}
		var usage *usageError
		if got := errors.As(err, &usage); got != tt.usage {
			t.Errorf("-b %q %q: usage error %v, want %v: %v", tt.backupDir, tt.arg, got, tt.usage, err)
		}
	}
}

func TestLocateNearest(t *testing.T) {
	root := tree(t, "repo/backy.json", "repo/data/deep/", "empty/")
	for _, tt := range []struct {
		cwd, backupDir, dir string
		exists              bool
	}{
		{"repo", "", "repo", true},
		{"repo/data/deep", "", "repo", true},
		{"empty", "../repo", "repo", true},
		{"empty", "", "empty", false},
	} {
		t.Chdir(filepath.Join(root, tt.cwd))
		got, err := locateNearest(tt.backupDir)
		if err != nil || got.dir != filepath.Join(root, tt.dir) || got.exists != tt.exists || got.name != "" {
			t.Errorf("in %s, -b %q: got %+v, %v", tt.cwd, tt.backupDir, got, err)
		}
	}
}
