//go:build cgo

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"backy/engine"
	"backy/engine/batch"
	"backy/rbd"
	"backy/rbd/clustertest"
	"backy/store"
	"backy/store/dir"
)

var (
	ledgerSteps = flag.Int("ledger", 25, "how many backups TestLedger makes")
	ledgerSeed  = flag.Uint64("ledger-seed", 0, "what TestLedger draws with; 0: something new each time")
)

// TestLedger: exit code 0 means that the newest level of the name is the source's
// state. It keeps a ledger of what each level must hold, over random histories of
// images that are written, discarded, resized, renamed, copied, put into the trash
// and back, removed and made again; of files, pipes and devices; of names that two
// sources want; of levels with odd times; of pool runs that pass over what is young.
func TestLedger(t *testing.T) {
	seed := *ledgerSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("go test ./cmd/backy -run %s -ledger %d -ledger-seed %d", t.Name(), *ledgerSteps, seed)
	b := newBook(t, seed)
	for n := range *ledgerSteps {
		for range b.random.IntN(4) {
			b.happen()
		}
		b.note("backup %d", n)
		switch b.random.IntN(8) {
		case 0, 1:
			b.backUpFile()
		case 2, 3, 4:
			b.backUpImage()
		default:
			b.backUpPool()
		}
		if t.Failed() {
			t.Fatalf("history:\n%s", strings.Join(b.history, "\n"))
		}
	}
	b.checkAll()
	t.Logf("%v", b.counts)
}

// book is a pool, a repository, and what all its levels must hold.
type book struct {
	*testing.T
	cluster *clustertest.Cluster
	conn    *rbd.Conn
	pool    string
	env     []string
	path    string // of the repository
	repo    *store.Repository
	random  *rand.Rand
	files   []string
	bytes   map[string][]byte // by name and run of the level
	counts  map[string]int
	history []string
}

func newBook(t *testing.T, seed uint64) *book {
	cluster := clustertest.Get(t)
	b := &book{
		T: t, cluster: cluster, conn: adminConn(t, cluster), pool: cluster.Pool(t), env: clusterEnv(t, cluster),
		path: filepath.Join(t.TempDir(), "repo"), random: rand.New(rand.NewPCG(seed, 17)),
		bytes: map[string][]byte{}, counts: map[string]int{},
	}
	cluster.Run(t, "rbd", "namespace", "create", b.pool+"/n")
	b.backy("init", b.path)
	backend, err := dir.Open(b.path)
	b.must(err)
	t.Cleanup(func() { b.must(backend.Close()) })
	b.repo, err = store.Open(t.Context(), backend, "")
	b.must(err)
	for _, name := range []string{"plain", "sparse"} {
		b.files = append(b.files, filepath.Join(t.TempDir(), name))
	}
	if loop, ok := b.loop(); ok {
		b.files = append(b.files, loop)
	}
	for range 3 {
		b.create()
	}
	return b
}

// loop is a loop device, if this user may make one.
func (b *book) loop() (device string, ok bool) {
	file := filepath.Join(b.TempDir(), "disk")
	b.must(os.WriteFile(file, make([]byte, 1<<20), 0o600))
	out, err := exec.Command("losetup", "--find", "--show", file).Output()
	if err != nil {
		b.Logf("no loop device: %v", err)
		return "", false
	}
	device = strings.TrimSpace(string(out))
	b.Cleanup(func() { b.must(exec.Command("losetup", "--detach", device).Run()) })
	return device, true
}

func (b *book) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatalf("%v\nhistory:\n%s", err, strings.Join(b.history, "\n"))
	}
}

func (b *book) note(format string, args ...any) {
	b.history = append(b.history, fmt.Sprintf(format, args...))
}

// rbd runs the rbd command.
func (b *book) rbd(args ...string) string {
	b.Helper()
	b.note("rbd %s", strings.Join(args, " "))
	return b.cluster.Run(b, "rbd", args...)
}

func (b *book) pick(list []string) string { return list[b.random.IntN(len(list))] }

// backy runs backy and returns its document and exit code.
func (b *book) backy(args ...string) (r report) {
	b.Helper()
	b.note("backy %s", strings.Join(args, " "))
	cmd := exec.Command("backy", append([]string{"--json"}, args...)...)
	cmd.Env = append(os.Environ(), b.env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // its document has the exit code
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		b.Fatalf("backy %q: %v\n%s%s", args, err, &errs, &out)
	}
	b.note("  exit %d %s", r.ExitCode, r.Error)
	return r
}

func (b *book) newest(name store.Name) *store.Level {
	b.Helper()
	levels, err := b.repo.Levels(b.Context(), name)
	b.must(err)
	if len(levels) == 0 {
		return nil
	}
	return &levels[len(levels)-1]
}

func entry(l *store.Level) string { return fmt.Sprintf("%s %s", l.Name, l.Run) }

