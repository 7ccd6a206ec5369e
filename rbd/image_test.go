package rbd

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sync/errgroup"
)

// A clone is closed as soon as it is open, by many goroutines. Where a thread of
// librbd's still holds on to it or its parent, it finds memory that was given
// back, and overwritten so that this does not go unseen.
func TestP24CloseAtOnce(t *testing.T) {
	const perturb = "MALLOC_PERTURB_"
	if os.Getenv(perturb) == "" {
		t.Parallel()
		cmd := exec.Command(os.Args[0], "-test.run=^TestP24CloseAtOnce$", "-test.timeout=2m")
		cmd.Env = append(os.Environ(), perturb+"=165")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v:\n%s", err, out)
		}
		return
	}
	l := newLab(t)
	parent := l.snap(l.create("parent", 4*object), "snap")
	l.rbd("snap", "protect", path(parent))
	clone := l.spec("clone")
	l.rbd("clone", path(parent), path(clone))
	id, _, err := l.opened(clone).identity(t.Context())
	l.must(err)
	io := l.ioctx(clone)
	defer io.Destroy()
	var g errgroup.Group
	for n := range 16 {
		g.Go(func() (err error) {
			for i := 0; i < 50 && err == nil; i++ {
				if n%2 == 0 {
					_, err = readMapState(io, id, nil)
					continue
				}
				var im *image
				if im, err = l.conn.open(t.Context(), clone, "", readOnly); err == nil {
					err = im.release()
				}
			}
			return err
		})
	}
	l.must(g.Wait())
}
