package pending

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// The oldest call that has not returned is told, whatever comes and goes.
func TestOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if what, _, ok := Oldest(); ok {
			t.Fatalf("%s is under way", what)
		}
		began := time.Now()
		first := Begin("read", "/mnt/dead", "data/0")
		time.Sleep(time.Second)
		second := Begin("write", "", "/dev/sdx")
		var g sync.WaitGroup
		for range 8 {
			g.Go(func() {
				for range 1000 {
					Begin("look at", "/mnt", ".").End()
				}
			})
		}
		g.Wait()
		if what, since, ok := Oldest(); !ok || what != "read /mnt/dead/data/0" || !since.Equal(began) {
			t.Errorf("%q since %v, %t", what, since, ok)
		}
		first.End()
		if what, _, ok := Oldest(); !ok || what != "write /dev/sdx" {
			t.Errorf("%q, %t", what, ok)
		}
		second.End()
		if what, _, ok := Oldest(); ok {
			t.Errorf("%s is under way", what)
		}
	})
}

func BenchmarkCall(b *testing.B) {
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			Begin("read", "/mnt", "data/0").End()
		}
	})
}
