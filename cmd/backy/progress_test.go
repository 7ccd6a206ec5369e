package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"backy/engine"
)

func TestPace(t *testing.T) {
	start := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	var progress engine.Progress
	pace := newPace(10*time.Second, start)
	for _, tt := range []struct {
		after       time.Duration
		done, total int64
		bad         int64
		want        string
		percent     int
	}{
		{0, 0, 0, 0, "0 B, 0 B/s", -1},
		{1 * time.Second, 10 << 20, 0, 0, "10 MiB, 10 MiB/s", -1},
		{2 * time.Second, 20 << 20, 100 << 20, 0, "20 MiB of 100 MiB, 10 MiB/s, 8.0 s left", 20},
		{4 * time.Second, 20 << 20, 100 << 20, 0, "20 MiB of 100 MiB, 5.0 MiB/s, 16 s left", 20},
		{12 * time.Second, 30 << 20, 100 << 20, 3, "30 MiB of 100 MiB, 1.0 MiB/s, 1m10s left, 3 bad chunks", 30},
		{60 * time.Second, 30 << 20, 100 << 20, 3, "30 MiB of 100 MiB, 0 B/s, 3 bad chunks", 30}, // stuck
		{61 * time.Second, 130 << 20, 100 << 20, 3, "130 MiB of 100 MiB, 2.0 MiB/s, 3 bad chunks", 100},
	} {
		progress.Done.Store(tt.done)
		progress.Total.Store(tt.total)
		progress.Bad.Store(tt.bad)
		pace.note(start.Add(tt.after), &progress)
		if got := pace.String(); got != tt.want {
			t.Errorf("after %s: got %q, want %q", tt.after, got, tt.want)
		}
		if tt.percent >= 0 && pace.percent() != tt.percent {
			t.Errorf("after %s: got %d %%, want %d", tt.after, pace.percent(), tt.percent)
		}
	}
}

// Where there is no terminal, a line comes now and then, also while nothing
// moves, and none with -q.
func TestProgressLines(t *testing.T) {
	said := func(quiet bool, until int) string {
		f, err := os.CreateTemp(t.TempDir(), "stderr")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		p := &program{stderr: f, lineEvery: 5 * time.Millisecond}
		p.talk.w, p.talk.quiet = f, quiet
		var progress engine.Progress
		progress.Done.Store(5 << 20)
		progress.Total.Store(10 << 20)
		var text string
		err = p.watch("backup web1", &progress, func() error {
			for {
				content, err := os.ReadFile(f.Name())
				if text = string(content); err != nil || strings.Count(text, "\n") >= until {
					return err
				}
				time.Sleep(time.Millisecond)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	text := said(false, 3)
	if want := "backup web1: 50 %, 5.0 MiB of 10 MiB, "; strings.Count(text, want) < 3 {
		t.Errorf("no lines with %q:\n%s", want, text)
	}
	if text := said(true, 0); text != "" {
		t.Errorf("with -q: %s", text)
	}
}

// As JSON objects the lines have the figures as fields, on a terminal too.
func TestProgressAsJSON(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := &program{stderr: f, lineEvery: time.Millisecond}
	p.talk.w, p.talk.json = f, true
	var progress engine.Progress
	progress.Done.Store(5 << 20)
	progress.Total.Store(10 << 20)
	var text []byte
	err = p.watch("backup web1", &progress, func() (err error) {
		for err == nil && !bytes.HasSuffix(text, []byte("\n")) {
			time.Sleep(time.Millisecond)
			text, err = os.ReadFile(f.Name())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := bytes.Cut(text, []byte("\n"))
	var line struct {
		Time        time.Time
		Level, Msg  string
		Done, Total int64
	}
	if err := json.Unmarshal(first, &line); err != nil {
		t.Fatalf("%s: %v", first, err)
	}
	if line.Level != "INFO" || line.Done != 5<<20 || line.Total != 10<<20 || line.Time.IsZero() || !strings.HasPrefix(line.Msg, "backup web1: 50 %, ") {
		t.Errorf("%s", first)
	}
}

// What another program says comes through by whole lines.
func TestRelay(t *testing.T) {
	var b strings.Builder
	r := &relay{t: &talk{w: &b}}
	for _, tt := range []struct{ write, want string }{
		{"", ""},
		{"one", ""},
		{" line\n", "one line\n"},
		{"two\nthree\nfo", "one line\ntwo\nthree\n"},
		{"ur", "one line\ntwo\nthree\n"},
	} {
		if n, err := r.Write([]byte(tt.write)); n != len(tt.write) || err != nil {
			t.Fatalf("%q: %d, %v", tt.write, n, err)
		}
		if b.String() != tt.want {
			t.Errorf("after %q: %q, want %q", tt.write, b.String(), tt.want)
		}
	}
	if err := r.Close(); err != nil || !strings.HasSuffix(b.String(), "three\nfour\n") {
		t.Errorf("after the end: %q, %v", b.String(), err)
	}
	b.Reset()
	long := strings.Repeat("x", longestLine+1)
	if _, err := r.Write([]byte(long)); err != nil || b.String() != long {
		t.Errorf("a long line: %d bytes, %v", b.Len(), err)
	}
}
