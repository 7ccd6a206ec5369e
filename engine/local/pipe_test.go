package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"backy/engine"
	"backy/store"

	"golang.org/x/sys/unix"
)

// mustStream fails unless the stream gives the content and ends well.
func mustStream(t *testing.T, r io.Reader, want []byte) {
	t.Helper()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, want %d, error %v", len(got), len(want), err)
	}
}

func TestPipeHoldsItsInputToTheSize(t *testing.T) {
	for _, n := range []int{0, 1, 1000} {
		for _, test := range []struct {
			size  int64
			words []string
		}{
			{int64(n), nil},
			{int64(n) + 1, []string{"ended after", fmt.Sprintf("%d of %d bytes", n, n+1)}},
			{int64(n) - 1, []string{"goes on beyond", fmt.Sprintf("%d bytes", n-1)}},
		} {
			if test.size < 0 {
				continue
			}
			content := randomBytes(n)
			for name, r := range map[string]io.Reader{
				"plain":           bytes.NewReader(content),
				"byte by byte":    iotest.OneByteReader(bytes.NewReader(content)),
				"data with error": iotest.DataErrReader(bytes.NewReader(content)),
			} {
				var w warnings
				p := NewPipe(r, PipeOptions{Size: test.size, HasSize: true})
				state := begin(t, p, &w)
				got, err := io.ReadAll(state.Stream)
				if want := content[:min(int64(n), test.size)]; !bytes.Equal(got, want) {
					t.Errorf("%s: %d of %d: gave %d bytes", name, n, test.size, len(got))
				}
				if test.words == nil {
					if err != nil {
						t.Errorf("%s: %d of %d: %v", name, n, test.size, err)
					}
					if err := p.Recheck(t.Context()); err != nil {
						t.Error(err)
					}
					continue
				}
				mustFail(t, err, test.words...)
				if _, again := state.Stream.Read(make([]byte, 1)); again != err {
					t.Errorf("%s: the error changes to %v", name, again)
				}
				mustFail(t, p.Recheck(t.Context()), "not read to its end")
			}
		}
	}
}

func TestPipeOfAnySize(t *testing.T) {
	content := randomBytes(100 * kib)
	var w warnings
	p := NewPipe(bytes.NewReader(content), PipeOptions{})
	state := begin(t, p, &w, store.Level{Number: 4})
	if state.Size != -1 || state.Extents != nil || state.Base == nil || state.Base.Number != 4 || state.Origin.Kind != "pipe" || state.Origin.Diff != store.DiffNone {
		t.Errorf("state %+v", state)
	}
	mustStream(t, state.Stream, content)
	if err := p.Recheck(t.Context()); err != nil {
		t.Error(err)
	}
	w.mustHave(t)
}

func TestEmptyPipeIsWarnedAbout(t *testing.T) {
	var w warnings
	p := NewPipe(strings.NewReader(""), PipeOptions{})
	mustStream(t, begin(t, p, &w).Stream, nil)
	if err := p.Recheck(t.Context()); err != nil {
		t.Error(err)
	}
	w.mustHave(t, "empty")
}

// A decompressor, say, tells a truncated input by io.ErrUnexpectedEOF, which
// io.ReadFull makes of a short last read, too.
func TestInputThatBreaksOffIsNotTakenForItsEnd(t *testing.T) {
	for _, broken := range []error{io.ErrUnexpectedEOF, fmt.Errorf("gzip: %w", io.EOF), io.ErrClosedPipe} {
		var w warnings
		p := NewPipe(io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken)), PipeOptions{})
		n, err := io.ReadFull(begin(t, p, &w).Stream, make([]byte, 10))
		if n != 3 || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%v: read %d bytes, error %v", broken, n, err)
		}
		mustFail(t, err, broken.Error())
		mustFail(t, p.Recheck(t.Context()), "not read to its end")
	}
}

