package engine_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"backy/engine"
	"backy/hints"
	"backy/store"
	"backy/store/mem"
)

// levelTime is that of the levels of image.
var levelTime = time.Unix(1700000000, 0)

// image is a source in memory. changed are the extents that it names; nil for
// everything.
type image struct {
	data    []byte
	changed []hints.Extent
	outside engine.Outside
	full    bool // names no base
	failAt  int64
	recheck error

	begun, ended int
	outcome      engine.Outcome
}

func (s *image) Begin(_ context.Context, run engine.Run) (*engine.State, error) {
	s.begun++
	st := &engine.State{
		View:    engine.View{Reader: s, Size: int64(len(s.data))},
		Origin:  store.Origin{Kind: "file", Diff: store.DiffNone, Time: levelTime},
		Outside: s.outside,
	}
	if s.changed != nil {
		st.Extents = hints.Of(hints.Normalize(s.changed))
	}
	if len(run.Levels) > 0 && !s.full {
		st.Base = &run.Levels[0]
	}
	return st, nil
}

func (s *image) ReadAt(p []byte, off int64) (int, error) {
	if s.failAt > 0 && off <= s.failAt && s.failAt < off+int64(len(p)) {
		return 0, errors.New("medium error")
	}
	if off >= int64(len(s.data)) {
		return 0, io.EOF
	}
	n := copy(p, s.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (s *image) Recheck(context.Context) error { return s.recheck }

func (s *image) End(_ context.Context, o engine.Outcome) error {
	s.ended++
	s.outcome = o
	return nil
}

// disk is a target in memory.
type disk struct {
	mu       sync.Mutex
	data     []byte
	old      []byte // what it held before; nil: new
	finished bool
	aborted  bool
	fail     error

	writeSize int64          // 0: 4 MiB
	writes    []hints.Extent // as they came
}

func (d *disk) Prepare(_ context.Context, l store.Level) (bool, error) {
	if d.old != nil {
		d.data = bytes.Clone(d.old)
		return false, nil
	}
	d.data = make([]byte, l.Size)
	return true, nil
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	if d.fail != nil {
		return 0, d.fail
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writes = append(d.writes, hints.Extent{Offset: off, Length: int64(len(p)), Exists: true})
	return copy(d.data[off:], p), nil
}

func (d *disk) Zero(off, n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.data[off : off+n])
	return nil
}

func (d *disk) WriteSize() int64 { return cmp.Or(d.writeSize, 4<<20) }

func (d *disk) Finish(context.Context) error { d.finished = true; return nil }
func (d *disk) Abort(context.Context) error  { d.aborted = true; return nil }

func newRepository(t testing.TB, chunk int64) (*store.Repository, *mem.Mem) {
	t.Helper()
	b := mem.New()
	r, err := store.Init(context.Background(), b, store.Parameters{ChunkSize: chunk})
	if err != nil {
		t.Fatal(err)
	}
	return r, b
}

func mustBackup(t testing.TB, r *store.Repository, name store.Name, src engine.Source) store.Level {
	t.Helper()
	l, err := engine.Backup(context.Background(), r, name, src, engine.BackupOptions{Warn: func(f string, a ...any) { t.Logf(f, a...) }})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func restored(t testing.TB, r *store.Repository, l store.Level, old []byte) []byte {
	t.Helper()
	d := &disk{old: old}
	if _, err := engine.Restore(context.Background(), r, l, d, engine.RestoreOptions{}); err != nil {
		t.Fatalf("restore %s %s: %v", l.Name, l.Number, err)
	}
	if !d.finished {
		t.Fatal("the target was not finished")
	}
	return d.data
}

func checkLevel(t testing.TB, r *store.Repository, l store.Level, want []byte) {
	t.Helper()
	if got := restored(t, r, l, nil); !bytes.Equal(got, want) {
		t.Fatalf("%s level %s: restored bytes differ at %s", l.Name, l.Number, firstDifference(got, want))
	}
	var b bytes.Buffer
	if _, err := engine.Stream(context.Background(), r, l, &b, engine.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Fatalf("%s level %s: streamed bytes differ at %s", l.Name, l.Number, firstDifference(b.Bytes(), want))
	}
}

func firstDifference(a, b []byte) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprint(i)
		}
	}
	return fmt.Sprintf("lengths %d, %d", len(a), len(b))
}
