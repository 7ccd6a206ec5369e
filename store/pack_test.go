package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
)

func testTime() time.Time { return time.Unix(1_700_000_000, 0) }

// sealed returns a pack of the given raw chunks.
func sealed(t testing.TB, r *Repository, chunks ...[]byte) []byte {
	t.Helper()
	b := &packBuilder{id: PackID{Run: 7, Seq: 3}}
	c := r.NewCoder(CompressZstd)
	for _, raw := range chunks {
		e, err := c.Encode(raw, Sum(raw))
		if err != nil {
			t.Fatal(err)
		}
		b.append(e, FrameChunk)
	}
	return bytes.Join(b.seal(KindData, r, 2), nil)
}

// The header and the table tell of a pack what was put in.
func TestPackTable(t *testing.T) {
	r := testRepository(t, 64)
	chunks := [][]byte{{1}, bytes.Repeat([]byte{2}, 16<<10), {}}
	p := sealed(t, r, chunks...)
	h, err := decodePackHeader(p)
	if err != nil {
		t.Fatal(err)
	}
	want := packHeader{
		Kind: KindData, ChunkSize: r.ChunkSize, Fanout: 64, Repository: r.ID, Pack: PackID{Run: 7, Seq: 3}, Generation: 2,
		Entries: 3, Length: int64(len(p)), TableCRC: h.TableCRC,
	}
	if h != want {
		t.Errorf("header %+v instead of %+v", h, want)
	}
	entries, err := decodeTable(&h, p[packHeaderSize:packHeaderSize+3*entrySize])
	if err != nil {
		t.Fatal(err)
	}
	for i := range entries {
		stored, err := checkFrame(p[entries[i].Offset:], uint32(i), &entries[i], 16<<10)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := r.NewCoder(CompressZstd).Decode(nil, Encoded{Raw: entries[i].Raw, Codec: entries[i].Codec, Stored: stored})
		if err != nil || !bytes.Equal(raw, chunks[i]) || entries[i].Sum != Sum(raw) {
			t.Errorf("chunk %d: %v", i, err)
		}
	}
}

// A version to come is its own error.
func TestPackVersion(t *testing.T) {
	r := testRepository(t, 64)
	h := packHeader{Kind: KindData, ChunkSize: r.ChunkSize, Fanout: 64, Length: packHeaderSize}
	p := h.appendTo(nil)
	p[8] = 2
	var format *FormatError
	if _, err := decodePackHeader(reseal(p)); !errors.As(err, &format) {
		t.Errorf("version 2: %v", err)
	}
}

func FuzzDecodePackHeader(f *testing.F) {
	r := testRepository(f, 64)
	f.Add(sealed(f, r, []byte("chunk"))[:packHeaderSize])
	f.Fuzz(func(t *testing.T, p []byte) {
		h, err := decodePackHeader(reseal(bytes.Clone(p)))
		if err != nil {
			return
		}
		again, err := decodePackHeader(h.appendTo(nil))
		if err != nil || again != h {
			t.Fatalf("%+v became %+v: %v", h, again, err)
		}
	})
}

func FuzzDecodeTable(f *testing.F) {
	r := testRepository(f, 64)
	p := sealed(f, r, []byte("one"), bytes.Repeat([]byte("two"), 1000))
	f.Add(p[packHeaderSize:packHeaderSize+2*entrySize], uint32(2), int64(len(p)))
	f.Fuzz(func(t *testing.T, p []byte, entries uint32, length int64) {
		h := packHeader{Kind: KindData, ChunkSize: 64 << 10, Entries: entries % 100, Length: length, TableCRC: crcOf(p)}
		table, err := decodeTable(&h, p)
		if err != nil {
			if !errors.Is(err, errBadPack) {
				t.Fatalf("another error: %v", err)
			}
			return
		}
		for i := range table {
			if e := &table[i]; e.Codec != Absent && (e.Raw > 64<<10 || e.Offset < packHeaderSize || e.end() > length) {
				t.Fatalf("entry %d: %+v in a pack of %d", i, e, length)
			}
		}
	})
}

// Whatever the bytes, scanning ends, and what it finds has its CRC.
func FuzzScanFrames(f *testing.F) {
	r := testRepository(f, 64)
	f.Add(sealed(f, r, []byte("one"), bytes.Repeat([]byte("two"), 1000)))
	f.Fuzz(func(t *testing.T, p []byte) {
		c := newCoder(64<<10, CompressZstd)
		for _, frames := range scanFrames(p, 64<<10) {
			for _, frame := range frames {
				if crcOf(frame.stored) != frame.entry.CRC {
					t.Fatal("a frame without its CRC")
				}
				raw, err := c.Decode(nil, Encoded{Raw: frame.entry.Raw, Codec: frame.entry.Codec, Stored: frame.stored})
				if err == nil && len(raw) != frame.entry.Raw {
					t.Fatal("another length")
				}
			}
		}
	})
}

