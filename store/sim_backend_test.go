package store

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"

	"backy/store/mem"
)

var errCrashed = errors.New("the host has crashed")

// simBackend is what one host sees: each call waits for the scheduler.
type simBackend struct{ h *host }

func (b simBackend) wait(what, key string, size int64) (*mem.Mem, simAnswer) {
	c := &simCall{h: b.h, what: what + key, size: size, resume: make(chan simAnswer)}
	b.h.w.calls <- c
	a := <-c.resume
	return b.h.w.disk, a
}

func (b simBackend) Put(ctx context.Context, key string, parts ...[]byte) error {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	d, a := b.wait("put ", key, int64(size))
	switch {
	case a.err == nil:
		return d.Put(context.WithoutCancel(ctx), key, parts...)
	case a.late:
		b.h.w.delay(key, parts)
	case a.done:
		_ = d.Put(context.WithoutCancel(ctx), key, parts...)
	}
	return a.err
}

func (b simBackend) Get(ctx context.Context, key string, p []byte, off int64) (n int, err error) {
	d, a := b.wait("get ", key, 0)
	if strings.HasPrefix(key, dataPrefix) {
		b.h.looked[key] = b.h.w.step
	}
	if a.err == nil || a.done && len(p) > 0 {
		n, err = d.Get(context.WithoutCancel(ctx), key, p, off)
	}
	switch {
	case a.err == nil:
		return n, err
	case err == nil || errors.Is(err, io.EOF):
		return n / 2, a.err
	}
	return 0, a.err
}

// List lists by and by: in the middle, others may go on.
func (b simBackend) List(ctx context.Context, prefix string, fn func(string, int64) error) error {
	after := ""
	for what := "list "; ; what = "list more " {
		d, a := b.wait(what, prefix, 0)
		if a.err != nil && !a.done {
			return a.err
		}
		type object struct {
			key  string
			size int64
		}
		var found []object
		err := d.List(context.WithoutCancel(ctx), prefix, func(key string, size int64) error {
			if key > after {
				found = append(found, object{key, size})
			}
			return nil
		})
		if err != nil {
			return err
		}
		slices.SortFunc(found, func(a, b object) int {
			if a.key < b.key {
				return -1
			}
			return 1
		})
		more := a.cut > 0 && len(found) > a.cut
		if more {
			found = found[:a.cut]
		} else if a.err != nil {
			found = found[:len(found)/2]
		}
		for _, o := range found {
			if err := fn(o.key, o.size); err != nil {
				return err
			}
			after = o.key
		}
		if a.err != nil || !more {
			return a.err
		}
	}
}

func (b simBackend) Delete(ctx context.Context, key string) error {
	d, a := b.wait("delete ", key, 0)
	if a.err == nil || a.done {
		b.h.w.unhold(b.h, key)
		b.h.w.replaced(b.h, key)
		if err := d.Delete(context.WithoutCancel(ctx), key); err != nil {
			return err
		}
	}
	return a.err
}

// unhold takes note of a hold that is deleted by another than its reader.
func (w *world) unhold(by *host, key string) {
	for _, h := range w.hosts {
		if h != by && h.run != 0 && strings.HasPrefix(key, leaseKey(h.run)) {
			h.unheld = true
		}
	}
}

// simEmpty is a repository without levels: after its first change it can be
// opened, after its second it has its reserve.
var simEmpty = sync.OnceValue(func() *mem.Mem {
	m := mem.New()
	ctx := context.Background()
	b, err := encodeObject("repository", &config{
		Format: formatVersion, ID: RepositoryID{1}, ChunkSize: 16 << 10, Fanout: simFanout, Checksum: "blake3-256",
	})
	if err == nil {
		err = m.Put(ctx, configKey, b)
	}
	if err == nil {
		r := &Repository{backend: m}
		r.putReserve(ctx)
		_, err = m.Get(ctx, reserveKey, nil, 0)
	}
	if err != nil {
		panic(err)
	}
	return m
})
