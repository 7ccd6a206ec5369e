//go:build cgo

package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"backy/rbd/clustertest"
)

// copies are images of one cluster that Ceph mirrors to another, as they are there.
type copies struct {
	*stateRow // in the cluster of the copies
	primary   *clustertest.Cluster
	mirror    *clustertest.Mirror
}

// A mirror's copy cannot have a snapshot of ours: that is one sentence, and the rest
// of its pool is backed up. A snapshot that came along with it can be backed up, once
// all of it has come: until then it reads as something else, without an error.
func TestMirrorCopies(t *testing.T) {
	t.Parallel()
	c := &copies{primary: clustertest.New(t, clustertest.Options{Size: "512M"})}
	c.stateRow = &stateRow{
		T: t, cluster: clustertest.New(t, clustertest.Options{Size: "512M"}), pool: "mirrored", repo: filepath.Join(t.TempDir(), "repo"),
		rand: rand.NewChaCha8([32]byte{8}),
	}
	c.env = append(os.Environ(), "CEPH_CONF="+c.cluster.Conf())
	c.mirror = clustertest.StartMirror(t, c.pool, c.primary, c.cluster)
	c.create(c.pool + "/neighbour")
	t.Run("snapshot", func(t *testing.T) { c.follow(t, "snapshot") })
	t.Run("journal", func(t *testing.T) { c.follow(t, "journal", "--image-feature", "exclusive-lock,journaling") })
}

// follow tries a copy while it is made and afterwards, and likewise for what comes later.
func (c *copies) follow(t *testing.T, mode string, args ...string) {
	c.T = t
	c.image, c.name = c.pool+"/"+mode, c.pool+"/"+mode
	c.primary.Run(t, "rbd", append([]string{"create", c.image, "--size", fmt.Sprintf("%dB", stateSize), "--object-size", "4K"}, args...)...)
	c.change()
	c.primary.Run(t, "rbd", "snap", "create", "--no-progress", c.image+"@one")
	if _, code, said := c.backyIn(c.primary, "backup", "rbd:"+c.image, "primary "+mode); code != 0 { // its snapshot comes along
		t.Fatal(said)
	}
	c.primary.Run(t, "rbd", "mirror", "image", "enable", c.image, mode)
	c.midway("one")
	const notWhole = `not known to have been copied whole yet`
	c.try("while it is made", "one", map[string]cell{
		colIncrement: {1, notWhole}, colBackup: {1, "not the primary one"}, colPool: {6, "not the primary one"},
		colScrub: {1, "no level"}, colRestore: {1, "no level"},
	})
	c.mirror.Resume(t)
	c.whole(mode)
	primary := map[string]cell{
		colBackup: {1, "not the primary one"}, colPool: {6, "not the primary one"}, colRestore: {1, "not the primary one"}, colStatus: {1, ""},
	}
	c.try("afterwards", "one", primary)
	if mode == "journal" { // it is replayed in order, so a snapshot has come when it is there
		return
	}
	c.change()
	c.primary.Run(t, "rbd", "snap", "create", "--no-progress", c.image+"@two")
	c.primary.Run(t, "rbd", "mirror", "image", "snapshot", c.image)
	c.midway("two")
	primary[colIncrement], primary[colScrub] = cell{1, notWhole}, cell{1, notWhole}
	c.try("while it follows", "two", primary)
	c.mirror.Resume(t)
	c.whole(mode)
	delete(primary, colIncrement)
	delete(primary, colScrub)
	c.try("when it has followed", "two", primary)
}

// backyIn is backy in another cluster.
func (c *copies) backyIn(cluster *clustertest.Cluster, args ...string) (doc report, code int, said string) {
	c.Helper()
	here := c.env
	defer func() { c.env = here }()
	c.env = append(os.Environ(), "CEPH_CONF="+cluster.Conf())
	return c.backy(args...)
}

// change writes to the primary image.
func (c *copies) change() {
	c.Helper()
	p := make([]byte, stateSize-1000)
	c.rand.Read(p)
	writeExtents(c.T, c.primary, c.image, stateSize, map[int64][]byte{0: p})
}

// midway pauses the mirror in the middle of making a snapshot's copy.
func (c *copies) midway(snap string) {
	c.Helper()
	c.until("snapshot "+snap+" of the copy", func() bool {
		out, err := c.cluster.Command("rbd", "snap", "ls", "--format", "json", c.image).Output()
		var list []struct{ Name string }
		return err == nil && json.Unmarshal(out, &list) == nil && strings.Contains(string(out), fmt.Sprintf("%q", snap))
	})
	c.mirror.Pause(c)
	if c.sum(c.cluster, snap) == c.sum(c.primary, snap) {
		c.Fatalf("%s@%s is whole before the mirror could be paused", c.image, snap)
	}
}

// whole waits until the copy is, and Ceph's tools say so.
func (c *copies) whole(mode string) {
	c.Helper()
	c.until("whole copy", func() bool {
		list := c.rbd("snap", "ls", "--all", c.image)
		if mode == "journal" {
			return !strings.Contains(list, ".rbd-mirror.") && strings.Contains(c.rbd("mirror", "image", "status", c.image), "+replaying")
		}
		return strings.Contains(list, " copied)") && !strings.Contains(list, "% copied)")
	})
}

func (c *copies) sum(in *clustertest.Cluster, snap string) string {
	c.Helper()
	return in.Run(c, "sh", "-c", `rbd export --no-progress "$1" - | sha256sum`, "sh", c.image+"@"+snap)
}

// try does all that backy does with the copy as it is.
func (c *copies) try(when, snap string, want map[string]cell) {
	c.Helper()
	for _, column := range stateColumns {
		var code int
		var said string
		spec := "rbd:" + c.image + "@" + snap
		switch column {
		case colIncrement:
			code, said = c.backup(spec, c.name)
			if code == 0 && c.sum(c.cluster, snap) != c.sum(c.primary, snap) {
				c.Errorf("%s: a snapshot that is not whole was backed up", when)
			}
		case colScrub:
			doc, _, _ := c.backy("ls", c.name)
			if code, said = 1, "no level"; len(doc.Levels) > 0 {
				_, code, said = c.backy("scrub", "-s", spec, c.name)
			}
		case colRestore:
			doc, _, _ := c.backy("ls", c.name)
			if code, said = 1, "no level"; len(doc.Levels) > 0 {
				_, code, said = c.backy("restore", "-f", c.name, "rbd:"+c.image)
			}
		default:
			code, said = c.do(column)
		}
		want, ok := want[column]
		if !ok {
			want = usual[column]
		}
		if code != want.code || !regexp.MustCompile(want.says).MatchString(said) {
			c.Errorf("%s, %s: exit code %d, want %d and %q\n%s", when, column, code, want.code, want.says, said)
		}
		c.Logf("%s | %s | %s", when, column, c.sentence(code, said))
	}
}
