//go:build cgo

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"backy/engine"
	"backy/engine/local"
	"backy/rbd"
	"backy/rbd/clustertest"
	"backy/store"
	"backy/store/mem"
)

// RBD takes nearly any bytes for names. A pool run backs up images whose names
// cannot be backup names under derived ones; status, snapshots and restore know
// them by these.
func TestOddNames(t *testing.T) {
	cluster := clustertest.Get(t)
	pool := cluster.Pool(t)
	cluster.Run(t, "rbd", "namespace", "create", pool+"/a")
	specs := []rbd.Spec{
		{Image: "plain"},
		{Image: "vm-" + strings.Repeat("0", 245)},
		{Image: strings.Repeat("ü", 40)},
		{Image: "."},
		{Image: ".."},
		{Image: "a/b"},
		{Namespace: "a", Image: "b"},
		{Image: "a@b"},
		{Image: "a\nb\x1b[31m"},
		{Image: "caf\xe9"},
		{Image: "caf\xe8"},
		{Image: `"a\nb"`},
		{Image: "plain~0123456789abcdef"},
	}
	want := map[string][]byte{} // by label
	conn := adminConn(t, cluster)
	for n := range specs {
		specs[n].Pool = pool
		want[specs[n].Label()] = makeImage(t, conn, specs[n], byte(n+1))
	}
	repo := filepath.Join(t.TempDir(), "repo")
	env := clusterEnv(t, cluster)
	all := "rbd:" + pool + "/*"
	var r report
	backyJSON(t, env, &r, "backup", all, repo)
	if len(r.Images) != len(specs) {
		t.Errorf("%d images, want %d", len(r.Images), len(specs))
	}
	names := map[store.Name]bool{}
	for _, i := range r.Images {
		if i.Result != "done" || names[i.Name] {
			t.Errorf("%s as %s: %s %s", i.Image, i.Name, i.Result, i.Error)
		}
		names[i.Name] = true
		out := filepath.Join(t.TempDir(), "out")
		backyJSON(t, env, nil, "restore", "-b", repo, string(i.Name), out)
		got, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want[i.Image]) {
			t.Errorf("%s: the level holds other bytes", i.Image)
		}
	}
	r = report{}
	backyJSON(t, env, &r, "backup", all, repo)
	for _, i := range r.Images {
		if i.Result != "young" {
			t.Errorf("%s once more: %s", i.Image, i.Result)
		}
	}
	r = report{}
	backyJSON(t, env, &r, "ls", "-b", repo)
	for _, n := range r.Names {
		if !names[n.Name] {
			t.Errorf("ls has %s", n.Name)
		}
	}
	if len(r.Names) != len(specs) {
		t.Errorf("ls has %d names", len(r.Names))
	}
	for _, i := range r.Names {
		backyJSON(t, env, nil, "scrub", "-b", repo, string(i.Name))
	}
	r = report{}
	backyJSON(t, env, &r, "status", all, repo)
	if r.Status.Counts["fine"] != len(specs) || r.Status.Strays != 0 {
		t.Errorf("status: %s", r.Status.Text)
	}
	r = report{}
	backyJSON(t, env, &r, "snapshots", all, repo)
	if len(r.Snapshots) != len(specs) {
		t.Errorf("%d snapshots", len(r.Snapshots))
	}
	for _, s := range r.Snapshots {
		if s.Kind != "level" || !names[s.Name] {
			t.Errorf("%s: %s of %s", s.Snapshot, s.Kind, s.Name)
		}
	}
	// One of them alone.
	r = report{}
	backyJSON(t, env, &r, "backup", "--min-age", "0", "--include", pool+"/a/b", "rbd:"+pool, repo)
	if len(r.Images) != 1 || r.Images[0].Level != 2 {
		t.Errorf("a/b alone: %+v", r.Images)
	}
}

// adminConn connects with the rights to make images.
func adminConn(t *testing.T, cluster *clustertest.Cluster) *rbd.Conn {
	t.Helper()
	conn, err := rbd.Connect(t.Context(), rbd.Config{Conf: cluster.Conf()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

// makeImage makes an image of any name, by a restore, and returns its bytes.
func makeImage(t *testing.T, conn *rbd.Conn, spec rbd.Spec, b byte) []byte {
	t.Helper()
	content := append(bytes.Repeat([]byte{b}, 1<<20), make([]byte, 1<<20)...)
	repo, err := store.Init(t.Context(), mem.New(), store.Parameters{})
	if err != nil {
		t.Fatal(err)
	}
	level, err := engine.Backup(t.Context(), repo, "x", local.NewPipe(bytes.NewReader(content), local.PipeOptions{}), engine.BackupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Restore(t.Context(), repo, level, conn.Target(spec, rbd.TargetOptions{}), engine.RestoreOptions{}); err != nil {
		t.Fatalf("make %s: %v", spec, err)
	}
	return content
}

// backyJSON runs backy, which must succeed, and reads its document.
func backyJSON(t *testing.T, env []string, r *report, args ...string) {
	t.Helper()
	cmd := exec.Command("backy", append([]string{"--json"}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("backy %q: %v\n%s%s", args, err, &errs, &out)
	}
	if r == nil {
		return
	}
	if err := json.Unmarshal(out.Bytes(), r); err != nil {
		t.Fatal(err)
	}
}