// What does not shrink is kept raw; what does comes back as it was.
func TestCoder(t *testing.T) {
	noise := make([]byte, 64<<10)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	codecs := map[Compression]Codec{CompressZstd: Zstd, CompressS2: S2, CompressNone: Raw}
	for compression, codec := range codecs {
		c := newCoder(64<<10, compression)
		for _, test := range []struct {
			raw   []byte
			codec Codec
		}{
			{nil, Raw},
			{[]byte{1}, Raw},
			{noise, Raw},
			{bytes.Repeat([]byte("backy"), 10000), codec},
			{append(make([]byte, 32<<10), noise[:32<<10]...), codec},
		} {
			e, err := c.Encode(test.raw, Sum(test.raw))
			if err != nil || e.Codec != test.codec {
				t.Errorf("%s, %d bytes: codec %d, %v", compression, len(test.raw), e.Codec, err)
			}
			raw, err := newCoder(64<<10, CompressZstd).Decode([]byte("before"), e)
			if err != nil || !bytes.Equal(raw, append([]byte("before"), test.raw...)) {
				t.Errorf("%s, %d bytes do not come back: %v", compression, len(test.raw), err)
			}
		}
	}
}

// A frame that would decode to more than its entry says is refused before the
// memory is taken.
func TestDecodeIsBounded(t *testing.T) {
	big, err := newCoder(4<<20, CompressZstd).Encode(make([]byte, 4<<20), Checksum{})
	if err != nil {
		t.Fatal(err)
	}
	c := newCoder(64<<10, CompressZstd)
	for _, raw := range []int{-1, 0, 100, 64 << 10, 64<<10 + 1, 4 << 20} {
		big.Raw = raw
		if p, err := c.Decode(nil, big); err == nil || cap(p) > 256<<10 {
			t.Errorf("raw length %d: %d bytes, %v", raw, cap(p), err)
		}
	}
}

// Frames of a format before RFC 8878 are none, though libzstd knows some.
func TestDecodeKnowsOneFormat(t *testing.T) {
	old := []byte("\x27\xb5\x2f\xfd\x20\x05\x40\x00\x05hello\xc0\x00\x00") // zstd 0.7: a raw block
	p, err := newCoder(64<<10, CompressZstd).Decode(nil, Encoded{Raw: 5, Codec: Zstd, Stored: old})
	if err == nil {
		t.Errorf("decoded to %q", p)
	}
}

