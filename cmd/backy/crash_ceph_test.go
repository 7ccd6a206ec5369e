//go:build cgo

package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"backy/engine/batch"
	"backy/rbd/clustertest"
)

var allCrashes = flag.Bool("crashes", false, "TestCrashCostsOneImage makes each misstep at each call, which takes an hour and a half")

// crashed is what a user reads of each misstep.
var crashed = map[string]string{
	"FPE":  "librbd crashed (SIGFPE)",
	"SEGV": "librbd crashed (SIGSEGV)",
	"ABRT": "librbd crashed (SIGABRT)",
	"KILL": "librbd crashed (SIGKILL)",
	"exit": "librbd ended its process with exit code 3",
	"stop": "librbd hung",
	"hang": "no answer from the cluster",
}

// crashes is a pool of images, of which one is hit.
type crashes struct {
	*testing.T
	cluster *clustertest.Cluster
	pool    string
	repo    string
	env     []string
}

func newCrashes(t *testing.T, images int) *crashes {
	t.Helper()
	c := &crashes{T: t, cluster: clustertest.Get(t), repo: filepath.Join(t.TempDir(), "repo")}
	c.pool, c.env = c.cluster.Pool(t), clusterEnv(t, c.cluster)
	var group sync.WaitGroup
	for n := range images {
		image := fmt.Sprintf("%s/i%02d", c.pool, n)
		group.Go(func() {
			c.cluster.Run(t, "rbd", "create", "--size", "1M", image)
			writeImage(t, c.cluster, image, bytes.Repeat([]byte(image), 100))
		})
	}
	group.Wait()
	return c
}

// backy runs one, and gives what it reports and prints on stderr.
func (c *crashes) backy(env string, args ...string) (r report, code int, stderr string) {
	c.Helper()
	cmd := exec.Command("backy", append(args, "--json", "-b", c.repo)...)
	cmd.Env = append(append(os.Environ(), c.env...), env)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	_ = cmd.Run() // the exit code tells
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		c.Fatalf("%v: %v\n%s\n%s", args, err, &out, &said)
	}
	for _, of := range []string{"goroutine ", "runtime.", "core dumped", "terminate called"} {
		if strings.Contains(said.String(), of) {
			c.Errorf("%v: a trace reached the user:\n%s", args, &said)
		}
	}
	return r, cmd.ProcessState.ExitCode(), said.String()
}

// hit runs a backup of the pool with a misstep, and reports whether it came to
// that. All images but the hit one must be done.
func (c *crashes) hit(m clustertest.Misstep, args ...string) (happened bool) {
	c.Helper()
	r, code, said := c.backy(m.Env(), append([]string{"backup", "--min-age", "0", "rbd:" + c.pool}, args...)...)
	for _, i := range r.Images {
		hit := strings.HasSuffix(i.Image, m.About)
		switch {
		case !hit && i.Result != batch.Done:
			c.Errorf("%+v: %s: %s %s", m, i.Image, i.Result, i.Error)
		case !hit:
		case !m.Happened(c.T):
			if i.Result != batch.Done || code != 0 {
				c.Errorf("%+v: it did not happen: exit code %d, %s %s", m, code, i.Result, i.Error)
			}
		case i.Result == batch.Failed:
			if code != 6 || !strings.Contains(i.Error, crashed[m.Kind]) {
				c.Errorf("%+v: exit code %d, %s", m, code, i.Error)
			}
			if hint := m.Kind != "hang"; strings.Contains(r.Hint, "--crash-dir=DIR") != hint {
				c.Errorf("%+v: hint %q", m, r.Hint)
			}
		case i.Result == batch.Done && code == 0: // it was committed
			if !strings.Contains(strings.Join(i.Warnings, "\n"), crashed[m.Kind]) {
				c.Errorf("%+v: no word of it: %q", m, i.Warnings)
			}
		default:
			c.Errorf("%+v: exit code %d, %s %s", m, code, i.Result, i.Error)
		}
	}
	if len(r.Images) == 0 {
		c.Errorf("%+v: nothing was begun: %s", m, said)
	}
	return m.Happened(c.T)
}

