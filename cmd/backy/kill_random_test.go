//go:build cgo

package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"backy/rbd/clustertest"
	"backy/store"
	"backy/store/dir"
)

var (
	kills    = flag.Int("kills", 10, "how many processes TestKillAtRandom kills")
	killSeed = flag.Uint64("kill-seed", 0, "what TestKillAtRandom draws with; 0: something new each time")
)

// TestKillAtRandom kills backy with SIGKILL at random moments of backups, gcs,
// forgets and mends of images that share chunks. After each: whatever is listed
// restores bit for bit; the next backup works at once and leaves one snapshot
// of its name; and the next gc leaves nothing that no level needs.
func TestKillAtRandom(t *testing.T) {
	seed := *killSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("go test ./cmd/backy -run %s -kills %d -kill-seed %d", t.Name(), *kills, seed)
	w := newWorld(t, seed)
	for i := range operations {
		w.kill(&operations[i], w.series[0])
	}
	for i, done := 0, 0; done < *kills; i++ {
		o, s := &operations[i%len(operations)], w.series[w.random.IntN(len(w.series))]
		if w.kill(o, s) {
			done++
			w.killed[o.name]++
		} else {
			w.escaped[o.name]++
		}
		w.wantRestorable(o.mends)
		w.recover(s)
		if done%20 == 0 {
			t.Logf("killed: %v", w.killed)
		}
		if t.Failed() {
			t.Fatalf("after %d kills; the last was at a %s of %s", done, o.name, s.name)
		}
	}
	t.Logf("killed: %v; done before: %v; %d restores", w.killed, w.escaped, w.restores)
}

// operation is something that is killed.
type operation struct {
	name    string
	prepare func(w *world, s *series)
	line    func(w *world, s *series) []string
	mends   bool // some chunks may be damaged until it has been done
}

var operations = []operation{
	{name: "backup", prepare: (*world).change, line: (*world).backupLine},
	{name: "mend", prepare: (*world).damage, line: (*world).backupLine, mends: true},
	{name: "forget", prepare: (*world).grow, line: func(w *world, s *series) []string {
		return w.forgetLine(s)
	}},
	{name: "forget --gc", prepare: (*world).grow, line: func(w *world, s *series) []string {
		return append(w.forgetLine(s), "--gc")
	}},
	{name: "gc", prepare: func(w *world, s *series) {
		w.grow(s)
		w.must(w.forgetLine(s)...)
		w.list(s)
	}, line: func(*world, *series) []string { return []string{"gc"} }},
}

// world is a repository, the images that are backed up to it, and plain copies
// of all that it must hold.
type world struct {
	*testing.T
	cluster *clustertest.Cluster
	pool    string
	repo    string
	random  *rand.Rand
	series  []*series
	fresh   uint64 // number of a block that nobody has yet

	took            map[string]time.Duration // how long each operation takes that nobody kills
	killed, escaped map[string]int
	restores        int
}

// series is one image and the levels of its name.
type series struct {
	name   string
	image  string
	blocks []uint64 // what the image holds; 0 is a hole
	levels map[store.LevelNumber][]uint64
	keep   map[store.LevelNumber]bool // of these, those that may not be gone
}

const (
	damagedExit = 3
	blockSize   = 64 << 10 // a chunk
	imageBlocks = 160      // two and a half of the cluster's objects
)

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		T: t, cluster: clustertest.Get(t), repo: filepath.Join(t.TempDir(), "repo"),
		random: rand.New(rand.NewPCG(seed, 0)),
		took:   map[string]time.Duration{}, killed: map[string]int{}, escaped: map[string]int{},
	}
	w.pool = w.cluster.Pool(t)
	for _, name := range []string{"a", "b"} {
		s := &series{
			name: name, image: w.pool + "/" + name, blocks: make([]uint64, imageBlocks),
			levels: map[store.LevelNumber][]uint64{}, keep: map[store.LevelNumber]bool{},
		}
		w.cluster.Run(t, "rbd", "create", "--size", fmt.Sprintf("%dB", imageBlocks*blockSize), s.image)
		w.series = append(w.series, s)
		w.change(s)
		w.backup(s)
	}
	return w
}

