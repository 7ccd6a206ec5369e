package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"backy/engine"
	"backy/hints"
	"backy/store"
	"backy/store/faulty"
	"backy/store/mem"
)

// spoil breaks the middle of an object in each folder.
func spoil(t testing.TB, b *mem.Mem, folders ...string) {
	t.Helper()
	for _, folder := range folders {
		key, p := object(t, b, folder)
		for i := len(p) / 3; i < len(p); i += 7 {
			p[i] ^= 1
		}
		overwrite(t, b, key, p)
	}
}

// known are the levels that a repository knows to be damaged.
func known(t testing.TB, b *mem.Mem) (levels []store.LevelNumber, spare int64) {
	t.Helper()
	r := reopen(t, b)
	d, err := r.Damage(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	list, err := r.DamagedLevels(context.Background(), d)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		levels = append(levels, l.Number)
	}
	return levels, d.Spare()
}

// Whoever meets damage in a map writes it down, so that status knows of it.
func TestWhoMeetsDamageNotesIt(t *testing.T) {
	data := make([]byte, 200*chunk)
	fill(rand.New(rand.NewPCG(21, 22)), data)
	r, clean := newRepository(t, chunk)
	mustBackup(t, r, "image", &image{data: data})
	isDamage := func(err error) bool {
		var damaged *engine.DamagedError
		return errors.As(err, &damaged)
	}
	for _, who := range []struct {
		name  string
		do    func(ctx context.Context, r *store.Repository, l store.Level) error
		fails func(error) bool
	}{
		{"restore", func(ctx context.Context, r *store.Repository, l store.Level) error {
			_, err := engine.Restore(ctx, r, l, &disk{}, engine.RestoreOptions{})
			return err
		}, isDamage},
		{"restore that skips", func(ctx context.Context, r *store.Repository, l store.Level) error {
			_, err := engine.Restore(ctx, r, l, &disk{}, engine.RestoreOptions{SkipDamaged: true})
			return err
		}, isDamage},
		{"stream", func(ctx context.Context, r *store.Repository, l store.Level) error {
			_, err := engine.Stream(ctx, r, l, io.Discard, engine.RestoreOptions{})
			return err
		}, isDamage},
		{"backup", func(ctx context.Context, r *store.Repository, _ store.Level) error {
			_, err := engine.Backup(ctx, r, "image", &image{data: data, changed: []hints.Extent{{Length: 4096, Exists: true}}, outside: engine.Unchanged}, engine.BackupOptions{})
			return err
		}, func(err error) bool { return err == nil }},
		{"backup of a pipe", func(ctx context.Context, r *store.Repository, _ store.Level) error {
			_, err := engine.Backup(ctx, r, "image", &pipe{r: bytes.NewReader(data)}, engine.BackupOptions{})
			return err
		}, func(err error) bool { return err == nil }},
		{"gc", func(ctx context.Context, r *store.Repository, _ store.Level) error {
			_, err := r.GC(ctx, store.GCOptions{})
			return err
		}, func(err error) bool { return err != nil && !isDamage(err) }},
	} {
		t.Run(who.name, func(t *testing.T) {
			b := clean.At(len(clean.Log()))
			spoil(t, b, "maps/", "maps2/")
			r := reopen(t, b)
			if err := who.do(t.Context(), r, mustLevel(t, r, "image")); !who.fails(err) {
				t.Fatalf("it says %v", err)
			}
			if levels, spare := known(t, b); len(levels) != 1 || levels[0] != 1 || spare != 0 {
				t.Errorf("levels %v are known to be damaged, and %d bad copies beside good ones", levels, spare)
			}
			// Nothing more than that is lost: the next backup stands on its own.
			r = reopen(t, b)
			next := mustBackup(t, r, "image", &image{data: data})
			checkLevel(t, r, next, data)
		})
		t.Run(who.name+", one copy", func(t *testing.T) {
			for _, folder := range []string{"maps/"} {
				b := clean.At(len(clean.Log()))
				spoil(t, b, folder)
				r := reopen(t, b)
				if err := who.do(t.Context(), r, mustLevel(t, r, "image")); err != nil {
					t.Fatalf("its twin is good, but: %v", err)
				}
				if levels, spare := known(t, b); len(levels) > 0 || spare == 0 {
					t.Errorf("%d bad copies are known, and levels %v", spare, levels)
				}
				mustBackup(t, reopen(t, b), "image", &image{data: data})
				if left := keys(t, b, "damaged/"); len(left) > 0 {
					t.Errorf("not mended: %s", left)
				}
			}
		})
	}
}

