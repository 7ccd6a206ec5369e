package engine

// bufferBytes holds a unit, and leaves room for a codec that needs a little
// more than it ends up with.
const bufferBytes = unitBytes + 256<<10

// buffers are reused from unit to unit. A sync.Pool would give them to the
// garbage collector again and again, which lets the heap grow.
var buffers = make(chan []byte, 4*defaultReaders)

// getBuffer returns n bytes, at most a unit, with anything in them.
func getBuffer(n int) []byte {
	select {
	case p := <-buffers:
		return p[:n]
	default:
		return make([]byte, n, bufferBytes)
	}
}

// putBuffer gives a buffer back. One whose read or write failed is left to the
// garbage collector, since what was left behind may use it still.
func putBuffer(p []byte) {
	if cap(p) < bufferBytes {
		return
	}
	select {
	case buffers <- p[:bufferBytes]:
	default:
	}
}
