package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
)

// talk is what people read, on stderr: stdout is data. It is safe for
// concurrent use.
type talk struct {
	mu       sync.Mutex
	w        io.Writer
	quiet    bool
	verbose  bool
	warnings []string
}

// say prints a line unless -q was given.
func (t *talk) say(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.quiet {
		t.print(fmt.Sprintf(format, args...))
	}
}

// detail prints a line where -v was given.
func (t *talk) detail(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.verbose {
		t.print(fmt.Sprintf(format, args...))
	}
}

// warn prints a warning, with -q too, and keeps it for the JSON document.
func (t *talk) warn(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := fmt.Sprintf(format, args...)
	t.warnings = append(t.warnings, w)
	t.print("backy: warning: " + w)
}

// fail prints the error that ends the run, with -q too.
func (t *talk) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.print("backy: " + strings.ReplaceAll(err.Error(), "\n", "\nbacky: ")) // joined ones have a line each
	if hint := hintOf(err); hint != "" {
		t.print("hint: " + hint)
	}
}

// print writes a line. There is nobody to tell where that fails.
func (t *talk) print(line string) { _, _ = io.WriteString(t.w, line+"\n") }

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
	_, err := r.t.w.Write(r.rest[:ready])
	r.rest = append(r.rest[:0], r.rest[ready:]...)
	return len(p), err
}

// Close passes on a last line that has no end.
func (r *relay) Close() error {
	r.t.mu.Lock()
	defer r.t.mu.Unlock()
	if len(r.rest) > 0 {
		r.t.print(string(r.rest))
		r.rest = nil
	}
	return nil
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
