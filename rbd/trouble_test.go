package rbd

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"backy/engine"
	"backy/rbd/clustertest"
	"backy/store"
	"backy/store/mem"
)

var pause = flag.Duration("pause", 3*time.Second, "how long a daemon is away in the middle of a backup")

// incident is a source that something happens to in the middle of a backup:
// between its third and its fourth read.
type incident struct {
	*Source
	happen func()
	reads  atomic.Int64
}

func (i *incident) Begin(ctx context.Context, run engine.Run) (*engine.State, error) {
	state, err := i.Source.Begin(ctx, run)
	if err == nil {
		state.Reader = incidentReader{state.Reader, i}
	}
	return state, err
}

type incidentReader struct {
	io.ReaderAt
	incident *incident
}

func (r incidentReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.ReaderAt.ReadAt(p, off)
	if r.incident.reads.Add(1) == 3 {
		r.incident.happen()
	}
	return n, err
}

// ward is an image with a repository that backs it up through the engine.
type ward struct {
	*lab
	spec  Spec
	repo  *store.Repository
	mu    sync.Mutex
	warns []string
}

const wardSize = 32 * mib // eight of the engine's reads

func newWard(t *testing.T, c *clustertest.Cluster, timeout time.Duration) *ward {
	t.Helper()
	w := &ward{lab: labIn(t, c, Config{Timeout: timeout})}
	w.spec = w.create("image", wardSize, "--object-size", "1M")
	var err error
	w.repo, err = store.Init(t.Context(), mem.New(), store.Parameters{})
	w.must(err)
	w.Cleanup(func() { w.must(w.repo.Close()) })
	w.write(w.spec, 0, wardSize)
	w.good(nil)
	w.write(w.spec, 0, wardSize)
	return w
}

// backup makes a level. It reads by one reader alone, so that there are reads
// after what happens.
func (w *ward) backup(conn *Conn, happen func()) (store.Level, error) {
	w.Helper()
	if happen == nil {
		happen = func() {}
	}
	source := &incident{Source: conn.Source(w.spec, SourceOptions{}), happen: happen}
	level, err := engine.Backup(w.Context(), w.repo, "vm", source, engine.BackupOptions{
		Readers: 1, Compression: store.CompressNone,
		Warn: func(format string, args ...any) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.warns = append(w.warns, fmt.Sprintf(format, args...))
		},
	})
	if happened := source.reads.Load() >= 3; err == nil && !happened {
		w.Errorf("%d reads: nothing happened in their middle", source.reads.Load())
	}
	return level, err
}

// good wants a backup that succeeds, a level that is right, and one snapshot.
func (w *ward) good(happen func()) store.Level {
	w.Helper()
	level, err := w.backup(w.conn, happen)
	w.must(err)
	want := w.content(w.spec.at(ownName(level)))
	var got bytes.Buffer
	_, err = engine.Stream(w.Context(), w.repo, level, &got, engine.RestoreOptions{})
	w.must(err)
	if !bytes.Equal(got.Bytes(), want) {
		w.Errorf("level %d differs from its snapshot first at %d", level.Number, firstDifference(got.Bytes(), want))
	}
	w.wantSnaps(w.spec, "after a backup", ownName(level))
	return level
}

// bad wants a backup that fails, and makes no level.
func (w *ward) bad(is error, text string, happen func()) {
	w.Helper()
	before := w.count()
	_, err := w.backup(w.conn, happen)
	if !errors.Is(err, is) || !strings.Contains(err.Error(), text) {
		w.Errorf("%v, want %v with %q", err, is, text)
	}
	if n := w.count(); n != before {
		w.Errorf("%d levels of it", n-before)
	}
}

func (w *ward) count() int {
	w.Helper()
	levels, err := w.repo.Levels(w.Context(), "vm")
	w.must(err)
	return len(levels)
}

// A daemon that is away for a while holds a backup up, and no more.
func TestDaemonsAwayMidway(t *testing.T) {
	t.Parallel()
	cluster := clustertest.New(t, clustertest.Options{})
	w := newWard(t, cluster, 2**pause+20*time.Second)
	var back sync.WaitGroup
	for what, happen := range map[string]func(){
		"the OSD hangs": func() {
			cluster.Pause(t, clustertest.OSD)
			back.Go(func() {
				time.Sleep(*pause)
				cluster.Resume(t, clustertest.OSD)
			})
		},
		"the OSD is down": func() {
			cluster.Stop(t, clustertest.OSD)
			back.Go(func() {
				time.Sleep(*pause)
				cluster.Start(t, clustertest.OSD)
			})
		},
		"the monitor is down": func() {
			cluster.Stop(t, clustertest.Mon)
			back.Go(func() {
				time.Sleep(*pause)
				cluster.Start(t, clustertest.Mon)
			})
		},
	} {
		w.good(happen)
		back.Wait()
		if len(w.warns) > 0 {
			t.Errorf("%s: warnings %q", what, w.warns)
		}
		w.warns = nil
		w.write(w.spec, 0, wardSize)
	}
}

