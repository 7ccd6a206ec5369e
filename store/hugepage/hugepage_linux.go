package hugepage

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// size of a huge page of x86-64, and of arm64 with pages of 4 KiB.
const size = 2 << 20

// Make returns n zero bytes with room for c. Where the kernel has transparent
// huge pages for those that ask (madvise, its usual default), what is touched of
// them comes 2 MiB at a time; where not, they are as good as any.
func Make(n, c int) []byte {
	p := make([]byte, c)
	at := int(uintptr(unsafe.Pointer(unsafe.SliceData(p))) % size)
	from := (size - at) % size // of the first whole huge page
	if whole := (c - from) / size * size; whole > 0 {
		_ = unix.Madvise(p[from:from+whole], unix.MADV_HUGEPAGE) // advice
	}
	return p[:n]
}
