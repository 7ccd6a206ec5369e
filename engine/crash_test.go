package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"backy/engine"
	"backy/store"
	"backy/store/mem"
)

// story is a repository with its ledger, to which things happen.
type story struct {
	t testing.TB
	*ledger
	b      *mem.Mem
	images map[store.Name][]byte
	rnd    *rand.Rand
	cache  string // folder for the caches of its processes; "": none
}

// newStory begins one with images a and b of so many chunks and a bit, of
// which those in the middle are zeros.
func newStory(t testing.TB, chunks int) *story {
	_, b := newRepository(t, chunk)
	s := &story{t: t, ledger: newLedger(), b: b, images: map[store.Name][]byte{}, rnd: rand.New(rand.NewPCG(21, 22))}
	first := make([]byte, chunks*chunk+777)
	fill(s.rnd, first[:chunks/7*chunk])
	fill(s.rnd, first[chunks*6/7*chunk:])
	s.images["a"] = first
	s.images["b"] = changedAt(first, 1, chunk, (chunks-1)*chunk)
	return s
}

// backup makes a level by a process of its own.
func (s *story) backup(name store.Name, w way) store.Level {
	s.t.Helper()
	src := &honest{image: image{data: s.images[name]}, ledger: s.ledger, way: w}
	r, err := store.Open(context.Background(), s.b, s.cache)
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Close()
	return mustBackup(s.t, r, name, src)
}

// fail runs a backup that makes no level.
func (s *story) fail(name store.Name, src *honest) {
	s.t.Helper()
	src.ledger = s.ledger
	if _, err := engine.Backup(context.Background(), reopen(s.t, s.b), name, src, engine.BackupOptions{}); err == nil {
		s.t.Fatal("a failing backup made a level")
	}
}

// write changes an image at some places.
func (s *story) write(name store.Name, at ...int) {
	s.images[name] = changedAt(s.images[name], byte(s.rnd.Uint32()), at...)
}

func (s *story) remove(name store.Name, numbers ...store.LevelNumber) {
	s.t.Helper()
	if err := engine.Remove(context.Background(), reopen(s.t, s.b), name, numbers); err != nil {
		s.t.Fatal(err)
	}
}

// all makes one of everything that is no damage happen.
func (s *story) all() {
	s.backup("a", byAllocated) // level 1
	s.write("a", 3*chunk, 30*chunk)
	s.backup("a", byDiff) // 2
	s.backup("b", withoutBase)
	s.write("a", 68*chunk)
	s.fail("a", &honest{image: image{data: s.images["a"], failAt: 68 * chunk}}) // 3
	s.fail("a", &honest{image: image{data: s.images["a"], recheck: errors.New("gone")}, way: byDiff})
	s.images["a"] = s.images["a"][:66*chunk+5]
	s.backup("a", byDiff) // 5
	s.write("a", 0)
	s.backup("a", asStream) // 6
	s.remove("a", 2, 5)
	s.write("a", 65*chunk)
	s.backup("a", compareAll) // 7
	s.remove("b", 1)
	s.backup("b", byDiff)
}

// A crash after any change of the repository loses no level that was committed
// and shows none that was not; the next backup of a name works whatever the
// dead run left, and tidies up after it.
func TestCrashAnywhere(t *testing.T) {
	s := newStory(t, 70)
	s.all()
	log := s.b.Log()
	checked := 0
	for n := 1; n <= len(log); n++ { // the first is backy.json; the probe comes before
		past := s.b.At(n)
		if len(keys(t, past, "backy.json")) == 0 {
			continue
		}
		checked += s.check(t, past)
		// Whatever died, its name goes on; the other does too.
		name := store.Name("a")
		if n%4 == 0 {
			name = "b"
		}
		data := changedAt(s.images[name], byte(n), (n%60)*chunk)
		s.next(t, past, name, data, way(n)%ways)
		checkEnded(t, past, log[:n])
	}
	t.Logf("%d prefixes, %d levels restored and scrubbed", len(log), checked)
}

// checkEnded sees to it that the numbers that were claimed in a log, and that a
// later run of the same name went on from, are decided for ever.
func checkEnded(t *testing.T, b *mem.Mem, log []mem.Op) {
	t.Helper()
	for _, op := range log {
		claim, ok := strings.CutPrefix(op.Key, "work/claim.")
		if !ok || op.Deleted {
			continue
		}
		name, number, _ := strings.Cut(claim, ".")
		if len(keys(t, b, "work/claim."+name)) > 0 {
			continue
		}
		if key := fmt.Sprintf("levels/%s/%s.json", name, number); len(keys(t, b, key)) == 0 {
			t.Fatalf("the claim %s is gone and nothing stands at %s", op.Key, key)
		}
	}
}

// harm is something that befalls a repository's objects.
type harm struct {
	name string
	do   func(t testing.TB, b *mem.Mem)
	// lasting harm is done to both copies of something: levels are lost, but
	// not those that come.
	lasting bool
}

// oldest returns the key of the object below a prefix that was put first, and
// its bytes.
func oldest(t testing.TB, b *mem.Mem, prefix string) (string, []byte) {
	t.Helper()
	for _, op := range b.Log() {
		if strings.HasPrefix(op.Key, prefix) && len(keys(t, b, op.Key)) > 0 {
			return op.Key, bytes.Clone(op.Data)
		}
	}
	t.Fatalf("no object below %s", prefix)
	return "", nil
}

