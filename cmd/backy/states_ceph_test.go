//go:build cgo

package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"backy/engine/batch"
	"backy/rbd/clustertest"
)

// TestStates puts images into each state that they can be in, and does with them
// all that backy does. Each cell is the right bytes, or an exit code and one
// sentence; a neighbour in the pool is always done, and what somebody else is in
// the middle of goes on afterwards. -v prints the table.
func TestStates(t *testing.T) {
	rows := make([][]string, len(states))
	t.Run("rows", func(t *testing.T) {
		for n, state := range states {
			t.Run(state.name, func(t *testing.T) {
				t.Parallel()
				rows[n] = newStateRow(t, clustertest.Get(t)).run(state)
			})
		}
	})
	var b strings.Builder
	fmt.Fprintf(&b, "| state | %s |\n|%s\n", strings.Join(stateColumns, " | "), strings.Repeat("---|", len(stateColumns)+1))
	for n, row := range rows {
		fmt.Fprintf(&b, "| %s | %s |\n", states[n].name, strings.Join(row, " | "))
	}
	t.Log("\n" + b.String())
}

// The columns, in the order in which they are tried.
const (
	colIncrement = "increment"
	colBackup    = "backup"
	colPool      = "pool run"
	colScrub     = "scrub -s"
	colStatus    = "status"
	colClean     = "snapshots --clean"
	colRestore   = "restore onto"
)

var stateColumns = []string{colIncrement, colBackup, colPool, colScrub, colStatus, colClean, colRestore}

// cell is what is to come of a column: an exit code, and what is said.
type cell struct {
	code int
	says string // a regular expression; "": nothing is asked for
}

// usual is what comes of a column if a state says nothing else. Status warns: no
// level was ever scrubbed whole.
var usual = map[string]cell{colStatus: {code: 1}}

// state is a state of an image.
type state struct {
	name   string
	create func(r *stateRow) // before the first level; nil: create
	enter  func(r *stateRow) // after it; may change r.image, what is backed up from now on
	want   map[string]cell   // where it is not as usual
	after  func(r *stateRow) // somebody else's work goes on; may be nil
}

// stateRow is an image in a pool of its own.
type stateRow struct {
	*testing.T
	cluster     *clustertest.Cluster
	pool, other string // pools
	image       string // with its pool
	name        string // the backup name
	repo        string
	env         []string
	rand        *rand.ChaCha8
	cells       []string
	finish      func() // see slowly
}

const stateSize = 8 << 20

func newStateRow(t *testing.T, cluster *clustertest.Cluster) *stateRow {
	r := &stateRow{
		T: t, cluster: cluster, pool: cluster.Pool(t), repo: filepath.Join(t.TempDir(), "repo"),
		env: append(os.Environ(), "CEPH_CONF="+cluster.Conf()), rand: rand.NewChaCha8([32]byte{7}),
	}
	r.image, r.name = r.pool+"/i", r.pool+"/i"
	return r
}

func (r *stateRow) rbd(args ...string) string {
	r.Helper()
	return r.cluster.Run(r, "rbd", args...)
}

func (r *stateRow) create(image string, args ...string) {
	r.Helper()
	r.rbd(append([]string{"create", "--size", fmt.Sprintf("%dB", stateSize), "--object-size", "1M", image}, args...)...)
	r.write(image, 0, 3<<20)
}

// write writes random bytes.
func (r *stateRow) write(image string, off, length int) {
	r.Helper()
	p := make([]byte, length)
	r.rand.Read(p)
	writeExtents(r.T, r.cluster, image, stateSize, map[int64][]byte{int64(off): p})
}

func (r *stateRow) secondPool() string {
	if r.other == "" {
		r.other = r.cluster.Pool(r)
	}
	return r.other
}

// backy runs it and returns its document, exit code and what it said.
func (r *stateRow) backy(args ...string) (doc report, code int, said string) {
	r.Helper()
	cmd := exec.Command("backy", append([]string{"--json", "-b", r.repo, "--ceph-timeout", "30s"}, args...)...)
	cmd.Env = r.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run() // the exit code tells
	if err := json.Unmarshal(stdout.Bytes(), &doc); err != nil {
		r.Errorf("backy %q: %v\n%s%s", args, err, &stdout, &stderr)
	}
	return doc, cmd.ProcessState.ExitCode(), strings.TrimSpace(stderr.String())
}

