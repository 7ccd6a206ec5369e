package engine_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"backy/engine"
	"backy/engine/local"
	"backy/hints"
	"backy/store"
)

// filled are bytes of which the named chunks are not zero; letters say what they
// hold, a dot a hole.
func filled(pattern string, chunk, cut int) []byte {
	data := make([]byte, len(pattern)*chunk)
	for i, c := range pattern {
		if c != '.' {
			for j := range chunk {
				data[i*chunk+j] = byte(c) + byte(j%7)
			}
		}
	}
	return data[:len(data)-cut]
}

// What becomes a hole, or is cut off, has changed; it is told apart, and how much
// the level holds is known, however it was found out.
func TestHolesCount(t *testing.T) {
	const chunk = 16 << 10
	hole := func(first, count int64) hints.Extent {
		return hints.Extent{Offset: first * chunk, Length: count * chunk}
	}
	data := func(first, count int64) hints.Extent {
		return hints.Extent{Offset: first * chunk, Length: count * chunk, Exists: true}
	}
	type source func(image []byte) engine.Source
	read := func(b []byte) engine.Source { return &image{data: b} }
	pipe := func(b []byte) engine.Source {
		return local.NewPipe(bytes.NewReader(b), local.PipeOptions{})
	}
	named := func(outside engine.Outside, extents ...hints.Extent) source {
		return func(b []byte) engine.Source {
			return &image{data: b, outside: outside, changed: append([]hints.Extent{}, extents...)}
		}
	}
	for _, tt := range []struct {
		what                   string
		before, after          string
		cut                    int // bytes off the end of after
		source                 source
		changed, emptied, data int64 // chunks
		rest                   int64 // bytes less
	}{
		{"zeros are read", "abcd", "a..d", 0, read, 2, 2, 2, 0},
		{"a pipe of zeros", "abcd", "a..d", 0, pipe, 2, 2, 2, 0},
		{"holes are named", "abcd", "a..d", 0, named(engine.Unchanged, hole(1, 2)), 2, 2, 2, 0},
		{"what is not named is a hole", "abcd", "a..d", 0, named(engine.Hole, data(0, 1), data(3, 1)), 2, 2, 2, 0},
		{"all of it", "abcd", "....", 0, named(engine.Unchanged, hole(0, 4)), 4, 4, 0, 0},
		{"all of it, by an empty list", "abcd", "....", 0, named(engine.Hole), 4, 4, 0, 0},
		{"holes that were holes", "a..d", "a..d", 0, named(engine.Unchanged, hole(1, 2)), 0, 0, 2, 0},
		{"overwritten and emptied", "abcd", "x.y.", 0, named(engine.Unchanged, data(0, 1), hole(1, 1), data(2, 1), hole(3, 1)), 4, 2, 2, 0},
		{"new where a hole was", "a..d", "axyd", 0, read, 2, 0, 4, 0},
		{"cut off", "abcd", "ab", 0, read, 2, 2, 2, 0},
		{"a pipe that is shorter", "abcd", "ab", 0, pipe, 2, 2, 2, 0},
		{"cut off without being named", "abcd", "ab", 0, named(engine.Unchanged), 2, 2, 2, 0},
		{"cut to nothing", "abcd", "", 0, named(engine.Unchanged), 4, 4, 0, 0},
		{"cut inside a chunk", "abcd", "abc", 5, read, 2, 1, 3, 5},
		{"grown", "abcd", "abcdef", 0, read, 2, 0, 6, 0},
		{"beyond the old end", "abcd", "abcd..", 0, named(engine.Unchanged, hole(4, 2)), 0, 0, 4, 0},
	} {
		t.Run(tt.what, func(t *testing.T) {
			r, _ := newRepository(t, chunk)
			first := mustBackup(t, r, "x", &image{data: filled(tt.before, chunk, 0)})
			if s := first.Stats; s.Emptied != 0 || s.Data != int64(strings.Count(strings.ReplaceAll(tt.before, ".", ""), ""))*chunk-chunk {
				t.Errorf("the first level: %+v", s)
			}
			after := filled(tt.after, chunk, tt.cut)
			l := mustBackup(t, r, "x", tt.source(after))
			checkLevel(t, r, l, after)
			s := l.Stats
			if s.Changed != tt.changed*chunk-tt.rest || s.Emptied != tt.emptied*chunk || s.Data != tt.data*chunk {
				t.Errorf("changed %d, emptied %d, data %d bytes, want %d, %d, %d chunks", s.Changed, s.Emptied, s.Data, tt.changed, tt.emptied, tt.data)
			}
		})
	}
}