// enter checks that the newest level of a name is a source's state, and notes it.
func (b *book) enter(what string, name store.Name, id store.ImageID, want []byte) {
	b.Helper()
	l := b.newest(name)
	if l == nil || !l.Of(id) {
		b.Errorf("%s: the newest level of %s is not this source's: %+v", what, name, l)
		return
	}
	b.bytes[entry(l)] = want
	b.holds(what, l)
}

// holds compares a level with the ledger.
func (b *book) holds(what string, l *store.Level) {
	b.Helper()
	var got bytes.Buffer
	_, err := engine.Stream(b.Context(), b.repo, *l, &got, engine.RestoreOptions{})
	b.must(err)
	if want, ok := b.bytes[entry(l)]; !ok || !bytes.Equal(got.Bytes(), want) {
		b.Errorf("%s: %s level %s does not hold what it must (known: %t, %d and %d bytes)", what, l.Name, l.Number, ok, got.Len(), len(want))
	}
}

// refuses foretells whether a backup of an image under a name is refused.
func (b *book) refuses(s rbd.Spec, id store.ImageID, name store.Name) bool {
	l := b.newest(name)
	if l == nil || l.Origin.RBD == nil || l.Of(id) {
		return false
	}
	o := l.Origin.RBD
	if (rbd.Spec{Pool: o.Pool, Namespace: o.Namespace, Image: o.Image}) == s {
		return false
	}
	if _, inTrash := b.trash()[o.ImageID]; inTrash {
		return true
	}
	for _, other := range b.images() {
		if other == o.ID() {
			return true
		}
	}
	return false
}

var sharedNames = []string{"one", "two"}

// backUpImage backs up one image, under a name of its own or a shared one.
func (b *book) backUpImage() {
	s, ok := b.some()
	if !ok {
		return
	}
	id := b.images()[s]
	name := store.Name(b.pick(append(slices.Clone(sharedNames), imagePath(s))))
	args := []string{"backup", "-b", b.path, s.String(), string(name)}
	adopt, refused := b.random.IntN(5) == 0, b.refuses(s, id, name)
	if adopt {
		args = append(args, "--adopt")
	}
	if b.random.IntN(6) == 0 {
		args = append(args, "--forget", "--keep-last", "2")
	}
	if b.random.IntN(8) == 0 && !refused {
		b.oddClock(s, id, name)
		return
	}
	want, before := b.content(s), b.newest(name)
	bases, _ := b.bases(s, name)
	r := b.backy(args...)
	if refused && !adopt {
		b.counts["image refused"]++
		if after := b.newest(name); r.ExitCode == 0 || after.Run != before.Run {
			b.Errorf("%s took %s, whose newest level is another image's", s, name)
		}
		return
	}
	if r.ExitCode != 0 {
		b.Errorf("%s as %s: exit %d: %s", s, name, r.ExitCode, r.Error)
		return
	}
	b.counts["image done"]++
	b.enter("image "+s.String(), name, id, want)
	b.tidy(s, name, bases)
}

// oddClock makes a level whose time is years away.
func (b *book) oddClock(s rbd.Spec, id store.ImageID, name store.Name) {
	years := b.pick([]string{"-10", "10"})
	b.note("a level of %s as %s, %s years away", s, name, years)
	want := b.content(s)
	_, err := engine.Backup(b.Context(), b.repo, name, oddly{b.conn.Source(s, rbd.SourceOptions{}), years == "10"}, engine.BackupOptions{})
	b.must(err)
	b.counts["odd clock"]++
	b.enter("odd clock", name, id, want)
}

// oddly is a source of another time.
type oddly struct {
	*rbd.Source
	future bool
}

func (o oddly) Begin(ctx context.Context, run engine.Run) (*engine.State, error) {
	s, err := o.Source.Begin(ctx, run)
	if err == nil {
		years := -10
		if o.future {
			years = 10
		}
		s.Origin.Time = s.Origin.Time.AddDate(years, 0, 0)
	}
	return s, err
}

// backUpFile backs up a file, a device or a pipe under any name.
func (b *book) backUpFile() {
	name := store.Name(b.pick(append(slices.Clone(sharedNames), b.pool+"/a")))
	file := b.pick(b.files)
	content := b.some64K(1 + b.random.Int64N(1<<20))
	if strings.HasPrefix(file, "/dev/") {
		content = append(content, make([]byte, 1<<20-len(content))...)
		f, err := os.OpenFile(file, os.O_WRONLY, 0)
		b.must(err)
		_, err = f.Write(content)
		b.must(err)
		b.must(f.Sync())
		b.must(f.Close())
	} else {
		b.must(os.WriteFile(file, content, 0o600))
		if strings.HasSuffix(file, "sparse") {
			b.must(os.Truncate(file, 2<<20))
			content = append(content, make([]byte, 2<<20-len(content))...)
		}
	}
	args := []string{"backup", "-b", b.path, file, string(name)}
	if b.random.IntN(3) == 0 {
		args = []string{"backup", "-b", b.path, "--from-command", "cat " + file, "-", string(name)}
	}
	if r := b.backy(args...); r.ExitCode != 0 {
		b.Errorf("%s as %s: exit %d: %s", file, name, r.ExitCode, r.Error)
		return
	}
	b.counts["file done"]++
	b.enter("file "+file, name, store.ImageID{}, content)
}

