package store

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"backy/store/mem"
)

var soak = flag.Bool("soak", false, "try every case, which takes long")

// house is a repository in which there is an object of every type, with what its
// levels hold.
type house struct {
	disk   *mem.Mem
	oracle oracle
}

// newHouse makes one, in a bubble. A gc has died, either just after its verdict
// or just before.
func newHouse(t *testing.T, judged bool) house {
	t.Helper()
	ctx := context.Background()
	w := &world{t: t, rnd: rand.New(rand.NewPCG(5, 6)), disk: simEmpty().At(1), oracle: newOracle(), harmed: newHarmed()}
	h := &host{w: w, id: 1, rnd: w.rnd}
	r, err := h.open(w.disk)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(err)
	for _, name := range []Name{"a", "a", "a", "b", "b"} {
		must(h.backup(r, name))
	}
	aborted, err := r.Begin(ctx, "a", WriterOptions{})
	must(err)
	must(aborted.Abort(ctx))
	levels, err := r.Levels(ctx, "b")
	must(err)
	l := levels[1]
	for _, n := range []LevelNumber{1, 2} {
		w.oracle.remove(w.oracle.run("a", n))
	}
	must(r.Remove(ctx, "a", []LevelNumber{1, 2}))
	must(r.Protect(ctx, "b", 1))
	must(r.MarkDiffers(ctx, "b"))
	must(r.MarkScrubbed(ctx, &Level{Name: "b", Number: 1, Run: l.Run}, time.Now()))
	must(r.MarkAllScrubbed(ctx, []SurveyedLevel{{Name: "a", Number: 3, Run: l.Run}}, time.Now()))
	must(r.putObject(ctx, checkedPrefix()+l.Run.String()+".0", "checked", &checkedPart{Folder: "data", Rows: map[RunID][]checkedRow{l.Run: {{0, 1, 0, 5, 5}}}}))
	must(r.NoteDamage(ctx, &l, &ChunkError{Kind: KindMap, Ref: l.Root, Cause: errors.New("once")}))
	must(r.noteTable(ctx, &PackObject{ID: l.Root.Pack, folder: uint8(slices.Index(packFolders[:], mapsPrefix))}, errors.New("once")))
	_, release := r.Hold(ctx, &l, HoldOptions{})
	defer release()
	dead := &claim{Name: "b", Number: 3, Run: 77, Process: process{Host: "gone"}, Started: time.Now(), Beat: 30}
	must(r.putObject(ctx, claimKey("b", 3), "claim", dead))
	must(r.putObject(ctx, beatKey(77, 1), "beat", time.Now()))
	time.Sleep(time.Hour)
	_, err = r.GC(ctx, GCOptions{})
	must(err)
	log := w.disk.Log()
	verdict := slices.IndexFunc(log, func(op mem.Op) bool {
		return strings.HasPrefix(op.Key, workPrefix+"verdict.") && strings.Count(op.Key, ".") == 1
	})
	if verdict < 0 {
		t.Fatal("there was no verdict")
	}
	if judged {
		verdict++
	}
	return house{w.disk.At(verdict), w.oracle}
}

// run finds the run of a level.
func (o oracle) run(name Name, n LevelNumber) RunID {
	for run, l := range o.levels {
		if l.name == name && l.number == n {
			return run
		}
	}
	return 0
}

// byteClass is a part of an object.
type byteClass struct {
	name string
	at   []int
}

func span(from, to int) (at []int) {
	for i := from; i < to; i++ {
		at = append(at, i)
	}
	return at
}

