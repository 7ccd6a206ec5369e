package engine_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"

	"backy/engine"
	"backy/store"
	"backy/store/mem"
)

// small is a backend with room for so many bytes, in blocks of 4 KiB.
type small struct {
	*mem.Mem
	mu   sync.Mutex
	room int64
}

func blocks(n int64) int64 { return (n + 4095) / 4096 * 4096 }

func (s *small) Put(ctx context.Context, key string, parts ...[]byte) error {
	var size int64
	for _, p := range parts {
		size += int64(len(p))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used(ctx)+blocks(size) > s.room {
		return syscall.ENOSPC
	}
	return s.Mem.Put(ctx, key, parts...)
}

func (s *small) used(ctx context.Context) (n int64) {
	_ = s.List(ctx, "", func(_ string, size int64) error {
		n += blocks(size)
		return nil
	})
	return n
}

// On a disk without any room left a gc gives back what was removed, also what
// it has to write packs anew for; and the reserve is there again.
func TestGCOnFullDisk(t *testing.T) {
	ctx := context.Background()
	r, b := newRepository(t, chunk)
	rnd := rand.New(rand.NewPCG(71, 72))
	data := make([]byte, 100*chunk)
	fill(rnd, data)
	mustBackup(t, r, "image", &image{data: data})
	fill(rnd, data[20*chunk:])
	mustBackup(t, r, "image", &image{data: data})
	other := make([]byte, 50*chunk)
	fill(rnd, other)
	mustBackup(t, r, "other", &image{data: other})
	full := &small{Mem: b, room: 0}
	repo, err := store.Open(ctx, full, "")
	if err != nil {
		t.Fatal(err)
	}
	// Room for the two marks of the removals, and for nothing else.
	full.room = full.used(ctx) + 2*4096
	for _, name := range []store.Name{"image", "other"} {
		if err := engine.Remove(ctx, repo, name, []store.LevelNumber{1}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := engine.Backup(ctx, repo, "new", &image{data: data}, engine.BackupOptions{}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("a backup without room: %v", err)
	}
	before := full.used(ctx)
	report, err := repo.GC(ctx, store.GCOptions{})
	if err != nil || report.Deleted == 0 || report.Rewritten == 0 || before-full.used(ctx) < 120*chunk {
		t.Errorf("gave back %d: %+v, %v", before-full.used(ctx), report, err)
	}
	if len(keys(t, b, "reserve.json")) != 1 {
		t.Error("there is no reserve")
	}
	for _, key := range keys(t, b, "work/") {
		if !strings.HasPrefix(key, "work/verdict.") {
			t.Errorf("%s is left", key)
		}
	}
	h, err := repo.History(ctx, "image")
	if err != nil || len(h.Levels) != 1 {
		t.Fatal(h, err)
	}
	checkLevel(t, repo, h.Levels[0], data)
	if _, bad := scrubAll(t, reopen(t, b), engine.ScrubAllOptions{}); bad != nil {
		t.Error(bad)
	}
	mustGC(t, repo)
}

// On a disk without any room a level can be removed all the same, once, and then a gc
// reclaims its space. Without the reserve that is refused, as long as there is none.
func TestRemoveOnFullDisk(t *testing.T) {
	ctx := context.Background()
	r, b := newRepository(t, chunk)
	rnd := rand.New(rand.NewPCG(91, 92))
	data := make([]byte, 100*chunk)
	for range 3 {
		fill(rnd, data)
		mustBackup(t, r, "image", &image{data: data})
	}
	full := &small{Mem: b}
	repo, err := store.Open(ctx, full, "")
	if err != nil {
		t.Fatal(err)
	}
	full.room = full.used(ctx) + 4096
	if err := repo.CheckRemove(ctx, "image", []store.LevelNumber{1}); err != nil { // which asks this store for room
		t.Fatal(err)
	}
	full.room = full.used(ctx)
	if err := engine.Remove(ctx, repo, "image", []store.LevelNumber{1}); err != nil {
		t.Fatal(err)
	}
	full.room = full.used(ctx)
	if err := engine.Remove(ctx, repo, "image", []store.LevelNumber{2}); !store.IsFull(err) {
		t.Errorf("without a reserve: %v", err)
	}
	full.room += 64 * 4096
	if report, err := repo.GC(ctx, store.GCOptions{}); err != nil || report.Freed < 100*chunk {
		t.Errorf("freed %d: %v", report.Freed, err)
	}
	if len(keys(t, b, "reserve.json")) != 1 {
		t.Error("there is no reserve")
	}
}

// Where just packs are to be written anew there is no way without room; it says
// so, and goes on once there is some.
func TestGCOnFullDiskWithoutDeadPacks(t *testing.T) {
	ctx := context.Background()
	r, b := newRepository(t, chunk)
	rnd := rand.New(rand.NewPCG(81, 82))
	data := make([]byte, 200*chunk)
	fill(rnd, data)
	first := mustBackup(t, r, "image", &image{data: data})
	fill(rnd, data[60*chunk:])
	second := mustBackup(t, r, "image", &image{data: data})
	if err := engine.Remove(ctx, r, "image", []store.LevelNumber{first.Number}); err != nil {
		t.Fatal(err)
	}
	full := &small{Mem: b}
	repo, err := store.Open(ctx, full, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, room := range []int64{0, 20 * 4096, 40 * chunk} {
		full.room = full.used(ctx) + room
		if report, err := repo.GC(ctx, store.GCOptions{}); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("with %d bytes of room: %+v, %v", room, report, err)
		}
	}
	full.room += 200 * chunk
	if report, err := repo.GC(ctx, store.GCOptions{}); err != nil || report.Rewritten == 0 {
		t.Errorf("with room: %+v, %v", report, err)
	}
	checkLevel(t, repo, second, data)
}

// A gc on a full disk that lacks a level's record sends its user to recover, which
// takes the reserve as well.
func TestRecoverOnFullDisk(t *testing.T) {
	ctx := context.Background()
	r, b := newRepository(t, chunk)
	data := make([]byte, 100*chunk)
	fill(rand.New(rand.NewPCG(93, 94)), data)
	mustBackup(t, r, "image", &image{data: data})
	if err := b.Delete(ctx, "levels/image/1.json"); err != nil {
		t.Fatal(err)
	}
	full := &small{Mem: b}
	repo, err := store.Open(ctx, full, "")
	if err != nil {
		t.Fatal(err)
	}
	full.room = full.used(ctx) + 4096
	if _, err := repo.GC(ctx, store.GCOptions{DryRun: true}); err == nil { // which asks this store for room
		t.Error("gc took no notice of a lost record")
	}
	full.room = full.used(ctx)
	recovered, err := repo.Recover(ctx)
	if err != nil || len(recovered) != 1 {
		t.Errorf("recovered %d levels: %v", len(recovered), err)
	}
}
