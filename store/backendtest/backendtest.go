// Package backendtest is the contract of store.Backend as a test suite: every
// sentence of the interface's comments is a subtest. Each backend runs it.
package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"backy/store"
)

// Run runs the suite. open makes an empty backend, one for each subtest, and
// cleans it up with the test.
func Run(t *testing.T, open func(t *testing.T) store.Backend) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *fixture)
	}{
		{"an object is its parts, one after the other", testParts},
		{"an object of 40 MiB", testLarge},
		{"the parts are the caller's again after Put", testPartsAreCopied},
		{"keys may have any characters", testKeys},
		{"what is no key is refused", testBadKeys},
		{"Put refuses an existing key", testPutExisting},
		{"one of many Puts of a key wins", testPutRace},
		{"a reader sees all of an object or nothing", testPutIsAtomic},
		{"Get is an io.ReaderAt", testGet},
		{"Get of a missing key", testGetMissing},
		{"Get by many at a time", testGetConcurrent},
		{"List lists what begins with the prefix", testList},
		{"List ends at an error of its function", testListStops},
		{"List may change what it lists", testListReenters},
		{"Delete", testDelete},
		{"a deleted key can be put again", testPutAgain},
		{"Put, List and Delete at a time", testConcurrent},
		{"a cancelled call does nothing", testCancelledBefore},
		{"a Put that is cancelled did all or nothing", testCancelledMeanwhile},
		{"Sync", testSync},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.test(t, &fixture{Backend: open(t), t: t})
		})
	}
}

// fixture is the backend under test with the steps that tests are made of.
type fixture struct {
	store.Backend
	t *testing.T
}

func (f *fixture) put(key string, parts ...[]byte) {
	f.t.Helper()
	if err := f.Put(f.t.Context(), key, parts...); err != nil {
		f.t.Fatalf("Put(%q): %v", key, err)
	}
}

func (f *fixture) delete(key string) {
	f.t.Helper()
	if err := f.Delete(f.t.Context(), key); err != nil {
		f.t.Fatalf("Delete(%q): %v", key, err)
	}
}

// read reads a whole object.
func (f *fixture) read(key string) ([]byte, error) {
	r := io.NewSectionReader(readerAt{f.Backend, f.t.Context(), key}, 0, 1<<62)
	return io.ReadAll(r)
}

type readerAt struct {
	b   store.Backend
	ctx context.Context
	key string
}

func (r readerAt) ReadAt(p []byte, off int64) (int, error) { return r.b.Get(r.ctx, r.key, p, off) }

func (f *fixture) holds(key string, want []byte) {
	f.t.Helper()
	got, err := f.read(key)
	if err != nil {
		f.t.Fatalf("Get(%q): %v", key, err)
	}
	if !bytes.Equal(got, want) {
		f.t.Fatalf("Get(%q): %d bytes, want %d, or others than were put", key, len(got), len(want))
	}
}

func (f *fixture) missing(key string) {
	f.t.Helper()
	if n, err := f.Get(f.t.Context(), key, make([]byte, 1), 0); n != 0 || !errors.Is(err, fs.ErrNotExist) {
		f.t.Fatalf("Get(%q): %d, %v, want fs.ErrNotExist", key, n, err)
	}
}

func (f *fixture) list(prefix string) map[string]int64 {
	f.t.Helper()
	got := map[string]int64{}
	err := f.List(f.t.Context(), prefix, func(key string, size int64) error {
		if _, twice := got[key]; twice {
			return fmt.Errorf("%q is listed twice", key)
		}
		got[key] = size
		return nil
	})
	if err != nil {
		f.t.Fatalf("List(%q): %v", prefix, err)
	}
	return got
}

func (f *fixture) lists(prefix string, want ...string) {
	f.t.Helper()
	if got := slices.Sorted(maps.Keys(f.list(prefix))); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		f.t.Fatalf("List(%q): %q, want %q", prefix, got, want)
	}
}

// content is n bytes that differ from those of another seed.
func content(seed uint64, n int) []byte {
	p := make([]byte, n)
	var s [32]byte
	s[0], s[1] = byte(seed), byte(seed>>8)
	rand.NewChaCha8(s).Read(p)
	return p
}
