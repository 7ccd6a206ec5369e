// Package pending knows which calls of the operating system are under way that
// may never return, such as those on a dead server's file system. Nothing can
// break off such a call; but a run that is to end can say which one it leaves
// behind.
package pending

import (
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"
)

// Call is one that has begun. Its End must be called when it returns.
type Call struct {
	op, folder, path string
	since            time.Time
	in               *shard
}

// shard holds some of the calls under way: many at a time must not wait for each
// other.
type shard struct {
	mu    sync.Mutex
	calls map[*Call]struct{}
	_     [48]byte // a line of the processor's cache each
}

var (
	shards [32]shard
	spare  = sync.Pool{New: func() any { return new(Call) }}
)

// Begin notes a call: what it does, and to which file. path may be absolute.
func Begin(op, folder, path string) *Call {
	c := spare.Get().(*Call)
	*c = Call{op: op, folder: folder, path: path, since: time.Now(), in: &shards[rand.IntN(len(shards))]}
	c.in.mu.Lock()
	if c.in.calls == nil {
		c.in.calls = map[*Call]struct{}{}
	}
	c.in.calls[c] = struct{}{}
	c.in.mu.Unlock()
	return c
}

// End notes that the call has returned.
func (c *Call) End() {
	c.in.mu.Lock()
	delete(c.in.calls, c)
	c.in.mu.Unlock()
	spare.Put(c)
}

// Oldest says in words which of the calls under way began first, and when.
func Oldest() (what string, since time.Time, ok bool) {
	for i := range shards {
		s := &shards[i]
		s.mu.Lock()
		for c := range s.calls {
			if !ok || c.since.Before(since) {
				what, since, ok = c.op+" "+filepath.Join(c.folder, c.path), c.since, true
			}
		}
		s.mu.Unlock()
	}
	return what, since, ok
}
