package local

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"backy/engine"
	"backy/hints"
	"backy/store/pending"

	"golang.org/x/sys/unix"
)

// kind is what a path names, of what backy can read or write.
type kind string

const (
	kindFile   kind = "file"
	kindDevice kind = "device"
	kindPipe   kind = "pipe"
)

// kindOf refuses what is neither a file nor a block device nor a pipe.
func kindOf(path string, info fs.FileInfo) (kind, error) {
	var is string
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return kindFile, nil
	case mode&fs.ModeCharDevice != 0:
		is = "a character device"
	case mode&fs.ModeDevice != 0:
		return kindDevice, nil
	case mode&fs.ModeNamedPipe != 0:
		return kindPipe, nil
	case mode.IsDir():
		is = "a folder"
	case mode&fs.ModeSocket != 0:
		is = "a socket"
	default:
		is = fmt.Sprintf("of the unknown type %v", mode.Type())
	}
	return "", fmt.Errorf("%s is %s: want a file or a block device", path, is)
}

// dropFrom is the size in bytes from which a file is read without leaving it in
// the page cache, where it would drive out what the host needs.
const dropFrom = 64 << 20

// ErrSize says that a file does not tell by its size how much it holds. It can be
// read from front to back only.
var ErrSize = errors.New("its size does not say how much it holds")

// input is a file or a block device opened for reading.
type input struct {
	path   string
	f      *os.File
	kind   kind
	info   fs.FileInfo // as it was when opened
	size   int64       // bytes
	drop   bool        // forget in the page cache what was read
	direct *direct     // reads a device; nil for a file
}

// openInput opens a file or a block device. Character devices are not even
// opened: that alone can rewind a tape. Errors: ErrSize.
func openInput(path string) (*input, error) {
	defer pending.Begin("open", "", path).End()
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	k, err := kindOf(path, info)
	if err != nil {
		return nil, err
	}
	if k == kindPipe {
		return nil, fmt.Errorf("%s is a pipe: want a file or a block device", path)
	}
	flags := os.O_RDONLY
	if k == kindFile {
		flags |= unix.O_NONBLOCK // the kernel has files that wait for more at their end
	}
	f, err := os.OpenFile(path, flags, 0)
	if errors.Is(err, unix.EAGAIN) { // somebody has a lease on it, and has to be waited for
		f, err = os.Open(path)
	}
	if err != nil {
		return nil, err
	}
	in := &input{path: path, f: f, kind: k}
	if err := in.measure(info); err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return in, nil
}

// measure takes the size, of what is still what was looked at before.
func (in *input) measure(expected fs.FileInfo) (err error) {
	if in.info, err = in.f.Stat(); err != nil {
		return err
	}
	if !os.SameFile(in.info, expected) {
		return fmt.Errorf("%s was replaced while it was opened: start again", in.path)
	}
	if in.size, err = in.sizeNow(); err != nil {
		return err
	}
	if in.kind == kindFile {
		in.drop = in.size >= dropFrom
		return errors.Join(in.lookAtEnd(), unix.SetNonblock(int(in.f.Fd()), false))
	}
	if in.size == 0 {
		return fmt.Errorf("%s is a block device of 0 bytes: it has no medium, or is not set up", in.path)
	}
	in.direct, err = newDirect(in.f, in.size)
	return err
}

// Close closes the input.
func (in *input) Close() error {
	err := in.f.Close()
	if in.direct != nil {
		err = errors.Join(err, in.direct.Close())
	}
	return err
}

// lookAtEnd reads a file's last byte, and one more. Some files say 0, or a page,
// whatever they hold: the kernel's own, and some of FUSE and of other hosts.
func (in *input) lookAtEnd() error {
	var last [2]byte
	from := max(in.size-1, 0)
	n, err := in.f.ReadAt(last[:], from)
	switch {
	case err != nil && err != io.EOF && !errors.Is(err, unix.EAGAIN):
		return fmt.Errorf("read the end of %s: %w", in.path, err)
	case errors.Is(err, unix.EAGAIN), from+int64(n) > in.size:
		return fmt.Errorf("%s says that it is %d bytes long, but goes on after them: %w", in.path, in.size, ErrSize)
	case from+int64(n) < in.size:
		return fmt.Errorf("%s says that it is %d bytes long, but ends before: %w", in.path, in.size, ErrSize)
	}
	return nil
}

