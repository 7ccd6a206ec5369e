package backendtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"testing"

	"backy/store"
)

func testGet(t *testing.T, f *fixture) {
	for _, n := range []int64{0, 1, 2, 1000, 1<<20 + 1} {
		key := fmt.Sprintf("of/%d", n)
		want := content(uint64(n), int(n))
		f.put(key, want)
		for _, off := range []int64{0, 1, n - 1, n, n + 1, 2*n + 100, 1 << 40} {
			for _, length := range []int64{0, 1, n - 1, n, n + 1, n - off - 1, n - off, n - off + 1} {
				if off >= 0 && length >= 0 {
					f.reads(key, want, off, length)
				}
			}
		}
		for _, off := range []int64{-1, -n - 1, -1 << 62} {
			if _, err := f.Get(t.Context(), key, make([]byte, 1), off); err == nil || err == io.EOF {
				t.Errorf("Get of %d bytes at %d: %v, want an error", n, off, err)
			}
		}
	}
}

// reads compares one Get with the oracle: a bytes.Reader.
func (f *fixture) reads(key string, data []byte, off, length int64) {
	f.t.Helper()
	const untouched = 0xee
	got := bytes.Repeat([]byte{untouched}, int(length))
	want := bytes.Repeat([]byte{untouched}, int(length))
	n, err := f.Get(f.t.Context(), key, got, off)
	wantN, wantErr := bytes.NewReader(data).ReadAt(want, off)
	switch {
	case n != wantN:
		f.t.Errorf("Get of %d bytes at %d of %d: %d bytes, want %d", length, off, len(data), n, wantN)
	case n < len(got) && err != wantErr:
		f.t.Errorf("Get of %d bytes at %d of %d: %v, want a bare %v", length, off, len(data), err, wantErr)
	case n == len(got) && err != nil && err != io.EOF:
		f.t.Errorf("Get of %d bytes at %d of %d: %v", length, off, len(data), err)
	case !bytes.Equal(got[:n], want[:n]):
		f.t.Errorf("Get of %d bytes at %d of %d: wrong bytes", length, off, len(data))
	}
}

func testGetMissing(t *testing.T, f *fixture) {
	f.missing("a")
	f.missing("a/b/c")
	f.put("a/b/c", []byte("x"))
	for _, key := range []string{"a", "a/b", "a/b/d", "a/b/c/d", "a/b/cc"} {
		f.missing(key)
		if _, err := f.Get(t.Context(), key, nil, 0); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Get(%q) of nothing: %v, want fs.ErrNotExist", key, err)
		}
	}
}

func testGetConcurrent(t *testing.T, f *fixture) {
	const size, piece, readers = 1 << 20, 4099, 8
	want := content(1, size)
	f.put("k", want)
	var wg sync.WaitGroup
	for r := range readers {
		wg.Go(func() {
			p := make([]byte, piece)
			for off := int64(r * piece); off < size; off += readers * piece {
				n, err := f.Get(t.Context(), "k", p, off)
				if err != nil && err != io.EOF || !bytes.Equal(p[:n], want[off:off+int64(n)]) || n < piece && off+int64(n) != size {
					t.Errorf("at %d: %d, %v, or wrong bytes", off, n, err)
				}
			}
		})
	}
	wg.Wait()
}

func testList(t *testing.T, f *fixture) {
	f.lists("")
	f.lists("data/")
	keys := []string{"b.json", "da", "data/01/0", "data/01/1", "data/01/10", "data/02/1", "data2/01/1", "data.x", "e/f/g/h", "e/f2"}
	for i, key := range keys {
		f.put(key, content(0, i))
	}
	prefixes := []string{
		"", "b", "b.json", "b.json/", "b.jsonx", "d", "da", "dat", "data", "data/", "data/0", "data/01", "data/01/", "data/01/1",
		"data/01/10", "data/01/100", "data/1", "data2/", "data2", "e/f", "e/f/", "e/f/g/h", "e/f/g/h/", "E", "x", "x/y/z",
		"/", "/data", "..", "../", "data/../", "data//", ".", "./", "\x00", "\xff/", "*",
	}
	for _, prefix := range prefixes {
		want := map[string]int64{}
		for i, key := range keys {
			if len(key) >= len(prefix) && key[:len(prefix)] == prefix {
				want[key] = int64(i)
			}
		}
		if got := f.list(prefix); !maps.Equal(got, want) {
			t.Errorf("List(%q): %v, want %v", prefix, got, want)
		}
	}
}

