package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// frozenRun is another process that freezes something, makes a snapshot of it and
// thaws it, and a folder where it can be told to go on: each step waits for a
// file of its name.
type frozenRun struct {
	*steps
	dir string
	cmd *exec.Cmd
}

const (
	runDir   = "BACKY_TEST_FREEZE" // makes this test program such a process
	runLimit = "BACKY_TEST_FREEZE_LIMIT"
)

func startFrozenRun(t *testing.T, limit time.Duration, goOn ...string) *frozenRun {
	t.Helper()
	dir := t.TempDir()
	r := &frozenRun{steps: &steps{file: filepath.Join(dir, "steps")}, dir: dir}
	for _, step := range goOn {
		r.goOn(t, step)
	}
	r.cmd = exec.Command(os.Args[0], "-test.run=^TestFrozenRun$")
	r.cmd.Env = append(os.Environ(), runDir+"="+dir, runLimit+"="+limit.String())
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill() // most have been
		_ = r.cmd.Wait()
	})
	return r
}

func (r *frozenRun) goOn(t *testing.T, step string) { writeFile(t, filepath.Join(r.dir, step), nil) }

// TestFrozenRun is such a process, and no test.
func TestFrozenRun(t *testing.T) {
	dir := os.Getenv(runDir)
	if dir == "" {
		return
	}
	limit, err := time.ParseDuration(os.Getenv(runLimit))
	if err != nil {
		t.Fatal(err)
	}
	note := func(step string) {
		if err := (&steps{file: filepath.Join(dir, "steps")}).note(step); err != nil {
			t.Fatal(err)
		}
	}
	wait := func(step string) {
		for {
			if _, err := os.Stat(filepath.Join(dir, step)); err == nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "unordered")); err == nil {
		g, err := startGuard(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, "guard"), []byte(strconv.Itoa(g.cmd.Process.Pid)))
		note("started")
		select {}
	}
	line := func(step string) string {
		return fmt.Sprintf("cd %s; echo $PPID >guard.new; mv guard.new guard; echo %s >>steps; until test -e %s; do sleep .02; done; echo %s done >>steps", dir, step, step, step)
	}
	f := Freeze{Freeze: line("freeze"), Thaw: line("thaw"), Limit: limit}
	err = f.Around(t.Context(), nil, func(context.Context) error {
		note("snapshot")
		wait("snapshot")
		note("snapshot done")
		return nil
	})
	note(fmt.Sprintf("end: %v", err))
	select {}
}

func (s *steps) note(step string) error {
	f, err := os.OpenFile(s.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(step + "\n")
	return errors.Join(err, f.Close())
}

// until waits for a step.
func (r *frozenRun) until(t *testing.T, step string) {
	t.Helper()
	for start := time.Now(); !strings.Contains(", "+r.done(t)+",", ", "+step); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > time.Minute {
			t.Fatalf("done: %s; never: %s", r.done(t), step)
		}
	}
}

func (r *frozenRun) guard(t *testing.T) int {
	t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(string(readFile(t, filepath.Join(r.dir, "guard")))))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func (r *frozenRun) signal(t *testing.T, s unix.Signal) {
	t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// unguarded waits for the guard's end.
func (r *frozenRun) unguarded(t *testing.T) {
	t.Helper()
	for start := time.Now(); running(r.guard(t)); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > time.Minute {
			t.Fatalf("the guard does not end; done: %s", r.done(t))
		}
	}
}

// running reports whether there is such a process, and it is not one that nobody has
// collected.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.HasPrefix(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" Z"))
}

