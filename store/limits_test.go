package store

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// What no reader would take is not written either.
func TestObjectsThatAreTooLarge(t *testing.T) {
	r := testRepository(t, 64)
	w := begin(t, r, "a")
	labels := map[string]string{}
	for i := range 50 {
		labels[strings.Repeat("x", 1+i)] = strings.Repeat("y", 100<<10)
	}
	l := Level{Name: "a", Number: w.Number, Run: w.ID, Size: 1, ChunkSize: r.ChunkSize, Fanout: r.fanout, Labels: labels}
	if err := w.Commit(context.Background(), &l); err == nil {
		t.Error("a record was committed that nobody can read")
	}
	if err := w.Abort(context.Background()); err != nil {
		t.Error(err)
	}
	if h, err := r.History(context.Background(), "a"); err != nil || len(h.Levels) != 0 || len(h.Bad) != 0 {
		t.Errorf("%+v, %v", h, err)
	}
}

// However much a gc has to say, the next one can read it.
func TestVerdictsOfAnySize(t *testing.T) {
	ctx := context.Background()
	r := testRepository(t, 64)
	full := make([]uint64, packEntries/64)
	for i := range full {
		full[i] = ^uint64(0)
	}
	var list []sentence
	for i := range 3000 {
		list = append(list, sentence{Kind: KindData, Pack: PackID{Run: 1, Seq: uint32(i)}, Keep: full})
	}
	v := &verdict{Run: 5, Records: []string{}}
	if err := r.putVerdict(ctx, v, list); err != nil {
		t.Fatal(err)
	}
	n := 0
	for part := range v.Parts {
		var p verdictPart
		if err := r.getObject(ctx, gcPartKey("verdict", 5, part), "verdict part", &p); err != nil {
			t.Fatal(err)
		}
		n += len(p.Sentences)
	}
	if n != len(list) {
		t.Errorf("%d of %d sentences", n, len(list))
	}
	found := roots{removed: map[string]bool{}}
	for n := range LevelNumber(100_000) {
		key := levelKey(Name(strings.Repeat("%", 60)), n+1)
		found.levels = append(found.levels, key)
		found.removed[key] = n != 3
	}
	w := gcWaiting{Removed: found.removedRecords(maxJSON / 2)}
	if err := r.putObject(ctx, gcKey("waiting", 5), "waiting", &w); err != nil || len(w.Removed) < 1000 {
		t.Error(len(w.Removed), err)
	}
	if all := (&roots{levels: found.levels[:10], removed: found.removed}).removedRecords(maxJSON / 2); len(all) != 9 {
		t.Errorf("%d of 9 removed records", len(all))
	}
}

// A pack of chunks that take next to nothing is closed before its table is
// larger than a pack.
func TestManySmallChunks(t *testing.T) {
	ctx := context.Background()
	r := testRepository(t, 64)
	r.packSizes[KindData] = dataPackSize
	w := begin(t, r, "a")
	for i := range 3*packEntries + 5 {
		p := []byte{byte(i), byte(i >> 8), byte(i >> 16)}
		if _, _, err := w.PutChunk(ctx, Encoded{Sum: Sum(p), Raw: 3, Codec: Raw, Stored: p, CRC: crcOf(p)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := commit(t, r, w); err != nil {
		t.Fatal(err)
	}
	packs := 0
	err := r.backend.List(ctx, dataPrefix, func(key string, size int64) error {
		packs++
		if _, entries, err := r.readPackTable(ctx, key); err != nil || len(entries) > packEntries {
			return errors.Join(err, errors.New("too many entries"))
		}
		return nil
	})
	if err != nil || packs != 4 {
		t.Errorf("%d packs, %v", packs, err)
	}
}
