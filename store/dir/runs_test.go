package dir

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"backy/store"
)

var soak = flag.Bool("soak", false, "try every case, which takes long")

// levelBytes is what a level holds, chunk by chunk; "" is a hole.
type levelBytes []string

// promised is what processes were told: which levels stand, and what the level
// of a number holds if it does.
type promised struct {
	bytes   map[store.LevelNumber]levelBytes
	stands  map[store.LevelNumber]bool
	removed map[store.LevelNumber]bool // or may be
	gone    map[store.LevelNumber]bool
}

func (p promised) clone() promised {
	c := newPromised()
	for n, b := range p.bytes {
		c.bytes[n] = b
	}
	for _, m := range [][2]map[store.LevelNumber]bool{{p.stands, c.stands}, {p.removed, c.removed}, {p.gone, c.gone}} {
		for n := range m[0] {
			m[1][n] = true
		}
	}
	return c
}

func newPromised() promised {
	return promised{
		map[store.LevelNumber]levelBytes{}, map[store.LevelNumber]bool{}, map[store.LevelNumber]bool{}, map[store.LevelNumber]bool{},
	}
}

// backup makes the next level, of which most is as in the base.
func backup(ctx context.Context, r *store.Repository, p promised, data levelBytes) (err error) {
	w, err := r.Begin(ctx, "a", store.WriterOptions{})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = w.Abort(ctx) // a dead process does nothing by it
		}
	}()
	base, before := store.Map{Fanout: r.Fanout()}, make([]store.Ref, len(data))
	if levels := w.History.Levels; len(levels) > 0 {
		base = levels[len(levels)-1].Map()
		leaf, err := r.Cursor(base).At(ctx, 0)
		if err != nil {
			return err
		}
		copy(before, leaf.Refs)
	}
	if err := w.BeginMap(ctx, base, int64(len(data))); err != nil {
		return err
	}
	coder := r.NewCoder(store.CompressNone)
	for pos, raw := range data {
		ref, err := keep(ctx, w, coder, before[pos], raw)
		if err != nil {
			return err
		}
		if err := w.Set(ctx, int64(pos), ref); err != nil {
			return err
		}
	}
	root, err := w.FinishMap(ctx, int64(len(data)))
	if err != nil {
		return err
	}
	p.bytes[w.Number] = data
	err = w.Commit(ctx, &store.Level{
		Name: "a", Number: w.Number, Run: w.ID, Size: int64(len(data)) * r.ChunkSize, ChunkSize: r.ChunkSize, Fanout: r.Fanout(), Root: root,
	})
	if err == nil {
		p.stands[w.Number] = true
	}
	return err
}

// keep returns where a chunk is kept, having stored or mended it where needed.
func keep(ctx context.Context, w *store.Writer, coder *store.Coder, base store.Ref, raw string) (store.Ref, error) {
	if raw == "" {
		return store.Ref{}, nil
	}
	sum := store.Sum([]byte(raw))
	bad := len(w.Damage.Of(sum)) > 0
	if !bad && base.Sum == sum {
		return base, nil
	}
	if ref, ok, err := w.Known(ctx, sum); !bad && (ok || err != nil) {
		return ref, err
	}
	e, err := coder.Encode([]byte(raw), sum)
	if err != nil {
		return store.Ref{}, err
	}
	if base.Sum == sum && w.Mendable(base) {
		return base, w.Mend(ctx, e, base)
	}
	if bad {
		if err := w.Mend(ctx, e, store.Ref{}); err != nil {
			return store.Ref{}, err
		}
	}
	ref, _, err := w.PutChunk(ctx, e)
	return ref, err
}

func remove(ctx context.Context, r *store.Repository, p promised, n store.LevelNumber) error {
	p.removed[n] = true
	err := r.Remove(ctx, "a", []store.LevelNumber{n})
	if err == nil {
		p.gone[n] = true
	}
	return err
}

