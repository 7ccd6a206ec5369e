package engine_test

import (
	"bytes"
	"context"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"backy/engine"
	"backy/hints"
	"backy/store"
	"backy/store/dir"
)

var update = flag.Bool("update", false, "make testdata anew")

// oldRepository is a repository of format 1 as the first release wrote it.
const oldRepository = "testdata/format1"

// oldImages are the bytes of its levels.
func oldImages() map[string][][]byte {
	rnd := rand.New(rand.NewPCG(2026, 1))
	first := make([]byte, 70*chunk+123)
	fill(rnd, first[:3*chunk])
	copy(first[40*chunk:], bytes.Repeat([]byte("format 1 "), 5*chunk/9))
	second := bytes.Clone(first)
	fill(rnd, second[69*chunk+5:69*chunk+500])
	clear(second[chunk : 2*chunk])
	third := second[:60*chunk+1]
	return map[string][][]byte{"vms/web 1": {first, second, third}, "copy": {first}}
}

// A repository of every released format restores and scrubs, and takes a new
// level.
func TestOldFormat(t *testing.T) {
	if *update {
		makeOldRepository(t)
	}
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(oldRepository)); err != nil {
		t.Fatal(err)
	}
	b, err := dir.Open(copied)
	if err != nil {
		t.Fatal(err)
	}
	r, err := store.Open(context.Background(), b, "")
	if err != nil {
		t.Fatal(err)
	}
	for name, images := range oldImages() {
		levels, err := r.Levels(context.Background(), store.Name(name))
		if err != nil || len(levels) != len(images) {
			t.Fatalf("%s: %d levels, %v", name, len(levels), err)
		}
		for i, l := range levels {
			checkLevel(t, r, l, images[i])
			if _, err := engine.Scrub(context.Background(), r, l, engine.ScrubOptions{}); err != nil {
				t.Errorf("%s %s: %v", name, l.Number, err)
			}
		}
	}
	data := oldImages()["copy"][0]
	data[0] ^= 1
	l := mustBackup(t, r, "copy", &image{data: data, changed: []hints.Extent{{Length: 1, Exists: true}}, outside: engine.Unchanged})
	checkLevel(t, r, l, data)
}

func makeOldRepository(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(oldRepository); err != nil {
		t.Fatal(err)
	}
	b, err := dir.Create(filepath.FromSlash(oldRepository))
	if err != nil {
		t.Fatal(err)
	}
	r, err := store.Init(context.Background(), b, store.Parameters{ChunkSize: chunk})
	if err != nil {
		t.Fatal(err)
	}
	for name, images := range oldImages() {
		for _, data := range images {
			mustBackup(t, r, store.Name(name), &image{data: data})
		}
	}
}
