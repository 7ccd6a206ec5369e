package store

import "testing"

// TestPackBuffers holds what is given back against what is kept and given out
// again: the smallest that will do, and never more than the bound.
func TestPackBuffers(t *testing.T) {
	kept := packBuffers.free
	size := packBuffers.size
	packBuffers.free, packBuffers.size = nil, 0
	t.Cleanup(func() { packBuffers.free, packBuffers.size = kept, size })
	for _, n := range []int{40 << 20, 8 << 20, 1 << 10} {
		putPackBuffer(make([]byte, n/2, n))
	}
	for _, c := range []struct{ ask, want int }{{4 << 20, 8 << 20}, {4 << 20, 40 << 20}, {4 << 20, 4 << 20}} {
		if p := getPackBuffer(c.ask); len(p) != 0 || cap(p) != c.want {
			t.Errorf("%d bytes asked for: %d bytes, room for %d, not %d", c.ask, len(p), cap(p), c.want)
		}
	}
	for range 10 {
		putPackBuffer(make([]byte, 0, 40<<20))
	}
	if n := len(packBuffers.free); n != maxPackBuffers/(40<<20) || packBuffers.size != n*(40<<20) {
		t.Errorf("%d buffers kept, %d bytes", n, packBuffers.size)
	}
}