// Over random histories the figures are what comparing the images tells.
func TestHolesCountProperty(t *testing.T) {
	const chunk, most = 16 << 10, 300
	random := rand.New(rand.NewPCG(16, 3))
	r, _ := newRepository(t, chunk)
	var last string
	for round := range 60 {
		next := []byte(last)
		for range random.IntN(4) {
			at, n := random.IntN(most), 1+random.IntN(most/2)
			switch random.IntN(4) {
			case 0:
				next = next[:min(len(next), at)]
			case 1:
				next = append(next, bytes.Repeat([]byte{byte('.')}, min(n, most-len(next)))...)
			default:
				b := ".abcdefgh"[random.IntN(9)]
				for i := at; i < min(at+n, len(next)); i++ {
					next[i] = b
				}
			}
		}
		want := store.Stats{}
		var extents []hints.Extent
		for i := range max(len(last), len(next)) {
			was, is := byte('.'), byte('.')
			if i < len(last) {
				was = last[i]
			}
			if i < len(next) {
				is = next[i]
			}
			if is != '.' {
				want.Data += chunk
			}
			if was == is {
				continue
			}
			want.Changed += chunk
			if is == '.' {
				want.Emptied += chunk
			}
			if i < len(next) {
				extents = append(extents, hints.Extent{Offset: int64(i) * chunk, Length: chunk, Exists: is != '.'})
			}
		}
		src := &image{data: filled(string(next), chunk, 0)}
		if random.IntN(3) > 0 {
			src.outside, src.changed = engine.Unchanged, append([]hints.Extent{}, extents...)
		}
		if len(last) == 0 {
			src.changed = nil
		}
		l := mustBackup(t, r, "x", src)
		if s := l.Stats; s.Changed != want.Changed || s.Emptied != want.Emptied || s.Data != want.Data {
			t.Fatalf("round %d, %d to %d chunks: changed %d, emptied %d, data %d, want %d, %d, %d", round, len(last), len(next),
				s.Changed, s.Emptied, s.Data, want.Changed, want.Emptied, want.Data)
		}
		last = string(next)
	}
}

// A disk that is wiped by discards is reported, also if most of it was empty and
// there are hardly any levels; one that is emptied every night is not.
func TestWiped(t *testing.T) {
	const chunk = 16 << 10
	full, empty := strings.Repeat("ab", 50)+strings.Repeat(".", 1900), strings.Repeat(".", 2000)
	wiped := func(what string, want bool, images ...string) {
		t.Helper()
		r, _ := newRepository(t, chunk)
		var warned []string
		for _, i := range images {
			warned = nil
			src := &image{data: filled(i, chunk, 0)}
			if i == empty {
				src.outside, src.changed = engine.Unchanged, []hints.Extent{{Length: int64(len(src.data))}}
			}
			_, err := engine.Backup(t.Context(), r, "x", src, engine.BackupOptions{Warn: func(f string, a ...any) { warned = append(warned, fmt.Sprintf(f, a...)) }})
			if err != nil {
				t.Fatal(err)
			}
		}
		if got := strings.Contains(strings.Join(warned, "\n"), "100 % of what the image held is gone"); got != want {
			t.Errorf("%s: %q", what, warned)
		}
	}
	wiped("the second level", true, full, empty)
	wiped("after quiet nights", true, full, full, full, full, full, full, full, empty)
	wiped("nothing was there", false, empty, empty)
	wiped("it is gone already", false, full, empty, empty)
	wiped("every second night", false, full, empty, full, empty)
}
