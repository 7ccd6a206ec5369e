package rbd

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"backy/engine"
	"backy/hints"
	"backy/rbd/clustertest"
)

// soon runs calls side by side, which must all fail with an error like is before
// a test of many of them loses patience.
func (l *lab) soon(is error, calls map[string]func() error) {
	l.Helper()
	var group sync.WaitGroup
	for what, f := range calls {
		done := make(chan error, 1)
		go func() { done <- f() }()
		group.Go(func() {
			select {
			case err := <-done:
				if !errors.Is(err, is) {
					l.Errorf("%s: %v, want %v", what, err, is)
				}
			case <-time.After(2 * time.Minute):
				l.Errorf("%s: hangs", what)
			}
		})
	}
	group.Wait()
}

// P11: an OSD that does not answer makes every call an error within the
// timeout, or at once when the user interrupts. Some calls, as the diff, librbd
// itself would wait for without end.
func TestP11HangingOSD(t *testing.T) {
	t.Parallel()
	cluster := clustertest.New(t, clustertest.Options{})
	l := labIn(t, cluster, Config{Timeout: 5 * time.Second})
	spec := l.create("image", 100*object)
	l.write(spec, 0, object)
	s := l.series("vm")
	s.backup(spec, DiffAuto)
	l.write(spec, 0, 20*object)

	ctx, interrupt := context.WithCancel(t.Context())
	reading := l.conn.Source(spec, SourceOptions{})
	state, err := reading.Begin(ctx, s.run())
	l.must(err)
	writing := l.restorer.Target(l.spec("target"), TargetOptions{})
	_, err = writing.Prepare(ctx, s.level(object))
	l.must(err)
	_, err = writing.WriteAt(make([]byte, object), 0)
	l.must(err)

	cluster.Pause(t, clustertest.OSD)
	read := func() error { _, err := state.Reader.ReadAt(make([]byte, 100), 0); return err }
	diff := func() error { _, err := hints.Collect(state.Extents); return err }
	l.soon(ErrTimeout, map[string]func() error{
		"open":    func() error { _, _, err := l.conn.View(ctx, spec); return err },
		"read":    read,
		"write":   func() error { _, err := writing.WriteAt(make([]byte, 100), 0); return err },
		"zero":    func() error { return writing.Zero(0, object) },
		"diff":    diff,
		"recheck": func() error { return reading.Recheck(ctx) },
	})
	time.AfterFunc(100*time.Millisecond, interrupt)
	l.soon(context.Canceled, map[string]func() error{"interrupted read": read, "interrupted diff": diff})

	cluster.Resume(t, clustertest.OSD)
	if err := writing.Abort(t.Context()); err != nil {
		t.Errorf("abort: %v", err)
	}
	if err := reading.End(t.Context(), engine.Failed); err != nil {
		t.Errorf("end: %v", err)
	}
	// The cluster is well again: so is the next backup, on the same connection.
	next := s.backup(spec, DiffAuto)
	l.wantSnaps(spec, "after the next backup", ownName(next))
}

// A full pool, a full quota: librados would hold all writes back for ever. A
// restore fails at once and leaves no image that fills the pool. A backup goes on:
// its snapshot may lack an object map then, and the next diff is the exact one.
func TestFullPool(t *testing.T) {
	t.Parallel()
	cluster := clustertest.New(t, clustertest.Options{Size: "512M"})
	l := labIn(t, cluster, Config{Timeout: 20 * time.Second})
	spec := l.create("image", 64*mib, "--object-size", "4M")
	// A pool from which something was removed before has the object that holds
	// the names of what is in its trash.
	l.create("removed", object)
	l.rbd("rm", "--no-progress", l.pool+"/removed")
	for _, c := range []struct {
		name  string
		fill  [][]string
		empty [][]string
	}{
		{
			"quota",
			[][]string{{"osd", "pool", "set-quota", l.pool, "max_bytes", "1000000"}},
			[][]string{{"osd", "pool", "set-quota", l.pool, "max_bytes", "0"}},
		},
		{
			"full ratio",
			[][]string{{"osd", "set-nearfull-ratio", "0.001"}, {"osd", "set-backfillfull-ratio", "0.002"}, {"osd", "set-full-ratio", "0.003"}},
			[][]string{{"osd", "set-full-ratio", "0.95"}, {"osd", "set-backfillfull-ratio", "0.90"}, {"osd", "set-nearfull-ratio", "0.85"}},
		},
	} {
		s := l.series(c.name)
		l.write(spec, 0, 8*mib)
		s.backup(spec, DiffAuto)
		l.write(spec, 4*mib, 4*mib)
		target := l.restorer.Target(l.spec("target"), TargetOptions{})
		_, err := target.Prepare(t.Context(), s.level(64*mib))
		l.must(err)
		for _, args := range c.fill {
			cluster.Run(t, "ceph", args...)
		}
		l.waitFull(true)

		second := s.backup(spec, DiffAuto)
		l.wantSnaps(spec, c.name, ownName(second))
		l.soon(ErrFull, map[string]func() error{
			"write": func() error { _, err := target.WriteAt(make([]byte, 4*mib), 0); return err },
		})
		if _, err := target.WriteAt(make([]byte, mib), 5*mib); err == nil || !strings.Contains(err.Error(), "5242880+1048576") {
			t.Errorf("%s: write: %v, want the place", c.name, err)
		}
		l.must(target.Abort(t.Context()))
		l.wantImages(c.name, "image")
		s.backup(spec, DiffAuto)

		for _, args := range c.empty {
			cluster.Run(t, "ceph", args...)
		}
		l.waitFull(false)
		l.write(spec, 12*mib, 4*mib)
		if last := s.backup(spec, DiffAuto); last.Base != 3 || last.Stats.Read > 8*mib {
			t.Errorf("%s: once there is space: base %d, %d bytes read", c.name, last.Base, last.Stats.Read)
		}
		l.rbd("snap", "purge", "--no-progress", path(spec))
	}

	// Without that object librbd can remove no image from a full pool. What the
	// restore wrote is freed first.
	l = labIn(t, cluster, Config{Timeout: 20 * time.Second})
	target := l.restorer.Target(l.spec("target"), TargetOptions{})
	_, err := target.Prepare(t.Context(), l.series("x").level(64*mib))
	l.must(err)
	_, err = target.WriteAt(make([]byte, 8*mib), 0)
	l.must(err)
	cluster.Run(t, "ceph", "osd", "pool", "set-quota", l.pool, "max_bytes", "1000000")
	l.waitFull(true)
	l.must(target.Abort(t.Context()))
	l.wantImages("a full pool without a trash")
}

func (l *lab) wantImages(what string, want ...string) {
	l.Helper()
	if got := strings.Fields(l.rbd("ls", l.pool)); !slices.Equal(got, want) {
		l.Errorf("%s: images %v are left, want %v", what, got, want)
	}
}

// waitFull waits until the cluster has found out that the pool is full or is not.
func (l *lab) waitFull(full bool) {
	l.Helper()
	for range 600 {
		for line := range strings.SplitSeq(l.cluster.Run(l, "ceph", "osd", "pool", "ls", "detail"), "\n") {
			if strings.Contains(line, "'"+l.pool+"'") && strings.Contains(line, ",full") == full {
				return
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	l.Fatalf("the pool does not become full: %t", full)
}
