package store

import (
	"context"
	"testing"
)

// planted puts a later generation of a pack whose table is right and some of
// whose frames are not.
func planted(t *testing.T, r *Repository, id PackID, chunks [][]byte, wrong map[int][]byte) {
	t.Helper()
	b := packBuilder{id: id}
	coder := r.NewCoder(CompressNone)
	for i, chunk := range chunks {
		e, err := coder.Encode(chunk, Sum(chunk))
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := wrong[i]; ok { // the frame has its CRC, and other bytes
			e.Stored, e.CRC = other, crcOf(other)
		}
		b.append(e, FrameChunk)
	}
	if err := r.put(context.Background(), packKey(dataPrefix, id, 1), b.seal(KindData, r, 1)...); err != nil {
		t.Fatal(err)
	}
}

// An older generation stays while the newer one does not have each frame that is
// to be kept: with the right table, and other bytes.
func TestOlderGenerationStays(t *testing.T) {
	ctx := context.Background()
	chunks := [][]byte{noise(1, 900), noise(2, 900), noise(3, 900)}
	id := PackID{Run: 7, Seq: 0}
	for _, c := range []struct {
		name  string
		wrong map[int][]byte
		keep  []uint64
		stays bool
	}{
		{"right", nil, []uint64{0b111}, false},
		{"one is wrong", map[int][]byte{1: noise(9, 900)}, []uint64{0b111}, true},
		{"one is wrong that nobody needs", map[int][]byte{1: noise(9, 900)}, []uint64{0b101}, false},
		{"nothing is to be kept", map[int][]byte{0: noise(9, 900)}, nil, false},
		{"more is to be kept than there is", nil, []uint64{0b1111}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := testRepository(t, 64)
			refs, _ := packOf(t, r, id, chunks...)
			planted(t, r, id, chunks, c.wrong)
			g := &gc{repo: r, o: GCOptions{Beat: defaultBeat, Progress: &GCProgress{}}}
			err := g.hold(ctx, func(ctx context.Context) (bool, error) {
				_, _, err := g.carryOut(ctx, sentence{Kind: KindData, Pack: id, Keep: c.keep})
				return false, err
			})
			if err != nil {
				t.Fatal(err)
			}
			if there, err := r.stands(ctx, packKey(dataPrefix, id, 0)); err != nil || there != c.stays {
				t.Errorf("the older one stands: %v, %v", there, err)
			}
			if !c.stays {
				return
			}
			if list := bad(t, r, refs, chunks); len(list) > 0 {
				t.Errorf("lost: %v", list)
			}
			// It is noted, and the next backup puts it right.
			w := begin(t, r, "a")
			if c.wrong != nil && len(w.Damage.tables) == 0 {
				t.Error("nothing is noted")
			}
			if _, err := commit(t, r, w); err != nil {
				t.Fatal(err)
			}
			if sound, err := r.soundTable(ctx, KindData, dataPrefix, id); err != nil || sound == nil {
				t.Errorf("not mended: %v", err)
			}
			if list := bad(t, r, refs, chunks); len(list) > 0 {
				t.Errorf("lost by mending: %v", list)
			}
		})
	}
}

// Nor does a mend delete an older generation in favour of such a one.
func TestMendKeepsWhatANewerOneLacks(t *testing.T) {
	ctx := context.Background()
	chunks := [][]byte{noise(1, 900), noise(2, 900)}
	id := PackID{Run: 7, Seq: 0}
	r := testRepository(t, 64)
	refs, _ := packOf(t, r, id, chunks...)
	planted(t, r, id, chunks, map[int][]byte{0: noise(9, 900)})
	if _, _, err := r.mendPack(ctx, KindData, dataPrefix, id, nil, always); err != nil {
		t.Fatal(err)
	}
	if list := bad(t, r, refs, chunks); len(list) > 0 {
		t.Errorf("lost: %v", list)
	}
	if sound, err := r.soundTable(ctx, KindData, dataPrefix, id); err != nil || sound == nil {
		t.Errorf("not mended: %v", err)
	}
}