// Of a level that was removed, and whose chunks are gone for that, nothing is
// noted, and its reader ends with the reason.
func TestRemovedIsNoDamage(t *testing.T) {
	data := make([]byte, 50*chunk)
	fill(rand.New(rand.NewPCG(23, 24)), data)
	r, b := newRepository(t, chunk)
	l := mustBackup(t, r, "image", &image{data: data})
	for _, gone := range []struct {
		name string
		make func(b *mem.Mem)
	}{
		{"removed", func(b *mem.Mem) {
			if err := engine.Remove(t.Context(), reopen(t, b), "image", []store.LevelNumber{1}); err != nil {
				t.Fatal(err)
			}
			mustGC(t, reopen(t, b))
		}},
		{"of an older copy of the repository", func(b *mem.Mem) {
			for _, key := range keys(t, b, "") {
				if strings.HasPrefix(key, "levels/") || strings.HasPrefix(key, "maps") || strings.HasPrefix(key, "data/") {
					if err := b.Delete(t.Context(), key); err != nil {
						t.Fatal(err)
					}
				}
			}
		}},
	} {
		for _, o := range []engine.RestoreOptions{{}, {SkipDamaged: true}} {
			b := b.At(len(b.Log()))
			gone.make(b)
			_, err := engine.Restore(t.Context(), reopen(t, b), l, &disk{}, o)
			if !errors.Is(err, store.ErrRemoved) {
				t.Errorf("%s: the restore says %v", gone.name, err)
			}
			if _, err := engine.Scrub(t.Context(), reopen(t, b), l, engine.ScrubOptions{}); !errors.Is(err, store.ErrRemoved) {
				t.Errorf("%s: the scrub says %v", gone.name, err)
			}
			if left := keys(t, b, "damaged/"); len(left) > 0 {
				t.Errorf("%s: noted as damaged: %s", gone.name, left)
			}
		}
	}
}

// What reads well at the second try is no damage; what does not is.
func TestTransientIsNoDamage(t *testing.T) {
	data := make([]byte, 50*chunk)
	fill(rand.New(rand.NewPCG(25, 26)), data)
	r, clean := newRepository(t, chunk)
	mustBackup(t, r, "image", &image{data: data})
	for _, prefix := range []string{"data/", "maps/"} {
		b := clean.At(len(clean.Log()))
		f := faulty.New(b, faulty.Plan{{Call: faulty.Get, Prefix: prefix, Err: syscall.EIO}})
		r, err := store.Open(t.Context(), f, "")
		if err != nil {
			t.Fatal(err)
		}
		d := &disk{}
		if _, err := engine.Restore(t.Context(), r, mustLevel(t, r, "image"), d, engine.RestoreOptions{}); err != nil || !bytes.Equal(d.data, data) {
			t.Errorf("%s: %v", prefix, err)
		}
		if f.Struck() == 0 {
			t.Error("no call was struck")
		}
		if left := keys(t, b, "damaged/"); len(left) > 0 {
			t.Errorf("%s: noted as damaged: %s", prefix, left)
		}
	}
}

