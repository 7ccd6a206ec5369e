package hints

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// paint is the oracle: it says of each byte what extents cover it with. Data
// wins.
func paint(extents []Extent, size int64) []cover {
	bytes := make([]cover, size)
	for _, e := range extents {
		c := hole
		if e.Exists {
			c = data
		}
		for i := max(e.Offset, 0); i < min(e.End(), size); i++ {
			bytes[i] = max(bytes[i], c)
		}
	}
	return bytes
}

// drawExtents draws extents in any order, overlapping and touching.
func drawExtents(t *rapid.T, label string, size int64) []Extent {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Extent {
		offset := rapid.Int64Range(0, size-1).Draw(t, "offset")
		return Extent{
			Offset: offset,
			Length: rapid.Int64Range(1, min(size-offset, 24)).Draw(t, "length"),
			Exists: rapid.Bool().Draw(t, "exists"),
		}
	}), 0, 12).Draw(t, label)
}

// drawSeq draws ascending disjoint extents, not merged.
func drawSeq(t *rapid.T, label string, size int64) []Extent {
	var extents []Extent
	for pos := int64(0); pos < size; {
		pos += rapid.Int64Range(0, 9).Draw(t, label+" gap")
		length := rapid.Int64Range(1, 17).Draw(t, label+" length")
		if pos+length > size {
			break
		}
		extents = append(extents, Extent{pos, length, rapid.Bool().Draw(t, label+" exists")})
		pos += length
	}
	return extents
}

// mustBeMerged fails unless extents are what a merged Seq gives.
func mustBeMerged(t *rapid.T, extents []Extent) {
	for i, e := range extents {
		if e.Length <= 0 || i > 0 && e.Offset < extents[i-1].End() {
			t.Fatalf("not ascending and disjoint: %v", extents)
		}
		if i > 0 && e.Offset == extents[i-1].End() && e.Exists == extents[i-1].Exists {
			t.Fatalf("not merged: %v", extents)
		}
	}
}

func TestNormalizeCoversTheSameBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(1, 100).Draw(t, "size")
		extents := drawExtents(t, "extents", size)
		before := slices.Clone(extents)
		normal := Normalize(extents)
		mustBeMerged(t, normal)
		if !slices.Equal(paint(normal, size), paint(extents, size)) {
			t.Fatalf("other bytes: %v", normal)
		}
		if !slices.Equal(extents, before) {
			t.Fatalf("the argument was changed: %v", extents)
		}
	})
}

func TestNormalizeAtTheEdgesOfNumbers(t *testing.T) {
	for _, test := range []struct{ in, want []Extent }{
		{nil, nil},
		{[]Extent{{0, 0, true}, {5, -1, true}}, nil},
		{[]Extent{{-5, 7, true}, {-5, 5, true}, {math.MinInt64, math.MaxInt64, true}}, []Extent{{0, 2, true}}},
		{[]Extent{{math.MaxInt64 - 1, 5, true}, {math.MaxInt64, 5, true}}, []Extent{{math.MaxInt64 - 1, 1, true}}},
		{[]Extent{{0, math.MaxInt64, false}, {5, math.MaxInt64, true}}, []Extent{{0, 5, false}, {5, math.MaxInt64 - 5, true}}},
	} {
		if got := Normalize(test.in); !slices.Equal(got, test.want) {
			t.Errorf("%v: got %v, want %v", test.in, got, test.want)
		}
	}
}

func TestSetArithmetic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(1, 100).Draw(t, "size")
		a, b := drawSeq(t, "a", size), drawSeq(t, "b", size)
		cut := rapid.Int64Range(0, size+5).Draw(t, "cut")
		for _, op := range []struct {
			name string
			seq  Seq
			want func(i int64, a, b cover) cover
		}{
			{"union", Union(Of(a), Of(b)), func(_ int64, a, b cover) cover { return max(a, b) }},
			{"subtract", Subtract(Of(a), Of(b)), func(_ int64, a, b cover) cover {
				if b != nothing {
					return nothing
				}
				return a
			}},
			{"complement", Complement(Of(a), cut), func(i int64, a, _ cover) cover {
				if i >= cut || a != nothing {
					return nothing
				}
				return data
			}},
			{"clip", Clip(Of(a), cut), func(i int64, a, _ cover) cover {
				if i >= cut {
					return nothing
				}
				return a
			}},
		} {
			for range 2 { // a stream can be walked again
				got, err := Collect(op.seq)
				if err != nil {
					t.Fatalf("%s: %v", op.name, err)
				}
				mustBeMerged(t, got)
				painted := paint(got, size+5)
				pa, pb := paint(a, size+5), paint(b, size+5)
				for i := range painted {
					if want := op.want(int64(i), pa[i], pb[i]); painted[i] != want {
						t.Fatalf("%s: byte %d is %v, want %v: %v", op.name, i, painted[i], want, got)
					}
				}
			}
		}
	})
}

// paintRanges says of each chunk what ranges cover it with.
func paintRanges(ranges []Range, n int64) []cover {
	chunks := make([]cover, n)
	for _, r := range ranges {
		for i := r.First; i < r.End(); i++ {
			c := data
			if r.Hole {
				c = hole
			}
			chunks[i] = max(chunks[i], c)
		}
	}
	return chunks
}

