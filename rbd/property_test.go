package rbd

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ceph/go-ceph/rbd"

	"backy/engine"
	"backy/store"
	"backy/store/mem"
)

// Random histories of an image: whatever happens to it between two backups, each
// level restores to the bytes of its snapshot, and so do the older ones.
//
// BACKY_TEST_SEED=N runs the history of that seed, which a failure prints;
// BACKY_TEST_HISTORIES=N runs that many.
func TestHistories(t *testing.T) {
	seeds := make([]uint64, number(t, "BACKY_TEST_HISTORIES", 4))
	for i := range seeds {
		seeds[i] = rand.Uint64()
	}
	if os.Getenv("BACKY_TEST_SEED") != "" {
		seeds = []uint64{number(t, "BACKY_TEST_SEED", 0)}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed-", seed), func(t *testing.T) {
			t.Parallel()
			h := newHistory(t, seed)
			const steps = 90
			for range steps {
				h.step()
				if t.Failed() {
					t.Fatalf("BACKY_TEST_SEED=%d: after these steps:\n%s", seed, strings.Join(h.done, "\n"))
				}
			}
			h.checkAll()
		})
	}
}

func number(t *testing.T, variable string, fallback uint64) uint64 {
	t.Helper()
	s := os.Getenv(variable)
	if s == "" {
		return fallback
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q: %v", variable, s, err)
	}
	return n
}

// history is an image with what was done to it and what was backed up.
type history struct {
	*lab
	*rand.Rand
	repo    *store.Repository
	name    store.Name
	spec    Spec
	snaps   []string // of others
	content map[store.LevelNumber][]byte
	images  int
	done    []string
}

func newHistory(t *testing.T, seed uint64) *history {
	t.Helper()
	h := &history{
		lab: newLab(t), Rand: rand.New(rand.NewPCG(seed, 0)),
		name: "vm", content: map[store.LevelNumber][]byte{},
	}
	var err error
	h.repo, err = store.Init(t.Context(), mem.New(), store.Parameters{ChunkSize: 16 << 10 << h.IntN(4)})
	h.must(err)
	h.Cleanup(func() { h.must(h.repo.Close()) })
	args := [][]string{
		nil, nil,
		{"--image-feature", "layering,exclusive-lock"},
		{"--stripe-unit", "4096", "--stripe-count", "3"},
		{"--stripe-unit", "16384", "--stripe-count", "5", "--image-feature", "layering"},
	}[h.IntN(5)]
	h.spec = h.lab.create("image-0", h.someSize(), args...)
	h.note("create %v", args)
	return h
}

func (h *history) note(format string, args ...any) {
	h.done = append(h.done, fmt.Sprintf(format, args...))
}

func (h *history) someSize() int64 {
	size := h.Int64N(10) * object
	if h.IntN(3) == 0 {
		size += h.Int64N(object)
	}
	return size
}

// step does one thing of those that happen to images.
func (h *history) step() {
	h.Helper()
	steps := []struct {
		weight int
		do     func()
	}{
		{24, h.change},
		{16, h.resize},
		{14, h.snapshot},
		{5, h.removeSnapshot},
		{5, h.rollback},
		{1, h.clone},
		{2, h.flatten},
		{4, h.switchFeatures},
		{2, h.meddle},
		{8, h.backup},
		{3, h.backupSnapshot},
		{2, h.removeLevel},
	}
	total := 0
	for _, s := range steps {
		total += s.weight
	}
	n := h.IntN(total)
	for _, s := range steps {
		if n -= s.weight; n < 0 {
			s.do()
			return
		}
	}
}

