package rbd

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"backy/engine"
	"backy/rbd/clustertest"
	"backy/store"
	"backy/store/mem"
)

// P21: QoS of an image or its pool makes reads and writes wait for each other. That
// is no dead cluster, whatever the timeout, and is said; it is lifted for backy
// alone where that is asked for.
func TestP21QoS(t *testing.T) {
	t.Parallel()
	const size = 3 * mib
	l := labIn(t, clustertest.Get(t), Config{Timeout: 2 * time.Second, QoS: KeepQoS})
	fast := l.connect(Config{Conf: l.cluster.Conf(), ID: l.cluster.Restore(t), QoS: IgnoreQoS})
	unset := l.connect(Config{Conf: l.cluster.Conf(), ID: l.cluster.Restore(t)})
	repo, err := store.Init(t.Context(), mem.New(), store.Parameters{})
	l.must(err)
	t.Cleanup(func() { l.must(repo.Close()) })
	limited := func(name string, settings ...string) Spec {
		spec := l.create(name, size, "--object-size", "4M")
		l.write(spec, 0, size)
		for _, s := range settings {
			key, value, _ := strings.Cut(s, "=")
			l.rbd("config", "image", "set", path(spec), key, value)
		}
		return spec
	}
	backup := func(conn *Conn, spec Spec) (store.Level, []string, error) {
		s := l.series("")
		level, err := engine.Backup(t.Context(), repo, store.Name(spec.Image), conn.Source(spec, SourceOptions{Diff: DiffNone}), engine.BackupOptions{Warn: s.warn})
		return level, s.warnings, err
	}
	restore := func(conn *Conn, spec Spec, level store.Level) []string {
		t.Helper()
		s := l.series("")
		want := l.content(spec)
		l.write(spec, 0, size)
		_, err := engine.Restore(t.Context(), repo, level, conn.Target(spec, TargetOptions{Force: true, Warn: s.warn}), engine.RestoreOptions{})
		l.must(err)
		if !bytes.Equal(l.content(spec), want) {
			t.Errorf("%s differs after its restore", spec)
		}
		return s.warnings
	}
	told := func(what string, warnings []string, says string) {
		t.Helper()
		if len(warnings) != 1 || !strings.Contains(warnings[0], says) {
			t.Errorf("%s: warned of %q, want %q", what, warnings, says)
		}
	}

	spec := limited("image", "rbd_qos_bps_limit=1048576", "rbd_qos_read_iops_limit=2")
	_, warnings, err := backup(l.conn, spec)
	l.must(err)
	told("backup", warnings, "throttled by the image's rbd_qos_bps_limit of 1048576 and the image's rbd_qos_read_iops_limit of 2")
	level, warnings, err := backup(fast, spec)
	l.must(err)
	_, more, err := backup(unset, spec)
	l.must(err)
	warnings = append(warnings, more...)
	warnings = append(warnings, restore(fast, spec, level)...)
	warnings = append(warnings, restore(unset, spec, level)...)
	if len(warnings) > 0 {
		t.Errorf("without QoS: warned of %q", warnings)
	}
	told("restore", restore(l.restorer, spec, level), "rbd_qos_bps_limit")
	watch := l.series("")
	view, closer, err := l.conn.view(t.Context(), spec, watch.warn)
	l.must(err)
	_, err = engine.Scrub(t.Context(), repo, level, engine.ScrubOptions{Source: &view})
	l.must(err)
	l.must(closer.Close())
	told("deep scrub", watch.warnings, "rbd_qos_bps_limit")
	if got := l.rbd("config", "image", "get", path(spec), "rbd_qos_bps_limit"); strings.TrimSpace(got) != "1048576" {
		t.Errorf("the image's limit is %q now", got)
	}

	// What goes before this client's setting cannot be lifted.
	_, unknown := fast.rados.GetConfigOption(qosExclude)
	own := "rbd_qos_exclude_ops=discard"
	if unknown != nil {
		own = "rbd_qos_bps_burst=2097152"
	}
	stubborn := limited("stubborn", "rbd_qos_bps_limit=1048576", own)
	if _, _, err := backup(fast, stubborn); err == nil || !strings.Contains(err.Error(), "--ignore-qos cannot lift") {
		t.Errorf("an image that insists: %v", err)
	}
	_, warnings, err = backup(unset, stubborn)
	l.must(err)
	told("an image that insists", warnings, "goes before this client's")

	// Whoever limits this client means it.
	conf := filepath.Join(t.TempDir(), "ceph.conf")
	content, err := os.ReadFile(l.cluster.Conf())
	l.must(err)
	l.must(os.WriteFile(conf, append(content, "\n[client]\nrbd_qos_bps_limit = 1048576\n"...), 0o600))
	_, warnings, err = backup(l.connect(Config{Conf: conf, ID: l.cluster.Restore(t)}), limited("unlimited"))
	l.must(err)
	told("this client is limited", warnings, "this client's rbd_qos_bps_limit of 1048576")

	l.rbd("config", "pool", "set", l.pool, "rbd_qos_bps_limit", "1048576")
	_, warnings, err = backup(l.conn, limited("of the pool"))
	l.must(err)
	told("by the pool", warnings, "the pool's rbd_qos_bps_limit of 1048576")
}

// What is in flight is never more than the limit, and one operation never more
// than a second's worth.
func TestThrottlePieces(t *testing.T) {
	t.Parallel()
	var none *throttle
	if n := none.piece(1 << 30); n != 1<<30 {
		t.Errorf("without a limit: %d", n)
	}
	for _, c := range []struct{ most, length, want int64 }{{4096, 1, 1}, {4096, 4097, 4096}, {1 << 20, 4 << 20, 1 << 20}, {0, 5, 5}} {
		if n := (&throttle{most: c.most}).piece(c.length); n != c.want {
			t.Errorf("%d of %d bytes: %d, want %d", c.most, c.length, n, c.want)
		}
	}
}
