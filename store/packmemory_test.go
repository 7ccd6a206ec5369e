package store_test

import (
	"strings"
	"testing"

	"backy/store"
	"backy/store/mem"
)

// Packs stay within the memory that a run is given for two of them.
func TestPackMemory(t *testing.T) {
	const chunk, memory = 64 << 10, 2 << 20
	b := mem.New()
	r, err := store.Init(t.Context(), b, store.Parameters{ChunkSize: chunk})
	if err != nil {
		t.Fatal(err)
	}
	w, err := r.Begin(t.Context(), "image", store.WriterOptions{PackMemory: memory})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.BeginMap(t.Context(), store.Map{Fanout: r.Fanout()}, 64); err != nil {
		t.Fatal(err)
	}
	coder := r.NewCoder(store.CompressNone)
	for pos := range int64(64) {
		raw := make([]byte, chunk)
		raw[0] = byte(pos + 1)
		e, err := coder.Encode(raw, store.Sum(raw))
		if err != nil {
			t.Fatal(err)
		}
		ref, _, err := w.PutChunk(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Set(t.Context(), pos, ref); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.FinishMap(t.Context(), 64); err != nil {
		t.Fatal(err)
	}
	packs := 0
	for _, op := range b.Log() {
		if strings.HasPrefix(op.Key, "data/") {
			packs++
			if len(op.Data) > memory/2+2*chunk {
				t.Errorf("%s has %d bytes, where two packs may take %d", op.Key, len(op.Data), memory)
			}
		}
	}
	if packs < 4 {
		t.Errorf("64 chunks of %d bytes are in %d packs", chunk, packs)
	}
	if err := w.Abort(t.Context()); err != nil {
		t.Fatal(err)
	}
}
