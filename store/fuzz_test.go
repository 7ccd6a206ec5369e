package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// resealPack gives a pack the CRCs that it would have, had it been written so.
func resealPack(p []byte) []byte {
	if len(p) < packHeaderSize {
		return p
	}
	if table := int64(binary.LittleEndian.Uint32(p[48:])) * entrySize; packHeaderSize+table <= int64(len(p)) {
		binary.LittleEndian.PutUint32(p[60:], crcOf(p[packHeaderSize:packHeaderSize+table]))
	}
	return reseal(p)
}

// Whatever stands in the place of a pack: whoever reads from it gets the right
// bytes or an error, and a mend makes what it was given readable.
func FuzzPack(f *testing.F) {
	ctx := context.Background()
	id := PackID{Run: 7, Seq: 3}
	var chunks [][]byte
	var refs []Ref
	for i := range 3 {
		chunks = append(chunks, bytes.Repeat([]byte{byte(i), 2, 3}, 40+i*300))
		refs = append(refs, Ref{Sum: Sum(chunks[i]), Pack: id, Index: uint32(i)})
	}
	sealing := testRepository(f, simFanout)
	sealing.ID = RepositoryID{1}
	f.Add(sealed(f, sealing, chunks...), true, false)
	f.Add(sealed(f, sealing, chunks[0]), false, false)
	f.Add([]byte{}, false, true)
	f.Fuzz(func(t *testing.T, p []byte, resealed, twin bool) {
		if resealed {
			p = resealPack(bytes.Clone(p))
		}
		disk := simEmpty().At(1)
		r, err := Open(ctx, disk, "")
		if err != nil {
			t.Fatal(err)
		}
		kind, folder := KindData, dataPrefix
		if twin {
			kind, folder = KindMap, twinsPrefix
		}
		if err := disk.Put(ctx, packKey(folder, id, 2), p); err != nil {
			t.Fatal(err)
		}
		read := func() (bad int) {
			err := r.Fetch(ctx, kind, refs, func(i int, raw []byte, err error) error {
				if err != nil {
					bad++
				} else if !bytes.Equal(raw, chunks[i]) {
					t.Fatalf("chunk %d is %q", i, raw)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			return bad
		}
		before := read()
		if twin {
			_, _, _ = r.levelRecords(ctx, id)
			return
		}
		e, err := r.NewCoder(CompressZstd).Encode(chunks[1], refs[1].Sum)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.mendPack(ctx, kind, folder, id, map[uint32]Encoded{1: e}, always); err != nil {
			t.Fatal(err)
		}
		refs := refs[1:2]
		err = r.Fetch(ctx, kind, refs, func(_ int, raw []byte, err error) error {
			if err == nil && !bytes.Equal(raw, chunks[1]) {
				t.Fatalf("mended, the chunk is %q", raw)
			}
			return err
		})
		if err != nil {
			t.Fatalf("mended, and %v", err)
		}
		// A table with its CRC that lies was written so.
		if after := read(); after > before && !resealed {
			t.Fatalf("%d chunks are bad, before the mend it was %d", after, before)
		}
	})
}

// Whatever an object says, with its right checksum and at its place: nothing
// that reads it hangs, takes much memory or panics.
func FuzzObjects(f *testing.F) {
	type place struct {
		key, typ string
		body     any
	}
	now := time.Unix(1_700_000_000, 0).UTC()
	ref := refAt(1, 1)
	run := RunID(77)
	foreign := process{Host: "other", BootID: "other", PIDNamespace: "pid:[1]", PID: 1, Start: 1}
	places := []place{
		{levelKey("a", 1), "level", &Level{Name: "a", Number: 1, Run: 5, Size: 1, ChunkSize: 16 << 10, Fanout: simFanout, Root: ref}},
		{levelKey("a", 1), "tombstone", &tombstone{Name: "a", Number: 1, Run: 5, By: 6, Time: now}},
		{removedKey("a", 1), "removed", &removal{Name: "a", Number: 1, Run: 5, Time: now}},
		{claimKey("a", 1), "claim", &claim{Name: "a", Number: 1, Run: run, Process: foreign, Started: now, Beat: 30}},
		{beatKey(run, 1), "beat", now},
		{leaseKey(run), "lease", &lease{Run: run, Process: foreign, Started: now, Name: "a", Number: 1, Root: ref, Chunks: 24, Fanout: simFanout}},
		{gcKey("gc", run), "gc", &gcClaim{Run: run, Process: foreign, Started: now, Beat: 30}},
		{gcPartKey("condemned", run, 0), "condemned", []packList{{Kind: KindData, Packs: map[RunID][]uint32{5: {0, 1}}}}},
		{gcKey("waiting", run), "waiting", &gcWaiting{Claims: []claim{{Name: "a", Number: 1, Run: run, Beat: 1}}, Removed: []string{levelKey("a", 1)}}},
		{gcKey("verdict", run), "verdict", &verdict{Run: run, Parts: 1, Records: []string{levelKey("a", 1)}}},
		{gcPartKey("verdict", run, 0), "verdict part", &verdictPart{Sentences: []sentence{{Kind: KindData, Pack: PackID{Run: 5}, Keep: []uint64{1}}}}},
		{gcKey("verdict", run), "tombstone", &gcTombstone{Run: run, By: 6, Time: now}},
		{damageKey(KindData, ref, 0), "damaged", &damageNote{Kind: KindData, Ref: ref, Name: "a", Level: "1", Time: now}},
		{differsPrefix("a") + "1", "differs", &difference{Name: "a", Number: 1, Time: now}},
		{protectedPrefix("a") + "1", "protected", &protection{Name: "a", Number: 1, Time: now}},
		{checkedPrefix() + run.String() + ".0", "checked", &checkedPart{Folder: "data", Rows: map[RunID][]checkedRow{5: {{0, 1, 0, 5, 5}}}}},
		{scrubbedPrefix("a") + "1.5", "scrubbed", &scrubbedMark{Name: "a", Number: 1, Time: now}},
		{scrubbedAllPrefix + run.String() + ".0", "scrubbed all", &scrubbedAll{Time: now, Levels: map[Name][]LevelNumber{"a": {1}}}},
		{configKey, "repository", &config{Format: formatVersion, ID: RepositoryID{1}, ChunkSize: 16 << 10, Fanout: simFanout, Checksum: "blake3-256"}},
	}
	for i, p := range places {
		body, err := json.Marshal(p.body)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(i), body)
	}
	f.Fuzz(func(t *testing.T, which byte, body []byte) {
		p := places[int(which)%len(places)]
		object := fmt.Appendf(nil, "{\"type\":%q,\"blake3\":%q,\"body\":%s}\n", p.typ, Sum(body), body)
		synctest.Test(t, func(t *testing.T) {
			ctx := context.Background()
			disk := simEmpty().At(1)
			overwrite(t, disk, p.key, object)
			r, err := Open(ctx, disk, "")
			if err != nil {
				return
			}
			_, _ = r.Levels(ctx, "a")
			_, _ = r.Names(ctx)
			_, _ = r.Protected(ctx, "a")
			_, _ = r.Distrusted(ctx, "a", nil)
			_, _ = r.Scrubbed(ctx, "a")
			_, _ = r.Checks(ctx)
			_, _ = r.Recover(ctx)
			ctx, cancel := context.WithTimeout(ctx, 24*time.Hour)
			defer cancel()
			if w, err := r.Begin(ctx, "a", WriterOptions{}); err == nil {
				_ = w.Abort(ctx)
			}
			_, _ = r.GC(ctx, GCOptions{MaxWait: time.Hour})
			_, _ = r.GC(ctx, GCOptions{DryRun: true})
		})
	})
}

// What is read as a key is written as the same key.
func FuzzKeys(f *testing.F) {
	id := PackID{Run: 0x0123456789abcdef, Seq: 0x1f}
	for _, key := range []string{
		packKey(dataPrefix, id, 0), packKey(twinsPrefix, id, 12), levelKey("vms/web 1", 3), removedKey("a", 1), claimKey("a.b", 7),
	} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if folder, id, generation, err := parsePackKey(key); err == nil && packKey(folder, id, generation) != key {
			t.Errorf("%q is a pack's, %q", key, packKey(folder, id, generation))
		}
		if name, n, removed, err := parseLevelKey(key); err == nil {
			if name.Validate() != nil || n == 0 {
				t.Errorf("%q is of level %s of %q", key, n, name)
			}
			again := levelKey(name, n)
			if removed {
				again = removedKey(name, n)
			}
			if other, m, r, err := parseLevelKey(again); err != nil || other != name || m != n || r != removed {
				t.Errorf("%q is a level's, %q: %v", key, again, err)
			}
		}
		if c, err := parseClaimKey(key); err == nil && (c.Name.Validate() != nil || c.Number == 0) {
			t.Errorf("%q is a claim of level %s of %q", key, c.Number, c.Name)
		}
	})
}

// Whatever the index's file holds, it answers at most with hints, and takes new
// ones.
func FuzzIndex(f *testing.F) {
	ref := refAt(3, 1)
	name := filepath.Join(f.TempDir(), "chunks")
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		f.Fatal(err)
	}
	x := &index{file: file}
	x.insert(ref)
	page := make([]byte, bucketSize)
	_, _ = file.ReadAt(page, bucketOf(ref.Sum))
	f.Add(page)
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, page []byte) {
		if len(page) > bucketSize {
			page = page[:bucketSize]
		}
		if err := file.Truncate(0); err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt(page, bucketOf(ref.Sum)); err != nil {
			t.Fatal(err)
		}
		if got, ok := x.lookup(ref.Sum); ok && got.Sum != ref.Sum {
			t.Fatalf("%+v", got)
		}
		x.insert(ref)
		if got, ok := x.lookup(ref.Sum); !ok || got != ref {
			t.Fatalf("%+v, %t after it was inserted", got, ok)
		}
	})
}
