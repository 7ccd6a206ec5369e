//go:build cgo

package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"backy/rbd/clustertest"
)

// running is a backup of an image that goes on by itself.
type running struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
}

func start(t *testing.T, cluster *clustertest.Cluster, args ...string) *running {
	t.Helper()
	r := &running{cmd: exec.Command("backy", args...)}
	r.cmd.Env = append(os.Environ(), clusterEnv(t, cluster)...)
	r.cmd.Stderr = &r.stderr
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return r
}

// end waits for it, no longer than something may take that does happen.
func (r *running) end(t *testing.T) (code int) {
	t.Helper()
	guard := time.AfterFunc(untilLimit, func() {
		t.Errorf("it did not end within %s", untilLimit)
		if err := r.cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
	})
	defer guard.Stop()
	_ = r.cmd.Wait() // the exit code tells
	return r.cmd.ProcessState.ExitCode()
}

func (r *running) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// A signal ends a backup of an image at once: its snapshot is gone, the base
// stays, and nothing half-written is listed.
func TestSignalRemovesSnapshot(t *testing.T) {
	cluster := clustertest.Get(t)
	image := cluster.Pool(t) + "/image"
	content := make([]byte, 128<<20) // some packs after the first
	random := rand.NewChaCha8([32]byte{1})
	cluster.Run(t, "rbd", "create", "--size", strconv.Itoa(len(content))+"B", image)
	repo := filepath.Join(t.TempDir(), "repo")
	backup := []string{"backup", "-b", repo, "rbd:" + image, "image"}

	var base []string
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if _, err := random.Read(content); err != nil {
			t.Fatal(err)
		}
		writeImage(t, cluster, image, content)
		packs := func() int {
			found, err := filepath.Glob(filepath.Join(repo, "data/*/*"))
			if err != nil {
				t.Fatal(err)
			}
			return len(found)
		}
		before := packs()
		r := start(t, cluster, backup...)
		waitFor(t, "a pack", func() bool { return packs() > before })
		r.signal(t, s)
		if code := r.end(t); code != exitInterrupted {
			t.Errorf("%v: exit code %d\n%s", s, code, &r.stderr)
		}
		if said := r.stderr.String(); !strings.Contains(said, "backy: ended by SIG") {
			t.Errorf("%v: it said %q", s, said)
		}
		if own := ownSnapshots(t, cluster, image); strings.Join(own, " ") != strings.Join(base, " ") {
			t.Errorf("%v: snapshots %q, before %q", s, own, base)
		}
		r = start(t, cluster, backup...)
		if code := r.end(t); code != 0 {
			t.Fatalf("backup after %v: exit code %d\n%s", s, code, &r.stderr)
		}
		base = ownSnapshots(t, cluster, image)
		if len(base) != 1 {
			t.Errorf("snapshots after a whole backup: %q", base)
		}
	}
	out, err := exec.Command("backy", "ls", "-b", repo, "image").Output()
	if err != nil || bytes.Count(out, []byte("\n")) != 1+3 {
		t.Errorf("levels: %v\n%s", err, out)
	}
}