func TestCancelledRunDoesNotWaitForStandardInput(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if err := unix.SetNonblock(int(r.Fd()), false); err != nil { // as a standard input is
		t.Fatal(err)
	}
	if _, err := w.WriteString("abc"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	p := NewPipe(r, PipeOptions{})
	state, err := p.Begin(ctx, engine.Run{Warn: new(warnings).add})
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("interrupted")
	time.AfterFunc(wake/2, func() { cancel(why) })
	n, err := io.ReadFull(state.Stream, make([]byte, 10))
	if n != 3 || !errors.Is(err, why) {
		t.Errorf("read %d bytes, error %v", n, err)
	}
	if err := p.End(t.Context(), engine.Failed); err != nil {
		t.Error(err)
	}
	if _, err := r.Stat(); err != nil {
		t.Errorf("the caller's file: %v", err)
	}
}

func TestCommand(t *testing.T) {
	for _, test := range []struct {
		name, line string
		o          PipeOptions
		out        string
		words      []string // of the error
	}{
		{name: "good", line: "printf abc", out: "abc"},
		{name: "silent", line: "true"},
		{name: "a pipe", line: "printf abc | tr a x", out: "xbc"},
		{name: "large", line: "head -c 1000000 /dev/zero", out: string(make([]byte, 1000000))},
		{name: "has no input", line: "cat", out: ""},
		{name: "of the right size", line: "printf abc", o: PipeOptions{Size: 3, HasSize: true}, out: "abc"},
		{name: "closes its output early and ends well", line: "printf abc; exec >&-; sleep 0.1", out: "abc"},
		{name: "fails", line: "printf abc; exit 3", out: "abc", words: []string{"--from-command failed: exit status 3"}},
		{name: "fails at once", line: "exit 1", words: []string{"exit status 1"}},
		{name: "fails after it closed its output", line: "printf abc; exec >&-; sleep 0.1; exit 4", out: "abc", words: []string{"exit status 4"}},
		{name: "fails after the right size", line: "printf abc; exit 5", o: PipeOptions{Size: 3, HasSize: true}, out: "abc", words: []string{"exit status 5"}},
		{name: "fails too early", line: "printf abc; exit 6", o: PipeOptions{Size: 4, HasSize: true}, out: "abc", words: []string{"exit status 6"}},
		{name: "ends too early", line: "printf abc", o: PipeOptions{Size: 4, HasSize: true}, out: "abc", words: []string{"3 of 4 bytes"}},
		{name: "is killed", line: "printf abc; kill -KILL $$", out: "abc", words: []string{"signal: killed"}},
		{name: "is not there", line: "no-such-program-at-all", words: []string{"exit status 127"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var w warnings
			p := NewCommand(test.line, test.o)
			state := begin(t, p, &w)
			got, err := io.ReadAll(state.Stream)
			if string(got) != test.out {
				t.Errorf("gave %d bytes, want %d", len(got), len(test.out))
			}
			if test.words != nil {
				mustFail(t, err, test.words...)
				if err != nil && strings.Contains(err.Error(), test.line) {
					t.Errorf("the error has the command, which may hold a secret: %v", err)
				}
				mustFail(t, p.Recheck(t.Context()), "not read to its end")
				return
			}
			if err != nil {
				t.Error(err)
			}
			if err := p.Recheck(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCommandTalksOnStandardError(t *testing.T) {
	var talk bytes.Buffer
	p := NewCommand("echo data; echo words >&2", PipeOptions{Stderr: &talk})
	var w warnings
	mustStream(t, begin(t, p, &w).Stream, []byte("data\n"))
	if talk.String() != "words\n" {
		t.Errorf("standard error: %q", talk.String())
	}
}

// Each of these commands would run for ever; the test ends only if all of their
// processes have, since they hold the standard error that it reads to the end.
func TestStoppedSourceKillsItsCommand(t *testing.T) {
	for name, line := range map[string]string{
		"waits":                        "printf abc; sleep 1000",
		"writes on":                    "yes",
		"has children":                 "printf abc; sleep 1000 | sleep 1000 & sleep 1000",
		"ignores SIGTERM":              "trap '' TERM; printf abc; while :; do sleep 1000; done",
		"leaves a child that ignores":  "(trap '' TERM; printf abc; while :; do sleep 1000; done) & exec sleep 1000",
		"has stopped":                  "printf abc; kill -STOP $$",
		"has exited before its child":  "printf abc; sleep 1000 & exit 0",
		"has failed before its child":  "printf abc; sleep 1000 & exit 1",
		"closed its output":            "printf abc; exec >&-; sleep 1000",
		"its child closed the outputs": "printf abc; sleep 1000 >&- & wait",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			p := NewCommand(line, PipeOptions{Stderr: w})
			state, err := p.Begin(t.Context(), engine.Run{Warn: new(warnings).add})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(state.Stream, make([]byte, 3)); err != nil {
				t.Error(err)
			}
			if err := p.End(t.Context(), engine.Failed); err != nil {
				t.Error(err)
			}
			mustClose(t, w)
			if _, err := io.ReadAll(r); err != nil {
				t.Error(err)
			}
		})
	}
}

// Who runs the command is killed: so is what it runs, all of it, at once. The
// test ends only if all of it has ended, since that holds the standard error.
func TestKilledProcessTakesItsCommandAlong(t *testing.T) {
	if line := os.Getenv(commandToRun); line != "" {
		p := NewCommand(line, PipeOptions{Stderr: os.Stderr})
		if _, err := p.Begin(t.Context(), engine.Run{Warn: new(warnings).add}); err != nil {
			t.Fatal(err)
		}
		select {}
	}
	for _, line := range []string{
		"echo runs >&2; exec sleep 1000",
		"trap '' TERM HUP; (sleep 1000 | sleep 1000) & (echo runs >&2; sleep 1000); sleep 1000",
	} {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), commandToRun+"="+line)
		r, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, len("runs\n"))); err != nil {
			t.Error(err)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadAll(r); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // it was killed
	}
}

// commandToRun makes the test's process run a command instead.
const commandToRun = "BACKY_TEST_COMMAND"

func TestStoppedCommandLeavesNoZombie(t *testing.T) {
	for _, line := range []string{"printf abc", "exit 1", "sleep 1000"} {
		p := NewCommand(line, PipeOptions{})
		state, err := p.Begin(t.Context(), engine.Run{Warn: new(warnings).add})
		if err != nil {
			t.Fatal(err)
		}
		if line != "sleep 1000" {
			_, _ = io.ReadAll(state.Stream)
		}
		if err := p.End(t.Context(), engine.Failed); err != nil {
			t.Error(err)
		}
		if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); !errors.Is(err, unix.ECHILD) {
			t.Errorf("%q: children are left: %v", line, err)
		}
	}
}

func TestCancelledRunDoesNotWaitForItsCommand(t *testing.T) {
	for _, line := range []string{"sleep 1000", "exec >&-; sleep 1000"} {
		ctx, cancel := context.WithCancel(t.Context())
		p := NewCommand(line, PipeOptions{})
		state, err := p.Begin(ctx, engine.Run{Warn: new(warnings).add})
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(wake/2, cancel)
		if _, err := io.ReadAll(state.Stream); !errors.Is(err, context.Canceled) {
			t.Errorf("%q: got %v", line, err)
		}
		if err := p.End(t.Context(), engine.Failed); err != nil {
			t.Error(err)
		}
	}
}