func (r *stateRow) run(s state) []string {
	r.Helper()
	if s.create == nil {
		s.create = func(r *stateRow) { r.create(r.image) }
	}
	s.create(r)
	r.create(r.pool + "/neighbour")
	if _, code, said := r.backy("backup", "rbd:"+r.image, r.name); code != 0 {
		r.Fatalf("the first backup: exit code %d\n%s", code, said)
	}
	if s.enter != nil {
		s.enter(r)
	}
	for _, column := range stateColumns {
		want, ok := s.want[column]
		if !ok {
			want = usual[column]
		}
		code, said := r.do(column)
		if code != want.code || !regexp.MustCompile(want.says).MatchString(said) {
			r.Errorf("%s: exit code %d, want %d and %q\n%s", column, code, want.code, want.says, said)
		}
		r.cells = append(r.cells, r.sentence(code, said))
	}
	if s.after != nil {
		s.after(r)
	}
	return r.cells
}

// do does what a column is about.
func (r *stateRow) do(column string) (code int, said string) {
	r.Helper()
	spec := "rbd:" + r.image
	switch column {
	case colIncrement:
		return r.backup(spec, r.name)
	case colBackup:
		return r.backup(spec, "fresh")
	case colPool:
		return r.poolRun()
	case colScrub:
		// Of a level whose snapshot is there, in the order in which they were made.
		for _, name := range []string{r.image, "fresh", r.name} {
			doc, code, _ := r.backy("ls", name)
			if code != 0 || len(doc.Levels) == 0 {
				continue
			}
			l := doc.Levels[len(doc.Levels)-1]
			o := l.Origin.RBD
			_, code, said := r.backy("scrub", "-s", fmt.Sprintf("%s@%s", spec, o.Snapshot), name)
			return code, said
		}
		return -1, "no level"
	case colStatus:
		doc, code, said := r.backy("status", "rbd:"+r.pool)
		if doc.Status != nil {
			said = doc.Status.Text + "\n" + said
		}
		return code, said
	case colClean:
		_, code, said := r.backy("snapshots", "--clean", "rbd:"+r.pool)
		return code, said
	}
	doc, code, said := r.backy("restore", "-f", "-l", "1", r.name, spec)
	if code == 0 {
		r.same(r.name, doc.Level.Number.String(), r.image)
	}
	return code, said
}

// backup makes a level and compares it with its snapshot.
func (r *stateRow) backup(spec, name string) (code int, said string) {
	r.Helper()
	doc, code, said := r.backy("backup", spec, name)
	if code == 0 {
		o := doc.Level.Origin.RBD
		r.same(name, doc.Level.Number.String(), o.Pool+"/"+o.Image+"@"+o.Snapshot)
	}
	return code, said
}

// poolRun backs up all images of the pool. The neighbour must be done, whatever
// becomes of the others.
func (r *stateRow) poolRun() (code int, said string) {
	r.Helper()
	doc, code, said := r.backy("backup", "--min-age", "0", "rbd:"+r.pool)
	neighbour := false
	for _, i := range doc.Images {
		neighbour = neighbour || i.Image == "rbd:"+r.pool+"/neighbour" && i.Result == "done"
		if i.Result == batch.Done {
			r.sameAs(i)
		}
	}
	if !neighbour && !strings.Contains(said, "no space left") {
		r.Errorf("pool run: the neighbour is not done: exit code %d\n%s", code, said)
	}
	return code, said
}

// sameAs compares the level that a pool run made with its snapshot.
func (r *stateRow) sameAs(i batch.Result) {
	r.Helper()
	doc, _, said := r.backy("ls", string(i.Name))
	for _, l := range doc.Levels {
		if l.Number == i.Level {
			o := l.Origin.RBD
			r.same(string(i.Name), l.Number.String(), o.Pool+"/"+o.Image+"@"+o.Snapshot)
			return
		}
	}
	r.Errorf("%s: there is no level %s of %s\n%s", i.Image, i.Level, i.Name, said)
}

// same compares a level with an image or a snapshot, as rbd reads it.
func (r *stateRow) same(name, level, image string) {
	r.Helper()
	dir := r.TempDir()
	want, got := filepath.Join(dir, "want"), filepath.Join(dir, "got")
	r.rbd("export", "--no-progress", image, want)
	if _, code, said := r.backy("restore", "-l", level, name, got); code != 0 {
		r.Errorf("restore of %s level %s: exit code %d\n%s", name, level, code, said)
		return
	}
	p, q := readAll(r.T, want), readAll(r.T, got)
	if len(p) > len(q) && !strings.Contains(image, "@") {
		p = p[:len(q)] // a restore leaves what lies beyond
	}
	if !bytes.Equal(p, q) {
		r.Errorf("%s level %s differs from %s", name, level, image)
	}
}