func FuzzDecode(f *testing.F) {
	e, err := newCoder(64<<10, CompressZstd).Encode(bytes.Repeat([]byte("backy"), 1000), Checksum{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(byte(Zstd), e.Stored, 5000)
	f.Add(byte(S2), s2.Encode(nil, bytes.Repeat([]byte("backy"), 1000)), 5000)
	c := newCoder(64<<10, CompressZstd)
	f.Fuzz(func(t *testing.T, codec byte, stored []byte, raw int) {
		p, err := c.Decode(nil, Encoded{Codec: Codec(codec), Stored: stored, Raw: raw})
		if err == nil && len(p) != raw || cap(p) > 1<<20 {
			t.Fatalf("%d bytes, cap %d, instead of %d: %v", len(p), cap(p), raw, err)
		}
	})
}

// JSON objects are refused when a byte is not as it was.
func TestEnvelope(t *testing.T) {
	type body struct{ A, B string }
	p, err := encodeObject("thing", body{"x", "<&>"})
	if err != nil || !json.Valid(p) {
		t.Fatalf("%s: %v", p, err)
	}
	var got body
	if err := decodeObject(p, "thing", &got); err != nil || got != (body{"x", "<&>"}) {
		t.Fatalf("%+v: %v", got, err)
	}
	if err := decodeObject(p, "other", &got); !errors.Is(err, errBadObject) {
		t.Errorf("another type: %v", err)
	}
	for i := range p {
		bad := bytes.Clone(p)
		bad[i] ^= 2
		got = body{}
		if err := decodeObject(bad, "thing", &got); err == nil && got != (body{"x", "<&>"}) {
			t.Errorf("byte %d changed, and it reads %+v", i, got)
		}
	}
	for i := range p {
		if err := decodeObject(p[:i], "thing", &got); err == nil && i < len(p)-1 {
			t.Errorf("cut at %d, and it reads", i)
		}
	}
	if err := decodeObject(append(p, 'x'), "thing", &got); !errors.Is(err, errBadObject) {
		t.Errorf("more behind it: %v", err)
	}
}

func FuzzLevelRecord(f *testing.F) {
	l := Level{Name: "vms/web1", Number: 1, Run: 5, Size: 1, ChunkSize: 64 << 10, Fanout: 64}
	p, err := encodeObject("level", &l)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p)
	f.Fuzz(func(t *testing.T, p []byte) {
		var l Level
		if decodeObject(p, "level", &l) == nil && l.Validate() != nil {
			t.Fatal("an invalid level was decoded")
		}
	})
}

// A chunk is served from whatever generation has it.
func TestGenerations(t *testing.T) {
	ctx := context.Background()
	r := testRepository(t, 64)
	id := PackID{Run: 7, Seq: 3}
	chunks := [][]byte{{1}, {2}, {3}}
	good := map[uint32]Encoded{}
	var refs []Ref
	for i, raw := range chunks {
		e, err := r.NewCoder(CompressZstd).Encode(raw, Sum(raw))
		if err != nil {
			t.Fatal(err)
		}
		good[uint32(i)] = e
		refs = append(refs, Ref{Sum: Sum(raw), Pack: id, Index: uint32(i)})
	}
	read := func() (bad int) {
		t.Helper()
		err := r.Fetch(ctx, KindData, refs, func(i int, raw []byte, err error) error {
			if err != nil {
				bad++
			} else if !bytes.Equal(raw, chunks[i]) {
				t.Errorf("chunk %d is %v", i, raw)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return bad
	}
	if bad := read(); bad != 3 {
		t.Errorf("without a pack, %d chunks are bad", bad)
	}
	// The pack is lost and comes back chunk by chunk, each mend on top of the last.
	for i := range uint32(3) {
		stored, complete, err := r.mendPack(ctx, KindData, dataPrefix, id, map[uint32]Encoded{i: good[i]}, always)
		if err != nil || stored == 0 {
			t.Fatal(stored, complete, err)
		}
		if bad := read(); bad != 2-int(i) {
			t.Errorf("after mend %d, %d chunks are bad", i, bad)
		}
	}
	generations, err := r.listGenerations(ctx, dataPrefix, id)
	if err != nil || len(generations) == 0 {
		t.Fatal(generations, err)
	}
	// A frame that cannot be read now is not thrown away with its generation.
	newest := packKey(dataPrefix, id, generations[0])
	p, err := readAll(ctx, r.backend, newest, maxPackBytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range generations {
		if err := r.backend.Delete(ctx, packKey(dataPrefix, id, g)); err != nil {
			t.Fatal(err)
		}
	}
	p[len(p)-1] ^= 1
	if err := r.backend.Put(ctx, newest, p); err != nil {
		t.Fatal(err)
	}
	if _, complete, err := r.mendPack(ctx, KindData, dataPrefix, id, map[uint32]Encoded{0: good[0]}, always); complete || err != nil {
		t.Errorf("complete without chunk 2: %v", err)
	}
	if _, err := readAll(ctx, r.backend, newest, maxPackBytes); err != nil {
		t.Errorf("the generation with the unreadable frame is gone: %v", err)
	}
}

// What is compressed goes into the room that is given where that is sure to
// hold it, and never beyond its capacity; the raw bytes stay as they are.
func TestEncodeInto(t *testing.T) {
	const size = 16 << 10
	text := bytes.Repeat([]byte("a block that shrinks "), size/16)[:size]
	random := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(random)
	for _, compression := range []Compression{CompressZstd, CompressS2, CompressNone} {
		for _, raw := range [][]byte{text, random, text[:1], append(slices.Clone(random[:size/2]), text[:size/2]...)} {
			for _, room := range []int{0, 1, len(raw) / 2, len(raw), len(raw) + len(raw)/4 + 100} {
				c := newCoder(size, compression)
				want, err := c.Encode(raw, Sum(raw))
				if err != nil {
					t.Fatal(err)
				}
				want.Stored = slices.Clone(want.Stored)
				before, memory := slices.Clone(raw), bytes.Repeat([]byte{0xa5}, 2*size)
				got, err := c.EncodeInto(memory[:0:room], raw, Sum(raw))
				if err != nil {
					t.Fatal(err)
				}
				if got.Codec != want.Codec || got.CRC != want.CRC || !bytes.Equal(got.Stored, want.Stored) {
					t.Errorf("%s, %d bytes, room for %d: encoded otherwise than without room", compression, len(raw), room)
				}
				if !bytes.Equal(raw, before) || !bytes.Equal(memory[room:], bytes.Repeat([]byte{0xa5}, 2*size-room)) {
					t.Errorf("%s, %d bytes, room for %d: wrote elsewhere", compression, len(raw), room)
				}
				if roomy := room > len(raw); roomy && got.Codec != Raw && &got.Stored[0] != &memory[0] {
					t.Errorf("%s, %d bytes: the room for %d was not used", compression, len(raw), room)
				}
			}
		}
	}
}
