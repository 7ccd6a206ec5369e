// Package mem keeps a repository's objects in memory, with a log of what
// changed them, so that tests can look at the state after every single change.
package mem

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"backy/store/internal/key"
)

// Op is one change of the objects: an object put, or deleted.
type Op struct {
	Key     string
	Deleted bool
	Data    []byte // what was put; not to be changed
}

// Mem is a backend in memory. It is a store.Backend, safe for concurrent use.
// What it holds is durable once it is seen, so it is no store.Syncer.
type Mem struct {
	mu      sync.RWMutex
	objects map[string][]byte
	keys    []string // of the objects, sorted
	size    int64    // bytes of all objects
	log     []Op
}

// New makes an empty backend.
func New() *Mem { return &Mem{objects: map[string][]byte{}} }

// Log returns the changes so far, in their order. Calls that failed or changed
// nothing are not among them.
func (m *Mem) Log() []Op {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.Clip(m.log)
}

// At makes a backend as this one was after its first n changes: 0 is empty,
// len(Log()) is now. The two share the bytes of the objects, nothing else.
func (m *Mem) At(n int) *Mem {
	past := New()
	past.log = slices.Clip(m.Log()[:n])
	for _, op := range past.log {
		past.apply(op)
	}
	return past
}

// apply makes a change, of an object that is there if it is deleted, and is not
// if it is put.
func (m *Mem) apply(op Op) {
	at, _ := slices.BinarySearch(m.keys, op.Key)
	if op.Deleted {
		m.size -= int64(len(m.objects[op.Key]))
		delete(m.objects, op.Key)
		m.keys = slices.Delete(m.keys, at, at+1)
		return
	}
	m.objects[op.Key] = op.Data
	m.keys = slices.Insert(m.keys, at, op.Key)
	m.size += int64(len(op.Data))
}

// Size is how many bytes the objects have together.
func (m *Mem) Size() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.size
}

// Put creates an object from a copy of the parts.
func (m *Mem) Put(ctx context.Context, key string, parts ...[]byte) error {
	if err := begin(ctx, "put", key); err != nil {
		return err
	}
	data := slices.Concat(parts...)
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, exists := m.objects[key]; exists {
		return fail("put", key, fs.ErrExist)
	}
	op := Op{Key: key, Data: data}
	m.apply(op)
	m.log = append(m.log, op)
	return nil
}

// Get reads from an object as io.ReaderAt does.
func (m *Mem) Get(ctx context.Context, key string, p []byte, off int64) (int, error) {
	if err := begin(ctx, "get", key); err != nil {
		return 0, err
	}
	m.mu.RLock()
	data, exists := m.objects[key]
	m.mu.RUnlock()
	if !exists {
		return 0, fail("get", key, fs.ErrNotExist)
	}
	n, err := bytes.NewReader(data).ReadAt(p, off)
	if err != nil && err != io.EOF {
		return n, fail("get", key, err)
	}
	return n, err
}

// List calls fn for the objects whose key begins with the prefix, as they were
// when it was called.
func (m *Mem) List(ctx context.Context, prefix string, fn func(key string, size int64) error) error {
	sizes := map[string]int64{}
	m.mu.RLock()
	at, _ := slices.BinarySearch(m.keys, prefix)
	for _, k := range m.keys[at:] {
		if !strings.HasPrefix(k, prefix) {
			break
		}
		sizes[k] = int64(len(m.objects[k]))
	}
	m.mu.RUnlock()
	if ctx.Err() != nil {
		return fail("list", prefix, context.Cause(ctx))
	}
	for k, size := range sizes {
		if ctx.Err() != nil {
			return fail("list", prefix, context.Cause(ctx))
		}
		if err := fn(k, size); err != nil {
			return err
		}
	}
	return nil
}

// Delete removes an object.
func (m *Mem) Delete(ctx context.Context, key string) error {
	if err := begin(ctx, "delete", key); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, exists := m.objects[key]; exists {
		op := Op{Key: key, Deleted: true}
		m.apply(op)
		m.log = append(m.log, op)
	}
	return nil
}

func begin(ctx context.Context, op, k string) error {
	if err := key.Check(k); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if ctx.Err() != nil {
		return fail(op, k, context.Cause(ctx))
	}
	return nil
}

func fail(op, key string, err error) error {
	return &fs.PathError{Op: op, Path: key, Err: err}
}
