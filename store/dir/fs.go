package dir

import (
	"errors"
	"io"
	"time"
)

// fileSystem is what Dir asks of an operating system. Paths are relative to
// the repository's folder, which is ".", with slashes between. Errors match
// those of io/fs.
//
// What it does is seen at once by everybody, and outlives a power cut only
// after a Sync: of a file for its bytes, of a folder for the names in it.
type fileSystem interface {
	// create makes a file for writing, with mode 0600, and locks it until it is
	// closed. errSwept: another process removed it meanwhile.
	create(path string) (tempFile, error)

	// open opens a file for reading. What is none matches store.ErrIrregular, a
	// folder syscall.EISDIR: it never waits, as it would for a pipe's writer. A
	// symbolic link counts as what it is. openFolder opens a folder, and follows
	// links.
	open(path string) (openFile, error)
	openFolder(path string) (openFile, error)

	// link gives a file a second name, rename another one. Neither replaces an
	// existing file. errNoWay: the file system cannot do it.
	link(from, to string) error
	rename(from, to string) error

	// unlink removes a name of a file, rmdir an empty folder.
	unlink(path string) error
	rmdir(path string) error

	// mkdir makes a folder with mode 0700.
	mkdir(path string) error

	// stat follows symbolic links to folders only. One that leads nowhere has no
	// kind.
	stat(path string) (info, error)

	// lock locks a file until it is closed. errBusy: its writer still lives.
	lock(path string) (io.Closer, error)
}

// tempFile is a file that is being written.
type tempFile interface {
	io.Writer

	// Sync makes what was written durable.
	Sync() error

	// flush brings up the errors that a file system keeps for the close. The
	// file stays open, and locked.
	flush() error

	io.Closer
}

// openFile is a file or a folder that was opened for reading.
type openFile interface {
	io.ReaderAt
	Readdirnames(n int) ([]string, error)
	Sync() error
	io.Closer
}

// info is what stat tells.
type info struct {
	folder  bool
	regular bool
	lost    bool // a symbolic link that leads nowhere
	size    int64
	changed time.Time // when the content changed, by the file system's clock
}

var (
	errSwept = errors.New("the temporary file was removed by another process")
	errBusy  = errors.New("the file is being written")
	errNoWay = errors.New("not supported")
)
