package backendtest

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
)

func testParts(t *testing.T, f *fixture) {
	many := make([][]byte, 5000)
	for i := range many {
		many[i] = content(uint64(i), i%7)
	}
	for key, parts := range map[string][][]byte{
		"none":        nil,
		"one/nil":     {nil},
		"one/empty":   {{}},
		"one/byte":    {{0}},
		"some/empty":  {nil, []byte("a"), {}, []byte("bc"), nil},
		"some/larger": {content(1, 1), content(2, 1<<20+1), content(3, 4095)},
		"many":        many,
	} {
		f.put(key, parts...)
		f.holds(key, slices.Concat(parts...))
		if size := f.list(key)[key]; size != int64(len(slices.Concat(parts...))) {
			t.Errorf("%s is listed with %d bytes", key, size)
		}
	}
}

func testLarge(t *testing.T, f *fixture) {
	p := content(1, 40<<20)
	f.put("large", p[:32<<20], p[32<<20:])
	f.holds("large", p)
}

func testPartsAreCopied(t *testing.T, f *fixture) {
	parts := [][]byte{content(1, 100), content(2, 100)}
	want := slices.Concat(parts...)
	array := append(parts, content(3, 1))
	f.put("k", array[:2]...)
	if !bytes.Equal(array[2], content(3, 1)) {
		t.Error("Put wrote to the slice of parts")
	}
	clear(parts[0])
	clear(parts[1])
	f.holds("k", want)
}

func testKeys(t *testing.T, f *fixture) {
	keys := []string{
		"backy.json", "a", "a%2Fb", "a%", "two words", " ", "tab\there", "new\nline", "größe/日本語/🦀", "e\u0301", "\u00e9",
		"back\\slash", "*?[a]", "$HOME", "-rf", "~", ".hidden", "...", "..a", "a..", "a.", "tmp-1", "x/.tmp", `"quoted"'`, "&<>#;|",
		"deep/" + strings.Repeat("d/", 20) + "end", strings.Repeat("n", 255), "CON", "data/0123456789abcdef/00000000.1",
	}
	for i, key := range keys {
		f.put(key, content(uint64(i), i))
	}
	for i, key := range keys {
		f.holds(key, content(uint64(i), i))
	}
	f.lists("", keys...)
	for _, key := range keys {
		f.delete(key)
	}
	f.lists("")
}

func testBadKeys(t *testing.T, f *fixture) {
	c := t.Context()
	for _, key := range []string{
		"", ".", "..", "/", "/a", "a/", "a//b", "a/./b", "a/../b", "../a", "a/..", "./a", "a\x00b", "\xff",
		".tmp-1", "a/.tmp-x/b", ".nfs0001",
	} {
		_, getErr := f.Get(c, key, make([]byte, 1), 0)
		for call, err := range map[string]error{"Put": f.Put(c, key, []byte("x")), "Get": getErr, "Delete": f.Delete(c, key)} {
			if !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%s(%q): %v, want fs.ErrInvalid", call, key, err)
			}
		}
	}
	f.lists("")
}

func testPutExisting(t *testing.T, f *fixture) {
	for _, was := range [][]byte{[]byte("first"), nil} {
		key := "k/" + string(was) + "x"
		f.put(key, was)
		for _, p := range [][]byte{[]byte("first"), []byte("second, longer"), nil} {
			if err := f.Put(t.Context(), key, p); !errors.Is(err, fs.ErrExist) {
				t.Errorf("Put over an object: %v, want fs.ErrExist", err)
			}
		}
		f.holds(key, was)
	}
}

func testPutRace(t *testing.T, f *fixture) {
	const rounds, racers = 20, 16
	for round := range rounds {
		key := "race/" + string(rune('a'+round)) + "/k"
		errs := make([]error, racers)
		var wg sync.WaitGroup
		for i := range racers {
			wg.Go(func() { errs[i] = f.Put(t.Context(), key, content(uint64(i), 1000+i), content(uint64(i), 10)) })
		}
		wg.Wait()
		winner := slices.Index(errs, nil)
		if winner < 0 {
			t.Fatalf("nobody won: %v", errs[0])
		}
		for i, err := range errs {
			if i != winner && !errors.Is(err, fs.ErrExist) {
				t.Errorf("racer %d of %d, %d won: %v, want fs.ErrExist", i, racers, winner, err)
			}
		}
		f.holds(key, slices.Concat(content(uint64(winner), 1000+winner), content(uint64(winner), 10)))
	}
	if n := len(f.list("race/")); n != rounds {
		t.Errorf("%d objects, want %d", n, rounds)
	}
}

// testPutIsAtomic reads and lists objects while they are put.
func testPutIsAtomic(t *testing.T, f *fixture) {
	const rounds, size = 20, 256 << 10
	want := content(1, size)
	for round := range rounds {
		key := "atomic/" + string(rune('a'+round))
		done := make(chan error, 1)
		go func() { done <- f.Put(t.Context(), key, want[:size/2], want[size/2:]) }()
		for seen, over := false, false; !seen || !over; {
			select {
			case err := <-done:
				if over = true; err != nil {
					t.Fatal(err)
				}
			default:
			}
			listed := f.list("atomic/")
			if n, ok := listed[key]; ok && n != size {
				t.Fatalf("listed with %d of %d bytes", n, size)
			}
			p, err := f.read(key)
			if err == nil && !bytes.Equal(p, want) {
				t.Fatalf("%d of %d bytes were to be read", len(p), size)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			if over && err != nil {
				t.Fatal("not to be read after Put returned:", err)
			}
			seen = err == nil
		}
	}
}

func testPutAgain(t *testing.T, f *fixture) {
	for i := range 5 {
		f.put("a/b/c", content(uint64(i), i))
		f.holds("a/b/c", content(uint64(i), i))
		f.delete("a/b/c")
		f.missing("a/b/c")
	}
}

func testCancelledBefore(t *testing.T, f *fixture) {
	f.put("old", []byte("x"))
	c, cancel := context.WithCancelCause(t.Context())
	why := errors.New("why")
	cancel(why)
	_, getErr := f.Get(c, "old", make([]byte, 1), 0)
	for call, err := range map[string]error{
		"Put":    f.Put(c, "new", []byte("x")),
		"Get":    getErr,
		"Delete": f.Delete(c, "old"),
		"List":   f.List(c, "", func(string, int64) error { t.Error("listed"); return nil }),
	} {
		if !errors.Is(err, why) {
			t.Errorf("%s: %v, want the cause of the cancelled context", call, err)
		}
	}
	f.lists("", "old")
}

func testCancelledMeanwhile(t *testing.T, f *fixture) {
	parts := make([][]byte, 200)
	for i := range parts {
		parts[i] = content(uint64(i), 4096)
	}
	for round := range 30 {
		key := "cancelled/" + string(rune('a'+round))
		c, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- f.Put(c, key, parts...) }()
		for range round * 20 {
			f.list("none")
		}
		cancel()
		if err := <-done; err == nil {
			f.holds(key, slices.Concat(parts...))
		} else if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		} else if p, err := f.read(key); err == nil && !bytes.Equal(p, slices.Concat(parts...)) {
			t.Fatalf("%d bytes are left", len(p))
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}
