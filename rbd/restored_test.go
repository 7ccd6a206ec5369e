package rbd

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ceph/go-ceph/rbd"

	"backy/store"
)

// P22: the defaults of the restoring host's ceph.conf, and of the pool, shape
// nothing of an image whose layout is recorded.
func TestP22HostDefaults(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	other, data := l.cluster.Pool(t), l.cluster.Pool(t)
	levels := map[string]store.Level{}
	for name, args := range map[string][]string{
		"default":   nil,
		"bare":      {"--image-feature", "layering"},
		"striped":   {"--stripe-unit", "8192", "--stripe-count", "3"},
		"journaled": {"--image-feature", "exclusive-lock,journaling"},
		"data pool": {"--data-pool", data},
		"large":     {"--object-size", "32M"},
	} {
		spec := l.create(name, 3*object+5, args...)
		s := l.series(name)
		s.conn = l.restorer // for the journal
		levels[name] = s.from(spec)
	}

	conf, err := os.ReadFile(l.cluster.Conf())
	l.must(err)
	hostile := filepath.Join(t.TempDir(), "ceph.conf")
	l.must(os.WriteFile(hostile, []byte(strings.Replace(string(conf), "[global]", `[global]
rbd default order = 25
rbd default features = 125
rbd default stripe unit = 65536
rbd default stripe count = 4
rbd default data pool = `+other+`
rbd default format = 1
rbd journal order = 20
rbd journal splay width = 7
rbd journal pool = `+other+`
rbd move to trash on remove = true
rbd plugins = parent_cache
rbd discard on zeroed write same = false`, 1)), 0o600))
	l.rbd("config", "pool", "set", l.pool, "rbd_default_stripe_count", "2")
	l.rbd("config", "pool", "set", l.pool, "rbd_default_data_pool", other)
	restorer := l.connect(Config{Conf: hostile, ID: l.cluster.Restore(t)})
	for name, level := range levels {
		s := l.series(name)
		spec := l.spec(name + "-restored")
		target := restorer.Target(spec, TargetOptions{Warn: s.warn})
		_, err := target.Prepare(t.Context(), level)
		l.must(err)
		l.must(target.Finish(t.Context()))
		s.warned()
		im := l.opened(spec)
		got, err := im.layout(t.Context())
		l.must(err)
		if want := level.Origin.RBD.Layout; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: layout %+v, want %+v", name, got, want)
		}
		// An incomplete one is gone for good.
		gone := l.spec(name + "-gone")
		target = restorer.Target(gone, TargetOptions{Warn: s.warn})
		_, err = target.Prepare(t.Context(), level)
		l.must(err)
		l.must(target.Abort(t.Context()))
	}
	if journal := l.cluster.Run(t, "rados", "-p", other, "ls"); strings.Contains(journal, "journal") {
		t.Errorf("a journal is in the host's default pool: %s", journal)
	}
	if trash := l.rbd("trash", "ls", l.pool); trash != "" {
		t.Errorf("in the trash: %s", trash)
	}
}

// An image's metadata comes back with a new image, and only where that is asked
// for onto another; what cannot be recorded is told of.
func TestMetadata(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", object)
	all := map[string]string{
		"app.owner": "alice", "empty": "", "backy.keep-daily": "30", "a \"quoted\" key\n": "ü\t'",
		"conf_rbd_qos_bps_limit": "1048576", "conf_rbd_cache": "true", "long": strings.Repeat("x", 20000),
	}
	l.with(spec, func(i *rbd.Image) error {
		for k, v := range all {
			if err := i.SetMetadata(k, v); err != nil {
				return err
			}
		}
		return nil
	})
	s := l.series("vm")
	level := s.from(spec)
	if got := level.Origin.RBD.Metadata; !maps.Equal(got, all) {
		t.Errorf("recorded %q, want %q", got, all)
	}
	s.warned()
	metadata := func(spec Spec) (m map[string]string) {
		l.look(spec, func(i *rbd.Image) (err error) { m, err = i.ListMetadata(); return err })
		return m
	}
	restore := func(spec Spec, level store.Level, o TargetOptions, want map[string]string) {
		t.Helper()
		s := l.series("restore")
		o.Warn = s.warn
		target := l.restorer.Target(spec, o)
		_, err := target.Prepare(t.Context(), level)
		l.must(err)
		if m := metadata(spec); len(m) != 0 && !o.Force {
			t.Errorf("%s has metadata before its data: %q", spec, m)
		}
		l.must(target.Finish(t.Context()))
		if got := metadata(spec); !maps.Equal(got, want) {
			t.Errorf("%s has %q, want %q", spec, got, want)
		}
		if n := len(s.warnings); (n > 0) != (o.Metadata == MetadataAlways && level.Origin.RBD.Metadata == nil) {
			t.Errorf("%s: warned of %q", spec, s.warnings)
		}
	}
	restore(l.spec("new"), level, TargetOptions{}, all)
	restore(l.spec("without"), level, TargetOptions{Metadata: MetadataNever}, nil)
	there := l.create("there", object)
	l.rbd("image-meta", "set", path(there), "app.owner", "bob")
	l.rbd("image-meta", "set", path(there), "more", "1")
	restore(there, level, TargetOptions{Force: true}, map[string]string{"app.owner": "bob", "more": "1"})
	both := maps.Clone(all)
	both["more"] = "1"
	restore(there, level, TargetOptions{Force: true, Metadata: MetadataAlways}, both)
	old := level
	old.Origin.RBD = &store.RBDOrigin{Layout: level.Origin.RBD.Layout} // of a version that knew none
	restore(l.spec("old"), old, TargetOptions{}, nil)
	restore(there, old, TargetOptions{Force: true, Metadata: MetadataAlways}, both)
}

func TestBoundMetadata(t *testing.T) {
	t.Parallel()
	kept, left := boundMetadata(map[string]string{
		"a": "1", "b": "\xff", "c": strings.Repeat("x", maxMetadata), "d": "2", ".librbd/image_cache_state": "{}",
	})
	if want := map[string]string{"a": "1", "d": "2"}; !maps.Equal(kept, want) || fmt.Sprint(left) != "[b c]" {
		t.Errorf("kept %q, left %q", kept, left)
	}
}
