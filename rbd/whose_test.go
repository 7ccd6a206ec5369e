package rbd

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"backy/engine"
	"backy/engine/local"
	"backy/store"
)

// take backs up a source under a name and returns the warnings.
func (s *shelf) take(source engine.Source, name store.Name) (level store.Level, warnings []string, err error) {
	s.Helper()
	var mu sync.Mutex
	level, err = engine.Backup(s.Context(), s.repo, name, source, engine.BackupOptions{Warn: func(f string, a ...any) {
		mu.Lock()
		defer mu.Unlock()
		warnings = append(warnings, fmt.Sprintf(f, a...))
	}})
	return level, warnings, err
}

// holds compares a level with bytes.
func (s *shelf) holds(level store.Level, want []byte) {
	s.Helper()
	var got bytes.Buffer
	_, err := engine.Stream(s.Context(), s.repo, level, &got, engine.RestoreOptions{})
	s.must(err)
	if !bytes.Equal(got.Bytes(), want) {
		s.Errorf("level %s of %s does not hold the image's %d bytes", level.Number, level.Name, len(want))
	}
}

// A backup name belongs to the image of its newest level, by the ids of cluster,
// pool and image. Each row does something to the image p, whose level it is, and
// then backs up another one under the name.
func TestWhoseName(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		what  string
		do    func(l *lab, p Spec) (q Spec)
		adopt bool
		want  string // of the warning, or with "refused:" of the error; "": neither
	}{
		{"the same image", func(l *lab, p Spec) Spec { return p }, false, ""},
		{"a snapshot of it", func(l *lab, p Spec) Spec { return l.snap(p, "theirs") }, false, ""},
		{"it was renamed", func(l *lab, p Spec) Spec {
			q := l.spec("renamed")
			l.rbd("rename", path(p), path(q))
			return q
		}, false, ""},
		{"it was in the trash for a while", func(l *lab, p Spec) Spec {
			id := l.idOf(p)
			l.rbd("trash", "mv", path(p))
			l.rbd("trash", "restore", "--pool", l.pool, "--image-id", id, "--image", "back")
			return l.spec("back")
		}, false, ""},
		{"another image", func(l *lab, p Spec) Spec { return l.filled("q") }, false, "refused:still exists"},
		{"another image, adopted", func(l *lab, p Spec) Spec { return l.filled("q") }, true, "from now on the name is this image's"},
		{"of another namespace", func(l *lab, p Spec) Spec {
			l.rbd("namespace", "create", l.pool+"/tenant")
			return l.filled("tenant/p")
		}, false, "refused:still exists"},
		{"a copy", func(l *lab, p Spec) Spec {
			l.rbd("deep", "cp", "--no-progress", path(p), path(l.spec("copy")))
			return l.spec("copy")
		}, false, "refused:still exists"},
		{"another image, and the old one has a new name", func(l *lab, p Spec) Spec {
			l.rbd("rename", path(p), path(l.spec("old")))
			return l.filled("q")
		}, false, "refused:still exists"},
		{"another image, and the old one is in the trash", func(l *lab, p Spec) Spec {
			l.rbd("trash", "mv", path(p))
			return l.filled("q")
		}, false, "refused:still exists"},
		{"another image, and the old one is gone", func(l *lab, p Spec) Spec {
			l.removeImage(p)
			return l.filled("q")
		}, false, "is gone"},
		{"made again", func(l *lab, p Spec) Spec {
			l.removeImage(p)
			return l.filled("p")
		}, false, "an earlier image of this name"},
		{"in the place of the old one, which was renamed", func(l *lab, p Spec) Spec {
			l.rbd("rename", path(p), path(l.spec("old")))
			return l.filled("p")
		}, false, "an earlier image of this name"},
		{"in the place of the old one, which is in the trash", func(l *lab, p Spec) Spec {
			l.rbd("trash", "mv", path(p))
			return l.filled("p")
		}, false, "an earlier image of this name"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			s := newShelf(l)
			p := l.filled("p")
			s.backup(p, "name")
			q := tt.do(l, p)
			level, warnings, err := s.take(l.conn.Source(q, SourceOptions{Adopt: tt.adopt}), "name")
			if why, refused := strings.CutPrefix(tt.want, "refused:"); refused {
				if !errors.Is(err, ErrOthersName) || !strings.Contains(err.Error(), why) {
					t.Errorf("%v, want %q", err, why)
				}
				if own := s.own(q.at(""), "name"); len(own) > 0 && !strings.Contains(tt.what, "copy") {
					t.Errorf("a refused image has snapshots of ours: %v", own)
				}
				return
			}
			l.must(err)
			s.holds(level, l.content(q))
			if level.Number != 2 {
				t.Errorf("level %s", level.Number)
			}
			if text := strings.Join(warnings, "\n"); tt.want == "" && text != "" || !strings.Contains(text, tt.want) {
				t.Errorf("warnings %q, want %q", warnings, tt.want)
			}
			// From now on the name is this image's.
			if _, warnings, err := s.take(l.conn.Source(q, SourceOptions{}), "name"); err != nil || len(warnings) > 0 {
				t.Errorf("once more: %v, warnings %q", err, warnings)
			}
		})
	}
}

