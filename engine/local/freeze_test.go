package local

import (
	"context"
	"errors"
	"fmt"
	"os"
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

// What a freezing command leaves behind, or does against being ended, neither holds
// up the thaw nor outlives it.
func TestNothingOfFreezingOutlivesThawing(t *testing.T) {
	const later = "(trap '' TERM; sleep 3; echo freeze later >>$STEPS; sleep 1000)"
	for name, c := range map[string]struct {
		freeze string
		limit  time.Duration
		fails  string
	}{
		"holds the output":         {freeze: "sleep 1000 &"},
		"ignores SIGTERM":          {freeze: "trap '' TERM; while :; do sleep 1; done", limit: time.Second, fails: "did not end within 1s"},
		"a child that comes later": {freeze: later + " &"},
		"a daemon":                 {freeze: "setsid sh -c \"" + strings.ReplaceAll(later, "$", "\\$") + "\" & sleep .2"},
		"a daemon's daemon":        {freeze: "setsid sh -c 'setsid sleep 1000 & exit 0' & sleep .2"},
		"fails and goes on":        {freeze: later + " & exit 3", fails: "exit status 3"},
		"is stopped":               {freeze: "kill -STOP $$", limit: time.Second, fails: "did not end within 1s"},
		"a loop that forks":        {freeze: "(trap '' TERM; while :; do sleep .01; done) &"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSteps(t)
			s.Freeze.Freeze += "; " + c.freeze
			if c.limit != 0 {
				s.Limit = c.limit
			}
			s.Thaw = "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c ^FREEZER=" + s.file + " >" + s.file + ".left; " + s.Thaw
			// The variable tells what is left of the freezing command when it is thawed:
			// grep's own shell does not have it.
			s.Freeze.Freeze = "export FREEZER=" + s.file + "; " + s.Freeze.Freeze
			err := s.Around(t.Context(), append(image, "STEPS="+s.file), s.take)
			want := allSteps
			if c.fails != "" {
				want = "freeze web1, thaw web1"
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("got %v", err)
				}
			} else if err != nil {
				t.Error(err)
			}
			if got := s.done(t); got != want {
				t.Errorf("done: %s", got)
			}
			if left := string(readFile(t, s.file+".left")); left != "0\n" {
				t.Errorf("processes left when it was thawed: %s", left)
			}
		})
	}
}

// No error repeats a command: it may hold a secret.
func TestFreezeErrorsKeepSecrets(t *testing.T) {
	for _, f := range []Freeze{
		{Freeze: "exit 3 # s3cret", Thaw: "exit 4 # s3cret", Limit: time.Minute},
		{Freeze: "sleep 1000 # s3cret", Thaw: "sleep 1000 # s3cret", Limit: 100 * time.Millisecond},
		{Freeze: "kill -KILL $$ # s3cret", Thaw: "kill -KILL $$ # s3cret", Limit: time.Minute},
		{Freeze: strings.Repeat("s3cret", 1<<20), Thaw: strings.Repeat("s3cret", 1<<20), Limit: time.Minute},
	} {
		err := f.Around(t.Context(), nil, func(context.Context) error { return nil })
		if err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "--freeze") || !strings.Contains(err.Error(), "--thaw") {
			t.Errorf("got %.300v", err)
		}
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
		if !errors.Is(err, ErrThaw) || !strings.Contains(err.Error(), "exit status 4") || s.done(t) != allSteps+strings.Repeat(", thaw web1", 4) {
			t.Errorf("%v, done: %s", err, s.done(t))
		}
	})
	t.Run("thaw fails once", func(t *testing.T) {
		s := newSteps(t)
		s.Thaw += "; mkdir " + s.file + ".tried && exit 4; true"
		if err := s.Around(t.Context(), image, s.take); err != nil || s.done(t) != allSteps+", thaw web1" {
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
