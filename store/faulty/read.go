package faulty

import "io"

// Read changes the answer of a Get: the bytes that were read at an offset, and
// nil or io.EOF. It returns how many of the bytes are to be seen, with the
// error to be seen.
type Read func(p []byte, off int64, err error) (int, error)

// Flip inverts one byte of the object, at its offset.
func Flip(at int64) Read {
	return func(p []byte, off int64, err error) (int, error) {
		if i := at - off; i >= 0 && i < int64(len(p)) {
			p[i] ^= 0xff
		}
		return len(p), err
	}
}

// Truncate lets the object end after size bytes.
func Truncate(size int64) Read {
	return func(p []byte, off int64, err error) (int, error) {
		if off+int64(len(p)) <= size {
			return len(p), err
		}
		return int(max(0, size-off)), io.EOF
	}
}

// Short lets Get return n bytes at most, with an error for those that are
// missing.
func Short(n int, short error) Read {
	return func(p []byte, _ int64, err error) (int, error) {
		if len(p) <= n {
			return len(p), err
		}
		return n, short
	}
}