// Whenever a run is killed: what it may have frozen is thawed last, once, and
// nothing freezes it afterwards.
func TestThawsAfterKill(t *testing.T) {
	for name, c := range map[string]struct {
		goOn []string // before the run
		at   string   // the step that it is killed in
		then string   // that is let go on after it
		want string
	}{
		"before freezing":   {[]string{"unordered"}, "started", "", "started"},
		"while freezing":    {[]string{"thaw"}, "freeze", "", "freeze, thaw, thaw done"},
		"while it is made":  {[]string{"freeze", "thaw"}, "snapshot", "", "freeze, freeze done, snapshot, thaw, thaw done"},
		"while thawing":     {[]string{"freeze", "snapshot"}, "thaw", "thaw", "freeze, freeze done, snapshot, snapshot done, thaw, thaw done"},
		"after all of that": {[]string{"freeze", "snapshot", "thaw"}, "end: <nil>", "", "freeze, freeze done, snapshot, snapshot done, thaw, thaw done, end: <nil>"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startFrozenRun(t, time.Minute, c.goOn...)
			r.until(t, c.at)
			r.signal(t, unix.SIGKILL)
			if c.then != "" {
				time.Sleep(2 * wake)
				r.goOn(t, c.then)
			}
			r.unguarded(t)
			r.goOn(t, "freeze") // which nobody should wait for any more
			time.Sleep(2 * wake)
			if got := r.done(t); got != c.want {
				t.Errorf("done: %s\nwant: %s", got, c.want)
			}
		})
	}
}

// A run that is stopped leaves nothing frozen, and when it goes on, its snapshot
// does not count.
func TestThawsWhileStopped(t *testing.T) {
	for name, c := range map[string]struct {
		goOn []string
		at   string
		want string // while it is stopped
		end  string // when it goes on
	}{
		"while freezing": {
			[]string{"thaw"},
			"freeze", "freeze, thaw, thaw done",
			"end: freeze: --freeze did not end within 1s",
		},
		"while it is made": {
			[]string{"freeze", "thaw"},
			"snapshot", "freeze, freeze done, snapshot, thaw, thaw done",
			"snapshot done, end: thaw: it came by itself",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startFrozenRun(t, time.Second, c.goOn...)
			r.until(t, c.at)
			r.signal(t, unix.SIGSTOP)
			r.unguarded(t)
			if got := r.done(t); got != c.want {
				t.Errorf("done: %s\nwant: %s", got, c.want)
			}
			r.goOn(t, "snapshot")
			r.signal(t, unix.SIGCONT)
			r.until(t, c.end)
		})
	}
}

// systemd's KillMode=control-group sends SIGTERM to every process of a service,
// a shutdown to every process.
func TestThawsWhenAllAreToEnd(t *testing.T) {
	for name, c := range map[string]struct {
		goOn []string
		at   string
		then string
		want string
	}{
		"while freezing":   {[]string{"thaw"}, "freeze", "", "freeze, thaw, thaw done"},
		"while it is made": {[]string{"freeze", "thaw"}, "snapshot", "", "freeze, freeze done, snapshot, thaw, thaw done"},
		"while thawing":    {[]string{"freeze", "snapshot"}, "thaw", "thaw", "freeze, freeze done, snapshot, snapshot done, thaw, thaw, thaw done"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startFrozenRun(t, time.Minute, c.goOn...)
			r.until(t, c.at)
			pids := append(descendants(r.cmd.Process.Pid), r.cmd.Process.Pid)
			for _, pid := range pids {
				_ = unix.Kill(pid, unix.SIGTERM) // those that sleep come and go
			}
			if c.then != "" {
				r.goOn(t, c.then)
			}
			r.unguarded(t)
			if got := r.done(t); got != c.want {
				t.Errorf("done: %s\nwant: %s", got, c.want)
			}
		})
	}
}

// A guard that is killed, or stopped, is replaced by one that thaws; the snapshot
// does not count.
func TestThawsWithoutItsGuard(t *testing.T) {
	for name, c := range map[string]struct {
		signal unix.Signal
		goOn   []string
		at     string
		want   string
	}{
		"killed while freezing":   {unix.SIGKILL, []string{"thaw"}, "freeze", "freeze, thaw, thaw done"},
		"killed while it is made": {unix.SIGKILL, []string{"freeze", "thaw"}, "snapshot", "freeze, freeze done, snapshot, snapshot done, thaw, thaw done"},
		"killed while thawing":    {unix.SIGKILL, []string{"freeze", "snapshot"}, "thaw", "freeze, freeze done, snapshot, snapshot done, thaw, thaw"},
		"stopped":                 {unix.SIGSTOP, []string{"freeze", "thaw"}, "snapshot", "freeze, freeze done, snapshot, snapshot done, thaw, thaw done"},
		"stopped while freezing":  {unix.SIGSTOP, []string{"thaw"}, "freeze", "freeze, thaw, thaw done"},
		"stopped while thawing":   {unix.SIGSTOP, []string{"freeze", "snapshot"}, "thaw", "freeze, freeze done, snapshot, snapshot done, thaw, thaw"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startFrozenRun(t, 2*time.Second, c.goOn...)
			r.until(t, c.at)
			if err := unix.Kill(r.guard(t), c.signal); err != nil {
				t.Fatal(err)
			}
			r.goOn(t, "snapshot")
			r.goOn(t, "thaw")
			r.until(t, "end: ")
			done, end, _ := strings.Cut(r.done(t), ", end: ")
			if done != c.want && c.at != "thaw" || !strings.HasPrefix(done, c.want) {
				t.Errorf("done: %s\nwant: %s", done, c.want)
			}
			if !strings.Contains(end, errGuardLost.Error()) {
				t.Errorf("end: %s", end)
			}
		})
	}
}

