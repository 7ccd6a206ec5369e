package rbd

import (
	"errors"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rados"

	"backy/store"
)

// leases are the objects of leases in a pool, of all namespaces.
func (l *lab) leases(s Spec) []string {
	l.Helper()
	io := l.ioctx(s)
	defer io.Destroy()
	io.SetNamespace(rados.AllNamespaces)
	iter, err := io.Iter()
	l.must(err)
	defer iter.Close()
	var names []string
	for iter.Next() {
		if len(iter.Value()) > 12 && iter.Value()[:12] == "backy.lease." {
			names = append(names, iter.Value())
		}
	}
	l.must(iter.Err())
	return names
}

func isLost(l *Lease) bool {
	select {
	case <-l.Lost():
		return true
	default:
		return false
	}
}

// A lease keeps others out for as long as it is held, however long that is, and
// leaves nothing behind.
func TestLease(t *testing.T) {
	l := newLab(t)
	l.rbd("namespace", "create", l.pool+"/tenant")
	other := l.connect(Config{Conf: l.cluster.Conf()})
	repository := store.NewRepositoryID()
	const duration = 500 * time.Millisecond
	for _, image := range []string{"web1", "tenant/web1"} {
		spec := l.spec(image)
		held, err := l.conn.Lock(t.Context(), spec, repository, duration)
		l.must(err)
		for _, c := range []*Conn{l.conn, other} { // by another job, by another node
			if _, err := c.Lock(t.Context(), spec, repository, duration); !errors.Is(err, ErrLocked) {
				t.Errorf("%s is locked, yet: %v", spec, err)
			}
		}
		elsewhere, err := other.Lock(t.Context(), spec, store.NewRepositoryID(), duration)
		l.must(err) // another repository's backup is none of ours
		l.must(elsewhere.Release(t.Context()))
		time.Sleep(3 * duration)
		if isLost(held) {
			t.Errorf("%s: the lease was lost though nothing was wrong", spec)
		}
		if _, err := other.Lock(t.Context(), spec, repository, duration); !errors.Is(err, ErrLocked) {
			t.Errorf("%s is locked for longer than the duration, yet: %v", spec, err)
		}
		l.must(held.Release(t.Context()))
		again, err := other.Lock(t.Context(), spec, repository, duration)
		l.must(err)
		l.must(again.Release(t.Context()))
		if left := l.leases(spec); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	}
}

// What a dead node had locked is free after the duration; its object goes with
// the next lease. What it does when it comes back to life harms nobody.
func TestLeaseOfADeadNode(t *testing.T) {
	l := newLab(t)
	spec, repository := l.spec("web1"), store.NewRepositoryID()
	const duration = 300 * time.Millisecond
	dead, err := l.conn.Lock(t.Context(), spec, repository, duration)
	l.must(err)
	dead.stop() // it renews no more
	dead.renewer.Wait()
	other := l.connect(Config{Conf: l.cluster.Conf()})
	var heir *Lease
	for start := time.Now(); heir == nil; time.Sleep(20 * time.Millisecond) {
		heir, err = other.Lock(t.Context(), spec, repository, time.Minute)
		if err != nil && !errors.Is(err, ErrLocked) || time.Since(start) > time.Minute {
			t.Fatal(err)
		}
	}
	if err := dead.lock(t.Context(), mustRenew); err == nil {
		t.Error("a lock that ran out was renewed")
	}
	l.must(dead.Release(t.Context()))
	if _, err := l.conn.Lock(t.Context(), spec, repository, duration); !errors.Is(err, ErrLocked) {
		t.Errorf("the dead node's release took the heir's lock: %v", err)
	}
	l.must(heir.Release(t.Context()))
	if left := l.leases(spec); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// A lease whose lock ran out or was broken is told to be lost; it is not taken
// anew, since somebody else may have come and gone.
func TestLeaseLost(t *testing.T) {
	l := newLab(t)
	spec, repository := l.spec("web1"), store.NewRepositoryID()
	held, err := l.conn.Lock(t.Context(), spec, repository, time.Second)
	l.must(err)
	io := l.ioctx(spec)
	defer io.Destroy()
	l.must(io.Delete(held.object))
	select {
	case <-held.Lost():
	case <-time.After(time.Minute):
		t.Error("the lock is gone, and nobody was told")
	}
	l.must(held.Release(t.Context()))
	if left := l.leases(spec); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