// backUpPool backs up all images, by names that are theirs alone or shared.
func (b *book) backUpPool() {
	images := b.images()
	content := map[string][]byte{}
	bases := map[string]map[uint64]store.Name{}
	refused := map[string]bool{}
	sharers := map[store.Name][]rbd.Spec{}
	shared := b.random.IntN(3) == 0
	nameOf := func(s rbd.Spec) store.Name {
		if shared {
			return store.Name(s.Image)
		}
		return store.Name(imagePath(s))
	}
	for s := range images {
		content[s.String()] = b.content(s)
		bases[s.String()], _ = b.bases(s, nameOf(s))
		sharers[nameOf(s)] = append(sharers[nameOf(s)], s)
	}
	before := map[store.Name]*store.Level{}
	for s, id := range images {
		name := nameOf(s)
		before[name] = b.newest(name)
		mine := before[name] != nil && before[name].Of(id)
		refused[s.String()] = !mine && (len(sharers[name]) > 1 || b.refuses(s, id, name))
	}
	args := []string{"backup", "-b", b.path, "--min-age", b.pick([]string{"0", "1h"}), "rbd:" + b.pool + "/*"}
	if shared {
		args = append(args, "--name-template", "{{.Image}}")
	}
	r := b.backy(args...)
	if len(r.Images) != len(images) {
		b.Errorf("%d results of %d images", len(r.Images), len(images))
	}
	failed := 0
	for _, i := range r.Images {
		s, err := rbd.ParseSpec(i.Image)
		b.must(err)
		b.note("  %s as %s: %s %s", i.Image, i.Name, i.Result, i.Error)
		b.counts["pool "+string(i.Result)]++
		switch {
		case refused[i.Image] != (i.Result == batch.Failed):
			b.Errorf("%s: %s, refused: %t: %s", i.Image, i.Result, refused[i.Image], i.Error)
		case i.Result == batch.Failed:
			failed++
		case i.Result == batch.Done:
			b.enter("pool "+i.Image, i.Name, images[s], content[i.Image])
			b.tidy(s, i.Name, bases[i.Image])
		case i.Result == batch.Young:
			l := b.newest(i.Name)
			if age := time.Since(l.Time); !l.Of(images[s]) || l.Run != before[i.Name].Run || age > time.Hour || age < -time.Hour {
				b.Errorf("%s: level %s is taken for young: of %+v, %s old", i.Image, l.Number, l.Origin.RBD, age)
			}
		default:
			b.Errorf("%s: %s", i.Image, i.Result)
		}
	}
	if want := map[bool]int{false: 0, true: 6}[failed > 0]; r.ExitCode != want {
		b.Errorf("exit %d with %d failures: %s", r.ExitCode, failed, r.Error)
	}
}

// bases are the snapshots of ours on an image that later backups need, if it is
// backed up under a name; strays are those that none does.
func (b *book) bases(s rbd.Spec, name store.Name) (needed map[uint64]store.Name, strays []string) {
	b.Helper()
	_, own, err := b.conn.Inspect(b.Context(), s, "")
	b.must(err)
	for i := range own {
		own[i].Derived = name
	}
	b.must(rbd.Judge(b.Context(), b.repo, own))
	needed = map[uint64]store.Name{}
	for _, o := range own {
		switch o.Kind {
		case rbd.OfLevel:
			needed[o.ID] = o.Name
		case rbd.Stray:
			strays = append(strays, o.Spec.String())
		}
	}
	return needed, strays
}

// tidy checks that a backup left no stray on its image, and the bases of other
// names.
func (b *book) tidy(s rbd.Spec, name store.Name, before map[uint64]store.Name) {
	b.Helper()
	after, strays := b.bases(s, name)
	if len(strays) > 0 {
		b.Errorf("after a backup of %s as %s: strays %v", s, name, strays)
	}
	mine := 0
	for id, of := range before {
		if _, there := after[id]; !there && of != name {
			b.Errorf("after a backup of %s as %s: the base of %s is gone", s, name, of)
		}
	}
	for _, of := range after {
		if of == name {
			mine++
		}
	}
	if mine != 1 {
		b.Errorf("after a backup of %s as %s: %d snapshots of that name", s, name, mine)
	}
}

// checkAll checks every level that there is.
func (b *book) checkAll() {
	names, err := b.repo.Names(b.Context())
	b.must(err)
	for _, name := range names {
		levels, err := b.repo.Levels(b.Context(), name)
		b.must(err)
		for i := range levels {
			b.holds("at the end", &levels[i])
		}
	}
}
