package rbd

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rbd"

	"backy/rbd/clustertest"
	"backy/store"
)

// as makes conn that of a key with these capabilities.
func (l *lab) as(caps []string) {
	l.Helper()
	l.conn = l.connect(Config{Conf: l.cluster.Conf(), ID: l.cluster.Key(l, caps...), Timeout: 20 * time.Second})
}

// twice backs up an image, which is then as its client left it, changes it, and
// does so again.
func (s *series) twice(spec Spec) (store.Level, error) {
	s.Helper()
	if _, err := s.try(s.Context(), spec, DiffAuto); err != nil {
		return store.Level{}, err
	}
	s.write(spec, object, object)
	return s.try(s.Context(), spec, DiffAuto)
}

// What the README tells an administrator to grant is what the tests grant.
func TestReadmeGrantsTheseRights(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme := strings.Join(strings.Fields(strings.ReplaceAll(string(text), "\\\n", "")), " ")
	for id, caps := range map[string][]string{"backup": clustertest.BackupRights("vms"), "restore": clustertest.RestoreRights("vms")} {
		quoted := fmt.Sprintf("%q", caps[3])
		if id == "restore" {
			quoted = "'" + caps[3] + "'"
		}
		want := fmt.Sprintf("ceph auth get-or-create client.%s %s '%s' %s %s >/etc/ceph/ceph.client.%s.keyring", id, caps[0], caps[1], caps[2], quoted, id)
		if !strings.Contains(readme, want) {
			t.Errorf("the README lacks %s", want)
		}
	}
}

// The rights of a backup are enough for every kind of image, and for nothing that
// changes what is in one.
func TestBackupRightsAreEnough(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	golden, bulk := l.cluster.Pool(t), l.cluster.Pool(t)
	l.rbd("namespace", "create", l.pool+"/tenant")
	l.rbd("create", "--size", "1M", "--object-size", fmt.Sprint(object), golden+"/base")
	l.rbd("bench", "--io-type", "write", "--io-size", "64K", "--io-total", "512K", golden+"/base")
	l.rbd("snap", "create", "--no-progress", golden+"/base@v1")
	l.rbd("snap", "protect", golden+"/base@v1")
	l.rbd("clone", golden+"/base@v1", l.pool+"/clone")
	caps := clustertest.BackupRights(l.pool)
	caps[3] += ", allow r class-read pool=" + golden + ", allow r pool=" + bulk + ", allow rwx pool=" + bulk + " object_prefix rbd_header."
	l.as(caps)
	images := []Spec{
		l.create("image", 4*object), l.create("tenant/image", 4*object),
		l.create("data", 4*object, "--data-pool", bulk), l.spec("clone"),
	}
	for _, spec := range images {
		level, err := l.series(spec.Image).twice(spec)
		if err != nil {
			t.Errorf("%s: %v", spec, err)
		} else if level.Origin.Diff != "fast" {
			t.Errorf("%s: by the %s diff, want the fast one", spec, level.Origin.Diff)
		}
		lease, err := l.conn.Lock(t.Context(), spec, store.NewRepositoryID(), time.Minute)
		l.must(err)
		l.must(lease.Release(t.Context()))
	}
	io, err := l.conn.rados.OpenIOContext(l.pool)
	l.must(err)
	defer io.Destroy()
	image, err := rbd.OpenImage(io, "image", rbd.NoSnapshot)
	l.must(err)
	if _, err := image.WriteAt([]byte("x"), 0); err == nil {
		t.Error("this key may write into an image")
	}
	l.must(image.Close())
	if err := rbd.RemoveImage(io, "data"); err == nil {
		t.Error("this key may remove an image")
	}
	if _, err := l.conn.Target(l.spec("new"), TargetOptions{}).Prepare(t.Context(), l.series("x").level(object)); !errors.Is(err, ErrPermission) {
		t.Errorf("a new image: %v, want ErrPermission", err)
	}
}

