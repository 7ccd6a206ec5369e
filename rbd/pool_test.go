package rbd

import (
	"errors"
	"slices"
	"testing"
)

// Images are listed as the cluster has them: of the default namespace, of one,
// of all.
func TestListImages(t *testing.T) {
	l := newLab(t)
	l.rbd("namespace", "create", l.pool+"/tenant")
	l.rbd("namespace", "create", l.pool+"/empty")
	for _, name := range []string{"b", "a", "tenant/c", "tenant/a"} {
		l.create(name, object)
	}
	for _, tt := range []struct {
		of   PoolSpec
		want []string
	}{
		{PoolSpec{Pool: l.pool}, []string{"a", "b"}},
		{PoolSpec{Pool: l.pool, Namespace: "tenant"}, []string{"tenant/a", "tenant/c"}},
		{PoolSpec{Pool: l.pool, Namespace: "empty"}, nil},
		{PoolSpec{Pool: l.pool, All: true}, []string{"a", "b", "tenant/a", "tenant/c"}},
	} {
		specs, err := l.conn.List(t.Context(), tt.of)
		l.must(err)
		var want []Spec
		for _, name := range tt.want {
			want = append(want, l.spec(name))
		}
		if !slices.Equal(specs, want) {
			t.Errorf("%s: %v, want %v", tt.of, specs, want)
		}
	}
	if _, err := l.conn.List(t.Context(), PoolSpec{Pool: l.pool, Namespace: "nosuch"}); !errors.Is(err, ErrNoNamespace) {
		t.Errorf("a namespace that is not there: %v", err)
	}
	if _, err := l.conn.List(t.Context(), PoolSpec{Pool: "nosuch"}); !errors.Is(err, ErrNoPool) {
		t.Errorf("a pool that is not there: %v", err)
	}
	l.rbd("image-meta", "set", l.pool+"/tenant/a", "backy.exclude", "true")
	l.rbd("image-meta", "set", l.pool+"/tenant/a", "owner", "me")
	info, err := l.conn.Look(t.Context(), l.spec("tenant/a"), "backy.")
	l.must(err)
	if info.Size != object || info.ID.Image == "" || info.ID.PoolID == 0 || len(info.Metadata) != 1 || info.Metadata["backy.exclude"] != "true" {
		t.Errorf("looked at: %+v", info)
	}

	// An image whose header is lost is broken, not gone.
	id := l.idOf(l.spec("b"))
	l.cluster.Run(t, "rados", "-p", l.pool, "rm", "rbd_header."+id)
	if _, err := l.conn.Look(t.Context(), l.spec("b"), ""); err == nil {
		t.Error("an image without a header was looked at")
	}
	for name, want := range map[string]bool{"b": true, "tenant/c": true, "c": false, "nosuch/c": false} {
		if got, err := l.conn.HasImage(t.Context(), l.spec(name)); err != nil || got != want {
			t.Errorf("%s is there: %v, %v", name, got, err)
		}
	}
}

// idOf is an image's id.
func (l *lab) idOf(s Spec) string {
	l.Helper()
	info, err := l.conn.Look(l.Context(), s, "")
	l.must(err)
	return info.ID.Image
}
