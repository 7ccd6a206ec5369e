package store

import (
	"slices"
	"sync"

	"backy/store/hugepage"
)

// packBuffers are those of writers that are done, for the next: backups of many
// images, one after the other, would leave theirs to the garbage collector, which
// lets the heap grow.
var packBuffers struct {
	mu   sync.Mutex
	free [][]byte
	size int // bytes of all of them
}

// maxPackBuffers bounds what is kept, in bytes: what one backup needs, or many that
// share a limit.
const maxPackBuffers = 128 << 20

// largePack is from how many bytes on frames move to such a buffer.
const largePack = 1 << 20

// getPackBuffer returns an empty buffer with room for n bytes.
func getPackBuffer(n int) []byte {
	packBuffers.mu.Lock()
	defer packBuffers.mu.Unlock()
	best := -1
	for i, p := range packBuffers.free {
		if cap(p) >= n && (best < 0 || cap(p) < cap(packBuffers.free[best])) {
			best = i
		}
	}
	if best >= 0 {
		p := packBuffers.free[best]
		packBuffers.free = slices.Delete(packBuffers.free, best, best+1)
		packBuffers.size -= cap(p)
		return p[:0]
	}
	return hugepage.Make(0, n)
}

// putPackBuffer gives back what nobody uses any more. Small ones are not worth it.
func putPackBuffer(p []byte) {
	packBuffers.mu.Lock()
	defer packBuffers.mu.Unlock()
	if cap(p) > largePack && packBuffers.size+cap(p) <= maxPackBuffers {
		packBuffers.free, packBuffers.size = append(packBuffers.free, p), packBuffers.size+cap(p)
	}
}
