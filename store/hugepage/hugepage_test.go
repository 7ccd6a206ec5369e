package hugepage

import (
	"bytes"
	"testing"
)

func TestMake(t *testing.T) {
	for _, c := range []struct{ n, c int }{{0, 0}, {1, 1}, {5, 4096}, {0, 2 << 20}, {4 << 20, 4<<20 + 256<<10}, {100, 33<<20 + 17}} {
		p := Make(c.n, c.c)
		if len(p) != c.n || cap(p) != c.c {
			t.Errorf("Make(%d, %d): %d bytes, room for %d", c.n, c.c, len(p), cap(p))
		}
		p = p[:c.c]
		if !bytes.Equal(p, make([]byte, c.c)) {
			t.Errorf("Make(%d, %d): not zero", c.n, c.c)
		}
		for i := range p {
			p[i] = byte(i)
		}
	}
}
