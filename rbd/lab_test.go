package rbd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"backy/engine"
	"backy/rbd/child"
	"backy/rbd/clustertest"
	"backy/store"
)

// TestMain also is what a Cluster's children run.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == child.Verb {
		clustertest.Stumble()
		moreVerbs = diffVerb
		os.Exit(ServeChild())
	}
	clustertest.Main(m)
}

const (
	// Small objects make many of them in a small image.
	objectOrder = 16
	object      = 1 << objectOrder
	mib         = 1 << 20
)

// lab is a pool of a real cluster with three clients: conn is under test, with no
// more rights than a backup needs, and so is restorer, which may write images; the
// other one stands for everybody else.
type lab struct {
	testing.TB
	cluster  *clustertest.Cluster
	pool     string
	conn     *Conn
	restorer *Conn
	other    *rados.Conn
}

func newLab(t testing.TB) *lab {
	t.Helper()
	return labIn(t, clustertest.Get(t), Config{})
}

func labIn(t testing.TB, c *clustertest.Cluster, config Config) *lab {
	t.Helper()
	l := &lab{TB: t, cluster: c, pool: c.Pool(t)}
	config.Conf = c.Conf()
	config.ID = c.Restore(t)
	l.restorer = l.connect(config)
	config.ID = ""
	l.conn = l.connect(config)
	var err error
	l.other, err = rados.NewConn()
	l.must(err)
	l.must(l.other.ReadConfigFile(c.Conf()))
	l.must(l.other.SetConfigOption("rbd_cache", "false"))
	l.must(l.other.Connect())
	t.Cleanup(l.other.Shutdown)
	return l
}

// connect connects with the rights of a backup, unless it is told as whom.
func (l *lab) connect(config Config) *Conn {
	l.Helper()
	if config.Conf != "" && config.ID == "" {
		config.ID = l.cluster.Backup(l)
	}
	conn, err := Connect(l.Context(), config)
	l.must(err)
	l.Cleanup(func() { l.must(conn.Close()) })
	return conn
}

