package local

import (
	"io"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// direct reads a block device past the page cache (O_DIRECT). As long as anybody
// holds a device open, the kernel keeps what it read of it: what was changed
// underneath since, by another host or by a client of a mapped image, is not seen
// there. What is only in the page cache yet, the kernel writes to the device
// before such a read.
type direct struct {
	f     *os.File // opened with O_DIRECT
	block int64    // bytes: reads begin and end at multiples of it
	end   int64    // of the last whole block
	rest  *os.File // for what lies behind it
}

// alignment is what memory is aligned to; no driver wants more.
const alignment = 4096

// newDirect opens a block device again; rest is the same one, and stays the
// caller's.
func newDirect(rest *os.File, size int64) (*direct, error) {
	block, err := unix.IoctlGetInt(int(rest.Fd()), unix.BLKSSZGET)
	if err != nil {
		return nil, &os.PathError{Op: "ask for the block size of", Path: rest.Name(), Err: err}
	}
	f, err := os.OpenFile(rest.Name(), os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return nil, err
	}
	b := int64(block)
	return &direct{f: f, block: b, end: size / b * b, rest: rest}, nil
}

// ReadAt reads at any offset into any memory.
func (d *direct) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		var m int
		at, want := off+int64(n), p[n:]
		switch {
		case at >= d.end:
			forgetCached(d.rest, at, int64(len(want)))
			m, err = d.rest.ReadAt(want, at)
		case at%d.block == 0 && aligned(want) && int64(len(want)) >= d.block:
			whole := min(int64(len(want))/d.block*d.block, d.end-at)
			m, err = d.f.ReadAt(want[:whole], at)
		default:
			m, err = d.bounce(want, at)
		}
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func aligned(p []byte) bool { return uintptr(unsafe.Pointer(unsafe.SliceData(p)))%alignment == 0 }

// bounceBytes is how much is read at a time where memory or offsets do not fit.
const bounceBytes = 256 << 10

var bounces = sync.Pool{New: func() any {
	p := make([]byte, bounceBytes+alignment)
	skip := (alignment - uintptr(unsafe.Pointer(unsafe.SliceData(p)))%alignment) % alignment
	p = p[skip:][:bounceBytes]
	return &p
}}

// bounce reads a first part of p, before d.end, by way of a buffer that fits.
func (d *direct) bounce(p []byte, off int64) (int, error) {
	buffer := bounces.Get().(*[]byte)
	defer bounces.Put(buffer)
	from := off / d.block * d.block
	to := (off + int64(len(p)) + d.block - 1) / d.block * d.block
	n, err := d.f.ReadAt((*buffer)[:min(to-from, d.end-from, bounceBytes)], from)
	if int64(n) <= off-from {
		if err == nil {
			err = io.ErrNoProgress
		}
		return 0, err
	}
	copied := copy(p, (*buffer)[off-from:n])
	if copied == len(p) {
		err = nil
	}
	return copied, err
}

func (d *direct) Close() error { return d.f.Close() }

// forgetCached drops what the page cache has of a part of a device, so that it is
// read again. Of no effect on what is mapped into memory.
func forgetCached(f *os.File, off, length int64) {
	page := int64(os.Getpagesize())
	from := off / page * page
	to := (off + length + page - 1) / page * page
	_ = unix.Fadvise(int(f.Fd()), from, to-from, unix.FADV_DONTNEED)
}