// sizeNow asks for the size anew. A block device tells it by its end.
func (in *input) sizeNow() (int64, error) {
	if in.kind == kindDevice {
		return in.f.Seek(0, io.SeekEnd)
	}
	info, err := in.f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// ReadAt fills p or fails: an end within the size that was found at first is an
// error, and not io.EOF.
func (in *input) ReadAt(p []byte, off int64) (int, error) {
	defer pending.Begin("read", "", in.path).End()
	var r io.ReaderAt = in.f
	if in.direct != nil {
		r = in.direct
	}
	n, err := r.ReadAt(p, off)
	if in.drop && n > 0 {
		// Of no effect on what is dirty or mapped, and no harm if refused.
		_ = unix.Fadvise(int(in.f.Fd()), off, int64(n), unix.FADV_DONTNEED)
	}
	switch {
	case n == len(p):
		return n, nil
	case err == io.EOF:
		return n, fmt.Errorf("%s ends at %d, but was %d bytes long: it was cut off while being read", in.path, off+int64(n), in.size)
	}
	return n, err
}

// view is the input as the engine reads it.
func (in *input) view() engine.View {
	v := engine.View{Reader: in, Size: in.size}
	if in.kind == kindFile {
		v.Extents = in.data(0)
	}
	return v
}

// data streams where the file has data, from an offset on. A file system that
// cannot tell has all of it as data.
func (in *input) data(from int64) hints.Seq {
	return func(yield func(hints.Extent, error) bool) {
		for pos := from; pos < in.size; {
			e, err := in.nextData(pos)
			if err != nil {
				yield(hints.Extent{}, err)
				return
			}
			if e.Length == 0 || !yield(e, nil) {
				return
			}
			pos = e.End()
		}
	}
}

// nextData returns the first extent of data that ends behind pos, from pos on,
// within the size; one of no length where only a hole is left.
func (in *input) nextData(pos int64) (hints.Extent, error) {
	defer pending.Begin("look for data in", "", in.path).End()
	start, err := in.f.Seek(pos, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return hints.Extent{}, nil
	case cannotSeekData(err):
		return hints.Extent{Offset: pos, Length: in.size - pos, Exists: true}, nil
	case err != nil:
		return hints.Extent{}, err
	case start >= in.size: // it has grown meanwhile
		return hints.Extent{}, nil
	}
	end, err := in.f.Seek(start, unix.SEEK_HOLE)
	if err != nil {
		return hints.Extent{}, err
	}
	// A file that is being written to can answer the second question in a way
	// that does not fit the first.
	end = min(max(end, start+1), in.size)
	return hints.Extent{Offset: start, Length: end - start, Exists: true}, nil
}

func cannotSeekData(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS)
}

// tellsHoles reports whether data asks the file system.
func (in *input) tellsHoles() bool {
	if in.kind != kindFile {
		return false
	}
	_, err := in.f.Seek(0, unix.SEEK_DATA)
	return !cannotSeekData(err)
}

// allocated is about how many bytes data names.
func (in *input) allocated() int64 {
	if st, ok := in.info.Sys().(*syscall.Stat_t); ok && in.kind == kindFile {
		return min(in.size, st.Blocks*512)
	}
	return in.size
}

// OpenView opens a file or a block device for a deep scrub. Closing ends the
// view.
func OpenView(path string) (engine.View, io.Closer, error) {
	in, err := openInput(path)
	if err != nil {
		return engine.View{}, nil, fmt.Errorf("open the source: %w", err)
	}
	return in.view(), in, nil
}
