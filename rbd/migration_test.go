package rbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ceph/go-ceph/rbd"

	"backy/engine"
	"backy/store"
	"backy/store/mem"
)

// The ways into a live migration.
var migrations = []string{"pool to pool", "from a snapshot", "from a file", "from a qcow2"}

// Live migrations, at random: whatever is backed up before, while and after one,
// each level restores to what its snapshot read as when it was backed up, the
// migration goes on, and once it is over only the snapshots that are needed stay.
//
// BACKY_TEST_SEED and BACKY_TEST_HISTORIES are those of TestHistories.
func TestP19Migrations(t *testing.T) {
	seeds := make([]uint64, number(t, "BACKY_TEST_HISTORIES", 1))
	for i := range seeds {
		seeds[i] = rand.Uint64()
	}
	if os.Getenv("BACKY_TEST_SEED") != "" {
		seeds = []uint64{number(t, "BACKY_TEST_SEED", 0)}
	}
	for _, kind := range migrations {
		for _, end := range []string{"commit", "abort"} {
			for _, seed := range seeds {
				t.Run(fmt.Sprintf("%s/%s/seed-%d", kind, end, seed), func(t *testing.T) {
					t.Parallel()
					m := newMigration(t, kind, seed)
					m.history(end)
					if t.Failed() {
						t.Fatalf("BACKY_TEST_SEED=%d: after these steps:\n%s", seed, strings.Join(m.done, "\n"))
					}
				})
			}
		}
	}
}

// migration is an image on its way to another place.
type migration struct {
	*lab
	*rand.Rand
	kind      string
	repo      *store.Repository
	spec      Spec // what a guest uses now
	from      Spec // where it comes from
	snaps     []string
	migrating bool
	content   map[store.LevelNumber][]byte
	done      []string
}

const migrationSize = 2 * 4 * mib

func newMigration(t *testing.T, kind string, seed uint64) *migration {
	t.Helper()
	m := &migration{
		lab: newLab(t), Rand: rand.New(rand.NewPCG(seed, 1)), kind: kind,
		content: map[store.LevelNumber][]byte{},
	}
	var err error
	m.repo, err = store.Init(t.Context(), mem.New(), store.Parameters{ChunkSize: 16 << 10 << m.IntN(4)})
	m.must(err)
	m.Cleanup(func() { m.must(m.repo.Close()) })
	m.spec = m.lab.create("source", migrationSize, "--object-size", "1M")
	return m
}

func (m *migration) note(format string, args ...any) {
	m.done = append(m.done, fmt.Sprintf(format, args...))
}

// some does things at random that a guest, its owner and backups do.
func (m *migration) some() {
	m.Helper()
	for range 2 + m.IntN(5) {
		switch m.IntN(6) {
		case 0:
			m.snapshot()
		case 1, 2:
			m.change()
		case 3:
			if len(m.snaps) > 0 {
				m.backup(m.spec.at(m.snaps[m.IntN(len(m.snaps))]))
			}
		default:
			m.backup(m.spec)
		}
	}
}

