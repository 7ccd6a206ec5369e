//go:build cgo

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"backy/rbd/clustertest"
)

// Three nodes back up one pool to one repository. One is killed in the middle,
// and one is cut off from the cluster for longer than a lease, and comes back.
// Every image has exactly one new level in the end, all restore, and nothing is
// left behind.
func TestNodes(t *testing.T) {
	cluster := clustertest.Get(t)
	pool := cluster.Pool(t)
	repo := filepath.Join(t.TempDir(), "repo")
	random := rand.NewChaCha8([32]byte{7})
	var images []string
	contents := map[string][]byte{}
	change := func(image string, size int) {
		p := make([]byte, size)
		if _, err := random.Read(p); err != nil {
			t.Fatal(err)
		}
		writeImage(t, cluster, image, p)
		contents[image] = p
	}
	for n := range 8 {
		image := fmt.Sprintf("%s/image%d", pool, n)
		cluster.Run(t, "rbd", "create", "--size", "8M", image)
		change(image, 8<<20)
		images = append(images, image)
	}
	cluster.Run(t, "rbd", "create", "--size", "8M", pool+"/empty")
	images, contents[pool+"/empty"] = append(images, pool+"/empty"), make([]byte, 8<<20)

	// Nobody goes on before all of them have begun, each with two images.
	start := filepath.Join(t.TempDir(), "start")
	args := []string{
		"backup", "-v", "--min-age", "0", "--jobs", "2", "--limit", "8MiB/s", "--lease", "2s", "--beat", "500ms",
		"--freeze", "until test -e " + start + "; do sleep .05; done", "--thaw", ":", "--freeze-limit", "1m",
		"rbd:" + pool, repo,
	}
	backyArgs := func(args ...string) *exec.Cmd { return exec.Command("backy", append([]string{"-b", repo}, args...)...) }
	backup := func(args ...string) {
		t.Helper()
		cmd := backyArgs(append([]string{"-q", "backup", "rbd:" + pool}, args...)...)
		cmd.Env = append(os.Environ(), clusterEnv(t, cluster)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("backup: %v\n%s", err, out)
		}
	}
	backup()
	for _, image := range images[:8] {
		change(image, 8<<20)
	}

	claims := func() int {
		found, err := filepath.Glob(filepath.Join(repo, "work", "claim.*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	cutOff, killed, third := newNode(t, cluster), newNode(t, cluster), newNode(t, cluster)
	for n, node := range []*node{cutOff, killed, third} {
		node.start(t, args...)
		waitFor(t, "a node is at work", func() bool { return claims() == 2*(n+1) })
	}
	if err := os.WriteFile(start, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond) // they read
	cutOff.wire.cut()
	if err := killed.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed.end(t)
	time.Sleep(6 * time.Second) // three leases
	cutOff.wire.mend()
	for name, n := range map[string]*node{"cut off": cutOff, "third": third} {
		if code := n.end(t); code != 0 {
			t.Errorf("the node %s: exit code %d\n%s", name, code, &n.stderr)
		}
	}
	if said := cutOff.stderr.String(); !strings.Contains(said, "another node has taken it over") {
		t.Errorf("the node that was cut off did not notice:\n%s", said)
	}

	for _, image := range images {
		out, err := backyArgs("--json", "ls", image).Output()
		if err != nil {
			t.Fatalf("ls %s: %v", image, err)
		}
		var list report
		if err := json.Unmarshal(out, &list); err != nil {
			t.Fatal(err)
		}
		if len(list.Levels) != 2 {
			t.Errorf("%s has %d levels", image, len(list.Levels))
		}
		got, err := backyArgs("-q", "restore", image, "-").Output()
		if err != nil || !bytes.Equal(got, contents[image]) {
			t.Errorf("%s does not restore what it held: %v", image, err)
		}
	}
	if objects := cluster.Run(t, "rados", "-p", pool, "ls"); strings.Contains(objects, "backy.lease") {
		t.Errorf("leases are left behind:\n%s", objects)
	}
	if n := claims(); n != 0 {
		t.Errorf("%d claims are left behind", n)
	}
	// A node that was cut off behind a commit could not remove the base's
	// snapshot. The next run does.
	backup("--min-age", "0")
	for _, image := range images {
		if own := ownSnapshots(t, cluster, image); len(own) != 1 {
			t.Errorf("%s has the snapshots %q", image, own)
		}
	}
}

// node is a machine of its own, as far as backy can tell: it has its own
// processes, and a network with nothing but a wire to the cluster.
type node struct {
	running
	wire    *wire
	cluster *clustertest.Cluster
}

func newNode(t *testing.T, cluster *clustertest.Cluster) *node {
	t.Helper()
	return &node{wire: newWire(t, cluster), cluster: cluster}
}

func (n *node) start(t *testing.T, args ...string) {
	t.Helper()
	line := []string{"--net", "--pid", "--fork", "--kill-child", "--mount-proc"}
	if os.Getuid() != 0 {
		line = append(line, "--map-root-user")
	}
	line = append(line, "backy-node", n.wire.dir)
	n.cmd = exec.Command("unshare", append(line, args...)...)
	n.cmd.Env = append(append(os.Environ(), clusterEnv(t, n.cluster)...),
		"CEPH_USE_RANDOM_NONCE=1") // one address with the same process ids is not two clients
	n.cmd.Stderr = &n.stderr
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// wire leads from a node to the cluster's daemons: a socket in dir for each of
// their ports. While it is cut, nothing comes through, and nobody is told.
type wire struct {
	dir  string
	gate sync.RWMutex
}

func (w *wire) cut()  { w.gate.Lock() }
func (w *wire) mend() { w.gate.Unlock() }

// through waits while it is cut.
func (w *wire) through() {
	w.gate.RLock()
	defer w.gate.RUnlock()
}

func newWire(t *testing.T, cluster *clustertest.Cluster) *wire {
	t.Helper()
	dir, err := os.MkdirTemp("", "wire") // short, for the names of sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &wire{dir: dir}
	for _, port := range ports(t, cluster) {
		l, err := net.Listen("unix", filepath.Join(dir, port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				near, err := l.Accept()
				if err != nil {
					return // the test is over
				}
				w.through()
				far, err := net.Dial("tcp", "127.0.0.1:"+port)
				if err != nil {
					near.Close()
					continue
				}
				go pass(near, far, w.through)
				go pass(far, near, w.through)
			}
		}()
	}
	return w
}

// ports are those of the monitor and the OSDs.
func ports(t *testing.T, cluster *clustertest.Cluster) (list []string) {
	t.Helper()
	type addresses struct {
		Addrvec []struct{ Addr string }
	}
	var mons struct {
		Mons []struct {
			Public addresses `json:"public_addrs"`
		}
	}
	var osds struct {
		OSDs []struct {
			Public addresses `json:"public_addrs"`
		}
	}
	for what, into := range map[string]any{"mon": &mons, "osd": &osds} {
		if err := json.Unmarshal([]byte(cluster.Run(t, "ceph", what, "dump", "--format", "json")), into); err != nil {
			t.Fatal(err)
		}
	}
	add := func(a addresses) {
		for _, a := range a.Addrvec {
			_, port, err := net.SplitHostPort(a.Addr)
			if n, _ := strconv.Atoi(port); err != nil || n == 0 {
				t.Fatalf("address %q: %v", a.Addr, err)
			}
			list = append(list, port)
		}
	}
	for _, m := range mons.Mons {
		add(m.Public)
	}
	for _, o := range osds.OSDs {
		add(o.Public)
	}
	return list
}