// scrub notes what is bad of all levels.
func scrub(ctx context.Context, r *store.Repository) error {
	levels, err := r.Levels(ctx, "a")
	if err != nil {
		return err
	}
	for _, l := range levels {
		leaf, err := r.Cursor(l.Map()).At(ctx, 0)
		if err != nil {
			return err
		}
		refs := slices.DeleteFunc(slices.Clone(leaf.Refs), store.Ref.IsZero)
		err = r.Fetch(ctx, store.KindData, refs, func(_ int, _ []byte, err error) error {
			var bad *store.ChunkError
			if errors.As(err, &bad) {
				return r.NoteDamage(ctx, &l, bad)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// check finds every level that was promised, bit for bit, and none that is not.
func (p promised) check(ctx context.Context, r *store.Repository, damaged bool) error {
	levels, err := r.Levels(ctx, "a")
	if err != nil {
		return err
	}
	found := map[store.LevelNumber]bool{}
	for _, l := range levels {
		found[l.Number] = true
		if p.gone[l.Number] {
			return fmt.Errorf("level %s is there, which was removed", l.Number)
		}
		want := p.bytes[l.Number]
		leaf, err := r.Cursor(l.Map()).At(ctx, 0)
		if err != nil {
			return fmt.Errorf("level %s: %w", l.Number, err)
		}
		for pos, raw := range want {
			ref := leaf.Ref(int64(pos))
			if ref.IsZero() != (raw == "") {
				return fmt.Errorf("level %s, chunk %d: %v", l.Number, pos, ref)
			}
			if ref.IsZero() {
				continue
			}
			err := r.Fetch(ctx, store.KindData, []store.Ref{ref}, func(_ int, got []byte, err error) error {
				if err == nil && string(got) != raw {
					return errors.New("other bytes")
				}
				var bad *store.ChunkError
				if damaged && errors.As(err, &bad) {
					return nil
				}
				return err
			})
			if err != nil {
				return fmt.Errorf("level %s, chunk %d: %w", l.Number, pos, err)
			}
		}
	}
	for n := range p.stands {
		if !found[n] && !p.removed[n] {
			return fmt.Errorf("level %s is gone", n)
		}
	}
	return nil
}

// subsets calls fn with a file system for each way in which what was not synced
// may be lost: all of it, nothing, each change alone, all but one, and some at
// random; all ways where there are few.
func subsets(m *memFS, rnd *rand.Rand, fn func(*memFS)) (tried int) {
	n := 0
	m.cut(func() bool { n++; return false })
	try := func(survives func(i int) bool) {
		i := -1
		tried++
		fn(m.cut(func() bool { i++; return survives(i) }))
	}
	if few := 3; n <= few || *soak && n <= 6 {
		for set := range 1 << n {
			try(func(i int) bool { return set>>i&1 == 1 })
		}
		return tried
	}
	try(func(int) bool { return false })
	try(func(int) bool { return true })
	for range 3 {
		one, bits := rnd.IntN(n), rnd.Uint64()
		try(func(i int) bool { return i == one })
		try(func(i int) bool { return i != one })
		try(func(i int) bool { return bits>>(i%64)&1 == 1 })
	}
	return tried
}

// Whole runs on a disk whose power is cut: of init, backups, a removal, a gc and
// a mend, each process dies before each of its steps in turn. Then, at once or
// after a backup by another process, of what was not synced any part is lost. Every level that was promised is there, what
// was removed stays so, and the next backup and gc go on.
func TestPowerCutInRuns(t *testing.T) {
	ctx := context.Background()
	text := func(s string) string { return s + string(bytes.Repeat([]byte{'.'}, 50)) }
	first := levelBytes{text("one"), "", text("two"), text("three"), text("four"), text("five")}
	second := slices.Clone(first)
	second[2], second[3] = text("new two"), text("one")
	third := slices.Clone(second)
	third[0], third[4] = "", text("new four")
	fourth := levelBytes{text("new four"), text("five"), text("new two"), text("one"), text("three"), ""}
	acts := []struct {
		name string
		do   func(ctx context.Context, r *store.Repository, p promised) error
	}{
		{"first backup", func(ctx context.Context, r *store.Repository, p promised) error { return backup(ctx, r, p, first) }},
		{"backup", func(ctx context.Context, r *store.Repository, p promised) error { return backup(ctx, r, p, second) }},
		{"another backup", func(ctx context.Context, r *store.Repository, p promised) error { return backup(ctx, r, p, third) }},
		{"rm", func(ctx context.Context, r *store.Repository, p promised) error { return remove(ctx, r, p, 1) }},
		{"gc", func(ctx context.Context, r *store.Repository, _ promised) error {
			_, err := r.GC(ctx, store.GCOptions{})
			return err
		}},
		{"mend", func(ctx context.Context, r *store.Repository, p promised) error {
			return errors.Join(scrub(ctx, r), backup(ctx, r, p, third))
		}},
	}
	rnd := rand.New(rand.NewPCG(31, 32))
	m, p := newMemFS(), newPromised()
	deaths, cuts := cutInit(t, rnd)
	if _, err := store.Init(ctx, &Dir{root: "/", fs: m}, store.Parameters{ChunkSize: 16 << 10}); err != nil {
		t.Fatal(err)
	}
	for _, act := range acts {
		damaged := act.name == "mend"
		if damaged {
			spoil(t, m)
		}
		for steps := 0; ; steps++ {
			if !*soak && steps%5 != 0 {
				continue
			}
			after, told := m.cut(func() bool { return true }), p.clone()
			d := process(after, steps)
			r, err := store.Open(ctx, d, "")
			if err == nil {
				err = act.do(ctx, r, told)
			}
			cuts += subsets(after, rnd, func(left *memFS) {
				if cutErr := goOn(ctx, left, told, third, damaged); cutErr != nil {
					t.Fatalf("%s, dead after %d steps (%v): %v", act.name, steps, err, cutErr)
				}
			})
			if err == nil {
				break
			}
			deaths++
			// Another process goes on with what is seen and may not be durable.
			if r, err = store.Open(ctx, &Dir{root: "/", fs: after}, ""); err == nil {
				err = backup(ctx, r, told, fourth)
			}
			if err != nil {
				t.Fatalf("%s, dead after %d steps: the next backup: %v", act.name, steps, err)
			}
			cuts += subsets(after, rnd, func(left *memFS) {
				if err := goOn(ctx, left, told, third, damaged); err != nil {
					t.Fatalf("%s, dead after %d steps, and then a backup: %v", act.name, steps, err)
				}
			})
		}
		r, err := store.Open(ctx, &Dir{root: "/", fs: m}, "")
		if err == nil {
			err = act.do(ctx, r, p)
		}
		if err != nil {
			t.Fatalf("%s: %v", act.name, err)
		}
	}
	t.Logf("%d deaths, %d ways in which the power was cut", deaths, cuts)
}

// cutInit cuts the power while a repository is made.
func cutInit(t *testing.T, rnd *rand.Rand) (deaths, cuts int) {
	ctx := context.Background()
	for steps := 0; ; steps++ {
		m := newMemFS()
		_, err := store.Init(ctx, process(m, steps), store.Parameters{ChunkSize: 16 << 10})
		cuts += subsets(m, rnd, func(left *memFS) {
			_, openErr := store.Open(ctx, &Dir{root: "/", fs: left}, "")
			if errors.Is(openErr, store.ErrNotRepository) && err != nil {
				_, openErr = store.Init(ctx, &Dir{root: "/", fs: left}, store.Parameters{ChunkSize: 16 << 10})
			}
			if openErr != nil {
				t.Fatalf("init, dead after %d steps (%v): %v", steps, err, openErr)
			}
		})
		if err == nil {
			return deaths, cuts
		}
		deaths++
	}
}

// goOn is what comes after a power cut.
func goOn(ctx context.Context, m *memFS, p promised, data levelBytes, damaged bool) error {
	r, err := store.Open(ctx, &Dir{root: "/", fs: m}, "")
	if err != nil {
		return err
	}
	p = p.clone()
	if err := p.check(ctx, r, damaged); err != nil {
		return err
	}
	if damaged {
		if err := scrub(ctx, r); err != nil {
			return err
		}
	}
	if err := backup(ctx, r, p, data); err != nil {
		return fmt.Errorf("the next backup: %w", err)
	}
	if _, err := r.GC(ctx, store.GCOptions{}); err != nil {
		return fmt.Errorf("the next gc: %w", err)
	}
	again, err := r.GC(ctx, store.GCOptions{DryRun: true})
	if err == nil && again.Deleted+again.Rewritten > 0 {
		err = fmt.Errorf("after a gc there is more to collect: %+v", again)
	}
	if err != nil {
		return err
	}
	if r, err = store.Open(ctx, &Dir{root: "/", fs: m}, ""); err != nil {
		return err
	}
	return p.check(ctx, r, false)
}

// spoil flips a byte of every pack of chunks.
func spoil(t *testing.T, m *memFS) {
	t.Helper()
	d := &Dir{root: "/", fs: m}
	var keys []string
	if err := d.List(context.Background(), "data/", func(key string, _ int64) error { keys = append(keys, key); return nil }); err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		_, n, err := m.find(key)
		if err != nil {
			t.Fatal(err)
		}
		p := []byte(n.data)
		p[len(p)-1] ^= 1
		n.data, n.durableData = string(p), string(p)
	}
}
