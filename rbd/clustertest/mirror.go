package clustertest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Mirror copies mirrored images of one cluster to another: Ceph's rbd-mirror.
type Mirror struct{ cmd *exec.Cmd }

// StartMirror makes a pool of that name in both clusters, and starts what copies the
// images of it for which mirroring is enabled. It ends with the test. So slowly that
// a test can stop it in the middle: one object at a time.
func StartMirror(t testing.TB, pool string, from, to *Cluster) *Mirror {
	t.Helper()
	for _, c := range []*Cluster{from, to} {
		c.script(t, "pool", pool)
		c.Run(t, "rbd", "mirror", "pool", "enable", pool, "image")
	}
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(from.Run(t, "rbd", "mirror", "pool", "peer", "bootstrap", "create", "--site-name", "from", pool)), 0o600); err != nil {
		t.Fatal(err)
	}
	to.Run(t, "rbd", "mirror", "pool", "peer", "bootstrap", "import", "--site-name", "to", "--direction", "rx-only", pool, token)
	cmd := to.Command("rbd-mirror", "--name", "client.admin", "--foreground", "--rbd-concurrent-management-ops", "1",
		"--rbd-mirror-image-state-check-interval", "1", "--rbd-mirror-pool-replayers-refresh-interval", "1",
		"--rbd-mirror-journal-poll-age", "0.5", "--rbd-mirror-journal-commit-age", "0.5", "--log-file", filepath.Join(t.TempDir(), "log"))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: docker/deps.sh all installs it", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if t.Failed() && strings.TrimSpace(said.String()) != "" {
			t.Logf("rbd-mirror: %s", &said)
		}
	})
	return &Mirror{cmd}
}

// Pause stops it where it is, and Resume lets it go on.
func (m *Mirror) Pause(t testing.TB) { t.Helper(); m.signal(t, syscall.SIGSTOP) }

// Resume lets it go on.
func (m *Mirror) Resume(t testing.TB) { t.Helper(); m.signal(t, syscall.SIGCONT) }

func (m *Mirror) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := m.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}
