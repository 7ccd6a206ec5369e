package engine

import "sync"

// bufferBytes holds a unit, and leaves room for a codec that needs a little
// more than it ends up with.
const bufferBytes = unitBytes + 256<<10

// buffers are reused from unit to unit.
var buffers = sync.Pool{New: func() any {
	p := make([]byte, bufferBytes)
	return &p
}}

// getBuffer returns n bytes, at most a unit, with anything in them.
func getBuffer(n int) []byte { return (*buffers.Get().(*[]byte))[:n] }

// putBuffer gives a buffer back; one that has been grown too.
func putBuffer(p []byte) {
	if cap(p) >= bufferBytes {
		p = p[:bufferBytes]
		buffers.Put(&p)
	}
}
