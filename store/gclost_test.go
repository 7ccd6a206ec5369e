package store

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A record may be lost at any moment of a gc, also that of a level which has come
// since it marked for the first time, and the number may be taken by another run
// at once. Then the gc collects nothing.
func TestRecordsLostWhileGCMarks(t *testing.T) {
	ctx := context.Background()
	for _, when := range []string{"before it lists again", "before it reads again", "and taken by another"} {
		t.Run(when, func(t *testing.T) {
			x := newHalting(t)
			h, _, r := x.host(1)
			x.write(h, r, "a", 1, 2)
			if when == "and taken by another" {
				x.write(h, r, "b", 3)
			}
			if err := r.Remove(ctx, "a", []LevelNumber{1}); err != nil {
				t.Fatal(err)
			}
			_, b, collector := x.host(2)
			came, wake := b.stop(first("put " + workPrefix + "condemned."))
			done := x.gc(collector)
			<-came
			// It gets its bytes from the pack that is about to be condemned.
			switch when {
			case "before it lists again":
				x.write(h, r, "b", 1, 2)
				x.lose(levelPrefix("b"))
			case "before it reads again":
				x.write(h, r, "b", 1, 2)
				reads, goOn := b.stop(first("get " + levelKey("b", 1)))
				wake()
				<-reads
				x.lose(levelPrefix("b"))
				wake = goOn
			default:
				x.lose(levelPrefix("b"))
				x.write(h, r, "b", 1, 2)
			}
			wake()
			if err := <-done; lostOf(err) == nil {
				t.Errorf("gc: %v", err)
			}
			if _, err := r.Recover(ctx); err != nil {
				t.Error(err)
			}
			for range 2 {
				if err := <-x.gc(r); err != nil {
					t.Errorf("gc afterwards: %v", err)
				}
			}
			x.whole("b")
			x.w.checkStock(ctx, r)
		})
	}
}

// What is put back has both copies of its map afterwards, if only one was left.
func TestRecoverCompletesTwins(t *testing.T) {
	ctx := context.Background()
	for i, folder := range foldersOf(KindMap) {
		for _, damaged := range []bool{false, true} {
			x := newHalting(t)
			h, _, r := x.host(1)
			l := x.write(h, r, "a", 1, 2, 3)
			key := levelKey("a", 1)
			if damaged {
				overwrite(t, x.disk, key, nil)
				if err := x.disk.Put(ctx, key, []byte("{")); err != nil {
					t.Fatal(err)
				}
			} else {
				x.lose(key)
			}
			x.lose(folder + l.Run.String())
			if recovered, err := r.Recover(ctx); err != nil || len(recovered) != 1 {
				t.Fatalf("recovered %v: %v", recovered, err)
			}
			x.lose(foldersOf(KindMap)[1-i])
			x.whole("a")
		}
	}
}

// A level whose record was lost stays lost when the one that took its number is
// removed and its record goes bad.
func TestLostUnderADamagedRecord(t *testing.T) {
	ctx := context.Background()
	x := newHalting(t)
	h, _, r := x.host(1)
	x.write(h, r, "a", 1, 2, 3)
	key := levelKey("a", 1)
	x.lose(key)
	x.write(h, r, "a", 4)
	if err := r.Remove(ctx, "a", []LevelNumber{1}); err != nil {
		t.Fatal(err)
	}
	overwrite(t, x.disk, key, make([]byte, 100))
	if err := <-x.gc(r); lostOf(err) == nil {
		t.Errorf("gc: %v", err)
	}
	if recovered, err := r.Recover(ctx); err != nil || len(recovered) != 1 {
		t.Errorf("recovered %v: %v", recovered, err)
	}
	for range 2 {
		if err := <-x.gc(r); err != nil {
			t.Errorf("gc afterwards: %v", err)
		}
	}
	x.whole("a")
	x.w.checkStock(ctx, r)
}

// Of a record of which nothing can be read, two copies may be the good one, since
// the number was taken again. Both levels come back.
func TestDamagedRecordOfANumberTakenTwice(t *testing.T) {
	ctx := context.Background()
	for _, how := range []string{"both whole", "the last without its map", "it is seen whose it is"} {
		x := newHalting(t)
		h, _, r := x.host(1)
		x.write(h, r, "a", 1, 2, 3)
		key := levelKey("a", 1)
		x.lose(key)
		l := x.write(h, r, "a", 4)
		p, err := readAll(ctx, x.disk, key, maxJSON)
		if err != nil {
			t.Fatal(err)
		}
		if p = bytes.Clone(p[:len(p)-9]); how != "it is seen whose it is" {
			clear(p)
		}
		overwrite(t, x.disk, key, p)
		want := 2
		if how == "the last without its map" {
			want = 1
			for _, folder := range foldersOf(KindMap) {
				x.lose(packPrefix(folder, l.Root.Pack))
			}
		}
		recovered, err := r.Recover(ctx)
		if len(recovered) != want || err != nil {
			t.Errorf("%s: recovered %v: %v", how, recovered, err)
		}
		x.whole("a")
	}
}

// A lost level whose number a fenced run had taken comes back, though the tombstone is
// damaged. The fenced run's does not.
func TestLostUnderADamagedTombstone(t *testing.T) {
	ctx := context.Background()
	x := newHalting(t)
	h, _, r := x.host(1)
	x.write(h, r, "a", 1, 2, 3)
	key := levelKey("a", 1)
	x.lose(key)
	l := x.write(h, r, "a", 4)
	x.lose(key)
	p, err := encodeObject("tombstone", &tombstone{Name: "a", Number: 1, Run: l.Run, By: 1})
	if err != nil {
		t.Fatal(err)
	}
	p[len(p)-4] ^= 1
	if err := x.disk.Put(ctx, key, p); err != nil {
		t.Fatal(err)
	}
	var gone *UnrecoverableError
	recovered, err := r.Recover(ctx)
	if len(recovered) != 1 || recovered[0].Run == l.Run || !errors.As(err, &gone) {
		t.Errorf("recovered %v: %v", recovered, err)
	}
	if given, err := r.Abandon(ctx); err != nil || len(given) != 1 {
		t.Errorf("given up: %v: %v", given, err)
	}
	for range 2 {
		if err := <-x.gc(r); err != nil {
			t.Errorf("gc afterwards: %v", err)
		}
	}
	x.whole("a")
}

// A dead run that had taken a lost level's number is finished, and the lost one comes
// back as well.
func TestRecoverBesideAFinishedLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		x := newHalting(t)
		h, _, r := x.host(1)
		x.write(h, r, "a", 1, 2, 3)
		x.lose(levelKey("a", 1))
		dead, b, other := x.host(2)
		came, wake := b.stop(first("put " + levelKey("a", 1)))
		defer wake()
		go func() { x.write(dead, other, "a", 4) }()
		<-came
		time.Sleep(time.Hour)
		if recovered, err := r.Recover(ctx); err != nil || len(recovered) != 2 {
			t.Errorf("recovered %v: %v", recovered, err)
		}
		x.whole("a")
	})
}
