package engine_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"backy/engine"
)

// TestWriteSize holds the writes of a restore against the length that its target
// asks for.
func TestWriteSize(t *testing.T) {
	const mib = 1 << 20
	data := make([]byte, 13*mib+1000)
	fill(rand.New(rand.NewPCG(1, 2)), data)
	clear(data[3*mib : 3*mib+200<<10]) // a hole that splits a write
	clear(data[5*mib : 7*mib])
	for _, c := range []struct{ chunk, ask, want int64 }{
		{64 << 10, 1, 64 << 10},
		{64 << 10, 64 << 10, 64 << 10},
		{64 << 10, 256 << 10, 256 << 10},
		{64 << 10, 4 * mib, 4 * mib},
		{64 << 10, 64 * mib, 4 * mib},
		{4 * mib, 256 << 10, 4 * mib},
	} {
		t.Run(fmt.Sprint(c.chunk, " asked for ", c.ask), func(t *testing.T) {
			r, _ := newRepository(t, c.chunk)
			l := mustBackup(t, r, "a", &image{data: data})
			d := &disk{writeSize: c.ask}
			if _, err := engine.Restore(t.Context(), r, l, d, engine.RestoreOptions{}); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(d.data, data) {
				t.Error("the restored bytes differ")
			}
			longest := int64(0)
			for _, w := range d.writes {
				if w.Offset/c.want != (w.End()-1)/c.want {
					t.Errorf("a write of %d bytes at %d is not within %d aligned bytes", w.Length, w.Offset, c.want)
				}
				longest = max(longest, w.Length)
			}
			if longest != c.want {
				t.Errorf("the longest write has %d bytes, not %d", longest, c.want)
			}
		})
	}
}
