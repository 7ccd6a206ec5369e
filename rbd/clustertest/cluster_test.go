package clustertest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// crash makes this test binary a program that starts a cluster, prints its
// folder and waits to be killed.
const crash = "CLUSTERTEST_CRASH"

func TestMain(m *testing.M) {
	if os.Getenv(crash) != "" {
		c, err := start(Options{})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(c.dir)
		time.Sleep(time.Hour)
	}
	Main(m)
}

func TestPoolTakesImages(t *testing.T) {
	c := Get(t)
	pool := c.Pool(t)
	c.Run(t, "rbd", "create", "--size", "8M", pool+"/image")
	if got := strings.TrimSpace(c.Run(t, "rbd", "ls", pool)); got != "image" {
		t.Errorf("images in a new pool: %q, want the one made", got)
	}
	if other := c.Pool(t); other == pool {
		t.Errorf("two pools of one name: %s", pool)
	}
}

func TestPoolAndKeyAreGoneAfterTheTest(t *testing.T) {
	c := Get(t)
	var pool, id string
	t.Run("inner", func(t *testing.T) { pool, id = c.Pool(t), c.Key(t) })
	if strings.Contains(c.Run(t, "ceph", "osd", "pool", "ls"), pool) {
		t.Errorf("pool %s is still there", pool)
	}
	if strings.Contains(c.Run(t, "ceph", "auth", "ls"), id) {
		t.Errorf("client %s is still there", id)
	}
	if _, err := os.Stat(c.Keyring(id)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("keyring of client %s: %v, want none", id, err)
	}
}

func TestKeyHasItsCapabilitiesOnly(t *testing.T) {
	c := Get(t)
	pool := c.Pool(t)
	c.Run(t, "rbd", "create", "--size", "8M", pool+"/image")

	user := c.Key(t)
	c.Run(t, "rbd", "--id", user, "create", "--size", "8M", pool+"/users")

	reader := c.Key(t, "mon", "profile rbd", "osd", "profile rbd-read-only pool="+pool)
	c.Run(t, "rbd", "--id", reader, "info", pool+"/image")
	if _, err := output(c.Command("rbd", "--id", reader, "create", "--size", "8M", pool+"/readers")); err == nil {
		t.Error("a client that may only read made an image")
	}
}

func TestOwnClusterKeepsDataWhileADaemonIsStopped(t *testing.T) {
	for _, store := range []string{"memstore", "bluestore"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			c := New(t, Options{Store: store, Size: "1G"})
			pool := c.Pool(t)
			want := strings.Repeat("some bytes", 1000)
			file := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(file, []byte(want), 0o600); err != nil {
				t.Fatal(err)
			}
			c.Run(t, "rbd", "import", "--no-progress", file, pool+"/image")
			for _, daemon := range []string{OSD, Mon} {
				c.Stop(t, daemon)
				c.Start(t, daemon)
				if got := c.Run(t, "rbd", "export", "--no-progress", pool+"/image", "-"); got != want {
					t.Errorf("after %s was stopped the image has %d other bytes", daemon, len(got))
				}
			}
		})
	}
}

func TestPausedDaemonAnswersNothing(t *testing.T) {
	t.Parallel()
	c := New(t, Options{Size: "1G"})
	pool := c.Pool(t)
	c.Pause(t, OSD)
	cmd := c.Command("timeout", "2", "rbd", "ls", pool)
	if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != 124 {
		t.Errorf("rbd ls while the OSD is paused: %v, want to be ended by the timeout", err)
	}
	c.Resume(t, OSD)
	c.Run(t, "rbd", "ls", pool)
}

func TestOwnClusterIsGoneAfterTheTest(t *testing.T) {
	var dir string
	t.Run("inner", func(t *testing.T) {
		c := New(t, Options{OSDs: 2})
		dir = c.dir
		c.Pause(t, Mon)
	})
	if left := remains(t, dir); left != "" {
		t.Errorf("still there: %s", left)
	}
}

func TestClusterDoesNotOutliveAKilledProcess(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crash+"=1")
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var dir string
	if _, err := fmt.Fscanln(stdout, &dir); err != nil {
		t.Fatalf("the program printed no folder: %v, %v", err, cmd.Wait())
	}
	if remains(t, dir) == "" {
		t.Fatalf("no cluster in %s", dir)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // tells of the kill
	for remains(t, dir) != "" {
		time.Sleep(10 * time.Millisecond) // ends with the test's own time limit
	}
}

// remains tells what is left of a cluster: its folder, or a process that names it.
func remains(t *testing.T, dir string) string {
	t.Helper()
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return dir
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range lines {
		// A process may end between the two looks at it.
		if line, err := os.ReadFile(path); err == nil && strings.Contains(string(line), dir) {
			return strings.ReplaceAll(string(line), "\x00", " ")
		}
	}
	return ""
}