// byteClasses cuts an object into parts that play one part each.
func byteClasses(t *testing.T, key string, p []byte) (list []byteClass) {
	if _, _, _, err := parsePackKey(key); err == nil {
		h, err := decodePackHeader(p)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list,
			byteClass{"header: magic, version", span(0, 10)}, byteClass{"header: parameters", span(10, 32)},
			byteClass{"header: pack, counts", span(32, 60)}, byteClass{"header: CRC", span(60, 72)})
		parts := make([]byteClass, 8)
		for i, name := range []string{
			"table: checksum", "table: offset, lengths", "table: codec, type", "table: CRC",
			"frame: magic, index", "frame: lengths", "frame: codec, type, CRC", "frame: bytes",
		} {
			parts[i].name = name
		}
		for i := range int(h.Entries) {
			at := packHeaderSize + i*entrySize
			for k, cut := range [][2]int{{0, 32}, {32, 48}, {48, 52}, {52, 56}} {
				parts[k].at = append(parts[k].at, span(at+cut[0], at+cut[1])...)
			}
			e, err := decodeEntry(p[at:], maxMetaRaw)
			if err != nil || e.Codec == Absent {
				continue
			}
			at = int(e.Offset)
			for k, cut := range [][2]int{{0, 8}, {8, 16}, {16, 24}, {24, 24 + e.Stored}} {
				parts[4+k].at = append(parts[4+k].at, span(at+cut[0], at+cut[1])...)
			}
		}
		return append(list, parts...)
	}
	sum := bytes.Index(p, []byte(`"blake3":"`)) + 10
	body := sum + 64 + len(`","body":`)
	end := len(p) - len("}\n")
	return []byteClass{
		{"type", span(len(`{"type":"`), sum-len(`","blake3":"`))},
		{"checksum", span(sum, sum+64)},
		{"body", span(body, end)},
		{"envelope", append(append(span(0, 9), span(sum-12, sum)...), span(end, len(p))...)},
	}
}

// typeOf names an object's type as the table of the results does.
func typeOf(key string, p []byte) string {
	if folder, _, _, err := parsePackKey(key); err == nil {
		return folder
	}
	e, _ := openObject(p)
	return e.Type
}

// outcomes of a byte that is bad.
type outcomes struct{ flips, refused, named, harmless int }

// Whatever byte of whatever object is bad: no level reads as wrong bytes; what
// cannot be read is named by a scrub; whatever the object was for, backups and
// gcs go on, unless it says which levels there are, and then they say so; and
// what is damaged becomes whole again.
func TestFlips(t *testing.T) {
	table := map[string]map[string]*outcomes{}
	flips := 0
	for _, judged := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			house := newHouse(t, judged)
			var keys []string
			if err := house.disk.List(context.Background(), "", func(key string, _ int64) error { keys = append(keys, key); return nil }); err != nil {
				t.Fatal(err)
			}
			slices.Sort(keys)
			seen := map[string]int{}
			rnd := rand.New(rand.NewPCG(7, 8))
			for _, key := range keys {
				p, err := readAll(context.Background(), house.disk, key, maxPackBytes)
				if err != nil {
					t.Fatal(err)
				}
				typ := typeOf(key, p)
				if _, id, _, err := parsePackKey(key); err == nil {
					if l, ok := house.oracle.level(id.Run); !ok || l.removed {
						continue
					}
				}
				if seen[typ]++; !*soak && (seen[typ] > 2 || judged && !strings.HasPrefix(key, workPrefix)) {
					continue
				}
				if table[typ] == nil {
					table[typ] = map[string]*outcomes{}
				}
				for _, class := range byteClasses(t, key, p) {
					if table[typ][class.name] == nil {
						table[typ][class.name] = &outcomes{}
					}
					at := class.at
					if !*soak && len(at) > 3 {
						at = []int{at[0], at[rnd.IntN(len(at))], at[len(at)-1]}
					}
					for _, i := range at {
						flipped := bytes.Clone(p)
						flipped[i] ^= 1 << rnd.IntN(8)
						house.live(t, key, p, flipped, table[typ][class.name])
						flips++
						if t.Failed() {
							t.Fatalf("%s (%s), %s, byte %d is %#x instead of %#x", key, typ, class.name, i, flipped[i], p[i])
						}
					}
				}
			}
		})
	}
	for _, typ := range slices.Sorted(maps.Keys(table)) {
		for _, class := range slices.Sorted(maps.Keys(table[typ])) {
			o := table[typ][class]
			t.Logf("%-14s %-24s %4d flips: %4d refused, %4d named, %4d harmless", typ, class, o.flips, o.refused, o.named, o.harmless)
		}
	}
	t.Logf("%d flips", flips)
	for _, typ := range append(slices.Clone(objectTypes), dataPrefix, mapsPrefix, twinsPrefix) {
		if table[typ] == nil {
			t.Errorf("there was no %s", typ)
		}
	}
}

