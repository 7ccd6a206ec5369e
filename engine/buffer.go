package engine

import (
	"sync"

	"backy/store/hugepage"
)

// bufferBytes holds a unit, and leaves room for a codec that needs a little
// more than it ends up with.
const bufferBytes = unitBytes + 256<<10

// buffers are reused from unit to unit, the last one first, whose memory is the
// likeliest to be in a cache still. A sync.Pool would give them to the garbage
// collector again and again, which lets the heap grow.
var buffers struct {
	mu   sync.Mutex
	free [][]byte
}

// maxBuffers bounds how many are kept.
const maxBuffers = 4 * defaultReaders

// getBuffer returns n bytes, at most a unit, with anything in them.
func getBuffer(n int) []byte {
	buffers.mu.Lock()
	defer buffers.mu.Unlock()
	last := len(buffers.free) - 1
	if last < 0 {
		return hugepage.Make(n, bufferBytes)
	}
	p := buffers.free[last]
	buffers.free = buffers.free[:last]
	return p[:n]
}

// putBuffer gives a buffer back. One whose read or write failed is left to the
// garbage collector, since what was left behind may use it still.
func putBuffer(p []byte) {
	buffers.mu.Lock()
	defer buffers.mu.Unlock()
	if cap(p) >= bufferBytes && len(buffers.free) < maxBuffers {
		buffers.free = append(buffers.free, p[:bufferBytes])
	}
}