func (l *lab) must(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

// spec names an image of the lab's pool, or NAMESPACE/IMAGE.
func (l *lab) spec(name string) Spec {
	l.Helper()
	s, err := ParseSpec(Scheme + l.pool + "/" + name)
	l.must(err)
	return s
}

// path is how Ceph's tools name it.
func path(s Spec) string { return strings.TrimPrefix(s.String(), Scheme) }

// create makes an image of a size in bytes, with objects of 64 KiB unless args
// say otherwise.
func (l *lab) create(name string, size int64, args ...string) Spec {
	l.Helper()
	s := l.spec(name)
	if !slices.Contains(args, "--object-size") {
		args = append(args, "--object-size", fmt.Sprint(object))
	}
	l.rbd(append([]string{"create", path(s), "--size", fmt.Sprintf("%dB", size)}, args...)...)
	return s
}

// rbd runs the rbd command.
func (l *lab) rbd(args ...string) string {
	l.Helper()
	return l.cluster.Run(l, "rbd", args...)
}

// ioctx opens the pool as the other client.
func (l *lab) ioctx(s Spec) *rados.IOContext {
	l.Helper()
	io, err := l.other.OpenIOContext(s.Pool)
	l.must(err)
	io.SetNamespace(s.Namespace)
	return io
}

// with opens an image as the other client, for writing.
func (l *lab) with(s Spec, f func(*rbd.Image) error) {
	l.Helper()
	l.withHandle(s, rbd.OpenImage, f)
}

// look opens an image or a snapshot as the other client, read-only.
func (l *lab) look(s Spec, f func(*rbd.Image) error) {
	l.Helper()
	l.withHandle(s, rbd.OpenImageReadOnly, f)
}

func (l *lab) withHandle(s Spec, open func(*rados.IOContext, string, string) (*rbd.Image, error), f func(*rbd.Image) error) {
	l.Helper()
	io := l.ioctx(s)
	defer io.Destroy()
	i, err := open(io, s.Image, rbd.NoSnapshot)
	l.must(err)
	if s.Snap != "" { // see Conn.open
		id, err := i.GetSnapID(s.Snap)
		l.must(err)
		l.must(i.SetSnapByID(id))
	}
	err = f(i)
	settleCallbacks(io)
	l.must(i.Close())
	l.must(err)
}

// write writes length random bytes as the other client.
func (l *lab) write(s Spec, off, length int64) {
	l.Helper()
	p := make([]byte, length)
	for i := range p {
		p[i] = byte(rand.Uint32()) | 1 // no zeros
	}
	l.with(s, func(i *rbd.Image) error {
		_, err := i.WriteAt(p, off)
		return err
	})
}

func (l *lab) resize(s Spec, size int64) {
	l.Helper()
	l.with(s, func(i *rbd.Image) error { return i.Resize(uint64(size)) })
}

func (l *lab) snap(s Spec, name string) Spec {
	l.Helper()
	l.with(s, func(i *rbd.Image) error {
		_, err := i.CreateSnapshot(name)
		return err
	})
	return s.at(name)
}

func (l *lab) unsnap(s Spec, name string) {
	l.Helper()
	l.with(s.at(""), func(i *rbd.Image) error { return i.GetSnapshot(name).Remove() })
}

func (l *lab) rollback(s Spec, name string) {
	l.Helper()
	l.with(s.at(""), func(i *rbd.Image) error { return i.GetSnapshot(name).Rollback() })
}

// withOlder gives an image a snapshot to go back to, with objects 0 and 1 written
// since.
func (l *lab) withOlder(s Spec) Spec {
	l.Helper()
	l.write(s, 0, 10*object)
	l.snap(s, "oldest")
	l.snap(s, "older")
	l.write(s, 0, 2*object)
	return s
}

// content reads all of an image or snapshot, as the other client.
func (l *lab) content(s Spec) []byte {
	l.Helper()
	var p []byte
	l.look(s, func(i *rbd.Image) error {
		size, err := i.GetSize()
		if err != nil || size == 0 {
			return err
		}
		p = make([]byte, size)
		_, err = i.ReadAt(p, 0)
		return err
	})
	return p
}

// snaps are the names of an image's snapshots, in order.
func (l *lab) snaps(s Spec) []string {
	l.Helper()
	var names []string
	l.look(s.at(""), func(i *rbd.Image) error {
		list, err := listSnapshots(i)
		for _, snap := range list {
			names = append(names, snap.name)
		}
		return err
	})
	return names
}

// series plays the part of the engine and the repository for one backup name:
// it applies a source's extents to the bytes of the base, and compares the
// outcome with the snapshot's bytes.
type series struct {
	*lab
	repository store.RepositoryID
	name       store.Name
	levels     []store.Level // newest first
	content    map[store.LevelNumber][]byte
	over       map[store.RunID]bool
	distrust   store.LevelNumber

	mu       sync.Mutex
	warnings []string
}

func (l *lab) series(name string) *series {
	return &series{
		lab: l, repository: store.NewRepositoryID(), name: store.Name(name),
		content: map[store.LevelNumber][]byte{}, over: map[store.RunID]bool{},
	}
}

func (s *series) warn(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.warnings = append(s.warnings, fmt.Sprintf(format, args...))
}

func (s *series) run() engine.Run {
	return engine.Run{
		Repository: s.repository, Name: s.name, ID: store.NewRunID(time.Now()),
		Levels: slices.Clone(s.levels), Distrust: s.distrust,
		Over: func(id store.RunID) bool { return s.over[id] },
		Warn: s.warn,
	}
}

// backup makes the next level of an image and checks its bytes.
func (s *series) backup(spec Spec, d Diff) store.Level {
	s.Helper()
	level, err := s.try(s.Context(), spec, d)
	s.must(err)
	return level
}

func (s *series) try(ctx context.Context, spec Spec, d Diff) (store.Level, error) {
	s.Helper()
	run := s.run()
	source := s.conn.Source(spec, SourceOptions{Diff: d})
	state, err := source.Begin(ctx, run)
	if err != nil {
		s.over[run.ID] = true
		return store.Level{}, err
	}
	level, p, err := s.take(ctx, run, state)
	if err == nil {
		err = source.Recheck(ctx)
	}
	if err != nil {
		s.over[run.ID] = true
		s.must(source.End(ctx, engine.Failed))
		return level, err
	}
	at := spec.at(level.Origin.RBD.Snapshot)
	if want := s.lab.content(at); !bytes.Equal(p, want) {
		s.Errorf("level %d of %s by %s: differs from the snapshot first at %d", level.Number, at, level.Origin.Diff, firstDifference(p, want))
	}
	s.levels = slices.Insert(s.levels, 0, level)
	s.content[level.Number] = p
	s.over[run.ID] = true
	return level, source.End(ctx, engine.Committed)
}

// take does what the engine does with a state.
func (s *series) take(_ context.Context, run engine.Run, state *engine.State) (store.Level, []byte, error) {
	level := store.Level{
		Name: s.name, Number: 1, Run: run.ID, Time: state.Origin.Time,
		Size: state.Size, ChunkSize: 64 << 10, Fanout: 16, Origin: state.Origin,
	}
	if len(s.levels) > 0 {
		level.Number = s.levels[0].Number + 1
	}
	p := make([]byte, state.Size)
	if state.Base != nil {
		level.Base = state.Base.Number
		if state.Outside == engine.Unchanged {
			copy(p, s.content[state.Base.Number])
		}
	}
	if state.Extents == nil {
		_, err := io.ReadFull(io.NewSectionReader(state.Reader, 0, state.Size), p)
		return level, p, err
	}
	last := int64(0)
	for e, err := range state.Extents {
		if err != nil {
			return level, nil, err
		}
		if e.Offset < last || e.Length <= 0 || e.End() > state.Size {
			s.Fatalf("extent %v after one that ends at %d, in %d bytes", e, last, state.Size)
		}
		last = e.End()
		if !e.Exists {
			clear(p[e.Offset:e.End()])
			continue
		}
		level.Stats.Read += e.Length
		if n, err := state.Reader.ReadAt(p[e.Offset:e.End()], e.Offset); err != nil && (err != io.EOF || n != int(e.Length)) {
			return level, nil, err
		}
	}
	return level, p, nil
}

func firstDifference(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// level is a level of a size that came from no image.
func (s *series) level(size int64) store.Level {
	return store.Level{Name: s.name, Number: 1, Run: 1, Size: size, ChunkSize: 64 << 10, Fanout: 16, Origin: store.Origin{Kind: "file"}}
}
