package store

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
)

// packOf puts a data pack of chunks, of which those that do not shrink are kept
// raw, and returns references to them.
func packOf(t testing.TB, r *Repository, id PackID, chunks ...[]byte) (refs []Ref, object []byte) {
	t.Helper()
	b := &packBuilder{id: id}
	for i, raw := range chunks {
		e, err := r.NewCoder(CompressZstd).Encode(raw, Sum(raw))
		if err != nil {
			t.Fatal(err)
		}
		b.append(e, FrameChunk)
		refs = append(refs, Ref{Sum: e.Sum, Pack: id, Index: uint32(i)})
	}
	object = bytes.Join(b.seal(KindData, r, 0), nil)
	replace(t, r, packKey(dataPrefix, id, 0), object)
	return refs, object
}

func always(context.Context) error { return nil }

// replace does what a failing disk does.
func replace(t testing.TB, r *Repository, key string, p []byte) {
	t.Helper()
	if err := r.backend.Delete(context.Background(), key); err != nil {
		t.Fatal(err)
	}
	if err := r.backend.Put(context.Background(), key, bytes.Clone(p)); err != nil {
		t.Fatal(err)
	}
}

// bad reads references and returns the indices of those that cannot be read.
func bad(t testing.TB, r *Repository, refs []Ref, chunks [][]byte) (list []int) {
	t.Helper()
	err := r.Fetch(context.Background(), KindData, refs, func(i int, raw []byte, err error) error {
		if err != nil {
			list = append(list, i)
		} else if !bytes.Equal(raw, chunks[i]) {
			t.Errorf("chunk %d is wrong", i)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func noise(seed uint64, n int) []byte {
	rnd := rand.New(rand.NewPCG(seed, 0))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rnd.Uint32())
	}
	return p
}

// A chunk of a disk that holds a repository has frames in it. Where that chunk
// is bad, they are not taken for frames of the pack itself, whatever else is
// bad: neither a read nor a mend loses a chunk that is whole.
func TestFramesInsideChunks(t *testing.T) {
	ctx := context.Background()
	for _, table := range []string{"good", "bad"} {
		for _, holder := range []int{0, 2, 4} {
			t.Run(fmt.Sprintf("table %s, chunk %d", table, holder), func(t *testing.T) {
				r := testRepository(t, 64)
				_, inner := packOf(t, r, PackID{Run: 1, Seq: 1}, noise(1, 900), noise(2, 900), noise(3, 900), noise(4, 900), noise(5, 900), noise(6, 900))
				var chunks [][]byte
				for i := range 5 {
					chunks = append(chunks, noise(uint64(10+i), 16<<10))
				}
				copy(chunks[holder][100:], inner)
				id := PackID{Run: 7, Seq: 3}
				refs, object := packOf(t, r, id, chunks...)
				at := bytes.Index(object, chunks[holder][:32])
				object[at+16<<10-1] ^= 1
				if table == "bad" {
					object[packHeaderSize+entrySize*5-1] ^= 1
					object[packHeaderSize+32] ^= 1
				}
				replace(t, r, packKey(dataPrefix, id, 0), object)
				for range 3 {
					if list := bad(t, r, refs, chunks); len(list) != 1 || list[0] != holder {
						t.Fatalf("chunks %v are bad instead of %d", list, holder)
					}
					if _, complete, err := r.mendPack(ctx, KindData, dataPrefix, id, nil, always); complete || err != nil {
						t.Fatal(complete, err)
					}
				}
				e, err := r.NewCoder(CompressNone).Encode(chunks[holder], Sum(chunks[holder]))
				if err != nil {
					t.Fatal(err)
				}
				if _, _, err := r.mendPack(ctx, KindData, dataPrefix, id, map[uint32]Encoded{uint32(holder): e}, always); err != nil {
					t.Fatal(err)
				}
				if list := bad(t, r, refs, chunks); len(list) > 0 {
					t.Fatalf("chunks %v are bad after all was mended", list)
				}
			})
		}
	}
}

// A frame that cannot be read for a while is not given up by mends meanwhile,
// however many, even where the table is lost.
func TestMendKeepsWhatMayBeReadAgain(t *testing.T) {
	for _, table := range []string{"good", "bad"} {
		r := testRepository(t, 64)
		var chunks [][]byte
		for i := range 4 {
			chunks = append(chunks, noise(uint64(i), 9000))
		}
		id := PackID{Run: 7, Seq: 3}
		refs, object := packOf(t, r, id, chunks...)
		if table == "bad" {
			object[packHeaderSize+10] ^= 1
		}
		harmed := bytes.Clone(object)
		harmed[bytes.Index(harmed, chunks[3])] ^= 1
		harmed[bytes.Index(harmed, chunks[1])] ^= 1
		key := packKey(dataPrefix, id, 0)
		replace(t, r, key, harmed)
		for range 3 {
			if _, complete, err := r.mendPack(context.Background(), KindData, dataPrefix, id, nil, always); complete || err != nil {
				t.Fatal(complete, err)
			}
		}
		if p, err := readAll(context.Background(), r.backend, key, maxPackBytes); err != nil || !bytes.Equal(p, harmed) {
			t.Fatalf("table %s: the generation that may be readable again is gone: %v", table, err)
		}
		replace(t, r, key, object)
		if list := bad(t, r, refs, chunks); len(list) > 0 {
			t.Errorf("table %s: chunks %v are bad", table, list)
		}
	}
}
