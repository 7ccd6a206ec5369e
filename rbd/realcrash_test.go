package rbd

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"backy/engine"
	"backy/hints"
	"backy/rbd/child"
	"backy/store"
)

// diffVerb has a child diff an image that backy itself would not.
func diffVerb(s *served, v child.Verbs) {
	child.Handle(v, "test diff", func(ctx context.Context, _ *child.Peer, spec Spec) (list []hints.Extent, err error) {
		im, err := s.conn.open(ctx, spec, "", readOnly)
		if err != nil {
			return nil, err
		}
		size, err := im.size(ctx)
		if err == nil {
			list, err = im.exact(ctx, "", window{0, size})
		}
		return list, errors.Join(err, im.close())
	})
}

// P19, for what it does to the process: librbd's diff of an image in a prepared
// import-only migration divides by zero on 16.2, and crashes on 18.2 and 20.2. That
// ends the child that works on this image, and a backup beside it is as any other.
func TestP19CrashCostsOneImage(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	good := l.create("good", 40*object)
	l.write(good, 3*object, 5*object)
	file := filepath.Join(t.TempDir(), "raw")
	l.must(os.WriteFile(file, make([]byte, 8*mib), 0o600))
	source, err := json.Marshal(map[string]any{"type": "raw", "stream": map[string]string{"type": "file", "file_path": file}})
	l.must(err)
	bad := l.spec("bad")
	l.rbd("migration", "prepare", "--import-only", "--source-spec", string(source), path(bad))
	t.Cleanup(func() { l.rbd("migration", "abort", "--no-progress", path(bad)) })

	reports := t.TempDir()
	c, err := Open(t.Context(), Config{Conf: l.cluster.Conf(), ID: l.cluster.Backup(t)}, ClusterOptions{CrashDir: reports})
	l.must(err)
	defer func() { l.must(c.Close()) }()
	beside := c.Source(good, SourceOptions{})
	s := l.series("vm")
	state, err := beside.Begin(t.Context(), s.run())
	l.must(err)

	var list []hints.Extent
	err = c.ask(t.Context(), bad.String(), "test diff", bad, &list)
	var death *child.DeathError
	if !errors.As(err, &death) || death.Signal != syscall.SIGFPE && death.Signal != syscall.SIGSEGV && death.Signal != syscall.SIGABRT {
		t.Errorf("diff of an image that is imported: %v, %v", list, err)
	}
	if found, err := filepath.Glob(filepath.Join(reports, "*")); err != nil || len(found) != 1 {
		t.Errorf("reports: %q, %v", found, err)
	}
	if info, err := c.Look(t.Context(), bad, ""); err != nil || info.Size != 8*mib {
		t.Errorf("the image afterwards: %+v, %v", info, err)
	}

	extents, err := hints.Collect(state.Extents)
	l.must(err)
	if len(extents) != 1 || extents[0] != (hints.Extent{Offset: 3 * object, Length: 5 * object, Exists: true}) {
		t.Errorf("the image beside it: extents %v", extents)
	}
	got, want := make([]byte, state.Size), l.content(good.at(state.Origin.RBD.Snapshot))
	if n, err := state.Reader.ReadAt(got, 0); n != len(got) || err != nil || string(got) != string(want) {
		t.Errorf("the image beside it: %d bytes, %v; the first difference at %d", n, err, firstDifference(got, want))
	}
	l.must(beside.Recheck(t.Context()))
	l.must(beside.End(t.Context(), engine.Failed))
	if left := l.snaps(good); len(left) != 0 {
		t.Errorf("snapshots %q", left)
	}
}

// What this process itself does with a cluster is the lock, and no call for an
// image's data, snapshots or metadata.
func TestOnlyLocksHere(t *testing.T) {
	l := newLab(t)
	spec := l.create("image", 10*object)
	l.write(spec, 0, object)
	c, err := Open(t.Context(), Config{Conf: l.cluster.Conf(), ID: l.cluster.Backup(t)}, ClusterOptions{})
	l.must(err)
	defer func() { l.must(c.Close()) }()
	steps := child.AtStep
	defer func() { child.AtStep = steps }()
	child.AtStep = func(what string) { t.Errorf("in this process: %s", what) }

	s := l.series("vm")
	_, err = c.List(t.Context(), PoolSpec{Pool: l.pool})
	l.must(err)
	l.must(c.Prepare(t.Context(), spec, s.repository, store.Name("vm"), 0, nil))
	source := c.Source(spec, SourceOptions{})
	state, err := source.Begin(t.Context(), s.run())
	l.must(err)
	_, err = hints.Collect(state.Extents)
	l.must(err)
	_, err = state.Reader.ReadAt(make([]byte, object), 0)
	l.must(err)
	l.must(source.Recheck(t.Context()))
	l.must(source.End(t.Context(), engine.Committed))
	child.AtStep = steps
	lease, err := c.Lock(t.Context(), spec, s.repository, time.Minute)
	l.must(err)
	l.must(lease.Release(t.Context()))
}
