// Package clustertest gives tests a real Ceph cluster: the one that `make test`
// started for all of them, or else one of their own, by docker/cluster.sh.
//
// It talks to the cluster through the ceph and rbd commands, so that what it
// prepares and checks does not come from the code under test. Without a cluster
// a test fails; it is never skipped.
package clustertest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Env is the environment variable that holds the folder of a running cluster
// for Get to use.
const Env = "BACKY_TEST_CLUSTER"

// The daemons that every cluster has.
const (
	Mon = "mon.a"
	OSD = "osd.0"
)

// Options are the choices of a cluster. The zero value is one OSD in memory.
type Options struct {
	Store string // memstore or bluestore; "": memstore
	Size  string // of each OSD, such as 512M or 6G; "": 4G
	OSDs  int    // 0: 1
}

// Cluster is a running cluster. It is safe for concurrent use.
type Cluster struct {
	dir  string
	own  bool      // nobody else's tests use it
	hold *exec.Cmd // keeps it up until its stdin is closed; nil where others do
	end  io.Closer // that stdin

	mu   sync.Mutex
	made map[string]bool // the lasting clients that are there
}

var shared struct {
	sync.Mutex
	cluster *Cluster
	err     error
}

// Get returns the cluster that the tests of this process share with those of
// other packages: the running one that Env names, else one that is started by
// the first call and goes down with the process, however that ends. Use pools and
// keys of your own there, and leave its daemons alone.
func Get(t testing.TB) *Cluster {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster == nil && shared.err == nil {
		shared.cluster, shared.err = find()
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.cluster
}

// Main is for a TestMain: it runs the tests, waits until the cluster that Get
// may have started is down, and exits.
func Main(m *testing.M) {
	code := m.Run()
	shared.Lock()
	if shared.cluster != nil {
		if err := shared.cluster.down(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// New starts a cluster for one test, which may stop its daemons. It is down and
// gone after the test.
func New(t testing.TB, o Options) *Cluster {
	t.Helper()
	c, err := start(o)
	if err != nil {
		t.Fatal(err)
	}
	c.own = true
	t.Cleanup(func() {
		if err := c.down(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// Conf is the path of its ceph.conf, which names client.admin's keyring and those
// that Key makes.
func (c *Cluster) Conf() string { return filepath.Join(c.dir, "ceph.conf") }

// Keyring is the path of the keyring of client.id.
func (c *Cluster) Keyring(id string) string {
	return filepath.Join(c.dir, "client."+id+".keyring")
}

// Command prepares a command, as rbd or ceph, that acts on this cluster as
// client.admin unless its arguments say otherwise.
func (c *Cluster) Command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "CEPH_") })
	cmd.Env = append(cmd.Env, "CEPH_CONF="+c.Conf())
	return cmd
}

// Run runs such a command and returns its stdout; the test fails if it fails.
func (c *Cluster) Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := output(c.Command(name, args...))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Pool makes an empty pool for RBD images and returns its name. It is removed
// after the test.
func (c *Cluster) Pool(t testing.TB) string {
	t.Helper()
	name := unique("pool")
	c.script(t, "pool", name)
	t.Cleanup(func() {
		c.Run(t, "ceph", "osd", "pool", "rm", name, name, "--yes-i-really-really-mean-it")
	})
	return name
}

// Key makes a client with capabilities in the order of the ceph command, such as
// "mon", "profile rbd", "osd", "profile rbd-read-only"; without any it may do all
// with images. It returns the client's id. The client is removed after the test.
func (c *Cluster) Key(t testing.TB, caps ...string) (id string) {
	t.Helper()
	id = unique("key")
	c.script(t, "key", append([]string{id}, caps...)...)
	t.Cleanup(func() {
		c.Run(t, "ceph", "auth", "rm", "client."+id)
		if err := os.Remove(c.Keyring(id)); err != nil {
			t.Error(err)
		}
	})
	return id
}

// BackupRights are the capabilities of a key for backups of the images of pools,
// as the README grants them: for all that Key takes. Without pools they are about
// every pool; Ceph takes snapshots then only from who may ask for them by name.
func BackupRights(pools ...string) (caps []string) {
	mon, in := "profile rbd", []string{""}
	if len(pools) == 0 {
		mon += `, allow command "osd pool op unmanaged-snap"`
	} else {
		in = in[:0]
		for _, pool := range pools {
			in = append(in, " pool="+pool)
		}
	}
	var osd []string
	for _, p := range in {
		osd = append(osd, "allow r class-read"+p)
		for _, prefix := range []string{"rbd_header.", "rbd_object_map.", "backy.lease."} {
			osd = append(osd, "allow rwx"+p+" object_prefix "+prefix)
		}
	}
	return []string{"mon", mon, "osd", strings.Join(osd, ", ")}
}

// RestoreRights are those of a key for restores into a pool.
func RestoreRights(pool string) (caps []string) {
	return []string{"mon", "profile rbd", "osd", "profile rbd pool=" + pool}
}

// Backup is the id of a client with BackupRights in every pool, for what tests
// do with backy. It stays as long as the cluster.
func (c *Cluster) Backup(t testing.TB) (id string) {
	t.Helper()
	return c.lasting(t, "backup", BackupRights())
}

// Restore is the id of a client that may do all with images, as restores must.
func (c *Cluster) Restore(t testing.TB) (id string) {
	t.Helper()
	return c.lasting(t, "restore", nil)
}

func (c *Cluster) lasting(t testing.TB, id string, caps []string) string {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.made[id] {
		c.script(t, "key", append([]string{id}, caps...)...)
		if c.made == nil {
			c.made = map[string]bool{}
		}
		c.made[id] = true
	}
	return id
}

// Stop ends a daemon of a cluster made by New; an OSD keeps its data.
func (c *Cluster) Stop(t testing.TB, daemon string) { t.Helper(); c.daemon(t, "stop", daemon) }

// Start starts a daemon that was stopped.
func (c *Cluster) Start(t testing.TB, daemon string) { t.Helper(); c.daemon(t, "start", daemon) }

// Pause freezes a daemon of a cluster made by New: its connections stay, but
// nothing is answered.
func (c *Cluster) Pause(t testing.TB, daemon string) { t.Helper(); c.daemon(t, "pause", daemon) }

// Resume lets a paused daemon go on.
func (c *Cluster) Resume(t testing.TB, daemon string) { t.Helper(); c.daemon(t, "resume", daemon) }

func (c *Cluster) daemon(t testing.TB, verb, daemon string) {
	t.Helper()
	if !c.own {
		t.Fatalf("%s %s: other tests use this cluster; use one made by New", verb, daemon)
	}
	c.script(t, verb, daemon)
}

// script runs a verb of docker/cluster.sh on this cluster.
func (c *Cluster) script(t testing.TB, verb string, args ...string) {
	t.Helper()
	cmd, err := script(verb, c.dir, args...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := output(cmd); err != nil {
		t.Fatal(err)
	}
}

// find takes the cluster that Env names, or starts one.
func find() (*Cluster, error) {
	dir := os.Getenv(Env)
	if dir == "" {
		return start(Options{})
	}
	cmd, err := script("status", dir)
	if err != nil {
		return nil, err
	}
	if _, err := output(cmd); err != nil {
		return nil, fmt.Errorf("the cluster that %s names: %w", Env, err)
	}
	return &Cluster{dir: dir}, nil
}

// start starts a cluster that goes down when this process ends, whether or not
// it comes to call down. The folder's path must be short: sockets lie in it.
func start(o Options) (*Cluster, error) {
	dir, err := os.MkdirTemp("", "backy-cluster-")
	if err != nil {
		return nil, fmt.Errorf("folder of a cluster: %w", err)
	}
	var args []string
	if o.Store != "" {
		args = append(args, "--store", o.Store)
	}
	if o.Size != "" {
		args = append(args, "--size", o.Size)
	}
	if o.OSDs != 0 {
		args = append(args, "--osds", strconv.Itoa(o.OSDs))
	}
	cmd, err := script("hold", dir, args...)
	if err != nil {
		return nil, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start of a cluster: %w", err)
	}
	// The first line comes when the cluster is up.
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		err = cmd.Wait()
		return nil, fmt.Errorf("start of a cluster in %s: %w\n%s", dir, err, stderr.Bytes())
	}
	return &Cluster{dir: dir, hold: cmd, end: stdin}, nil
}

// down takes a cluster down that start started, and waits for it.
func (c *Cluster) down() error {
	if c.hold == nil {
		return nil
	}
	if err := c.end.Close(); err != nil {
		return fmt.Errorf("end of the cluster in %s: %w", c.dir, err)
	}
	if err := c.hold.Wait(); err != nil {
		return fmt.Errorf("end of the cluster in %s: %w", c.dir, err)
	}
	return nil
}

// script prepares a call of docker/cluster.sh, which lies below the module's root.
func script(verb, dir string, args ...string) (*exec.Cmd, error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for {
		_, err := os.Stat(filepath.Join(root, "go.mod"))
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || root == filepath.Dir(root) {
			return nil, fmt.Errorf("docker/cluster.sh: no module at or above the current folder: %w", err)
		}
		root = filepath.Dir(root)
	}
	return exec.Command(filepath.Join(root, "docker", "cluster.sh"), append([]string{verb, dir}, args...)...), nil
}

// output runs a command and returns its stdout. An error holds its stderr.
func output(cmd *exec.Cmd) (string, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, stderr.Bytes())
	}
	return string(out), nil
}

// unique makes a name that no other test uses.
func unique(prefix string) string { return fmt.Sprintf("%s-%016x", prefix, rand.Uint64()) }