func testListStops(t *testing.T, f *fixture) {
	for i := range 10 {
		f.put(fmt.Sprintf("a/%d/k", i))
	}
	for stopAt := range 10 {
		calls := 0
		stop := fmt.Errorf("stop: %w", fs.ErrNotExist)
		err := f.List(t.Context(), "a/", func(string, int64) error {
			if calls++; calls > stopAt {
				return stop
			}
			return nil
		})
		if !errors.Is(err, stop) || calls != stopAt+1 {
			t.Errorf("stopped at call %d: %d calls, %v", stopAt+1, calls, err)
		}
	}
}

func testListReenters(t *testing.T, f *fixture) {
	const objects = 1100 // more than a backend gets from a folder or a server at a time
	want := make([]string, objects)
	for i := range want {
		want[i] = fmt.Sprintf("a/b/%06d", i)
		f.put(want[i], content(0, i%3))
	}
	var got []string
	err := f.List(t.Context(), "a/", func(key string, size int64) error {
		got = append(got, key)
		f.put("b/" + key)
		f.delete(key)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%d objects listed, want each of %d once", len(got), objects)
	}
	f.lists("a/")
	if n := len(f.list("b/")); n != objects {
		t.Errorf("%d objects put meanwhile, want %d", n, objects)
	}
}

func testDelete(t *testing.T, f *fixture) {
	f.delete("none")
	f.delete("no/such/folder")
	f.put("a/b/1", []byte("1"))
	f.put("a/b/2", []byte("2"))
	f.delete("a/b/3")
	f.delete("a")
	f.delete("a/b")
	f.delete("a/b/1/x")
	f.lists("", "a/b/1", "a/b/2")
	f.delete("a/b/1")
	f.missing("a/b/1")
	f.delete("a/b/1")
	f.lists("", "a/b/2")
	f.holds("a/b/2", []byte("2"))
	f.delete("a/b/2")
	f.lists("")
}

// testConcurrent puts and deletes neighbours, so that folders come and go,
// while others list. Objects that stay must always be listed and readable.
func testConcurrent(t *testing.T, f *fixture) {
	const workers, rounds = 6, 60
	stay := []string{"c/stay/1", "c/stay/2", "c/3"}
	for _, key := range stay {
		f.put(key, []byte(key))
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				key := fmt.Sprintf("c/go/%d/%d", i%2, w)
				if err := f.Put(t.Context(), key, []byte(key)); err != nil {
					t.Error(err)
				}
				if got, err := f.read(key); err != nil || string(got) != key {
					t.Errorf("Get(%q): %q, %v", key, got, err)
				}
				if err := f.Delete(t.Context(), key); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range rounds {
				got := map[string]int64{}
				if err := f.List(t.Context(), "c/", func(key string, size int64) error { got[key] = size; return nil }); err != nil {
					t.Error(err)
				}
				for _, key := range stay {
					if got[key] != int64(len(key)) {
						t.Errorf("%s is not listed, or with %d bytes", key, got[key])
					}
				}
			}
		})
	}
	wg.Wait()
	f.lists("c/", stay...)
}

func testSync(t *testing.T, f *fixture) {
	s, ok := f.Backend.(store.Syncer)
	if !ok {
		return // what can be seen is durable
	}
	f.put("a/b/c", []byte("x"))
	if err := s.Sync(t.Context(), "a/b/c"); err != nil {
		t.Error(err)
	}
	for _, key := range []string{"a/b/d", "d/e", "a/b", "a/b/c/d"} {
		if err := s.Sync(t.Context(), key); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Sync(%q): %v, want fs.ErrNotExist", key, err)
		}
	}
	if err := s.Sync(t.Context(), "../a"); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("Sync of a bad key: %v, want fs.ErrInvalid", err)
	}
	f.holds("a/b/c", []byte("x"))
}