// mustBeRanges fails unless ranges are ascending, disjoint and merged.
func mustBeRanges(t interface{ Fatalf(string, ...any) }, ranges []Range) {
	for i, r := range ranges {
		if r.Count <= 0 || r.First < 0 || i > 0 && r.First < ranges[i-1].End() {
			t.Fatalf("not ascending and disjoint: %v", ranges)
		}
		if i > 0 && r.First == ranges[i-1].End() && r.Hole == ranges[i-1].Hole {
			t.Fatalf("not merged: %v", ranges)
		}
	}
}

func collectRanges(seq iter.Seq2[Range, error]) (ranges []Range, err error) {
	for r, err := range seq {
		if err != nil {
			return ranges, err
		}
		ranges = append(ranges, r)
	}
	return ranges, nil
}

// naiveChunks is the definition of Chunks, byte by byte.
func naiveChunks(extents []Extent, chunk, size int64) []cover {
	bytes := paint(extents, size)
	chunks := make([]cover, (size+chunk-1)/chunk)
	for i := range chunks {
		part := bytes[int64(i)*chunk : min(int64(i+1)*chunk, size)]
		switch {
		case !slices.ContainsFunc(part, func(c cover) bool { return c != hole }):
			chunks[i] = hole
		case slices.ContainsFunc(part, func(c cover) bool { return c != nothing }):
			chunks[i] = data
		}
	}
	return chunks
}

func TestChunksAgreeWithTheirDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(0, 100).Draw(t, "size")
		chunk := rapid.Int64Range(1, 20).Draw(t, "chunk")
		extents := drawSeq(t, "extents", size)
		got, err := collectRanges(Chunks(Of(extents), chunk, size))
		if err != nil {
			t.Fatal(err)
		}
		mustBeRanges(t, got)
		want := naiveChunks(extents, chunk, size)
		if p := paintRanges(got, int64(len(want))); !slices.Equal(p, want) {
			t.Fatalf("got %v: %v, want %v", got, p, want)
		}
	})
}

func TestRangeArithmetic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(1, 100).Draw(t, "size")
		chunk := rapid.Int64Range(1, 9).Draw(t, "chunk")
		n := (size + chunk - 1) / chunk
		paintedOf := func(seq iter.Seq2[Range, error]) []cover {
			ranges, err := collectRanges(seq)
			if err != nil {
				t.Fatal(err)
			}
			mustBeRanges(t, ranges)
			return paintRanges(ranges, n)
		}
		a := Chunks(Of(drawSeq(t, "a", size)), chunk, size)
		b := Chunks(Of(drawSeq(t, "b", size)), chunk, size)
		pa, pb := paintedOf(a), paintedOf(b)
		merged, subtracted := paintedOf(MergeRanges(a, b)), paintedOf(SubtractRanges(a, b))
		for i := range n {
			if want := max(pa[i], pb[i]); merged[i] != want {
				t.Fatalf("merged: chunk %d is %v, want %v", i, merged[i], want)
			}
			want := pa[i]
			if pb[i] != nothing {
				want = nothing
			}
			if subtracted[i] != want {
				t.Fatalf("subtracted: chunk %d is %v, want %v", i, subtracted[i], want)
			}
		}
	})
}

func FuzzChunks(f *testing.F) {
	f.Add([]byte{}, int64(4), int64(0))
	f.Add([]byte{0, 4, 1, 0, 4, 0, 3, 9, 1}, int64(4), int64(20))
	f.Add([]byte{0, 3, 0, 0, 5, 0}, int64(8), int64(8))
	f.Add([]byte{0, 3, 0, 255, 5, 0}, int64(8), int64(8))
	f.Fuzz(func(t *testing.T, coded []byte, chunk, size int64) {
		chunk, size = chunk&0x3f, size&0x7ff // the oracle goes byte by byte
		var extents []Extent
		valid, pos := chunk > 0, int64(0)
		for ; len(coded) >= 3; coded = coded[3:] {
			e := Extent{pos + int64(int8(coded[0])), int64(int8(coded[1])), coded[2]&1 == 1}
			valid = valid && e.Offset >= pos && e.Length > 0 && e.End() <= size
			extents = append(extents, e)
			pos = e.End()
		}
		got, err := collectRanges(Chunks(Of(extents), chunk, size))
		if (err == nil) != valid {
			t.Fatalf("%v: valid %t, but error %v", extents, valid, err)
		}
		mustBeRanges(t, got)
		if !valid {
			return
		}
		want := naiveChunks(extents, chunk, size)
		if p := paintRanges(got, int64(len(want))); !slices.Equal(p, want) {
			t.Fatalf("%v in chunks of %d: got %v, want %v", extents, chunk, p, want)
		}
	})
}

// failing gives extents, then an error, and counts how often it was let go of.
func failing(extents []Extent, err error, released *int) Seq {
	return func(yield func(Extent, error) bool) {
		defer func() { *released++ }()
		for _, e := range extents {
			if !yield(e, nil) {
				return
			}
		}
		if err != nil && yield(Extent{}, err) {
			panic("walked on behind the error")
		}
	}
}