// live lets a host live with an object that is not as it was.
func (x house) live(t *testing.T, key string, good, bad []byte, o *outcomes) {
	ctx := context.Background()
	w := &world{t: t, rnd: rand.New(rand.NewPCG(1, 2)), disk: x.disk.At(len(x.disk.Log())), oracle: x.oracle.clone(), harmed: newHarmed()}
	folder, id, _, err := parsePackKey(key)
	isPack := err == nil
	if isPack && folder == dataPrefix {
		for _, ref := range w.chunks(key, id) {
			w.harmed.data[place{KindData, id, ref.Index}] = true
		}
	}
	overwrite(t, w.disk, key, bad)
	o.flips++
	h := &host{w: w, id: 9, rnd: w.rnd}
	r, err := h.open(w.disk)
	if err != nil {
		o.refused++
		if key != configKey {
			t.Errorf("open: %v", err)
		}
		return
	}
	harmless := sameObject(good, bad)
	if isPack {
		harmless = samePack(t, good, bad)
	}
	readable := true
	for _, name := range []Name{"a", "b"} {
		levels, err := r.Levels(ctx, name)
		if err != nil {
			readable = false
			if !strings.HasPrefix(key, levelPrefix(name)) || !strings.Contains(err.Error(), key) {
				t.Errorf("levels of %s: %v", name, err)
			}
		}
		for i := range levels {
			contents, bad, err := h.read(ctx, r, &levels[i])
			_ = h.judge(&levels[i], contents, bad, err)
			if err := h.note(ctx, r, &levels[i]); err != nil {
				t.Errorf("scrub: %v", err)
			}
		}
	}
	switch {
	case isPack && x.noted(ctx, t, r, id), isPack && surveyed(ctx, t, r, key), !isPack && named(ctx, t, r, key):
		o.named++
	case !harmless:
		t.Error("no scrub names it")
	default:
		o.harmless++
	}
	_, gcErr := r.GC(ctx, GCOptions{})
	if readable && gcErr != nil {
		t.Errorf("gc: %v", gcErr)
	}
	if !readable {
		o.refused++
		_, _, removal, _ := parseLevelKey(key)
		_, err := w.disk.Get(ctx, strings.TrimSuffix(key, ".json")+".removed", nil, 0)
		if gcErr == nil && !removal && err != nil {
			t.Error("a gc collects, though a level's record cannot be read")
		}
		return
	}
	for range 2 {
		w.heal(ctx, h)
	}
	clear(w.harmed.data)
	if r, err = h.open(w.disk); err != nil {
		t.Error(err)
		return
	}
	w.promises(ctx, h, r)
}

// sameObject reports whether two objects say the same, as where the case of
// a key changed, which JSON ignores.
func sameObject(a, b []byte) bool {
	x, _ := openObject(a)
	y, err := openObject(b)
	return err == nil && x.Type == y.Type && bytes.Equal(x.Body, y.Body)
}

// samePack reports whether two packs differ in nothing but the two bytes of a
// frame's header that mean nothing.
func samePack(t *testing.T, a, b []byte) bool {
	h, err := decodePackHeader(a)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.Clone(b)
	for i := range int(h.Entries) {
		e, err := decodeEntry(a[packHeaderSize+i*entrySize:], maxMetaRaw)
		if err != nil {
			t.Fatal(err)
		}
		if e.Codec != Absent {
			clear(b[e.Offset+18 : e.Offset+20])
		}
	}
	return bytes.Equal(a, b)
}

// surveyed has a scrub of everything look at an object.
func surveyed(ctx context.Context, t *testing.T, r *Repository, key string) bool {
	s, err := r.Survey(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	packs, err := s.Packs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range packs {
		report, err := s.Check(ctx, o, PackCheck{})
		if err != nil {
			t.Fatal(err)
		}
		if bad := report.Bad+report.Copies > 0 || report.Table != nil; bad && o.key() == key {
			return true
		}
	}
	return false
}

func named(ctx context.Context, t *testing.T, r *Repository, key string) (found bool) {
	if _, err := r.CheckObjects(ctx, func(e ObjectError) { found = found || e.Key == key }); err != nil {
		t.Error(err)
	}
	return found
}

// noted reports whether the scrubs have noted anything of a pack that was not
// noted before.
func (x house) noted(ctx context.Context, t *testing.T, r *Repository, id PackID) bool {
	mine := strings.ReplaceAll(id.String(), "/", ".")
	keys, err := r.list(ctx, damagedPrefix)
	if err != nil {
		t.Error(err)
	}
	return slices.ContainsFunc(keys, func(key string) bool {
		_, err := x.disk.Get(ctx, key, nil, 0)
		return err != nil && strings.Contains(key, mine)
	})
}