func (m *migration) change() {
	m.note("write")
	m.with(m.spec, func(i *rbd.Image) error {
		for range 1 + m.IntN(6) {
			off := m.Int64N(migrationSize - 1<<20)
			var err error
			if m.IntN(3) == 0 {
				_, err = i.Discard(uint64(off&^4095), uint64(4096<<m.IntN(8)))
			} else {
				p := make([]byte, 1+m.IntN(9000))
				for j := range p {
					p[j] = byte(m.Uint32())
				}
				_, err = i.WriteAt(p, off)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (m *migration) snapshot() {
	name := fmt.Sprint("theirs-", len(m.done))
	m.note("snapshot %s", name)
	m.snap(m.spec, name)
	m.snaps = append(m.snaps, name)
}

// history takes an image through a migration.
func (m *migration) history(end string) {
	m.Helper()
	m.change()
	m.snapshot()
	m.some()
	m.change()
	m.snapshot()
	before := m.spec
	kept := slices.Clone(m.snaps)
	m.prepare()
	m.refused()
	m.change()
	m.backup(m.spec)
	m.some()
	if m.IntN(2) == 0 {
		m.note("execute")
		m.rbd("migration", "execute", "--no-progress", path(m.spec))
		m.some()
		m.backup(m.spec)
	} else if end == "commit" {
		m.note("execute")
		m.rbd("migration", "execute", "--no-progress", path(m.spec))
	}
	m.note("%s", end)
	m.rbd("migration", end, "--no-progress", path(m.spec))
	m.migrating = false
	if end == "abort" {
		m.spec, m.snaps = before, kept
	}
	m.backup(m.spec)
	for _, name := range m.snaps {
		m.backup(m.spec.at(name))
	}
	m.some()
	m.backup(m.spec)
	ours := slices.DeleteFunc(m.lab.snaps(m.spec), func(n string) bool { return !strings.HasPrefix(n, "backy-") })
	if len(ours) != 1 {
		m.Errorf("snapshots of ours afterwards: %q", ours)
	}
	levels, err := m.repo.Levels(m.Context(), "vm")
	m.must(err)
	if len(levels) != len(m.content) {
		m.Errorf("%d levels of %d", len(levels), len(m.content))
	}
	for _, l := range levels {
		m.check(l)
	}
}

// prepare begins the migration to another image, which the guest uses from now.
func (m *migration) prepare() {
	m.Helper()
	m.note("prepare %s", m.kind)
	m.from, m.spec = m.spec, m.lab.spec("target")
	m.migrating = true
	if m.kind == "pool to pool" {
		m.spec.Pool = m.cluster.Pool(m)
		m.rbd("migration", "prepare", path(m.from), path(m.spec))
		return
	}
	file := func(name string, p []byte) map[string]any {
		at := filepath.Join(m.TempDir(), name)
		m.must(os.WriteFile(at, p, 0o644))
		return map[string]any{"type": "file", "file_path": at}
	}
	var source map[string]any
	content := m.lab.content(m.from)
	switch m.kind {
	case "from a snapshot":
		at := m.snaps[m.IntN(len(m.snaps))]
		source = map[string]any{"type": "native", "pool_name": m.from.Pool, "image_name": m.from.Image, "snap_name": at}
		m.snaps = slices.DeleteFunc(m.snaps, func(n string) bool { return n > at && len(n) >= len(at) })
	case "from a file":
		var before []map[string]any
		for _, n := range m.snaps {
			before = append(before, map[string]any{"type": "raw", "name": n, "stream": file(n, m.lab.content(m.from.at(n)))})
		}
		source = map[string]any{"type": "raw", "stream": file("raw", content), "snapshots": before}
	case "from a qcow2":
		source = map[string]any{"type": "qcow", "stream": file("qcow2", qcow2(content))}
	}
	spec, err := json.Marshal(source)
	m.must(err)
	m.rbd("migration", "prepare", "--import-only", "--source-spec", string(spec), path(m.spec))
	m.snaps = slices.DeleteFunc(m.lab.snaps(m.spec), func(n string) bool { return strings.HasPrefix(n, "backy-") })
}

// refused tries what must not be done now.
func (m *migration) refused() {
	m.Helper()
	before := m.lab.snaps(m.spec)
	for _, d := range []Diff{DiffFast, DiffExact} {
		if _, err := m.run(m.spec, d); !errors.Is(err, ErrMigrating) {
			m.Errorf("backup by %s: %v, want ErrMigrating", d, err)
		}
	}
	for _, name := range before {
		if !strings.HasPrefix(name, "backy-") {
			continue
		}
		_, own, err := m.conn.Inspect(m.Context(), m.spec, "")
		m.must(err)
		for _, o := range own {
			o.Kind = Stray
			if err := m.conn.RemoveStray(m.Context(), o); !errors.Is(err, ErrMigrating) {
				m.Errorf("remove %s: %v, want ErrMigrating", o.Spec, err)
			}
			if err := m.conn.CheckStray(m.Context(), o); !errors.Is(err, ErrMigrating) {
				m.Errorf("check %s: %v, want ErrMigrating", o.Spec, err)
			}
			if _, known, err := m.conn.Space(m.Context(), o); known || err != nil {
				m.Errorf("space of %s: known: %t, %v", o.Spec, known, err)
			}
		}
	}
	if now := m.lab.snaps(m.spec); !slices.Equal(before, now) {
		m.Errorf("snapshots %q became %q", before, now)
	}
	_, err := m.restorer.Target(m.spec, TargetOptions{Force: true}).Prepare(m.Context(), store.Level{Size: migrationSize})
	if !errors.Is(err, ErrMigrating) {
		m.Errorf("restore: %v, want ErrMigrating", err)
	}
}

func (m *migration) run(spec Spec, d Diff) (store.Level, error) {
	m.Helper()
	return engine.Backup(m.Context(), m.repo, "vm", m.conn.Source(spec, SourceOptions{Diff: d, Adopt: m.imports()}), engine.BackupOptions{
		// The sample of what was left out finds a diff that lied, in an image this small.
		Warn: func(format string, args ...any) {
			if w := fmt.Sprintf(format, args...); strings.Contains(w, "nothing was said to have") {
				m.Errorf("backup of %s by %s: %s", spec, d, w)
			}
		},
	})
}

func (m *migration) backup(spec Spec) {
	m.Helper()
	d := DiffAuto
	if !m.migrating && m.IntN(4) == 0 {
		d = DiffExact
	}
	m.note("backup %s by %s", spec, d)
	level, err := m.run(spec, d)
	m.must(err)
	o := level.Origin
	m.note("  level %d from %d by %s", level.Number, level.Base, o.Diff)
	if m.migrating && (o.Diff != store.DiffNone || !o.RBD.Migrating) || o.RBD.Migrating != m.migrating {
		m.Errorf("level %d by %s, migrating: %t", level.Number, o.Diff, o.RBD.Migrating)
	}
	at := spec.at(o.RBD.Snapshot)
	m.content[level.Number] = m.lab.content(at)
	m.check(level)
	view, closer, err := m.conn.View(m.Context(), at)
	m.must(err)
	_, err = engine.Scrub(m.Context(), m.repo, level, engine.ScrubOptions{Source: &view})
	if err = errors.Join(err, closer.Close()); err != nil {
		m.Errorf("deep scrub of level %d: %v", level.Number, err)
	}
}

func (m *migration) check(level store.Level) {
	m.Helper()
	var got bytes.Buffer
	_, err := engine.Stream(m.Context(), m.repo, level, &got, engine.RestoreOptions{})
	m.must(err)
	if want := m.content[level.Number]; !bytes.Equal(got.Bytes(), want) {
		m.Errorf("level %d: %d bytes, differs first at %d of %d", level.Number, got.Len(), firstDifference(got.Bytes(), want), len(want))
	}
}

// qcow2 makes a disk of that format, without its refcounts, which librbd does
// not read: docs/interop/qcow2.txt of QEMU. The size is a multiple of a cluster's.
func qcow2(content []byte) []byte {
	const bits, cluster = 16, 1 << 16
	const l1, l2, first = 1 * cluster, 2 * cluster, 3 * cluster
	p := make([]byte, first+len(content))
	be := binary.BigEndian
	copy(p, "QFI\xfb")
	be.PutUint32(p[4:], 2)
	be.PutUint32(p[20:], bits)
	be.PutUint64(p[24:], uint64(len(content)))
	be.PutUint32(p[36:], 1) // l1 entries
	be.PutUint64(p[40:], l1)
	const copied = 1 << 63
	be.PutUint64(p[l1:], l2|copied)
	for n := 0; n*cluster < len(content); n++ {
		be.PutUint64(p[l2+8*n:], uint64(first+n*cluster)|copied)
	}
	copy(p[first:], content)
	return p
}

// P19: a snapshot of an image that is imported from another's snapshot changes
// once the guest writes, or execute comes by. What was read of it then is no
// level.
func TestP19SnapshotChanges(t *testing.T) {
	t.Parallel()
	m := newMigration(t, "from a snapshot", 1)
	m.change()
	m.snapshot()
	m.write(m.spec, 0, 2*mib) // after the snapshot
	m.prepare()
	warn := func(string, ...any) {}
	source := &meddling{Source: m.conn.Source(m.spec, SourceOptions{}), meddle: func() { m.write(m.spec, 4096, 1) }}
	_, err := engine.Backup(t.Context(), m.repo, "vm", source, engine.BackupOptions{Warn: warn})
	if !errors.Is(err, engine.ErrChanged) {
		t.Errorf("backup while the snapshot changed: %v, want ErrChanged", err)
	}
	if ours := m.lab.snaps(m.spec); len(ours) != 2 { // one is the snapshot that came along
		t.Errorf("snapshots %q: the failed run's was to stay", ours)
	}
	m.backup(m.spec)
	// The end of the migration, too, ends what is being read.
	source = &meddling{Source: m.conn.Source(m.spec, SourceOptions{}), meddle: func() {
		m.rbd("migration", "execute", "--no-progress", path(m.spec))
		m.rbd("migration", "commit", "--no-progress", path(m.spec))
	}}
	if _, err := engine.Backup(t.Context(), m.repo, "vm", source, engine.BackupOptions{Warn: warn}); !errors.Is(err, ErrSnapshotGone) {
		t.Errorf("backup while the migration ended: %v, want ErrSnapshotGone", err)
	}
	m.migrating = false
	m.backup(m.spec)
}

// P19: up to a snapshot from the time of a migration a fast diff misses changes,
// however long that is over.
func TestP19FastDiffAfterCommit(t *testing.T) {
	t.Parallel()
	m := newMigration(t, "pool to pool", 3)
	m.write(m.spec, 0, mib)
	m.snapshot()
	m.prepare()
	m.write(m.spec, 3*mib, mib)
	m.snapshot()
	m.rbd("migration", "execute", "--no-progress", path(m.spec))
	m.rbd("migration", "commit", "--no-progress", path(m.spec))
	s := m.series("vm")
	for n, want := range []string{store.DiffAllocated, store.DiffExact} {
		if l := s.backup(m.spec.at(m.snaps[n]), DiffAuto); l.Origin.Diff != want {
			t.Errorf("%s by %s, want %s", m.snaps[n], l.Origin.Diff, want)
		}
	}
	if _, err := s.try(t.Context(), m.spec.at(m.snaps[1]), DiffFast); err != nil {
		t.Errorf("from a snapshot to itself: %v", err)
	}
	m.write(m.spec, 5*mib, mib)
	m.snapshot()
	if l := s.backup(m.spec.at(m.snaps[2]), DiffAuto); l.Origin.Diff != store.DiffFast {
		t.Errorf("a later snapshot by %s, want fast", l.Origin.Diff)
	}
	if l := s.backup(m.spec, DiffAuto); l.Origin.Diff != store.DiffFast {
		t.Errorf("the image by %s, want fast", l.Origin.Diff)
	}
}

// P20: a migration that begins while an image is backed up finds its snapshots
// as they were, and the level is right.
func TestP20MigrationBegins(t *testing.T) {
	t.Parallel()
	for _, fails := range []bool{false, true} {
		m := newMigration(t, "pool to pool", 2)
		m.change()
		m.backup(m.spec)
		m.change()
		ctx, cancel := context.WithCancel(t.Context())
		src := m.spec
		source := &meddling{Source: m.conn.Source(src, SourceOptions{}), meddle: func() {
			m.prepare()
			if fails {
				cancel()
			}
		}}
		level, err := engine.Backup(ctx, m.repo, "vm", source, engine.BackupOptions{})
		cancel()
		if fails != (err != nil) {
			t.Errorf("backup while a migration began: %v", err)
		}
		if !fails {
			m.content[level.Number] = m.lab.content(m.spec.at(level.Origin.RBD.Snapshot))
			m.check(level)
		}
		m.change()
		m.backup(m.spec)
		m.rbd("migration", "execute", "--no-progress", path(m.spec))
		m.rbd("migration", "commit", "--no-progress", path(m.spec))
		m.migrating = false
		m.backup(m.spec)
		if ours := m.lab.snaps(m.spec); len(ours) != 1 {
			t.Errorf("snapshots afterwards: %q", ours)
		}
	}
}

// meddling has something happen once all of the source was read.
type meddling struct {
	engine.Source
	meddle func()
}

func (s *meddling) Begin(ctx context.Context, run engine.Run) (*engine.State, error) {
	state, err := s.Source.Begin(ctx, run)
	if err != nil {
		return nil, err
	}
	if again := state.Again; again != nil {
		state.Again = func(ctx context.Context) (io.ReaderAt, error) {
			s.once()
			return again(ctx)
		}
	}
	return state, nil
}

func (s *meddling) Recheck(ctx context.Context) error {
	s.once()
	return s.Source.Recheck(ctx)
}

func (s *meddling) once() {
	if s.meddle != nil {
		s.meddle()
		s.meddle = nil
	}
}

// imports tells of a migration whose source stays an image of its own, so that
// its backup name is not the target's.
func (m *migration) imports() bool { return m.kind != "pool to pool" }