func TestErrorsEndStreamsAndAreNotLost(t *testing.T) {
	broken := errors.New("broken")
	good := []Extent{{0, 4, true}, {8, 4, true}, {16, 4, false}}
	for name, op := range map[string]func(a, b Seq) error{
		"union":      func(a, b Seq) error { _, err := Collect(Union(a, b)); return err },
		"subtract":   func(a, b Seq) error { _, err := Collect(Subtract(a, b)); return err },
		"complement": func(a, b Seq) error { _, err := Collect(Complement(Union(a, b), 100)); return err },
		"clip":       func(a, b Seq) error { _, err := Collect(Clip(Union(a, b), 100)); return err },
		"chunks":     func(a, b Seq) error { _, err := collectRanges(Chunks(Union(a, b), 4, 100)); return err },
		"ranges": func(a, b Seq) error {
			_, err := collectRanges(MergeRanges(Chunks(a, 4, 100), Chunks(b, 4, 100)))
			return err
		},
	} {
		var a, b int
		if err := op(failing(good, nil, &a), failing(good, broken, &b)); !errors.Is(err, broken) {
			t.Errorf("%s: second stream's error: got %v", name, err)
		}
		if err := op(failing(good, broken, &a), failing(good, nil, &b)); !errors.Is(err, broken) {
			t.Errorf("%s: first stream's error: got %v", name, err)
		}
		if a != 2 || b != 2 {
			t.Errorf("%s: let go of the streams %d and %d times, want 2", name, a, b)
		}
	}
}

func TestBreakingOffLetsGoOfTheStreams(t *testing.T) {
	good := []Extent{{0, 4, true}, {8, 4, true}, {16, 4, false}}
	var a, b int
	for range Union(failing(good, nil, &a), failing(good, nil, &b)) {
		break
	}
	for range Chunks(failing(good, nil, &a), 4, 100) {
		break
	}
	for range MergeRanges(Chunks(failing(good, nil, &a), 4, 100), Chunks(failing(good, nil, &b), 4, 100)) {
		break
	}
	if a != 3 || b != 2 {
		t.Errorf("let go of %d and %d streams, want 3 and 2", a, b)
	}
}

func TestChunksNamesTheExtentItRefuses(t *testing.T) {
	for _, test := range []struct {
		extents []Extent
		want    string
	}{
		{[]Extent{{0, 10, true}, {10, 11, true}}, "extent 10+11: reaches beyond the image's end at 20"},
		{[]Extent{{20, 1, true}}, "extent 20+1: reaches beyond the image's end at 20"},
		{[]Extent{{5, math.MaxInt64, true}}, fmt.Sprintf("extent 5+%d: reaches beyond the image's end at 20", int64(math.MaxInt64))},
		{[]Extent{{-1, 5, true}}, "extent -1+5: begins before the image"},
		{[]Extent{{5, 0, true}}, "extent 5+0: has no length"},
		{[]Extent{{0, 6, true}, {5, 2, false}}, "extent 5+2: begins before the end of the extent ahead of it, 0+6"},
		{[]Extent{{10, 2, true}, {0, 2, true}}, "extent 0+2: begins before the end of the extent ahead of it, 10+2"},
	} {
		_, err := collectRanges(Chunks(Of(test.extents), 4, 20))
		if err == nil || err.Error() != test.want {
			t.Errorf("%v: got %v, want %s", test.extents, err, test.want)
		}
	}
	for _, test := range []struct{ chunk, size int64 }{{0, 10}, {-4, 10}, {4, -1}} {
		if _, err := collectRanges(Chunks(Of(nil), test.chunk, test.size)); err == nil {
			t.Errorf("chunk %d, size %d: no error", test.chunk, test.size)
		}
	}
}

func TestChunksOfTheLargestImage(t *testing.T) {
	const size = math.MaxInt64
	got, err := collectRanges(Chunks(Of([]Extent{{0, size - 1, false}, {size - 1, 1, false}}), 65536, size))
	if want := []Range{{0, 1 << 47, true}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

func TestCheck(t *testing.T) {
	for _, test := range []struct {
		extent Extent
		fits   bool
	}{
		{Extent{0, 100, true}, true},
		{Extent{99, 1, true}, true},
		{Extent{0, 101, true}, false},
		{Extent{99, 2, false}, false},
		{Extent{100, 1, true}, false},
		{Extent{1, math.MaxInt64, true}, false},
		{Extent{-1, 1, true}, false},
		{Extent{0, 0, true}, false},
	} {
		err := Check([]Extent{{0, 1, true}, test.extent, {0, 1000, true}}[:2], 100)
		var bounds *BoundsError
		switch {
		case test.fits && err != nil:
			t.Errorf("%v: %v", test.extent, err)
		case !test.fits && (!errors.As(err, &bounds) || bounds.Extent != test.extent || bounds.Size != 100):
			t.Errorf("%v: got %v", test.extent, err)
		}
	}
}