// block is what a block of that number holds.
func block(n uint64) []byte {
	p := make([]byte, blockSize)
	if n != 0 {
		var seed [32]byte
		binary.LittleEndian.PutUint64(seed[:], n)
		_, _ = rand.NewChaCha8(seed).Read(p) // cannot fail
	}
	return p
}

// change writes to the image: blocks that are new, that any image has or had, and zeros.
func (w *world) change(s *series) {
	w.Helper()
	share := w.random.Float64() // of the image
	var changed []int
	for i := range s.blocks {
		if w.random.Float64() > share {
			continue
		}
		changed = append(changed, i)
		switch n := w.random.IntN(10); {
		case n == 0:
			s.blocks[i] = 0
		case n < 4 && w.fresh > 0:
			s.blocks[i] = w.fresh - w.random.Uint64N(min(w.fresh, 2*imageBlocks))
		default:
			w.fresh++
			s.blocks[i] = w.fresh
		}
	}
	w.write(s, changed)
}

// renew writes new blocks everywhere.
func (w *world) renew(s *series) {
	w.Helper()
	var changed []int
	for i := range s.blocks {
		w.fresh++
		s.blocks[i] = w.fresh
		changed = append(changed, i)
	}
	w.write(s, changed)
}

// write brings blocks into the image.
func (w *world) write(s *series, changed []int) {
	w.Helper()
	extents := map[int64][]byte{}
	for _, i := range changed {
		extents[int64(i)*blockSize] = block(s.blocks[i])
	}
	writeExtents(w.T, w.cluster, s.image, imageBlocks*blockSize, extents)
}

// grow brings the name to so many levels that a forget takes some.
func (w *world) grow(s *series) {
	w.Helper()
	for len(s.levels) < 3 {
		w.change(s)
		w.backup(s)
	}
}

// damage makes a level of which a part is known to be damaged, and the image
// still has it.
func (w *world) damage(s *series) {
	w.Helper()
	before := w.glob("data/*/*")
	w.renew(s)
	w.backup(s)
	packs := slices.DeleteFunc(w.glob("data/*/*"), func(p string) bool { return slices.Contains(before, p) })
	if len(packs) == 0 {
		w.Fatal("new blocks made no pack")
	}
	pack := packs[w.random.IntN(len(packs))]
	content, err := os.ReadFile(pack)
	if err != nil {
		w.Fatal(err)
	}
	content[len(content)/3+w.random.IntN(len(content)/2)] ^= 0x10
	if err := os.WriteFile(pack, content, 0o600); err != nil {
		w.Fatal(err)
	}
	if code, said := w.run("scrub", s.name); code != damagedExit {
		w.Fatalf("scrub of a damaged level: exit code %d\n%s", code, said)
	}
}

func (w *world) backupLine(s *series) []string { return []string{"backup", "rbd:" + s.image, s.name} }

// forgetLine is what takes all levels but one or two.
func (w *world) forgetLine(s *series) []string {
	n := 1 + w.random.IntN(2)
	listed := numbers(s.levels)
	for _, number := range listed[:max(len(listed)-n, 0)] {
		delete(s.keep, number)
	}
	return []string{"forget", "--keep-last", fmt.Sprint(n), s.name}
}

func numbers[V any](m map[store.LevelNumber]V) (list []store.LevelNumber) {
	for n := range m {
		list = append(list, n)
	}
	slices.Sort(list)
	return list
}

func (w *world) backy(args ...string) *exec.Cmd {
	cmd := exec.Command("backy", append([]string{"-q", "-b", w.repo}, args...)...)
	cmd.Env = slices.Concat(os.Environ(), clusterEnv(w, w.cluster), []string{"BACKY_CACHEDIR=" + filepath.Join(filepath.Dir(w.repo), "cache")})
	return cmd
}