// An OSD that does not come back ends the backup in time. The snapshot that it
// could not remove then, the next one does.
func TestOSDGoneMidway(t *testing.T) {
	t.Parallel()
	cluster := clustertest.New(t, clustertest.Options{})
	w := newWard(t, cluster, 5*time.Second)
	for _, c := range []struct{ gone, back func(testing.TB, string) }{
		{cluster.Pause, cluster.Resume},
		{cluster.Stop, cluster.Start},
	} {
		w.bad(ErrTimeout, "5s", func() { c.gone(t, clustertest.OSD) })
		c.back(t, clustertest.OSD)
		if len(w.warns) == 0 || !strings.Contains(strings.Join(w.warns, "\n"), "the next run removes it") {
			t.Errorf("warnings %q, want what is left of the run", w.warns)
		}
		w.warns = nil
		// It may take its time to serve again.
		w.conn = w.connect(Config{Conf: cluster.Conf()})
		w.good(nil)
		w.conn = w.connect(Config{Conf: cluster.Conf(), Timeout: 5 * time.Second})
		w.write(w.spec, 0, wardSize)
	}
}

// What a backup reads, or diffs from, is removed in the middle of it: no level
// comes of that.
func TestPulledAwayMidway(t *testing.T) {
	t.Parallel()
	for what, pull := range map[string]func(w *ward, base, now string){
		"the snapshot": func(w *ward, _, now string) { w.unsnap(w.spec, now) },
		"the base":     func(w *ward, base, _ string) { w.unsnap(w.spec, base) },
		"the snapshot, made anew": func(w *ward, _, now string) {
			w.unsnap(w.spec, now)
			w.snap(w.spec, now)
		},
		"the base, made anew": func(w *ward, base, _ string) {
			w.unsnap(w.spec, base)
			w.snap(w.spec, base)
		},
		"the image": func(w *ward, _, _ string) {
			w.rbd("snap", "purge", "--no-progress", path(w.spec))
			w.rbd("rm", "--no-progress", path(w.spec))
		},
		"the image, made anew": func(w *ward, _, now string) {
			w.rbd("snap", "purge", "--no-progress", path(w.spec))
			w.rbd("rm", "--no-progress", path(w.spec))
			w.create(w.spec.Image, wardSize, "--object-size", "1M")
			w.snap(w.spec, now)
		},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWard(t, clustertest.Get(t), DefaultTimeout)
			w.bad(ErrSnapshotGone, "while it was being read", func() {
				names := w.snaps(w.spec)
				pull(w, names[0], names[len(names)-1])
			})
			if len(w.warns) > 0 {
				t.Errorf("warnings %q", w.warns)
			}
			if what == "the image" {
				if _, err := w.backup(w.conn, nil); !errors.Is(err, ErrNoImage) {
					t.Errorf("the next backup: %v, want ErrNoImage", err)
				}
				return
			}
			w.write(w.spec, 0, wardSize)
			w.good(nil)
		})
	}
}

// An administrator shuts the client out: an error that says so, at once.
func TestShutOutMidway(t *testing.T) {
	t.Parallel()
	w := newWard(t, clustertest.Get(t), DefaultTimeout)
	w.bad(syscall.ESHUTDOWN, "has shut this client out", func() {
		addrs, err := w.conn.rados.GetAddrs()
		w.must(err)
		w.cluster.Run(t, "ceph", "osd", "blocklist", "add", addrs)
	})
	w.conn = w.connect(Config{Conf: w.cluster.Conf()})
	w.good(nil)
}

// A key that is taken back is missed only when the client has to show it again.
func TestKeyRevokedMidway(t *testing.T) {
	t.Parallel()
	cluster := clustertest.New(t, clustertest.Options{})
	const ticket = 3 * time.Second
	cluster.Run(t, "ceph", "config", "set", "global", "auth_service_ticket_ttl", fmt.Sprint(ticket.Seconds()))
	w := newWard(t, cluster, DefaultTimeout)
	admin := w.conn
	for what, c := range map[string]struct {
		revoke  func(id string)
		is      error
		text    string
		connect error
	}{
		"removed": {
			func(id string) { cluster.Run(t, "ceph", "auth", "rm", "client."+id) },
			ErrTimeout, "or the cluster no longer knows the key of client.", ErrPermission,
		},
		"for another pool": {
			func(id string) {
				cluster.Run(t, "ceph", "auth", "caps", "client."+id, "mon", "profile rbd", "osd", "profile rbd pool=none")
			},
			ErrPermission, "ceph auth get client.", nil,
		},
	} {
		id := cluster.Key(t, clustertest.BackupRights()...)
		w.conn = w.connect(Config{Conf: cluster.Conf(), ID: id, Timeout: 5 * time.Second})
		w.bad(c.is, c.text, func() {
			c.revoke(id)
			// It has to show its key to the monitor again, and then a ticket to the OSD.
			cluster.Stop(t, clustertest.OSD)
			cluster.Stop(t, clustertest.Mon)
			cluster.Start(t, clustertest.Mon)
			time.Sleep(2 * ticket)
			cluster.Start(t, clustertest.OSD)
		})
		conn, err := Connect(t.Context(), Config{Conf: cluster.Conf(), ID: id})
		if !errors.Is(err, c.connect) {
			t.Errorf("%s: a new connection: %v, want %v", what, err, c.connect)
		}
		if err == nil {
			w.conn = conn
			w.bad(ErrPermission, "ceph auth get client.", nil)
			w.must(conn.Close())
		}
		w.conn = admin
		w.good(nil)
		w.write(w.spec, 0, wardSize)
	}
}
