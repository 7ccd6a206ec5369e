package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// steps are what a freeze, a snapshot and a thaw wrote down, in order.
type steps struct {
	file string
	Freeze
}

func newSteps(t *testing.T) *steps {
	file := filepath.Join(t.TempDir(), "steps")
	return &steps{file: file, Freeze: Freeze{
		Freeze: fmt.Sprintf("echo freeze $BACKY_IMAGE >>%s", file),
		Thaw:   fmt.Sprintf("echo thaw $BACKY_IMAGE >>%s", file),
		Limit:  time.Minute,
		Stderr: os.Stderr,
	}}
}

func (s *steps) take(context.Context) error {
	f, err := os.OpenFile(s.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString("snapshot\n")
	return errors.Join(err, f.Close())
}

func (s *steps) done(t *testing.T) string {
	t.Helper()
	p, err := os.ReadFile(s.file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.ReplaceAll(strings.TrimSpace(string(p)), "\n", ", ")
}

var image = []string{"BACKY_IMAGE=web1"}

const allSteps = "freeze web1, snapshot, thaw web1"

func TestFreeze(t *testing.T) {
	s := newSteps(t)
	if err := s.Around(t.Context(), image, s.take); err != nil {
		t.Fatal(err)
	}
	if got := s.done(t); got != allSteps {
		t.Errorf("done: %s", got)
	}
}

// Thawing comes last, whatever fails before it, and its own failure is told.
func TestThawsAlways(t *testing.T) {
	bang := errors.New("no snapshot")
	t.Run("freeze fails", func(t *testing.T) {
		s := newSteps(t)
		s.Freeze.Freeze += "; exit 3"
		err := s.Around(t.Context(), image, s.take)
		if err == nil || !strings.Contains(err.Error(), "exit status 3") || s.done(t) != "freeze web1, thaw web1" {
			t.Errorf("%v, done: %s", err, s.done(t))
		}
	})
	t.Run("freeze hangs", func(t *testing.T) {
		s := newSteps(t)
		s.Freeze.Freeze += "; sleep 1000"
		s.Limit = 500 * time.Millisecond
		err := s.Around(t.Context(), image, s.take)
		if err == nil || !strings.Contains(err.Error(), "did not end within") || s.done(t) != "freeze web1, thaw web1" {
			t.Errorf("%v, done: %s", err, s.done(t))
		}
	})
	t.Run("snapshot fails", func(t *testing.T) {
		s := newSteps(t)
		err := s.Around(t.Context(), image, func(context.Context) error { return bang })
		if !errors.Is(err, bang) || s.done(t) != "freeze web1, thaw web1" {
			t.Errorf("%v, done: %s", err, s.done(t))
		}
	})
	t.Run("snapshot hangs", func(t *testing.T) {
		s := newSteps(t)
		s.Limit = 500 * time.Millisecond
		err := s.Around(t.Context(), image, func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) })
		if err == nil || !strings.Contains(err.Error(), "snapshot was not made within") || s.done(t) != "freeze web1, thaw web1" {
			t.Errorf("%v, done: %s", err, s.done(t))
		}
	})
	t.Run("context ends", func(t *testing.T) {
		s := newSteps(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		err := s.Around(ctx, image, func(ctx context.Context) error { cancel(bang); return context.Cause(ctx) })
		if !errors.Is(err, bang) || s.done(t) != "freeze web1, thaw web1" {
			t.Errorf("%v, done: %s", err, s.done(t))
		}
	})
	t.Run("thaw fails", func(t *testing.T) {
		s := newSteps(t)
		s.Thaw += "; exit 4"
		err := s.Around(t.Context(), image, s.take)
		if !errors.Is(err, ErrThaw) || !strings.Contains(err.Error(), "exit status 4") || s.done(t) != allSteps {
			t.Errorf("%v, done: %s", err, s.done(t))
		}
	})
	t.Run("thaw hangs", func(t *testing.T) {
		s := newSteps(t)
		s.Thaw += "; sleep 1000"
		s.Limit = 500 * time.Millisecond
		err := s.Around(t.Context(), image, s.take)
		if !errors.Is(err, ErrThaw) || !strings.Contains(err.Error(), "did not end within") || s.done(t) != allSteps {
			t.Errorf("%v, done: %s", err, s.done(t))
		}
	})
}

// stepsEnv makes this test program a process that freezes and is then killed.
const stepsEnv = "BACKY_TEST_FREEZE"

// A process that is killed while something is frozen leaves it thawed.
func TestThawsAfterKill(t *testing.T) {
	if file := os.Getenv(stepsEnv); file != "" {
		s := &steps{file: file, Freeze: Freeze{Freeze: "echo freeze >>" + file, Thaw: "echo thaw >>" + file, Limit: time.Minute}}
		_ = s.Around(t.Context(), nil, func(context.Context) error { time.Sleep(time.Minute); return nil })
		return
	}
	s := newSteps(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestThawsAfterKill$")
	cmd.Env = append(os.Environ(), stepsEnv+"="+s.file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	until := func(want string) {
		t.Helper()
		for start := time.Now(); s.done(t) != want; time.Sleep(5 * time.Millisecond) {
			if time.Since(start) > time.Minute {
				t.Fatalf("done: %s, want %s", s.done(t), want)
			}
		}
	}
	until("freeze")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	until("freeze, thaw")
}