// change writes, discards and zeroes some places.
func (h *history) change() {
	size := int64(len(h.lab.content(h.spec)))
	if size == 0 {
		return
	}
	h.with(h.spec, func(i *rbd.Image) error {
		for range 1 + h.IntN(6) {
			off := h.Int64N(size)
			length := 1 + h.Int64N([]int64{4096, object / 2, 3 * object}[h.IntN(3)])
			if h.IntN(2) == 0 {
				off = off / 4096 * 4096
			}
			length = min(length, size-off)
			var err error
			switch h.IntN(4) {
			case 0:
				h.note("discard %d+%d", off, length)
				_, err = i.Discard(uint64(off), uint64(length))
			case 1:
				length = length / 512 * 512
				h.note("write zeroes %d+%d", off, length)
				if length > 0 {
					_, err = i.WriteSame(uint64(off), uint64(length), make([]byte, 512), 0)
				}
			default:
				h.note("write %d+%d", off, length)
				p := make([]byte, length)
				for j := range p {
					p[j] = byte(h.Uint32())
				}
				_, err = i.WriteAt(p, off)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (h *history) resize() {
	size := h.someSize()
	h.note("resize %d", size)
	h.lab.resize(h.spec, size)
	if h.IntN(4) == 0 { // what fast diff was seen to fail at, if it was a smaller size
		h.snapshot()
		h.resize()
		h.change()
	}
}

func (h *history) snapshot() {
	name := fmt.Sprint("theirs-", len(h.done))
	h.note("snapshot %s", name)
	h.snap(h.spec, name)
	h.snaps = append(h.snaps, name)
}

func (h *history) removeSnapshot() {
	if len(h.snaps) == 0 {
		return
	}
	n := h.IntN(len(h.snaps))
	h.note("remove snapshot %s", h.snaps[n])
	h.unsnap(h.spec, h.snaps[n])
	h.snaps = slices.Delete(h.snaps, n, n+1)
}

// rollback goes back to a snapshot, unless its object map is invalid: librbd 16.2
// then leaves the image with a wrong one that counts as valid, and reads zeros
// where there is data.
func (h *history) rollback() {
	if len(h.snaps) == 0 {
		return
	}
	name := h.snaps[h.IntN(len(h.snaps))]
	io := h.ioctx(h.spec)
	defer io.Destroy()
	var id uint64
	var imageID string
	h.look(h.spec, func(i *rbd.Image) (err error) {
		if id, err = i.GetSnapID(name); err == nil {
			imageID, err = i.GetId()
		}
		return err
	})
	maps, err := readMapState(io, imageID, []uint64{id})
	h.must(err)
	if maps.invalid {
		return
	}
	h.note("roll back to %s", name)
	h.lab.rollback(h.spec, name)
}

// clone goes on with a clone of the image under another name.
func (h *history) clone() {
	if len(h.lab.content(h.spec)) == 0 { // which librbd refuses to clone
		return
	}
	h.images++
	child := h.spec
	child.Image = fmt.Sprint("image-", h.images)
	h.note("clone %s", child.Image)
	h.snap(h.spec, "golden")
	args := []string{"clone", path(h.spec.at("golden")), path(child), "--rbd-default-clone-format", "2", "--object-size", fmt.Sprint(object)}
	if h.IntN(2) == 0 {
		args = append(args, "--image-feature", "layering,exclusive-lock")
	}
	h.rbd(args...)
	h.spec, h.snaps = child, nil
}

func (h *history) flatten() {
	parent := false
	h.look(h.spec, func(i *rbd.Image) error {
		_, err := i.GetParent()
		parent = err == nil
		return nil
	})
	if parent {
		h.note("flatten")
		h.rbd("flatten", "--no-progress", path(h.spec))
	}
}

func (h *history) switchFeatures() {
	l := h.features()
	on := slices.Contains(l, "object-map")
	switch {
	case !slices.Contains(l, "exclusive-lock"):
		h.note("enable exclusive-lock")
		h.rbd("feature", "enable", path(h.spec), "exclusive-lock")
	case on && h.IntN(2) == 0:
		h.note("disable object-map")
		what := []string{"object-map"}
		if slices.Contains(l, "fast-diff") {
			what = append(what, "fast-diff")
		}
		h.rbd(append([]string{"feature", "disable", path(h.spec)}, what...)...)
	case on:
		h.note("rebuild the object map")
		h.rbd("object-map", "rebuild", "--no-progress", path(h.spec))
		for _, name := range h.lab.snaps(h.spec) {
			if h.IntN(3) > 0 {
				h.note("and of %s", name)
				h.rbd("object-map", "rebuild", "--no-progress", path(h.spec.at(name)))
			}
		}
	default:
		h.note("enable object-map, fast-diff")
		h.rbd("feature", "enable", path(h.spec), "object-map", "fast-diff")
	}
}

func (h *history) features() []string {
	var names []string
	h.look(h.spec, func(i *rbd.Image) error {
		bits, err := i.GetFeatures()
		names = featureNames(bits)
		return err
	})
	return names
}

// meddle removes a snapshot of ours, as an administrator may.
func (h *history) meddle() {
	for _, name := range h.lab.snaps(h.spec) {
		if strings.HasPrefix(name, "backy-") {
			h.note("remove snapshot %s", name)
			h.unsnap(h.spec, name)
			return
		}
	}
}

func (h *history) backup() { h.run(h.spec) }

func (h *history) backupSnapshot() {
	if len(h.snaps) > 0 {
		h.run(h.spec.at(h.snaps[h.IntN(len(h.snaps))]))
	}
}

func (h *history) run(spec Spec) {
	h.Helper()
	d := []Diff{DiffAuto, DiffAuto, DiffAuto, DiffExact, DiffNone}[h.IntN(5)]
	h.note("backup %s by %s", spec, d)
	before := h.levels()
	var warned []string
	level, err := engine.Backup(h.Context(), h.repo, h.name, h.conn.Source(spec, SourceOptions{Diff: d, Adopt: true}), engine.BackupOptions{
		Warn: func(format string, args ...any) {
			if w := fmt.Sprintf(format, args...); !strings.Contains(w, "rbd object-map rebuild") {
				warned = append(warned, w)
			}
		},
	})
	h.must(err)
	// The name goes on with another image, if this one is a clone or was made anew.
	o := level.Origin.RBD
	if len(before) > 0 && !before[len(before)-1].Of(o.ID()) {
		if len(warned) == 0 || !strings.Contains(warned[0], "of another image") && !strings.Contains(warned[0], "of an earlier image") {
			h.Errorf("warned of %q, and not first that level %d is another image's", warned, before[len(before)-1].Number)
		} else {
			warned = warned[1:]
		}
	}
	var honest []string
	if n := len(before); n > 0 && before[n-1].Size > 0 && level.Size == 0 {
		honest = append(honest, fmt.Sprintf("the source of vm is empty, and level %s was not: is it the right one?", before[n-1].Number))
	}
	// Images this small change unusually much now and then.
	for _, u := range engine.FindUnusual(level, before) {
		honest = append(honest, fmt.Sprintf("%s level %s: %s", level.Name, level.Number, u))
	}
	if !slices.Equal(warned, honest) {
		h.Errorf("warned of %q instead of %q", warned, honest)
	}
	h.note("  level %d from %d by %s, snapshot %s", level.Number, level.Base, level.Origin.Diff, o.Snapshot)
	h.content[level.Number] = h.lab.content(spec.at(o.Snapshot))
	h.check(level)
	var ours, theirs []string
	for _, name := range h.lab.snaps(h.spec) {
		if strings.HasPrefix(name, "backy-") {
			ours = append(ours, name)
		} else if name != "golden" {
			theirs = append(theirs, name)
		}
	}
	if len(ours) > 1 || o.Own && !slices.Equal(ours, []string{o.Snapshot}) {
		h.Errorf("snapshots %v of ours are left by level %d, which has %s", ours, level.Number, o.Snapshot)
	}
	if !slices.Equal(theirs, h.snaps) {
		h.Errorf("snapshots %v of others are left of %v", theirs, h.snaps)
	}
	if h.IntN(5) == 0 {
		h.restore(level)
	}
}

// check compares a level with the bytes of its snapshot.
func (h *history) check(level store.Level) {
	h.Helper()
	var got bytes.Buffer
	_, err := engine.Stream(h.Context(), h.repo, level, &got, engine.RestoreOptions{})
	h.must(err)
	if want := h.content[level.Number]; !bytes.Equal(got.Bytes(), want) {
		h.Errorf("level %d: %d bytes, differs first at %d of %d", level.Number, got.Len(), firstDifference(got.Bytes(), want), len(want))
	}
}

// restore makes an image of a level.
func (h *history) restore(level store.Level) {
	h.Helper()
	h.images++
	spec := h.lab.spec(fmt.Sprint("restored-", h.images))
	_, err := engine.Restore(h.Context(), h.repo, level, h.restorer.Target(spec, TargetOptions{Warn: h.Errorf}), engine.RestoreOptions{})
	h.must(err)
	if got, want := h.lab.content(spec), h.content[level.Number]; !bytes.Equal(got, want) {
		h.Errorf("level %d restored: %d bytes, differs first at %d of %d", level.Number, len(got), firstDifference(got, want), len(want))
	}
}

func (h *history) removeLevel() {
	levels := h.levels()
	if len(levels) == 0 {
		return
	}
	n := levels[h.IntN(len(levels))].Number
	h.note("remove level %d", n)
	h.must(engine.Remove(h.Context(), h.repo, h.name, []store.LevelNumber{n}))
	delete(h.content, n)
}

func (h *history) levels() []store.Level {
	h.Helper()
	levels, err := h.repo.Levels(h.Context(), h.name)
	h.must(err)
	return levels
}

func (h *history) checkAll() {
	h.Helper()
	levels := h.levels()
	if len(levels) != len(h.content) {
		h.Errorf("%d levels are listed of %d", len(levels), len(h.content))
	}
	for _, l := range levels {
		h.check(l)
	}
}
