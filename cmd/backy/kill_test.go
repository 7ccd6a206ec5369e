package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"backy/store"
)

// TestKill kills backups of a file with SIGKILL where it hurts: every level
// that is listed restores, and the next backup works.
func TestKill(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image")
	content := make([]byte, 36<<20) // two packs
	random := rand.NewChaCha8([32]byte{})
	k := killing{
		source: image,
		change: func(t *testing.T) []byte {
			if _, err := random.Read(content); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(image, content, 0o600); err != nil {
				t.Fatal(err)
			}
			return bytes.Clone(content)
		},
	}
	k.run(t)
}

// A first backup that was killed half-way is picked up by the next: what it had
// stored is not stored again.
func TestKilledFirstBackupIsPickedUp(t *testing.T) {
	dir := t.TempDir()
	content := make([]byte, 128<<20) // four packs
	if _, err := rand.NewChaCha8([32]byte{3}).Read(content); err != nil {
		t.Fatal(err)
	}
	k := killing{dir: dir, source: filepath.Join(dir, "image")}
	if err := os.WriteFile(k.source, content, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := k.backy("backup", "--compression", "none", k.source, "image")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	const packs = "data/*/[^.]*" // no temporary files
	waitFor(t, "half of the packs", func() bool { return len(k.glob(packs)) >= 2 })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("it was done before it was killed")
	}
	had := int64(0)
	for _, pack := range k.glob(packs) {
		info, err := os.Stat(pack)
		if err != nil {
			t.Fatal(err)
		}
		had += info.Size()
	}
	out, err := k.backy("--json", "backup", "--compression", "none", k.source, "image").Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	// A pack is a little more than its chunks, and so is what is stored.
	stats, all := r.Level.Stats, int64(len(content))
	t.Logf("%d bytes were stored before the kill; of %d, %d were then reused and %d stored", had, all, stats.Reused, stats.Stored)
	if stats.Reused < had*99/100 || stats.Stored > (all-stats.Reused)*102/100 {
		t.Errorf("%d bytes lay there: %d reused, %d stored", had, stats.Reused, stats.Stored)
	}
	k.levels = map[store.LevelNumber][]byte{}
	k.now = content
	k.check(t)
}

func waitFor(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for start := time.Now(); !happened(); time.Sleep(time.Millisecond) {
		if time.Since(start) > untilLimit {
			t.Fatalf("%s: not within %s", what, untilLimit)
		}
	}
}

// killing is what TestKill does, for any source.
type killing struct {
	env    []string
	source string
	change func(*testing.T) []byte // makes the source hold something new
	before func(*testing.T)        // makes the source new to a repository; may be nil
	after  func(*testing.T)        // checks what a whole backup leaves; may be nil

	dir    string
	levels map[store.LevelNumber][]byte // what each listed level holds
	now    []byte                       // what the source holds
}

// killPoints are globs in the repository: a backup is killed as soon as one
// has grown.
var killPoints = []string{"work/claim.*", "data/*/*", "maps/*/*", "levels/*/*"}

func (k *killing) run(t *testing.T) {
	for _, second := range []bool{false, true} {
		for _, point := range killPoints {
			name := "first " + point
			if second {
				name = "second " + point
			}
			t.Run(strings.NewReplacer("*", "x", "/", "-").Replace(name), func(t *testing.T) {
				k.dir, k.levels, k.now = t.TempDir(), map[store.LevelNumber][]byte{}, nil
				if k.before != nil {
					k.before(t)
				}
				if second {
					k.backup(t)
				}
				k.now = k.change(t)
				k.kill(t, point)
				k.check(t)
				k.backup(t)
				k.check(t)
				if n := len(k.levels); n == 0 {
					t.Error("no level is listed after a whole backup")
				}
				if claims := k.glob("work/claim.*"); len(claims) > 0 {
					t.Errorf("claims stay: %q", claims)
				}
			})
		}
	}
}

func (k *killing) backy(args ...string) *exec.Cmd {
	cmd := exec.Command("backy", append([]string{"-q", "-b", filepath.Join(k.dir, "repo")}, args...)...)
	cmd.Env = append(os.Environ(), "BACKY_CACHEDIR="+filepath.Join(k.dir, "cache"))
	cmd.Env = append(cmd.Env, k.env...)
	return cmd
}

func (k *killing) glob(pattern string) []string {
	found, err := filepath.Glob(filepath.Join(k.dir, "repo", pattern))
	if err != nil {
		panic(err) // a bad pattern
	}
	return found
}

// backup runs a whole one. It may finish the level of a run that was killed before,
// and had nothing left to do but to commit.
func (k *killing) backup(t *testing.T) {
	t.Helper()
	killed := k.now
	k.now = k.change(t)
	if out, err := k.backy("backup", k.source, "image").CombinedOutput(); err != nil {
		t.Fatalf("backup: %v\n%s", err, out)
	}
	if k.after != nil {
		k.after(t)
	}
	fresh := k.list(t)
	if n := len(fresh); n == 2 && killed != nil {
		k.levels[fresh[0]] = killed
	} else if n != 1 {
		t.Errorf("a whole backup made %d levels", n)
	}
}

// kill runs a backup and kills it when there is more of a glob than before.
func (k *killing) kill(t *testing.T, point string) {
	t.Helper()
	before := len(k.glob(point))
	cmd := k.backy("backup", k.source, "image")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); len(k.glob(point)) <= before; time.Sleep(100 * time.Microsecond) {
		if time.Since(start) > untilLimit {
			t.Errorf("%s did not come within %s", point, untilLimit)
			break
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Log("it was done before")
	} else if stderr.Len() > 0 {
		t.Errorf("before it was killed, it said: %s", &stderr)
	}
}

// list notes what the levels hold that have come since the last time, and returns
// their numbers, ascending. There may be no repository yet.
func (k *killing) list(t *testing.T) (fresh []store.LevelNumber) {
	t.Helper()
	if len(k.glob(marker)) == 0 {
		return nil
	}
	out, err := k.backy("--json", "ls").Output()
	if err != nil {
		t.Fatalf("ls: %v\n%s", err, out)
	}
	var names report
	if err := json.Unmarshal(out, &names); err != nil {
		t.Fatal(err)
	}
	if len(names.Names) == 0 {
		return nil
	}
	if out, err = k.backy("--json", "ls", "image").Output(); err != nil {
		t.Fatalf("ls: %v\n%s", err, out)
	}
	var levels report
	if err := json.Unmarshal(out, &levels); err != nil {
		t.Fatal(err)
	}
	for _, l := range levels.Levels {
		if k.levels[l.Number] == nil {
			k.levels[l.Number] = k.now
			fresh = append(fresh, l.Number)
		}
	}
	slices.Sort(fresh)
	return fresh
}

// check restores all levels that are listed.
func (k *killing) check(t *testing.T) {
	t.Helper()
	k.list(t)
	for n, want := range k.levels {
		out := filepath.Join(k.dir, fmt.Sprintf("out.%s", n))
		if said, err := k.backy("restore", "-l", n.String(), "image", out).CombinedOutput(); err != nil {
			t.Errorf("restore of level %s: %v\n%s", n, err, said)
			continue
		}
		got, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("level %s does not restore what was backed up", n)
		}
	}
}