// A freezing command that cannot be killed, as it hangs in the kernel, does not
// keep what is frozen from being thawed; once it has ended, that is thawed again.
func TestFreezingThatCannotBeKilled(t *testing.T) {
	dir := mountDevice(t, loop(t, sparse(t, t.TempDir(), 16<<20)))
	s := newSteps(t)
	s.Limit = time.Second
	s.Freeze.Freeze += fmt.Sprintf("; fsfreeze --freeze %s; touch %[1]s/hangs; echo freeze later >>%s", dir, s.file)
	s.Thaw += fmt.Sprintf("; fsfreeze --unfreeze %s 2>&1", dir)
	err := s.Around(t.Context(), image, s.take)
	mustFail(t, err, "--freeze did not end within 1s", "cannot be killed")
	if !errors.Is(err, ErrThaw) {
		t.Errorf("got %v", err)
	}
	for start := time.Now(); s.done(t) != "freeze web1, thaw web1, thaw web1"; time.Sleep(wake) {
		if time.Since(start) > time.Minute {
			t.Fatalf("done: %s", s.done(t))
		}
	}
	writeFile(t, filepath.Join(dir, "file"), nil) // it is thawed
}

// A guard that is stopped while something freezes is replaced before its time is up,
// once all that froze has ended, whatever has become of the command.
func TestNothingFreezesAfterAStoppedGuard(t *testing.T) {
	for name, freeze := range map[string]string{
		"it has ended": ":",
		"it goes on":   "sleep 5; echo freeze later >>$STEPS",
		"a daemon":     "setsid sh -c 'trap \"\" TERM; sleep 5; echo freeze later >>$STEPS' & sleep .2",
		"it is stuck":  "kill -STOP $$",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSteps(t)
			s.Freeze.Freeze = "kill -STOP $PPID; " + s.Freeze.Freeze + "; " + freeze
			began := time.Now()
			err := s.Around(t.Context(), append(image, "STEPS="+s.file), s.take)
			if took := time.Since(began); took > s.Limit/2 {
				t.Errorf("it was frozen for %s", took)
			}
			if !errors.Is(err, errGuardLost) || s.done(t) != "freeze web1, thaw web1" {
				t.Errorf("%v, done: %s", err, s.done(t))
			}
			time.Sleep(6*time.Second - time.Since(began)) // for what would come later
			if got := s.done(t); got != "freeze web1, thaw web1" {
				t.Errorf("later: %s", got)
			}
		})
	}
}

// Commands that print neither die nor wait where nobody reads that any more.
func TestThawsWhereNobodyListens(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s := newSteps(t)
	s.Stderr = w
	s.Limit = 20 * time.Second
	s.Thaw = "head -c 1000000 /dev/zero; " + s.Thaw
	failed := make(chan error, 1)
	go func() { failed <- s.Around(t.Context(), image, s.take) }() // its Stderr is not read, as that of a stopped terminal
	for start := time.Now(); s.done(t) != allSteps; time.Sleep(wake) {
		if time.Since(start) > s.Limit {
			t.Fatalf("done: %s", s.done(t))
		}
	}
	mustClose(t, r)
	if err := <-failed; err != nil {
		t.Error(err)
	}
}