// run runs backy to its end, which comes long before another host's two beats:
// nothing here may be taken for another host's.
func (w *world) run(args ...string) (code int, said string) {
	w.Helper()
	cmd := w.backy(args...)
	guard := time.AfterFunc(untilLimit*3/4, func() {
		w.Errorf("%q does not end", args)
		_ = cmd.Process.Kill() // it may have ended just now
	})
	defer guard.Stop()
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		w.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

func (w *world) must(args ...string) string {
	w.Helper()
	code, said := w.run(args...)
	if code != 0 {
		w.Fatalf("%q: exit code %d\n%s", args, code, said)
	}
	return said
}

// report is what a command that must succeed says as JSON.
func (w *world) report(args ...string) (r report) {
	w.Helper()
	if err := json.Unmarshal([]byte(w.must(append([]string{"--json"}, args...)...)), &r); err != nil {
		w.Fatal(err)
	}
	return r
}

func (w *world) glob(pattern string) []string {
	found, err := filepath.Glob(filepath.Join(w.repo, pattern))
	if err != nil {
		w.Fatal(err)
	}
	return found
}

// kill kills an operation at a moment of the time that it took when it last came
// to its end, and tells whether it was still at work. The first of its kind it
// leaves alone.
func (w *world) kill(o *operation, s *series) bool {
	w.Helper()
	o.prepare(w, s)
	line := o.line(w, s)
	defer w.list(s)
	cmd := w.backy(line...)
	var said bytes.Buffer
	cmd.Stderr = &said
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	if took := w.took[o.name]; took > 0 {
		time.Sleep(time.Duration(w.random.Float64() * float64(took)))
		_ = cmd.Process.Kill() // it may have ended
	}
	_ = cmd.Wait() // the exit code tells
	switch code := cmd.ProcessState.ExitCode(); {
	case code == -1 && said.Len() == 0:
		return true
	case code == 0:
		w.took[o.name] = time.Since(begun)
	default:
		w.Errorf("%q: exit code %d\n%s", line, code, &said)
	}
	return false
}

// backup runs a whole one.
func (w *world) backup(s *series) {
	w.Helper()
	before := len(s.levels)
	w.must(w.backupLine(s)...)
	if w.list(s); len(s.levels) != before+1 {
		w.Errorf("%s: a whole backup made %d levels", s.name, len(s.levels)-before)
	}
}

// list takes note of the levels that are listed. A new one holds what the image
// does; none may be gone but those that were to be forgotten.
func (w *world) list(s *series) {
	w.Helper()
	listed := map[store.LevelNumber]bool{}
	for _, l := range w.report("ls", s.name).Levels {
		listed[l.Number] = true
		if s.levels[l.Number] == nil {
			s.levels[l.Number], s.keep[l.Number] = slices.Clone(s.blocks), true
		}
	}
	for n := range s.levels {
		if listed[n] {
			continue
		}
		if s.keep[n] {
			w.Errorf("%s level %s is gone", s.name, n)
		}
		delete(s.levels, n)
	}
}

// wantRestorable restores everything. Where damage is known, a restore may
// refuse, and never gives wrong bytes.
func (w *world) wantRestorable(damaged bool) {
	w.Helper()
	for _, s := range w.series {
		for _, n := range numbers(s.levels) {
			out := filepath.Join(filepath.Dir(w.repo), "out")
			code, said := w.run("restore", "-f", "-l", n.String(), s.name, out)
			w.restores++
			if damaged && code == damagedExit {
				continue
			}
			got, err := os.ReadFile(out)
			if code != 0 || err != nil {
				w.Errorf("restore of %s level %s: exit code %d, %v\n%s", s.name, n, code, err, said)
				continue
			}
			for i, number := range s.levels[n] {
				if !bytes.Equal(got[i*blockSize:(i+1)*blockSize], block(number)) {
					w.Errorf("%s level %s: block %d is not what was backed up", s.name, n, i)
					break
				}
			}
		}
	}
}

// recover does what comes next on any day, and checks what it leaves.
func (w *world) recover(s *series) {
	w.Helper()
	w.backup(s)
	for _, s := range w.series {
		if snaps := ownSnapshots(w.T, w.cluster, s.image); len(snaps) != 1 {
			w.Errorf("%s: snapshots after a whole backup: %q", s.name, snaps)
		}
	}
	w.age()
	w.must("gc")
	w.wantNothingUseless()
	if r := w.report("gc", "--dry-run").GC; r.Deleted+r.Rewritten+r.Freed != 0 {
		w.Errorf("a gc after a gc would still give back: %+v", *r)
	}
	w.wantRestorable(false)
}

// age makes what a killed put left so old that gc removes it.
func (w *world) age() {
	w.Helper()
	w.files(func(path, name string) {
		if strings.HasPrefix(filepath.Base(name), ".") {
			old := time.Now().Add(-48 * time.Hour)
			if err := os.Chtimes(path, old, old); err != nil {
				w.Error(err)
			}
		}
	})
}

// files calls fn with the files of the repository.
func (w *world) files(fn func(path, name string)) {
	w.Helper()
	err := filepath.WalkDir(w.repo, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			fn(path, strings.TrimPrefix(path, w.repo+"/"))
		}
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
}

// wantNothingUseless compares the files of the repository with what its levels
// name: nothing lies there besides, and nobody is at work.
func (w *world) wantNothingUseless() {
	w.Helper()
	useful := w.reached()
	levels := map[string]bool{}
	for _, s := range w.series {
		for n := range s.levels {
			levels[fmt.Sprintf("levels/%s/%s.json", s.name, n)] = true
		}
	}
	w.files(func(path, name string) {
		folder, rest, _ := strings.Cut(name, "/")
		pack, _, _ := strings.Cut(rest, ".")
		switch folder {
		case "data", "maps", "maps2":
			if !useful[folder+"/"+pack] {
				w.Errorf("%s: no level needs it", name)
			}
		case "levels":
			content, err := os.ReadFile(path)
			if err != nil {
				w.Error(err)
			}
			// What keeps a number from being used again stays.
			if !levels[name] && !strings.HasSuffix(name, ".removed") && !isTombstone(content) {
				w.Errorf("%s: no level that is listed", name)
			}
		case "work":
			// What keeps a gc that was killed from committing stays.
			if content, err := os.ReadFile(path); err != nil || !isTombstone(content) {
				w.Errorf("%s: left after a gc (%v)", name, err)
			}
		case marker, "marks", "reserve.json":
		default:
			w.Errorf("%s: left after a gc", name)
		}
	})
}

func isTombstone(content []byte) bool { return bytes.HasPrefix(content, []byte(`{"type":"tombstone"`)) }

// reached walks the maps of all levels and returns the packs they name.
func (w *world) reached() map[string]bool {
	w.Helper()
	backend, err := dir.Open(w.repo)
	if err != nil {
		w.Fatal(err)
	}
	defer backend.Close()
	repo, err := store.Open(w.Context(), backend, "")
	if err != nil {
		w.Fatal(err)
	}
	defer repo.Close()
	useful := map[string]bool{}
	for _, s := range w.series {
		levels, err := repo.Levels(w.Context(), store.Name(s.name))
		if err != nil {
			w.Fatal(err)
		}
		for _, l := range levels {
			// The last map pack of its run has the copy of its record.
			if packs := w.glob("maps/" + l.Run.String() + "/*"); len(packs) > 0 {
				pack, _, _ := strings.Cut(filepath.Base(packs[len(packs)-1]), ".")
				useful["maps/"+l.Run.String()+"/"+pack], useful["maps2/"+l.Run.String()+"/"+pack] = true, true
			}
			cursor := repo.Cursor(l.Map())
			cursor.OnNodes(func(refs []store.Ref) error {
				for _, ref := range refs {
					useful["maps/"+ref.Pack.String()], useful["maps2/"+ref.Pack.String()] = true, true
				}
				return nil
			})
			for pos := int64(0); pos < l.Map().Chunks; {
				leaf, err := cursor.At(w.Context(), pos)
				if err != nil {
					w.Fatal(err)
				}
				for _, ref := range leaf.Refs {
					useful["data/"+ref.Pack.String()] = true
				}
				pos = leaf.End()
			}
		}
	}
	return useful
}
