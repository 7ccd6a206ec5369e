package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"

	"backy/engine"
)

// talk is what people read, or with --log-format json programs, on stderr:
// stdout is data. It is safe for concurrent use.
type talk struct {
	mu       sync.Mutex
	w        io.Writer
	quiet    bool
	verbose  bool
	json     bool // a line is a JSON object
	warnings []string
}

// set sets how much is said.
func (t *talk) set(quiet, verbose bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.quiet, t.verbose = quiet, verbose
}

// told is a line with fields, which only JSON objects show.
type told struct {
	t      *talk
	fields []any // keys and values, as slog takes them
}

// with returns what says lines with fields.
func (t *talk) with(fields ...any) told { return told{t, fields} }

// say prints a line unless -q was given.
func (t *talk) say(format string, args ...any) { t.with().say(format, args...) }

// detail prints a line where -v was given.
func (t *talk) detail(format string, args ...any) { t.with().detail(format, args...) }

// warn prints a warning, with -q too, and keeps it for the JSON document.
func (t *talk) warn(format string, args ...any) { t.with().warn(format, args...) }

func (l told) say(format string, args ...any) {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	if !l.t.quiet {
		l.line(slog.LevelInfo, "", format, args...)
	}
}

func (l told) detail(format string, args ...any) {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	if l.t.verbose {
		l.line(slog.LevelDebug, "", format, args...)
	}
}

func (l told) warn(format string, args ...any) {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	l.t.warnings = append(l.t.warnings, engine.Sentence(format, args...))
	l.line(slog.LevelWarn, "backy: warning: ", format, args...)
}

// fail prints the error that ends the run, with -q too.
func (l told) fail(err error) {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	hint := hintOf(err)
	if l.t.json {
		if hint != "" {
			l.fields = append(l.fields, "hint", hint)
		}
		l.line(slog.LevelError, "", "%s", err.Error())
		return
	}
	l.t.print("backy: " + strings.ReplaceAll(errorText(err), "\n", "\nbacky: ")) // joined ones have a line each
	if hint != "" {
		l.t.print("hint: " + strings.ReplaceAll(hint, "\n", "\nhint: "))
	}
}

// line prints a line; t.mu is held. For people it begins with a prefix.
func (l told) line(severity slog.Level, prefix, format string, args ...any) {
	if !l.t.json {
		l.t.print(prefix + shownf(format, args...))
		return
	}
	slog.New(slog.NewJSONHandler(plainJSON{l.t.w}, &slog.HandlerOptions{Level: slog.LevelDebug})).
		Log(context.Background(), severity, engine.Sentence(format, args...), l.fields...)
}

// print writes lines. There is nobody to tell where that fails.
func (t *talk) print(text string) { _, _ = io.WriteString(t.w, lines(text)+"\n") }

// warned are the warnings so far.
func (t *talk) warned() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string{}, t.warnings...)
}

// relay passes on what another program writes to its stderr, by whole lines, so
// that it does not get in the way of a progress bar.
type relay struct {
	t    *talk
	rest []byte // of a line; under t.mu
}

// longestLine is how much of a line is kept back until its end.
const longestLine = 64 << 10

func (r *relay) Write(p []byte) (int, error) {
	r.t.mu.Lock()
	defer r.t.mu.Unlock()
	r.rest = append(r.rest, p...)
	ready := bytes.LastIndexByte(r.rest, '\n') + 1
	if ready == 0 && len(r.rest) > longestLine {
		ready = len(r.rest)
	}
	if ready == 0 {
		return len(p), nil
	}
	err := r.pass(r.rest[:ready])
	r.rest = append(r.rest[:0], r.rest[ready:]...)
	return len(p), err
}

// pass prints whole lines; t.mu is held. Names that a command was given may come
// back in what it says.
func (r *relay) pass(text []byte) error {
	if !r.t.json {
		_, err := io.WriteString(r.t.w, shown(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n\t"))
		return err
	}
	for line := range bytes.Lines(text) {
		r.t.with("from", "command").line(slog.LevelInfo, "", "%s", strings.TrimRight(string(line), "\r\n"))
	}
	return nil
}

// Close passes on a last line that has no end.
func (r *relay) Close() error {
	r.t.mu.Lock()
	defer r.t.mu.Unlock()
	if len(r.rest) == 0 {
		return nil
	}
	err := r.pass(append(r.rest, '\n'))
	r.rest = nil
	return err
}

// through sends what is printed through another writer and returns the one
// before.
func (t *talk) through(w io.Writer) io.Writer {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.w
	t.w = w
	return before
}
