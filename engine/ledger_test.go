package engine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"backy/engine"
	"backy/hints"
	"backy/store"
	"backy/store/mem"
)

// soak makes the tests that try many cases try them all.
var soak = flag.Bool("soak", false, "try every case, which takes long")

// ledger knows what the level of a run must hold: a plain copy of what its
// source had when the run began.
type ledger struct {
	mu   *sync.Mutex
	runs map[store.RunID][]byte

	torn  bool   // records may be half written
	begun func() // called when the source of next begins; may be nil
}

func newLedger() *ledger { return &ledger{mu: &sync.Mutex{}, runs: map[store.RunID][]byte{}} }

func (l *ledger) note(run store.RunID, data []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.runs[run] = bytes.Clone(data)
}

func (l *ledger) of(run store.RunID) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.runs[run]
}

// way is how a source says what to read.
type way int

const (
	compareAll  way = iota // compares everything with the base
	byDiff                 // names what differs from the base
	byAllocated            // names what is not zero
	withoutBase            // the same, without a base
	asStream               // is read front to back
	ways
)

// honest is a source that tells the truth about any base, whose bytes it knows
// from the ledger.
type honest struct {
	image
	ledger *ledger
	way    way
	run    store.RunID

	onBegin func() // may be nil
}

func (s *honest) Begin(ctx context.Context, run engine.Run) (*engine.State, error) {
	s.run = run.ID
	if s.onBegin != nil {
		s.onBegin()
	}
	s.ledger.note(run.ID, s.data)
	s.image.full = s.way == withoutBase
	st, err := s.image.Begin(ctx, run)
	switch s.way {
	case byDiff:
		if st.Base == nil {
			break
		}
		st.Extents, st.Outside = hints.Of(differences(s.ledger.of(st.Base.Run), s.data)), engine.Unchanged
	case byAllocated, withoutBase:
		st.Extents, st.Outside = hints.Of(hints.Normalize(allocated(s.data))), engine.Hole
	case asStream:
		st.Reader, st.Size, st.Stream = nil, -1, bytes.NewReader(s.data)
	}
	return st, err
}

// differences are the extents, of half a chunk each, in which b differs from a,
// as far as b goes.
func differences(a, b []byte) []hints.Extent {
	list := []hints.Extent{}
	a = append(bytes.Clone(a), make([]byte, max(0, len(b)-len(a)))...)
	for off := 0; off < len(b); off += chunk / 2 {
		end := min(off+chunk/2, len(b))
		if !bytes.Equal(a[off:end], b[off:end]) {
			list = append(list, hints.Extent{Offset: int64(off), Length: int64(end - off), Exists: true})
		}
	}
	return list
}

// standing lists the levels that a backend holds, by name, without the help of
// package store: a level stands when its record does and no removal does.
func standing(t testing.TB, b store.Backend) map[store.Name][]store.LevelNumber {
	t.Helper()
	found := map[store.Name][]store.LevelNumber{}
	removed := map[string]bool{}
	var records []string
	err := b.List(context.Background(), "levels/", func(key string, _ int64) error {
		if base, ok := strings.CutSuffix(key, ".removed"); ok {
			removed[base] = true
		} else {
			records = append(records, strings.TrimSuffix(key, ".json"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, record := range records {
		var e struct {
			Type string
			Body struct {
				Name   store.Name
				Number store.LevelNumber
			}
		}
		p := make([]byte, 16<<10)
		n, err := b.Get(context.Background(), record+".json", p, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue // collected meanwhile
		}
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if err := json.Unmarshal(p[:n], &e); err != nil || e.Type != "level" || removed[record] {
			continue
		}
		name, err := url.PathUnescape(strings.Split(record, "/")[1])
		if err != nil || name != string(e.Body.Name) {
			t.Fatalf("%s holds a level of %q", record, e.Body.Name)
		}
		found[e.Body.Name] = append(found[e.Body.Name], e.Body.Number)
	}
	for _, numbers := range found {
		slices.Sort(numbers)
	}
	return found
}

// check opens a backend as a new process does, and finds all the levels that
// stand and no others, each with its bytes and with nothing for a scrub to say.
func (l *ledger) check(t testing.TB, b store.Backend) (checked int) {
	t.Helper()
	r, err := store.Open(context.Background(), b, "")
	if err != nil {
		t.Fatal(err)
	}
	want := standing(t, b)
	names, err := r.Names(context.Background())
	if err != nil || !slices.Equal(names, slices.Sorted(maps.Keys(want))) {
		t.Fatalf("names %q instead of those of %v: %v", names, want, err)
	}
	for name, numbers := range want {
		levels, err := r.Levels(context.Background(), name)
		if err != nil && !l.torn {
			t.Fatal(err)
		}
		var listed []store.LevelNumber
		for _, level := range levels {
			listed = append(listed, level.Number)
		}
		if !slices.Equal(listed, numbers) {
			t.Fatalf("%s has levels %v instead of %v", name, listed, numbers)
		}
		for _, level := range levels {
			l.checkLevel(t, r, level)
			checked++
		}
	}
	return checked
}

func (l *ledger) checkLevel(t testing.TB, r *store.Repository, level store.Level) {
	t.Helper()
	want := l.of(level.Run)
	if want == nil {
		t.Fatalf("%s level %s is of run %s, which no source began", level.Name, level.Number, level.Run)
	}
	if got := restored(t, r, level, nil); !bytes.Equal(got, want) {
		t.Fatalf("%s level %s: restored bytes differ at %s", level.Name, level.Number, firstDifference(got, want))
	}
	if report, err := engine.Scrub(context.Background(), r, level, engine.ScrubOptions{}); err != nil {
		t.Fatalf("scrub %s level %s: %v, %+v", level.Name, level.Number, err, report)
	}
}

// next has a new process make one more level of a name, and checks all.
func (l *ledger) next(t testing.TB, b *mem.Mem, name store.Name, data []byte, w way) {
	t.Helper()
	var before store.LevelNumber
	for _, n := range standing(t, b)[name] {
		before = max(before, n)
	}
	src := &honest{image: image{data: data}, ledger: l, way: w, onBegin: l.begun}
	warn := func(f string, a ...any) {
		if !l.torn {
			t.Errorf("the next backup warns: "+f, a...)
		}
	}
	level, err := engine.Backup(context.Background(), reopen(t, b), name, src, engine.BackupOptions{Warn: warn})
	if err != nil {
		t.Fatalf("the next backup of %s: %v", name, err)
	}
	if level.Number <= before {
		t.Fatalf("the next level of %s has number %s, after %s", name, level.Number, before)
	}
	if left := keys(t, b, "work/claim."+string(name)+"."); len(left) > 0 {
		t.Fatalf("its claims are left: %q", left)
	}
	l.check(t, b)
}

// changedAt returns a copy of an image with other bytes at some places.
func changedAt(data []byte, seed byte, at ...int) []byte {
	p := bytes.Clone(data)
	for _, off := range at {
		copy(p[off:min(off+100, len(p))], fmt.Sprintf("written by %d at %d", seed, off))
	}
	return p
}