// flip inverts bits of an object below a prefix, at so many thousandths of its
// length.
func flip(prefix string, thousandths int) harm {
	return harm{name: fmt.Sprintf("%s at %d‰", prefix, thousandths), do: func(t testing.TB, b *mem.Mem) {
		key, p := oldest(t, b, prefix)
		p[(len(p)-1)*thousandths/1000] ^= 0x40
		overwrite(t, b, key, p)
	}}
}

// lose deletes an object below a prefix.
func lose(prefix string) harm {
	return harm{name: prefix + " lost", do: func(t testing.TB, b *mem.Mem) {
		key, _ := oldest(t, b, prefix)
		if err := b.Delete(context.Background(), key); err != nil {
			t.Fatal(err)
		}
	}}
}

// both lets two things happen.
func both(x, y harm) harm {
	return harm{name: x.name + ", " + y.name, do: func(t testing.TB, b *mem.Mem) { x.do(t, b); y.do(t, b) }}
}

// lasting is both copies of something.
func lasting(x, y harm) harm {
	h := both(x, y)
	h.lasting = true
	return h
}

var harms = []harm{
	flip("data/", 0), flip("data/", 2), flip("data/", 500), flip("data/", 1000), lose("data/"),
	both(flip("data/", 2), flip("data/", 700)),
	flip("maps/", 0), flip("maps/", 20), flip("maps/", 500), lose("maps/"), lose("maps2/"),
	both(flip("data/", 300), lose("maps/")),
	both(flip("maps/", 300), flip("maps2/", 900)),
	lasting(lose("maps/"), lose("maps2/")),
	lasting(lose("maps/"), flip("maps2/", 500)),
	lasting(flip("maps/", 300), flip("maps2/", 300)),
}

// However far a mend comes before its process dies: nothing wrong is restored,
// what was whole stays whole, and scrub and backup bring back the rest.
func TestCrashWhileMending(t *testing.T) {
	before := newStory(t, 70)
	before.backup("a", byAllocated)
	before.write("a", 30*chunk)
	before.backup("a", byDiff)
	for _, h := range harms {
		t.Run(h.name, func(t *testing.T) {
			s := *before
			s.t, s.b, s.images = t, before.b.At(len(before.b.Log())), maps.Clone(before.images)
			h.do(t, s.b)
			harmed := len(s.b.Log())
			s.scrub(t, s.b)
			s.write("a", 31*chunk)
			s.backup("a", byDiff)
			log := s.b.Log()
			s.whole(t, s.b, h)
			for n := harmed; n < len(log); n++ {
				if note := strings.HasPrefix(log[n].Key, "damaged/"); !*soak && (n%3 > 0 || note && n%8 > 0) {
					continue
				}
				past := s.b.At(n)
				s.tolerate(t, past)
				s.scrub(t, past)
				s.images["a"] = changedAt(s.images["a"], byte(n), (32+n%28)*chunk)
				s.b = past
				s.backup("a", byDiff)
				s.whole(t, past, h)
			}
		})
	}
}

// whole finds nothing bad, but for levels that harm has taken for good.
func (s *story) whole(t testing.TB, b *mem.Mem, h harm) {
	t.Helper()
	if h.lasting {
		s.tolerate(t, b)
		r := reopen(t, b)
		s.checkLevel(t, r, mustLevel(t, r, "a"))
		return
	}
	s.check(t, b)
	if left := keys(t, b, "damaged/"); len(left) > 0 {
		t.Fatalf("noted as damaged still: %q", left)
	}
}

// scrub has a new process look at every level.
func (l *ledger) scrub(t testing.TB, b store.Backend) {
	t.Helper()
	for name := range standing(t, b) {
		r, err := store.Open(context.Background(), b, "")
		if err != nil {
			t.Fatal(err)
		}
		levels, err := r.Levels(context.Background(), name)
		if err != nil && !l.torn {
			t.Fatal(err)
		}
		for _, level := range levels {
			var damaged *engine.DamagedError
			if _, err := engine.Scrub(context.Background(), r, level, engine.ScrubOptions{}); err != nil && !errors.As(err, &damaged) {
				t.Fatal(err)
			}
		}
	}
}

// tolerate finds every level restored to the right bytes, or refused as
// damaged, or as removed meanwhile.
func (l *ledger) tolerate(t testing.TB, b store.Backend) {
	t.Helper()
	for name := range standing(t, b) {
		r, err := store.Open(context.Background(), b, "")
		if err != nil {
			t.Fatal(err)
		}
		levels, err := r.Levels(context.Background(), name)
		if err != nil && !l.torn {
			t.Fatal(err)
		}
		for _, level := range levels {
			l.tolerateLevel(t, r, level)
		}
	}
}

func (l *ledger) tolerateLevel(t testing.TB, r *store.Repository, level store.Level) {
	t.Helper()
	var damaged *engine.DamagedError
	d := &disk{}
	_, err := engine.Restore(context.Background(), r, level, d, engine.RestoreOptions{})
	if removed := r.CheckRemoved(context.Background(), &level); errors.Is(err, store.ErrRemoved) && errors.Is(removed, store.ErrRemoved) {
		return // by somebody else, just now
	}
	switch {
	case err != nil && !errors.As(err, &damaged):
		t.Fatalf("%s level %s: %v", level.Name, level.Number, err)
	case err == nil && !bytes.Equal(d.data, l.of(level.Run)):
		t.Fatalf("%s level %s: wrong bytes restored without an error", level.Name, level.Number)
	}
}