// A key for one namespace backs up what is in it, and sees nothing else.
func TestBackupRightsInANamespace(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.rbd("namespace", "create", l.pool+"/tenant")
	inside, outside := l.create("tenant/image", 4*object), l.create("image", 4*object)
	caps := clustertest.BackupRights(l.pool)
	caps[3] = strings.ReplaceAll(caps[3], "pool="+l.pool, "pool="+l.pool+" namespace=tenant")
	l.as(caps)
	if _, err := l.series("x").try(t.Context(), inside, DiffAuto); !errors.Is(err, ErrPermission) {
		t.Errorf("without rbd_info: %v, want ErrPermission", err)
	}
	caps[3] += ", allow class-read object_prefix rbd_info"
	l.as(caps)
	if level, err := l.series("x").twice(inside); err != nil || level.Origin.Diff != "fast" {
		t.Errorf("by the %q diff, %v; want the fast one", level.Origin.Diff, err)
	}
	list, err := l.conn.List(t.Context(), PoolSpec{Pool: l.pool, Namespace: "tenant"})
	if err != nil || len(list) != 1 {
		t.Errorf("images of the namespace: %v, %v; want one", list, err)
	}
	if _, err := l.series("x").try(t.Context(), outside, DiffAuto); !errors.Is(err, ErrPermission) {
		t.Errorf("an image elsewhere: %v, want ErrPermission", err)
	}
}

// Each of a backup's rights is there for something.
func TestEachBackupRightIsNeeded(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	whole := clustertest.BackupRights(l.pool)
	osd := strings.Split(whole[3], ", ")
	for i, c := range []struct {
		what  string
		check func(*testing.T, Spec)
	}{
		{"reading", func(t *testing.T, spec Spec) {
			if _, err := l.series("x").twice(spec); !errors.Is(err, ErrPermission) {
				t.Errorf("backup: %v, want ErrPermission", err)
			}
		}},
		{"headers", func(t *testing.T, spec Spec) {
			if _, err := l.series("x").twice(spec); !errors.Is(err, ErrPermission) {
				t.Errorf("backup: %v, want ErrPermission", err)
			}
		}},
		{"object maps", func(t *testing.T, spec Spec) {
			level, err := l.series("x").twice(spec)
			if err != nil || level.Origin.Diff != "exact" {
				t.Errorf("backup by the %q diff, %v; want the exact one", level.Origin.Diff, err)
			}
		}},
		{"leases", func(t *testing.T, spec Spec) {
			if _, err := l.conn.Lock(t.Context(), spec, store.NewRepositoryID(), time.Minute); !errors.Is(err, ErrPermission) {
				t.Errorf("lock: %v, want ErrPermission", err)
			}
		}},
	} {
		t.Run("without "+c.what, func(t *testing.T) {
			spec := l.create(fmt.Sprintf("image%d", i), 4*object)
			l.as([]string{whole[0], whole[1], whole[2], strings.Join(slices.Delete(slices.Clone(osd), i, i+1), ", ")})
			c.check(t, spec)
		})
	}
}

// A client that died has an image's lock still: only who may shut it out makes a
// snapshot then.
func TestBackupRightToShutOutTheDead(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	spec := l.create("image", 64*object)
	writer := l.cluster.Command("rbd", "bench", "--io-type", "write", "--io-size", "4K", "--io-total", "1T", path(spec))
	l.must(writer.Start())
	for !strings.Contains(l.rbd("lock", "ls", path(spec)), "client.") {
		time.Sleep(50 * time.Millisecond)
	}
	l.must(writer.Process.Kill())
	_ = writer.Wait() // it was killed
	caps := clustertest.BackupRights(l.pool)
	l.as([]string{caps[0], "allow r", caps[2], caps[3]})
	if _, err := l.series("x").try(t.Context(), spec, DiffAuto); err == nil {
		t.Error("a snapshot was made without the right to shut out the dead client that has the lock")
	}
	l.as(caps)
	l.series("x").backup(spec, DiffAuto)
}
