// Package faulty makes a backend fail as planned, for tests of what is built
// on backends: errors, answers that lie, answers that come late, bytes that
// change.
//
//	b := faulty.New(mem.New(), faulty.Plan{
//		{Call: faulty.Put, Prefix: "maps/", At: 2, Err: syscall.ENOSPC},              // the third one stores nothing
//		{Call: faulty.Put, Prefix: "levels/", Err: syscall.EIO, Done: true},          // the first one stores all
//		{Call: faulty.Get, Prefix: "data/", Times: faulty.Always, Read: faulty.Flip(100)},
//	})
package faulty

import (
	"context"
	"io"
	"strings"
	"sync"

	"backy/store"
)

// Call is one of a backend's methods.
type Call int

// The calls. Any stands for all of them.
const (
	Any Call = iota
	Put
	Get
	List
	Delete
	Sync
)

func (c Call) String() string {
	return [...]string{"any call", "put", "get", "list", "delete", "sync"}[c]
}

// Always as Times lets a fault strike for ever.
const Always = -1

// Plan are the faults of a backend. The first one that strikes a call is the
// one that counts; all of them count the calls that they match.
type Plan []Fault

// Fault says which calls fail, and how.
type Fault struct {
	Call   Call   // Any: all
	Prefix string // of the key, or of List's prefix; "" matches all
	At     int    // the first call that it strikes, of those that match, from 0
	Times  int    // how many it strikes from there on; 0: 1

	// Gate, where it is not nil, keeps the call waiting before anything is done.
	// Then it is done even if its context was cancelled meanwhile.
	Gate *Gate

	// Err is the answer, where it is not nil. By default nothing is done.
	// With Done all is done, and the answer lies; with Late it is done by
	// Faulty.Land, long after the answer. Late is for Put and Delete.
	Err  error
	Done bool
	Late bool

	// Read, where it is not nil, changes what Get answers.
	Read Read
}

// Faulty is a backend with faults. It is a store.Backend and a store.Syncer;
// where the backend below is no Syncer, Sync finds out that the object is there.
type Faulty struct {
	below store.Backend

	mu      sync.Mutex
	plan    Plan
	matched []int // by fault, the calls that it matched
	calls   [Sync + 1]int
	struck  int
	late    []func(context.Context) error
}

// New decorates a backend.
func New(b store.Backend, plan Plan) *Faulty {
	return &Faulty{below: b, plan: plan, matched: make([]int, len(plan))}
}

// Calls counts the calls of a kind so far, Any those of all kinds, failed ones
// too.
func (f *Faulty) Calls(c Call) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[c]
}

// Struck counts the calls that a fault struck.
func (f *Faulty) Struck() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.struck
}

// Land does what late calls left undone, in their order, and returns the first
// error. A Put that lands after another one of its key gets fs.ErrExist.
func (f *Faulty) Land(ctx context.Context) error {
	f.mu.Lock()
	late := f.late
	f.late = nil
	f.mu.Unlock()
	var first error
	for _, call := range late {
		if err := call(ctx); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// Put creates an object below, unless a fault strikes.
func (f *Faulty) Put(ctx context.Context, key string, parts ...[]byte) error {
	fault := f.strike(Put, key)
	if fault.Late {
		parts = clone(parts) // the caller may use them again
	}
	return f.do(ctx, fault, func(ctx context.Context) error { return f.below.Put(ctx, key, parts...) })
}

// Get reads from an object below, unless a fault strikes.
func (f *Faulty) Get(ctx context.Context, key string, p []byte, off int64) (n int, err error) {
	fault := f.strike(Get, key)
	err = f.do(ctx, fault, func(ctx context.Context) (err error) {
		n, err = f.below.Get(ctx, key, p, off)
		if fault.Read != nil && (err == nil || err == io.EOF) {
			n, err = fault.Read(p[:n], off, err)
		}
		return err
	})
	return n, err
}

// List lists the objects below, unless a fault strikes.
func (f *Faulty) List(ctx context.Context, prefix string, fn func(key string, size int64) error) error {
	return f.do(ctx, f.strike(List, prefix), func(ctx context.Context) error { return f.below.List(ctx, prefix, fn) })
}

// Delete removes an object below, unless a fault strikes.
func (f *Faulty) Delete(ctx context.Context, key string) error {
	return f.do(ctx, f.strike(Delete, key), func(ctx context.Context) error { return f.below.Delete(ctx, key) })
}

// Sync syncs an object below, unless a fault strikes.
func (f *Faulty) Sync(ctx context.Context, key string) error {
	return f.do(ctx, f.strike(Sync, key), func(ctx context.Context) error {
		if s, ok := f.below.(store.Syncer); ok {
			return s.Sync(ctx, key)
		}
		_, err := f.below.Get(ctx, key, nil, 0)
		return err
	})
}

// strike counts a call and returns the fault that strikes it, or none.
func (f *Faulty) strike(c Call, key string) (fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[c]++
	f.calls[Any]++
	hit := false
	for i, p := range f.plan {
		if p.Call != Any && p.Call != c || !strings.HasPrefix(key, p.Prefix) {
			continue
		}
		nth := f.matched[i] - p.At
		f.matched[i]++
		if !hit && nth >= 0 && (p.Times == Always || nth < max(p.Times, 1)) {
			fault, hit = p, true
			f.struck++
		}
	}
	return fault
}

// do carries out a call as its fault says.
func (f *Faulty) do(ctx context.Context, fault Fault, call func(context.Context) error) error {
	if fault.Gate != nil {
		fault.Gate.pass()
		ctx = context.WithoutCancel(ctx)
	}
	switch {
	case fault.Err == nil:
		return call(ctx)
	case fault.Late:
		f.mu.Lock()
		f.late = append(f.late, call)
		f.mu.Unlock()
	case fault.Done:
		if err := call(ctx); err != nil && err != io.EOF {
			return err
		}
	}
	return fault.Err
}

func clone(parts [][]byte) [][]byte {
	c := make([][]byte, len(parts))
	for i, p := range parts {
		c[i] = append([]byte(nil), p...)
	}
	return c
}