// tidy checks that the hit image has no snapshots of ours but those of levels; where
// the level was committed, what was to be removed after it may be left.
func (c *crashes) tidy(m clustertest.Misstep) {
	c.Helper()
	r, code, said := c.backy("", "snapshots", "rbd:"+c.pool, "--include", strings.TrimPrefix(m.About, "/"))
	if code != 0 {
		c.Errorf("%+v: snapshots: %s", m, said)
	}
	for _, s := range r.Snapshots {
		if s.Level == 0 {
			c.Errorf("%+v: a snapshot %s of no level: %s", m, s.Snapshot, s.Kind)
		}
	}
	if len(r.Snapshots) == 0 {
		c.Errorf("%+v: no base is left", m)
	}
}

// Whatever librbd does to its process, at any of its calls for one image of thirty:
// that image fails, its snapshot goes, the others are done, and the next run is as
// any other.
func TestCrashCostsOneImage(t *testing.T) {
	c := newCrashes(t, 30)
	if !t.Failed() && c.hit(clustertest.Misstep{Kind: "FPE", About: "/none", Once: filepath.Join(t.TempDir(), "never")}) {
		t.Fatal("a misstep without a call")
	}
	kinds := []string{"FPE", "SEGV", "ABRT", "KILL", "exit"}
	stride := 1
	if testing.Short() {
		stride = 9
	}
	if *allCrashes {
		c.sweep()
		return
	}
	steps, began := 0, time.Now()
	for n := 1; !t.Failed(); n += stride {
		m := clustertest.Misstep{Kind: kinds[n%len(kinds)], Step: n, About: "/i17", Once: filepath.Join(t.TempDir(), "once")}
		if !c.hit(m) {
			break
		}
		steps++
		c.tidy(m)
		t.Logf("%s at call %d: %.1f s", m.Kind, n, time.Since(began).Seconds())
		began = time.Now()
	}
	if steps < 20/stride {
		t.Errorf("only %d calls into librbd for a backup", steps)
	}
	for _, kind := range []string{"hang", "stop"} {
		m := clustertest.Misstep{Kind: kind, Step: 4, About: "/i17", Once: filepath.Join(t.TempDir(), "once")}
		if !c.hit(m, "--ceph-timeout", "10s") {
			t.Errorf("%+v: it did not happen", m)
		}
		c.tidy(m)
	}
	c.whole("/i17")
}

// sweep makes each misstep at each call.
func (c *crashes) sweep() {
	c.Helper()
	for _, kind := range slices.Sorted(maps.Keys(crashed)) {
		args := []string{}
		if kind == "hang" || kind == "stop" {
			// The next snapshot waits up to 10 s for the watch of the one that was killed.
			args = []string{"--ceph-timeout", "20s"}
		}
		began, n := time.Now(), 1
		for ; ; n++ {
			m := clustertest.Misstep{Kind: kind, Step: n, About: "/i17", Once: filepath.Join(c.TempDir(), "once")}
			if !c.hit(m, args...) {
				break
			}
			c.tidy(m)
		}
		c.Logf("%s at each of %d calls: %.0f s", kind, n-1, time.Since(began).Seconds())
		if n <= 20 {
			c.Errorf("%s: only %d calls into librbd for a backup", kind, n-1)
		}
	}
	c.whole("/i17")
}

// whole makes a last backup, of which every image's level must be right.
func (c *crashes) whole(image string) {
	c.Helper()
	if r, code, said := c.backy("", "backup", "--min-age", "0", "rbd:"+c.pool); code != 0 || slices.ContainsFunc(r.Images, func(r batch.Result) bool { return r.Result != batch.Done || len(r.Warnings) > 0 }) {
		c.Errorf("afterwards: exit code %d\n%s", code, said)
	}
	r, code, said := c.backy("", "snapshots", "rbd:"+c.pool, "--include", strings.TrimPrefix(image, "/"))
	if code != 0 || len(r.Snapshots) != 1 || r.Snapshots[0].Kind != "level" {
		c.Fatalf("snapshots afterwards: %+v\n%s", r.Snapshots, said)
	}
	if _, code, said := c.backy("", "scrub", "-s", r.Snapshots[0].Snapshot, string(r.Snapshots[0].Name)); code != 0 {
		c.Errorf("scrub afterwards: exit code %d\n%s", code, said)
	}
}