// filled makes an image of a few objects of random bytes.
func (l *lab) filled(name string) Spec {
	l.Helper()
	s := l.create(name, 4*object)
	l.write(s, object, 2*object)
	return s
}

// removeImage removes an image with its snapshots.
func (l *lab) removeImage(s Spec) {
	l.Helper()
	l.rbd("snap", "purge", "--no-progress", path(s))
	l.rbd("rm", "--no-progress", path(s))
}

// An image that is gone with its pool is gone; one that is in another cluster, or
// in a pool that must not be looked into, may be there.
func TestWhoseNameElsewhere(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	other := labIn(t, l.cluster, Config{})
	p, q := other.filled("p"), l.filled("q")
	s := newShelf(l)
	s.backup(p, "name")
	level := *s.newest("name")
	refused := func(what string, conn *Conn, level store.Level, why string) {
		t.Helper()
		id, err := conn.identify(t.Context(), q, "")
		l.must(err)
		_, err = conn.admit(t.Context(), claimant{q, id, "name", false}, &level)
		if !errors.Is(err, ErrOthersName) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want %q", what, err, why)
		}
	}
	refused("it is there", l.conn, level, "still exists")
	confined := l.connect(Config{Conf: l.cluster.Conf(), ID: strings.TrimPrefix(
		l.cluster.Key(t, "mon", "profile rbd", "osd", "profile rbd pool="+l.pool), "client.")})
	refused("no rights", confined, level, "permission denied")
	far := level
	origin := *level.Origin.RBD
	origin.Cluster = "11111111-2222-3333-4444-555555555555"
	far.Origin.RBD = &origin
	refused("another cluster", l.conn, far, "unknown whether that image still exists")
	origin.Pool, origin.Image = q.Pool, q.Image
	refused("another cluster, with the same names", l.conn, far, "in the cluster 11111111")

	s.removePool(other.pool)
	if _, warnings, err := s.take(l.conn.Source(q, SourceOptions{}), "name"); err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "is gone") {
		t.Errorf("the pool is gone: %v, %q", err, warnings)
	}
}

func (s *shelf) newest(name store.Name) *store.Level {
	s.Helper()
	levels, err := s.repo.Levels(s.Context(), name)
	s.must(err)
	return &levels[len(levels)-1]
}

func (s *shelf) removePool(pool string) {
	s.Helper()
	s.cluster.Run(s, "ceph", "osd", "pool", "rm", pool, pool, "--yes-i-really-really-mean-it")
}

// What is no image may take any name, and an image the name of what is none; it
// is said.
func TestWhoseNameFiles(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := newShelf(l)
	p := l.filled("p")
	file := filepath.Join(t.TempDir(), "file")
	l.must(os.WriteFile(file, bytes.Repeat([]byte("file"), object), 0o600))
	for _, tt := range []struct {
		what   string
		source engine.Source
		want   string
	}{
		{"an image", l.conn.Source(p, SourceOptions{}), ""},
		{"a file after an image", local.NewSource(file, local.SourceOptions{}), "is no RBD image"},
		{"a file after a file", local.NewSource(file, local.SourceOptions{}), ""},
		{"an image after a file", l.conn.Source(p, SourceOptions{}), "which is no RBD image"},
		{"an image after an image", l.conn.Source(p, SourceOptions{}), ""},
	} {
		level, warnings, err := s.take(tt.source, "name")
		l.must(err)
		want := l.content(p)
		if level.Origin.RBD == nil {
			want, err = os.ReadFile(file)
			l.must(err)
		}
		s.holds(level, want)
		if text := strings.Join(warnings, "\n"); tt.want == "" && text != "" || !strings.Contains(text, tt.want) {
			t.Errorf("%s: warnings %q, want %q", tt.what, warnings, tt.want)
		}
	}
}

// Two names on one image, in turn, each with its own base.
func TestTwoNamesOfOneImage(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := newShelf(l)
	p := l.filled("p")
	for round := range 3 {
		for _, name := range []store.Name{"a", "b"} {
			l.write(p, int64(round)*object/2, 100)
			level := s.backup(p, name)
			s.holds(level, l.content(p))
			if round > 0 && level.Origin.Diff != store.DiffFast {
				t.Errorf("%s level %s by %s", name, level.Number, level.Origin.Diff)
			}
		}
	}
	if own := s.own(p); len(own) != 2 {
		t.Errorf("snapshots: %v", own)
	}
}
