package dir

import "golang.org/x/sys/unix"

// dropCache asks the kernel to let go of a range of a file's pages; length 0
// stands for all of it. It can fail and does not matter then.
//
// On ext4 and XFS it drops clean pages, ours always being so since an object is
// synced before it has a name; the last page of a range that ends inside it
// stays, until the whole file is dropped. On tmpfs it does nothing: there the
// pages are the file. O_DIRECT would do as much for more: XFS and ext4 take it
// for aligned reads only, overlayfs where the file system below does, and tmpfs
// refuses it before Linux 6.6 and reads its pages all the same since.
func dropCache(f openFile, off, length int64) {
	if file, ok := f.(osFile); ok {
		_ = unix.Fadvise(int(file.Fd()), off, length, unix.FADV_DONTNEED)
	}
}
