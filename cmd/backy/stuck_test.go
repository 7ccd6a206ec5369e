package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// soon is within how long after a signal a run that hangs has to say so.
const soon = 20 * time.Second

// leased takes a lease on a file and does not give it back: who opens the file
// hangs in the kernel, for three quarters of a minute.
func leased(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatalf("take a lease on %s: %v", path, err)
	}
}

// output is what a program prints, looked at while it runs.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (o *output) has(text string) bool { return strings.Contains(o.String(), text) }

// stuckRepository has a level of a file of some MiB.
func stuckRepository(t *testing.T, dir string) *killing {
	t.Helper()
	k := &killing{dir: dir, source: filepath.Join(t.TempDir(), "image")}
	if err := os.WriteFile(k.source, bytes.Repeat([]byte("0123456789abcdef"), 1<<18), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := k.backy("backup", k.source, "image").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return k
}

// endsStuck sends a signal to a program that hangs and demands its last words.
func endsStuck(t *testing.T, cmd *exec.Cmd, stderr *output, what string) {
	t.Helper()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(soon):
		t.Errorf("it has not ended after %s", soon)
		_ = cmd.Process.Kill()
		<-ended
	}
	if !stderr.has("ended by SIGTERM, but a call does not return: " + what) {
		t.Errorf("stderr: %s", stderr)
	}
}

// The first signal ends a run that hangs in a call of the file system, within
// seconds, and it says which.
func TestStuck(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		hangs func(t *testing.T, k *killing) string // makes a file hang, and returns it
		args  func(k *killing) []string
	}{
		{"restore, a pack", func(t *testing.T, k *killing) string {
			pack := k.glob("data/*/*")[0]
			leased(t, pack)
			return "open " + pack
		}, func(k *killing) []string { return []string{"restore", "image", filepath.Join(k.dir, "out")} }},
		{"scrub, a pack", func(t *testing.T, k *killing) string {
			pack := k.glob("data/*/*")[0]
			leased(t, pack)
			return "open " + pack
		}, func(*killing) []string { return []string{"scrub", "image"} }},
		{"gc, a level's record", func(t *testing.T, k *killing) string {
			record := k.glob("levels/image/1.json")[0]
			leased(t, record)
			return "open " + record
		}, func(*killing) []string { return []string{"gc"} }},
		{"backup, the repository", func(t *testing.T, k *killing) string {
			config := k.glob("backy.json")[0]
			leased(t, config)
			return "open " + config
		}, func(k *killing) []string { return []string{"backup", k.source, "image"} }},
		{"backup, the source", func(t *testing.T, k *killing) string {
			leased(t, k.source)
			return "open " + k.source
		}, func(k *killing) []string { return []string{"backup", k.source, "image"} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			k := stuckRepository(t, t.TempDir())
			what := c.hangs(t, k)
			cmd, stderr := k.backy(c.args(k)...), &output{}
			cmd.Stderr = stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second) // it hangs by now
			endsStuck(t, cmd, stderr, what)
		})
	}
}

// A reader of standard output that does not read does not keep a restore either.
func TestStuckOutput(t *testing.T) {
	t.Parallel()
	k := stuckRepository(t, t.TempDir())
	cmd, stderr := k.backy("restore", "image", "-"), &output{}
	cmd.Stderr = stderr
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	time.Sleep(2 * time.Second)
	endsStuck(t, cmd, stderr, "write to standard output")
}

// With --json there is a document, which has the error.
func TestStuckJSON(t *testing.T) {
	t.Parallel()
	k := stuckRepository(t, t.TempDir())
	leased(t, k.glob("levels/image/1.json")[0])
	cmd, stdout, stderr := k.backy("--json", "gc"), &output{}, &output{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	endsStuck(t, cmd, stderr, "open ")
	var r report
	if err := json.Unmarshal([]byte(stdout.String()), &r); err != nil || r.Command != "gc" || r.ExitCode != exitInterrupted || !strings.Contains(r.Error, "1.json") {
		t.Errorf("%v: %s", err, stdout)
	}
}

// A backup to a file system that does not answer ends, or says at least within
// seconds why it cannot: such a call may keep even a killed process. Then the
// next run goes on.
func TestStuckWrite(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts and freezes a file system: run it as root")
	}
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
	}
	run("truncate", "-s", "128M", disk)
	run("mkfs.ext4", "-q", "-F", disk)
	dir := t.TempDir()
	run("mount", "-o", "loop", disk, dir)
	t.Cleanup(func() { run("umount", dir) })
	k := stuckRepository(t, dir)
	cmd, stderr := k.backy("backup", "--from-command", "yes | head -c 40000000; sleep 100", "-", "image"), &output{}
	cmd.Stderr = stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "its claim", func() bool { return len(k.glob("work/claim.*")) > 0 })
	run("fsfreeze", "--freeze", dir)
	thawed := false
	thaw := func() {
		if !thawed {
			thawed = true
			run("fsfreeze", "--unfreeze", dir)
		}
	}
	t.Cleanup(thaw)
	time.Sleep(2 * time.Second)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	for !stderr.has("a call does not return: ") && time.Since(begun) < soon {
		time.Sleep(10 * time.Millisecond)
	}
	if !stderr.has("a call does not return: ") || !stderr.has(dir) {
		t.Errorf("stderr after %s: %s", time.Since(begun), stderr)
	}
	thaw()
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted {
		t.Errorf("it ended with %v", err)
	}
	if out, err := k.backy("backup", k.source, "image").CombinedOutput(); err != nil {
		t.Errorf("the next backup: %v\n%s", err, out)
	}
	if claims := k.glob("work/claim.*"); len(claims) > 0 {
		t.Errorf("claims stay: %q", claims)
	}
}