// A cluster that does not answer any more: an error after the timeout, a clean
// end after a signal, and a quick one after the second.
func TestStuckCluster(t *testing.T) {
	t.Parallel()
	cluster := clustertest.New(t, clustertest.Options{Size: "512M"})
	cluster.Run(t, "rbd", "create", "--size", "64M", "rbd/image")
	content := make([]byte, 32<<20)
	if _, err := rand.NewChaCha8([32]byte{2}).Read(content); err != nil {
		t.Fatal(err)
	}
	writeImage(t, cluster, "rbd/image", content)
	dir := t.TempDir()
	repo := filepath.Join(dir, "repo")
	r := start(t, cluster, "backup", "rbd:rbd/image", filepath.Join(repo, "image"))
	if code := r.end(t); code != 0 {
		t.Fatalf("backup: exit code %d\n%s", code, &r.stderr)
	}

	cluster.Pause(t, clustertest.OSD)
	for _, args := range [][]string{
		{"backup", "--ceph-timeout", "2s", "rbd:rbd/image", filepath.Join(repo, "image")},
		{"restore", "--ceph-timeout", "2s", filepath.Join(repo, "image"), "rbd:rbd/new"},
		{"scrub", "--ceph-timeout", "2s", filepath.Join(repo, "image"), "-s", "rbd:rbd/image"},
	} {
		r := start(t, cluster, args...)
		if code := r.end(t); code != exitFailed || !strings.Contains(r.stderr.String(), "no answer from the cluster within 2s") {
			t.Errorf("%q: exit code %d\n%s", args, code, &r.stderr)
		}
	}

	claimed := func() bool {
		found, err := filepath.Glob(filepath.Join(repo, "work/claim.*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found) > 0
	}
	for _, signals := range [][]os.Signal{{syscall.SIGINT}, {syscall.SIGINT, syscall.SIGTERM}} {
		// Named so that the cluster is not asked whether it is a namespace, before
		// there is a claim.
		r := start(t, cluster, "backup", "--ceph-timeout", "1h", "rbd:rbd//image", filepath.Join(repo, "image"))
		waitFor(t, "a claim", claimed)
		for _, s := range signals {
			r.signal(t, s)
			time.Sleep(secondSignal * 11 / 10) // a second one within a moment does not count
		}
		if code := r.end(t); code != exitInterrupted {
			t.Errorf("%v: exit code %d\n%s", signals, code, &r.stderr)
		}
	}
	cluster.Resume(t, clustertest.OSD)
	r = start(t, cluster, "backup", "rbd:rbd/image", filepath.Join(repo, "image"))
	if code := r.end(t); code != 0 {
		t.Errorf("backup afterwards: exit code %d\n%s", code, &r.stderr)
	}
	if own := ownSnapshots(t, cluster, "rbd/image"); len(own) != 1 {
		t.Errorf("snapshots afterwards: %q", own)
	}
}

// A cluster that fails: exit code 1 within the timeout, a word that says why, and
// nothing that looks whole; all is well with the next run once the cluster is.
func TestClusterFails(t *testing.T) {
	t.Parallel()
	cluster := clustertest.New(t, clustertest.Options{Size: "1G"})
	content := make([]byte, 128<<20) // some packs after the first
	if _, err := rand.NewChaCha8([32]byte{4}).Read(content); err != nil {
		t.Fatal(err)
	}
	cluster.Run(t, "rbd", "create", "--size", strconv.Itoa(len(content))+"B", "rbd/image")
	writeImage(t, cluster, "rbd/image", content)
	id := cluster.Key(t)
	repo := filepath.Join(t.TempDir(), "repo")
	backy := func(args ...string) *running { return start(t, cluster, append(args, "-b", repo, "--id", id)...) }
	backup := []string{"backup", "rbd:rbd/image", "image", "--ceph-timeout"}
	want := func(what string, r *running, code int, says string) {
		t.Helper()
		if got := r.end(t); got != code || !strings.Contains(r.stderr.String(), says) {
			t.Fatalf("%s: exit code %d\n%s\nwant %d and %q", what, got, &r.stderr, code, says)
		}
	}

	// An OSD that answers no more in the middle of a backup.
	r := backy(append(backup, "3s")...)
	waitFor(t, "a pack", func() bool {
		found, err := filepath.Glob(filepath.Join(repo, "data/*/[^.]*"))
		return err == nil && len(found) > 0
	})
	cluster.Pause(t, clustertest.OSD)
	want("an OSD hangs", r, exitFailed, "no answer from the cluster within 3s")
	cluster.Resume(t, clustertest.OSD)
	want("the backup after it", backy(append(backup, "1m")...), exitDone, "image level 2")
	if own := ownSnapshots(t, cluster, "rbd/image"); len(own) != 1 {
		t.Errorf("snapshots afterwards: %q", own)
	}

	// A pool that is full.
	cluster.Run(t, "ceph", "osd", "pool", "set-quota", "rbd", "max_bytes", "1000000")
	waitFor(t, "the pool is full", func() bool {
		return strings.Contains(cluster.Run(t, "ceph", "osd", "pool", "ls", "detail"), "full_quota")
	})
	want("a restore to a full pool", backy("restore", "image", "rbd:rbd/new", "--ceph-timeout", "20s"), exitFailed, "no space left")
	if images := cluster.Run(t, "rbd", "ls", "rbd"); images != "image\n" {
		t.Errorf("images after a restore to a full pool: %q", images)
	}
	cluster.Run(t, "ceph", "osd", "pool", "set-quota", "rbd", "max_bytes", "0")

	// A key that is taken back.
	cluster.Run(t, "ceph", "auth", "caps", "client."+id, "mon", "profile rbd", "osd", "profile rbd-read-only")
	want("a client that may only read", backy(append(backup, "20s")...), exitFailed, "permission denied for client."+id)
	cluster.Run(t, "ceph", "auth", "rm", "client."+id)
	want("a client that is unknown", backy(append(backup, "20s")...), exitFailed, "the cluster does not know this user")
	out, err := exec.Command("backy", "ls", "-b", repo, "image").Output()
	if err != nil || bytes.Count(out, []byte("\n")) != 1+1 {
		t.Errorf("%v, want one level\n%s", err, out)
	}
}
