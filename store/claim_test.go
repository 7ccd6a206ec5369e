package store

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

func begin(t *testing.T, r *Repository, name Name) *Writer {
	t.Helper()
	w, err := r.Begin(context.Background(), name, WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// commit ends a run with a level that is all zeros.
func commit(t *testing.T, r *Repository, w *Writer) (Level, error) {
	t.Helper()
	ctx := context.Background()
	if err := w.BeginMap(ctx, Map{Fanout: 2}, 1); err != nil {
		t.Fatal(err)
	}
	root, err := w.FinishMap(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	l := Level{Name: w.claim.Name, Number: w.Number, Run: w.ID, Size: 1, ChunkSize: r.ChunkSize, Fanout: r.fanout, Root: root}
	return l, w.Commit(ctx, &l)
}

func claims(t *testing.T, r *Repository) []string {
	t.Helper()
	keys, err := r.list(context.Background(), workPrefix)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// Numbers count up and never come back; a run's traces in work/ go with it.
func TestNumbers(t *testing.T) {
	r := testRepository(t, 64)
	ctx := context.Background()
	for _, want := range []LevelNumber{1, 2} {
		if l, err := commit(t, r, begin(t, r, "a")); err != nil || l.Number != want {
			t.Fatalf("number %s instead of %s: %v", l.Number, want, err)
		}
	}
	if err := r.Remove(ctx, "a", []LevelNumber{2, 7}); err == nil {
		t.Error("a level that is not there was removed")
	}
	if err := r.Remove(ctx, "a", []LevelNumber{2}); err != nil {
		t.Fatal(err)
	}
	if err := r.Remove(ctx, "a", []LevelNumber{2}); err == nil {
		t.Error("a removed level was removed again")
	}
	failed := begin(t, r, "a")
	if err := failed.Abort(ctx); err != nil {
		t.Fatal(err)
	}
	l, err := commit(t, r, begin(t, r, "a"))
	if err != nil || l.Number != 4 {
		t.Errorf("number %s instead of 4: %v", l.Number, err)
	}
	h, err := r.History(ctx, "a")
	if err != nil || len(h.Levels) != 2 || h.Last != 4 || h.Unfinished || !h.Over(failed.ID) || h.Over(12345) {
		t.Errorf("history %+v: %v", h, err)
	}
	if left := claims(t, r); len(left) > 0 {
		t.Errorf("left in work/: %s", left)
	}
	if names, err := r.Names(ctx); err != nil || len(names) != 1 {
		t.Errorf("names %v: %v", names, err)
	}
	if err := r.Remove(ctx, "a", []LevelNumber{1, 4}); err != nil {
		t.Fatal(err)
	}
	if names, err := r.Names(ctx); err != nil || len(names) != 0 {
		t.Errorf("names without a level: %v, %v", names, err)
	}
}

// One run per name; other names do not mind.
func TestBusy(t *testing.T) {
	r := testRepository(t, 64)
	w := begin(t, r, "a")
	var busy *BusyError
	if _, err := r.Begin(context.Background(), "a", WriterOptions{}); !errors.As(err, &busy) {
		t.Fatalf("a second run: %v", err)
	}
	if _, err := commit(t, r, begin(t, r, "a.1")); err != nil {
		t.Errorf("another name: %v", err)
	}
	if _, err := commit(t, r, w); err != nil {
		t.Errorf("the first run: %v", err)
	}
	if _, err := commit(t, r, begin(t, r, "a")); err != nil {
		t.Errorf("after it: %v", err)
	}
}

// plant puts a claim of a process that is not this one.
func plant(t *testing.T, r *Repository, p process, started time.Time, beat time.Duration) *claim {
	t.Helper()
	last, err := r.lastNumber(context.Background(), "a")
	if err != nil {
		t.Fatal(err)
	}
	c := &claim{Name: "a", Number: last + 1, Run: NewRunID(started), Process: p, Started: started, Beat: beat.Seconds()}
	if err := r.putObject(context.Background(), claimKey("a", c.Number), "claim", c); err != nil {
		t.Fatal(err)
	}
	return c
}

// A process of this host that is gone is fenced at once, also where its number
// is now another's.
func TestDeadProcess(t *testing.T) {
	r := testRepository(t, 64)
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	gone, reused := thisProcess(), thisProcess()
	gone.PID = cmd.ProcessState.Pid()
	reused.Start--
	for _, p := range []process{gone, reused} {
		dead := plant(t, r, p, time.Now(), time.Hour)
		w := begin(t, r, "a")
		if w.Number != dead.Number+1 || !w.History.Over(dead.Run) || !w.History.Unfinished {
			t.Errorf("number %s after a dead run of number %s", w.Number, dead.Number)
		}
		if err := r.fence(context.Background(), "a", dead.Number, dead.Run, dead.Run); err != nil {
			t.Error(err)
		}
		if _, err := commit(t, r, w); err != nil {
			t.Error(err)
		}
	}
}

// Of another host's run it is known that it lives as soon as it beats, and
// that it does not after two beats of silence.
func TestOtherHost(t *testing.T) {
	r := testRepository(t, 64)
	other := process{Host: "other", BootID: "other", PIDNamespace: "pid:[1]", PID: 1, Start: 1}
	var busy *BusyError
	young := plant(t, r, other, time.Now(), time.Hour)
	if _, err := r.Begin(context.Background(), "a", WriterOptions{}); !errors.As(err, &busy) {
		t.Fatalf("a run that began just now: %v", err)
	}
	if err := r.dropClaim(context.Background(), young); err != nil {
		t.Fatal(err)
	}

	const beat = 300 * time.Millisecond
	living := plant(t, r, other, time.Now().Add(-time.Hour), beat)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		n := int64(0)
		r.keepBeating(ctx, living.Run, beat, func() int64 { n++; return n })
	}()
	if _, err := r.Begin(context.Background(), "a", WriterOptions{}); !errors.As(err, &busy) {
		t.Errorf("a run that beats: %v", err)
	}
	stop()
	<-done

	w := begin(t, r, "a")
	if w.Number != living.Number+1 {
		t.Errorf("number %s", w.Number)
	}
	// It wakes up, and cannot commit.
	if _, err := commit(t, r, w); err != nil {
		t.Error(err)
	}
	if c, err := r.readCommit(context.Background(), "a", living.Number); err != nil || c.tombstone == nil {
		t.Errorf("%+v at the dead run's commit key: %v", c, err)
	}
	if left := claims(t, r); len(left) > 0 {
		t.Errorf("left in work/: %s", left)
	}
}

// A run that was fenced while it slept ends with ErrFenced and no level.
func TestFenced(t *testing.T) {
	r := testRepository(t, 64)
	w := begin(t, r, "a")
	if err := r.fence(context.Background(), "a", w.Number, w.ID, 99); err != nil {
		t.Fatal(err)
	}
	if _, err := commit(t, r, w); !errors.Is(err, ErrFenced) {
		t.Fatalf("committed: %v", err)
	}
	if h, err := r.History(context.Background(), "a"); err != nil || len(h.Levels) != 0 || !h.Over(w.ID) {
		t.Errorf("history %+v: %v", h, err)
	}
	if _, err := commit(t, r, begin(t, r, "a")); err != nil {
		t.Error(err)
	}
}

// A claim that cannot be read keeps nobody waiting for ever.
func TestGarbageClaim(t *testing.T) {
	r := testRepository(t, 64)
	if err := r.backend.Put(context.Background(), claimKey("a", 1), []byte("garbage")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := r.Begin(ctx, "a", WriterOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestProcessStart(t *testing.T) {
	self := thisProcess()
	if !self.sameHost(self) || !self.alive() {
		t.Errorf("this process does not live: %+v", self)
	}
	other := self
	other.PIDNamespace = "pid:[1]"
	if other.sameHost(self) {
		t.Error("another pid namespace is taken for the same host")
	}
	if _, err := os.Stat("/proc/" + strconv.Itoa(self.PID)); err != nil {
		t.Fatal(err)
	}
}
