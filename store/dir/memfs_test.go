package dir

import (
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"
)

// memFS is a file system in memory whose power can be cut. Of what was not
// synced, any part may then be lost: the bytes of a file, each name in a folder.
type memFS struct{ root *node }

// node is a file or a folder: as it is seen, and as it is durable.
type node struct {
	names, durable    map[string]*node // of a folder
	data, durableData string           // of a file
	locked            bool
}

func newMemFS() *memFS { return &memFS{root: newFolder()} }

func newFolder() *node { return &node{names: map[string]*node{}, durable: map[string]*node{}} }

// cut is the file system as it comes back after a power cut. survives is asked
// about every change that was not synced. Bytes that do not survive leave a
// file of the same length with other bytes, or an empty one.
func (m *memFS) cut(survives func() bool) *memFS {
	return &memFS{root: m.root.cut(survives, map[*node]*node{})}
}

func (n *node) cut(survives func() bool, done map[*node]*node) *node {
	if after := done[n]; after != nil {
		return after
	}
	after := &node{}
	done[n] = after
	if n.names == nil {
		after.data = n.data
		if n.data != n.durableData && !survives() {
			after.data = n.durableData
			if survives() {
				after.data = strings.Repeat("\x00", len(n.data))
			}
		}
		after.durableData = after.data
		return after
	}
	left := maps.Clone(n.durable)
	all := maps.Clone(n.names)
	maps.Copy(all, n.durable)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		seen, durable := n.names[name], n.durable[name]
		if seen == durable || !survives() {
			continue
		}
		if left[name] = seen; seen == nil {
			delete(left, name)
		}
	}
	after.names = map[string]*node{}
	for _, name := range slices.Sorted(maps.Keys(left)) {
		after.names[name] = left[name].cut(survives, done)
	}
	after.durable = maps.Clone(after.names)
	return after
}

// find returns a path's node, nil where there is none, and its folder's.
func (m *memFS) find(name string) (folder, n *node, err error) {
	if name == "." {
		return nil, m.root, nil
	}
	folder = m.root
	segments := strings.Split(name, "/")
	for _, segment := range segments[:len(segments)-1] {
		if folder = folder.names[segment]; folder == nil {
			return nil, nil, syscall.ENOENT
		}
		if folder.names == nil {
			return nil, nil, syscall.ENOTDIR
		}
	}
	return folder, folder.names[path.Base(name)], nil
}

func (m *memFS) existing(name string) (folder, n *node, err error) {
	folder, n, err = m.find(name)
	if err == nil && n == nil {
		err = syscall.ENOENT
	}
	return folder, n, err
}

// add gives a node a name that does not exist yet.
func (m *memFS) add(name string, n *node) error {
	folder, existing, err := m.find(name)
	if err == nil && existing != nil {
		err = syscall.EEXIST
	}
	if err == nil {
		folder.names[path.Base(name)] = n
	}
	return err
}

func (m *memFS) create(name string) (tempFile, error) {
	n := &node{locked: true}
	return memFile{n}, m.add(name, n)
}

func (m *memFS) open(name string) (openFile, error) {
	_, n, err := m.existing(name)
	if err == nil && n.names != nil {
		err = syscall.EISDIR
	}
	return memFile{n}, err
}

func (m *memFS) openFolder(name string) (openFile, error) {
	_, n, err := m.existing(name)
	if err == nil && n.names == nil {
		err = syscall.ENOTDIR
	}
	return memFile{n}, err
}

func (m *memFS) link(from, to string) error {
	_, n, err := m.existing(from)
	if err != nil {
		return err
	}
	return m.add(to, n)
}

func (m *memFS) rename(from, to string) error {
	if err := m.link(from, to); err != nil {
		return err
	}
	return m.unlink(from)
}

func (m *memFS) unlink(name string) error {
	folder, n, err := m.existing(name)
	if err == nil && n.names != nil {
		err = syscall.EISDIR
	}
	if err == nil {
		delete(folder.names, path.Base(name))
	}
	return err
}

func (m *memFS) rmdir(name string) error {
	folder, n, err := m.existing(name)
	if err == nil && len(n.names) > 0 {
		err = syscall.ENOTEMPTY
	}
	if err == nil {
		delete(folder.names, path.Base(name))
	}
	return err
}

func (m *memFS) mkdir(name string) error { return m.add(name, newFolder()) }

func (m *memFS) stat(name string) (info, error) {
	_, n, err := m.existing(name)
	if err != nil {
		return info{}, err
	}
	return info{folder: n.names != nil, regular: n.names == nil, size: int64(len(n.data))}, nil
}

func (m *memFS) lock(name string) (io.Closer, error) {
	_, n, err := m.existing(name)
	if err == nil && n.locked {
		err = errBusy
	}
	return memFile{n}, err
}

type memFile struct{ *node }

func (f memFile) Write(p []byte) (int, error) {
	f.data += string(p)
	return len(p), nil
}

func (f memFile) Sync() error {
	f.durableData = f.data
	f.durable = maps.Clone(f.names)
	return nil
}

func (f memFile) flush() error { return nil }

func (f memFile) Close() error {
	f.locked = false
	return nil
}

func (f memFile) ReadAt(p []byte, off int64) (int, error) {
	if f.names != nil {
		return 0, &fs.PathError{Op: "read", Err: syscall.EISDIR}
	}
	return strings.NewReader(f.data).ReadAt(p, off)
}

// Readdirnames answers with all names at once; a second call would find the
// same again, so the caller gets io.EOF with them.
func (f memFile) Readdirnames(int) ([]string, error) {
	if f.names == nil {
		return nil, syscall.ENOTDIR
	}
	return slices.Sorted(maps.Keys(f.names)), io.EOF
}
