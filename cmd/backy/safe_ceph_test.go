//go:build cgo

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"backy/rbd/clustertest"
)

// Names and values from the cluster that would steer a terminal, or pretend to be
// lines of ours, reach none: not by tables, warnings, errors, hints, progress, logs
// or what a command of the user's says of them. JSON has them as they are.
func TestNamesFromTheClusterAreSafe(t *testing.T) {
	cluster := clustertest.Get(t)
	pool := cluster.Pool(t)
	dir := t.TempDir()
	env := append(os.Environ(), clusterEnv(t, cluster)...)
	cluster.Run(t, "rbd", "namespace", "create", "--pool", pool, "--namespace", "n\x1b[31m\n\u202e")
	for _, name := range evil {
		image := pool + "/" + name
		cluster.Run(t, "rbd", "create", "--size", "1M", image)
		cluster.Run(t, "rbd", "snap", "create", "--no-progress", image+"@"+name)
		cluster.Run(t, "rbd", "image-meta", "set", image, "backy.keep-daily", name)
		cluster.Run(t, "rbd", "image-meta", "set", image, "backy."+name, name)
	}
	cluster.Run(t, "rbd", "create", "--size", "1M", pool+"/n\x1b[31m\n\u202e/"+evil[0])

	backy := func(args ...string) (stdout, said string) {
		t.Helper()
		cmd := exec.Command("backy", args...)
		cmd.Dir, cmd.Env = dir, env
		var out, err bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &err
		_ = cmd.Run() // much of it fails, and should
		what := strings.Join(args, " ")
		mustBeSafe(t, what+": stdout", out.String())
		mustBeSafe(t, what+": stderr", err.String())
		for line := range strings.Lines(out.String() + err.String()) {
			if line == "backy: all is well\n" {
				t.Errorf("%s: a name makes a line:\n%s%s", what, out.String(), err.String())
			}
		}
		return out.String(), err.String()
	}
	repo := filepath.Join(dir, "repo")
	for _, log := range []string{"text", "json"} {
		backy("-v", "--log-format", log, "backup", "--min-age", "0", "--freeze", `printf "freeze %s" "$BACKY_SPEC" | tr '\n\t' '  '`, "--thaw", `test -n "$BACKY_IMAGE"`, "rbd:"+pool+"/*", repo)
		backy("-v", "--log-format", log, "status", "rbd:"+pool, repo)
		backy("--log-format", log, "backup", "--min-age", "0", "--freeze", "false", "--thaw", `printf %s "$BACKY_IMAGE" | tr '\n\t' '  ' >&2; false`, "rbd:"+pool, repo)
	}
	backy("snapshots", "rbd:"+pool, repo)
	backy("-v", "snapshots", "--clean", "rbd:"+pool, repo)
	backy("ls", repo)
	backy("du", repo)
	backy("forget", "-b", repo, "--keep-daily", "1", "--dry-run")
	for i, name := range evil {
		spec := "rbd:" + pool + "/" + name
		own := filepath.Join(repo, "own", string(rune('a'+i)))
		backy("-v", "backup", spec, own)
		backy("backup", spec+"@"+name, own)
		backy("backup", spec+"@no"+name, own)
		backy("backup", spec, filepath.Join(repo, name))
		backy("ls", own)
		backy("scrub", own, "-s", spec+"@"+name)
		backy("restore", own, spec)
		backy("restore", own, filepath.Join(dir, name))
		backy("restore", own, filepath.Join(dir, "none"+name, "x"))
		backy("ls", filepath.Join(repo, name))
		backy("backup", spec+"x", own)
		backy("backup", "--"+name, spec, own)
		backy(name)
	}

	out, _ := backy("--json", "backup", "--min-age", "0", "rbd:"+pool, repo)
	var r report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var names []string
	for _, i := range r.Images {
		out, _ := backy("--json", "ls", "-b", repo, string(i.Name))
		var r report
		if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Levels) == 0 {
			t.Fatalf("%s: %v\n%s", i.Name, err, out)
		}
		names = append(names, r.Levels[0].Origin.RBD.Image)
	}
	for _, name := range evil {
		if !slices.Contains(names, name) {
			t.Errorf("JSON has no %q: %q", name, names)
		}
	}
}
