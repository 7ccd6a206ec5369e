package dir

import (
	"io"
	"sync"
)

// step is one thing that Dir asks of the file system.
type step struct{ op, path string }

// hookFS shows each step to a hook before it is done. If the hook returns an
// error, that is the step's answer and it is not done, except for a close,
// which closes whatever it answers.
type hookFS struct {
	fileSystem
	mu   *sync.Mutex
	hook func(step) error
}

// hooked lets the steps of a Dir pass through a hook, one at a time.
func hooked(d *Dir, hook func(step) error) *Dir {
	return &Dir{root: d.root, shut: d.shut, fs: hookFS{d.fs, &sync.Mutex{}, hook}}
}

func (h hookFS) do(op, path string, f func() error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.hook(step{op, path}); err != nil {
		return err
	}
	return f()
}

func (h hookFS) create(path string) (f tempFile, err error) {
	err = h.do("create", path, func() error { f, err = h.fileSystem.create(path); return err })
	return hookTemp{f, path, h}, err
}

func (h hookFS) open(path string) (f openFile, err error) {
	err = h.do("open", path, func() error { f, err = h.fileSystem.open(path); return err })
	return hookFile{f, path, h}, err
}

func (h hookFS) openFolder(path string) (f openFile, err error) {
	err = h.do("open", path, func() error { f, err = h.fileSystem.openFolder(path); return err })
	return hookFile{f, path, h}, err
}

func (h hookFS) link(from, to string) error {
	return h.do("link", from, func() error { return h.fileSystem.link(from, to) })
}

func (h hookFS) rename(from, to string) error {
	return h.do("rename", from, func() error { return h.fileSystem.rename(from, to) })
}

func (h hookFS) unlink(path string) error {
	return h.do("unlink", path, func() error { return h.fileSystem.unlink(path) })
}

func (h hookFS) rmdir(path string) error {
	return h.do("rmdir", path, func() error { return h.fileSystem.rmdir(path) })
}

func (h hookFS) mkdir(path string) error {
	return h.do("mkdir", path, func() error { return h.fileSystem.mkdir(path) })
}

func (h hookFS) stat(path string) (i info, err error) {
	err = h.do("stat", path, func() error { i, err = h.fileSystem.stat(path); return err })
	return i, err
}

func (h hookFS) lock(path string) (c io.Closer, err error) {
	err = h.do("lock", path, func() error { c, err = h.fileSystem.lock(path); return err })
	return c, err
}

type hookTemp struct {
	tempFile
	path string
	fs   hookFS
}

func (f hookTemp) Write(p []byte) (n int, err error) {
	err = f.fs.do("write", f.path, func() error { n, err = f.tempFile.Write(p); return err })
	return n, err
}

func (f hookTemp) Sync() error  { return f.fs.do("sync", f.path, f.tempFile.Sync) }
func (f hookTemp) flush() error { return f.fs.do("flush", f.path, f.tempFile.flush) }

func (f hookTemp) Close() error {
	f.fs.mu.Lock()
	err := f.tempFile.Close()
	f.fs.mu.Unlock()
	return f.fs.do("close", f.path, func() error { return err })
}

type hookFile struct {
	openFile
	path string
	fs   hookFS
}

func (f hookFile) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.fs.do("read", f.path, func() error { n, err = f.openFile.ReadAt(p, off); return err })
	return n, err
}

func (f hookFile) Readdirnames(n int) (names []string, err error) {
	err = f.fs.do("names", f.path, func() error { names, err = f.openFile.Readdirnames(n); return err })
	return names, err
}

func (f hookFile) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.openFile.Close()
}

func (f hookFile) Sync() error { return f.fs.do("sync", f.path, f.openFile.Sync) }
