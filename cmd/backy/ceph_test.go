//go:build cgo

package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"backy/rbd/clustertest"
)

// TestCephScripts are scripts on a real cluster, each with a pool of its own in
// $POOL.
func TestCephScripts(t *testing.T) {
	cluster := clustertest.Get(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/ceph",
		Setup: func(e *testscript.Env) error {
			for _, v := range clusterEnv(t, cluster) {
				name, value, _ := strings.Cut(v, "=")
				e.Setenv(name, value)
			}
			e.Setenv("POOL", cluster.Pool(t))
			e.Setenv("CLIENT", cluster.Key(t)) // may do with images what backups need, no more
			e.Setenv("READER", cluster.Key(t, "mon", "profile rbd", "osd", "profile rbd-read-only"))
			return setupScript(e)
		},
		Cmds:                scriptCommands,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Deadline:            time.Now().Add(scriptLimit),
	})
}

// clusterEnv is what backy, as the tests run it, is to know of a cluster.
func clusterEnv(t testing.TB, cluster *clustertest.Cluster) []string {
	t.Helper()
	cluster.Backup(t)
	cluster.Restore(t)
	return []string{"CEPH_CONF=" + cluster.Conf(), leastEnv + "=1"}
}

// TestKillRBD is TestKill for an image: the snapshot of a run that was killed
// does not outlive the next one.
func TestKillRBD(t *testing.T) {
	cluster := clustertest.Get(t)
	pool := cluster.Pool(t)
	content := make([]byte, 36<<20)
	random := rand.NewChaCha8([32]byte{})
	cluster.Run(t, "rbd", "create", "--size", strconv.Itoa(len(content))+"B", pool+"/image")
	k := killing{
		env:    clusterEnv(t, cluster),
		source: "rbd:" + pool + "/image",
		change: func(t *testing.T) []byte {
			if _, err := random.Read(content); err != nil {
				t.Fatal(err)
			}
			writeImage(t, cluster, pool+"/image", content)
			return bytes.Clone(content)
		},
		before: func(t *testing.T) { cluster.Run(t, "rbd", "snap", "purge", "--no-progress", pool+"/image") },
		after: func(t *testing.T) {
			if snaps := ownSnapshots(t, cluster, pool+"/image"); len(snaps) != 1 {
				t.Errorf("snapshots after a whole backup: %q", snaps)
			}
		},
	}
	k.run(t)
}

// writeImage writes an image from its beginning.
func writeImage(t *testing.T, cluster *clustertest.Cluster, image string, content []byte) {
	t.Helper()
	writeExtents(t, cluster, image, int64(len(content)), map[int64][]byte{0: content})
}

// writeExtents writes bytes at offsets of an image, and makes it that size, with
// rbd import-diff, whose format is in Ceph's doc/dev/rbd-diff.rst.
func writeExtents(t *testing.T, cluster *clustertest.Cluster, image string, size int64, extents map[int64][]byte) {
	t.Helper()
	writeDiff(t, cluster, image, size, func(diff *bytes.Buffer) {
		for off, p := range extents {
			diff.WriteByte('w')
			diff.Write(le64(uint64(off)))
			diff.Write(le64(uint64(len(p))))
			diff.Write(p)
		}
	})
}

func le64(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

// writeDiff has rbd import-diff apply records to an image.
func writeDiff(t *testing.T, cluster *clustertest.Cluster, image string, size int64, records func(*bytes.Buffer)) {
	t.Helper()
	var diff bytes.Buffer
	diff.WriteString("rbd diff v1\ns")
	diff.Write(le64(uint64(size)))
	records(&diff)
	diff.WriteByte('e')
	cmd := cluster.Command("rbd", "import-diff", "--no-progress", "-", image)
	cmd.Stdin = &diff
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("rbd import-diff: %v\n%s", err, out)
	}
}

// ownSnapshots are the names of an image's snapshots that backy made, those in
// the trash too.
func ownSnapshots(t *testing.T, cluster *clustertest.Cluster, image string) (own []string) {
	t.Helper()
	var list []struct {
		Name      string
		Namespace struct {
			Type         string
			OriginalName string `json:"original_name"`
		}
	}
	if err := json.Unmarshal([]byte(cluster.Run(t, "rbd", "snap", "ls", "--all", "--format", "json", image)), &list); err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if strings.HasPrefix(s.Name, "backy-") || strings.HasPrefix(s.Namespace.OriginalName, "backy-") {
			own = append(own, s.Name)
		}
	}
	return own
}
