// Package pending knows which calls of the operating system are under way that
// may never return, such as those on a dead server's file system. Nothing can
// break off such a call; but a run that is to end can say which one it leaves
// behind.
package pending

import (
	"fmt"
	"path/filepath"
	"sync"
	"time"
)

// Call is one that has begun. Its End must be called when it returns.
type Call struct {
	op, folder, path string
	since            time.Time
}

var (
	mu    sync.Mutex
	calls = map[*Call]struct{}{}
	spare = sync.Pool{New: func() any { return new(Call) }}
)

// Begin notes a call: what it does, and to which file. path may be absolute.
func Begin(op, folder, path string) *Call {
	c := spare.Get().(*Call)
	*c = Call{op: op, folder: folder, path: path, since: time.Now()}
	mu.Lock()
	calls[c] = struct{}{}
	mu.Unlock()
	return c
}

// End notes that the call has returned.
func (c *Call) End() {
	mu.Lock()
	delete(calls, c)
	mu.Unlock()
	spare.Put(c)
}

// Oldest says in words which of the calls under way began first, and when.
func Oldest() (what string, since time.Time, ok bool) {
	mu.Lock()
	defer mu.Unlock()
	var oldest *Call
	for c := range calls {
		if oldest == nil || c.since.Before(oldest.since) {
			oldest = c
		}
	}
	if oldest == nil {
		return "", time.Time{}, false
	}
	return fmt.Sprintf("%s %s", oldest.op, filepath.Join(oldest.folder, oldest.path)), oldest.since, true
}