// On a repository that cannot be written to, damage is met all the same, and it
// is said that nothing could be noted.
func TestDamageThatCannotBeNoted(t *testing.T) {
	data := make([]byte, 50*chunk)
	fill(rand.New(rand.NewPCG(27, 28)), data)
	r, b := newRepository(t, chunk)
	mustBackup(t, r, "image", &image{data: data})
	spoil(t, b, "data/")
	f := faulty.New(b, faulty.Plan{{Call: faulty.Put, Times: faulty.Always, Err: syscall.EROFS}})
	r, err := store.Open(t.Context(), f, "")
	if err != nil {
		t.Fatal(err)
	}
	var warned []string
	_, err = engine.Restore(t.Context(), r, mustLevel(t, r, "image"), &disk{}, engine.RestoreOptions{
		Warn: func(format string, args ...any) { warned = append(warned, fmt.Sprintf(format, args...)) },
	})
	var damaged *engine.DamagedError
	if !errors.As(err, &damaged) {
		t.Errorf("the restore says %v", err)
	}
	if len(warned) != 2 || !strings.Contains(warned[0], "no note can be left") || !strings.Contains(warned[1], "cannot be written down") {
		t.Errorf("%q", warned)
	}
}

// A backup that meets a bad table where it looks for what it has already notes
// it, and the next one mends it.
func TestDedupNotesBadTables(t *testing.T) {
	data := make([]byte, 50*chunk)
	fill(rand.New(rand.NewPCG(29, 30)), data)
	r, b := newRepository(t, chunk)
	l := mustBackup(t, r, "image", &image{data: data})
	key, p := object(t, b, "data/")
	p[72+33] ^= 1 // in the table
	overwrite(t, b, key, p)
	// r has seen the chunks, another image has them too.
	mustBackup(t, r, "other", &image{data: data})
	if _, spare := known(t, b); spare == 0 {
		t.Fatal("nothing was noted")
	}
	mustBackup(t, reopen(t, b), "third", &image{data: data[:chunk]})
	if left := keys(t, b, "damaged/"); len(left) > 0 {
		t.Errorf("not mended: %s", left)
	}
	checkLevel(t, reopen(t, b), l, data)
}

// A mend that finds more bad frames than were known notes them, and so does a
// gc that cannot write a pack anew for one.
func TestMendNotesWhatElseIsBad(t *testing.T) {
	data := make([]byte, 50*chunk)
	fill(rand.New(rand.NewPCG(31, 32)), data)
	r, b := newRepository(t, chunk)
	mustBackup(t, r, "image", &image{data: data})
	key, p := object(t, b, "data/")
	p[len(p)/4] ^= 1
	overwrite(t, b, key, p)
	if _, err := engine.Scrub(t.Context(), reopen(t, b), mustLevel(t, r, "image"), engine.ScrubOptions{}); err == nil {
		t.Fatal("the scrub finds nothing")
	}
	p[len(p)*3/4] ^= 1
	overwrite(t, b, key, p)
	// The backup reads the bad chunk's place again, and no other.
	mustBackup(t, reopen(t, b), "image", &image{data: data, changed: []hints.Extent{}, outside: engine.Unchanged})
	if levels, _ := known(t, b); len(levels) == 0 {
		t.Fatal("the other bad chunk is not known")
	}
	mustBackup(t, reopen(t, b), "image", &image{data: data, changed: []hints.Extent{}, outside: engine.Unchanged})
	if left := keys(t, b, "damaged/"); len(left) > 0 {
		t.Errorf("not mended: %s", left)
	}
	checkLevel(t, reopen(t, b), mustLevel(t, reopen(t, b), "image"), data)
}

func TestGCNotesWhatItCannotKeep(t *testing.T) {
	data := make([]byte, 60*chunk)
	fill(rand.New(rand.NewPCG(33, 34)), data)
	r, b := newRepository(t, chunk)
	mustBackup(t, r, "image", &image{data: data})
	_, pack := object(t, b, "data/")
	mustBackup(t, r, "image", &image{data: data[:10*chunk]})
	if err := engine.Remove(t.Context(), r, "image", []store.LevelNumber{1}); err != nil {
		t.Fatal(err)
	}
	key, p := object(t, b, "data/")
	if !bytes.Equal(p, pack) {
		t.Fatal("a second pack")
	}
	p[72+56*60+5*chunk] ^= 1 // one of those that level 2 shares
	overwrite(t, b, key, p)
	mustGC(t, reopen(t, b))
	if levels, _ := known(t, b); len(levels) != 1 || levels[0] != 2 {
		t.Errorf("levels %v are known to be damaged", levels)
	}
}