func readAll(t *testing.T, path string) []byte {
	t.Helper()
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// sentence is a cell of the table: the error, or the first warning, without what
// is the test's own.
func (r *stateRow) sentence(code int, said string) string {
	line := ""
	for _, l := range strings.Split(said, "\n") {
		if line == "" && strings.Contains(l, "warning: ") || strings.HasPrefix(l, "backy: ") && code != 0 {
			line = strings.TrimPrefix(l, "backy: ")
		}
	}
	if line == "" && code != 0 {
		line, _, _ = strings.Cut(said, "\n")
	}
	for _, p := range []string{r.pool, r.other} {
		if p != "" {
			line = strings.ReplaceAll(line, p, "P")
		}
	}
	line = regexp.MustCompile(`backy-[0-9a-f-]+`).ReplaceAllString(line, "SNAP")
	line = strings.ReplaceAll(line, "|", "/")
	if line == "" {
		return fmt.Sprint(code)
	}
	return fmt.Sprintf("%d: %s", code, line)
}

// background runs a command of Ceph's until the row's end.
func (r *stateRow) background(args ...string) *exec.Cmd {
	r.Helper()
	cmd := r.cluster.Command("rbd", args...)
	if err := cmd.Start(); err != nil {
		r.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	r.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	return cmd
}

// slowly runs a command of Ceph's as background does, but lets it go on for a moment
// only, again and again, until finish is called, which waits for its end.
func (r *stateRow) slowly(args ...string) {
	r.Helper()
	cmd := r.cluster.Command("rbd", args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		r.Fatal(err)
	}
	hurry, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	go func() {
		for {
			_ = cmd.Process.Signal(syscall.SIGSTOP)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-hurry:
				_ = cmd.Process.Signal(syscall.SIGCONT)
				return
			}
			_ = cmd.Process.Signal(syscall.SIGCONT)
			time.Sleep(2 * time.Millisecond)
		}
	}()
	var once sync.Once
	r.Cleanup(func() {
		once.Do(func() { close(hurry) })
		_ = cmd.Process.Kill()
	})
	r.finish = func() {
		r.Helper()
		select {
		case err := <-ended:
			r.Errorf("rbd %q has ended too early: %v\n%s", args, err, &said)
			return
		default:
		}
		once.Do(func() { close(hurry) })
		if err := <-ended; err != nil {
			r.Errorf("rbd %q: %v\n%s", args, err, &said)
		}
	}
}

// until waits for something.
func (r *stateRow) until(what string, is func() bool) {
	r.Helper()
	for end := time.Now().Add(2 * time.Minute); !is(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			r.Fatalf("no %s", what)
		}
	}
}

// oldFormat makes an image of format 1, of which librbd makes none: see package
// rbd's tests.
func (r *stateRow) oldFormat(image string) {
	r.Helper()
	header := make([]byte, 112)
	copy(header, "<<< Rados Block Device Image >>>\n")
	copy(header[40:], fmt.Sprintf("rb.0.%x.%x", rand.Uint32(), rand.Uint32()))
	copy(header[64:], "RBD\x00001.005\x00")
	header[76] = 20
	binary.LittleEndian.PutUint64(header[80:], stateSize)
	path := filepath.Join(r.TempDir(), "header")
	if err := os.WriteFile(path, header, 0o600); err != nil {
		r.Fatal(err)
	}
	pool, name, _ := strings.Cut(image, "/")
	r.cluster.Run(r, "rados", "-p", pool, "put", name+".rbd", path)
	directory := make([]byte, 8, 64) // an empty header, then a map of one
	directory[4] = 1
	directory = append(binary.LittleEndian.AppendUint32(directory, uint32(len(name))), name...)
	if err := os.WriteFile(path, binary.LittleEndian.AppendUint32(directory, 0), 0o600); err != nil {
		r.Fatal(err)
	}
	r.cluster.Run(r, "rados", "-p", pool, "put", "rbd_directory", path)
	r.write(image, 0, 3<<20)
}

func (r *stateRow) imageID() string {
	r.Helper()
	var info struct{ ID string }
	if err := json.Unmarshal([]byte(r.rbd("info", "--format", "json", r.image)), &info); err != nil {
		r.Fatal(err)
	}
	return info.ID
}
