package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"backy/store"
)

func TestTable(t *testing.T) {
	columns := []column{{"N", true}, {"TIME", false}, {"SOURCE", false}}
	rows := [][]string{{"1", "now", "rbd:vms/web1"}, {"10", "then", "rbd:volumes/volume-0123456789"}}
	for width, want := range map[int]string{
		0:   " N TIME SOURCE\n 1 now  rbd:vms/web1\n10 then rbd:volumes/volume-0123456789\n",
		100: " N TIME SOURCE\n 1 now  rbd:vms/web1\n10 then rbd:volumes/volume-0123456789\n",
		37:  " N TIME SOURCE\n 1 now  rbd:vms/web1\n10 then rbd:volumes/volume-0123456789\n",
		20:  " N TIME SOURCE\n 1 now  rbd:vms/web1\n10 then rbd:v…456789\n",
		10:  " N TIME SOURCE\n 1 now  rb…eb1\n10 then rb…789\n",
		1:   " N TIME SOURCE\n 1 now  rb…eb1\n10 then rb…789\n",
	} {
		if got := table(columns, rows, width); got != want {
			t.Errorf("width %d:\n%swant:\n%s", width, got, want)
		}
	}
	if got, want := table(columns, nil, 80), "N TIME SOURCE\n"; got != want {
		t.Errorf("no rows: %q", got)
	}
}

// The list of levels fits a terminal of 80 columns with the largest figures.
func TestLevelTableFits(t *testing.T) {
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	worst := store.Level{
		Number: 99999, Time: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), Size: 1023 << 30,
		Stats:  store.Stats{Read: 1023 << 30, Changed: 1023 << 30, Stored: 1023 << 30},
		Origin: store.Origin{Diff: store.DiffAllocated, Source: "rbd:volumes/volume-0123"},
	}
	for _, tt := range []struct {
		source string
		width  int
	}{
		{"rbd:vms/web1", 0}, // without cutting anything
		{"rbd:volumes/volume-01234567-89ab-cdef-0123-456789abcdef@snapshot", 80},
		{"/a\nb\x1b[2J", 0},
	} {
		worst.Origin.Source = tt.source
		text := levelTable([]levelReport{{worst, now.AddDate(-2, 0, 0)}}, now, tt.width)
		if strings.Count(text, "\n") != 2 || strings.Contains(text, "\x1b") {
			t.Errorf("%q: not two lines: %q", tt.source, text)
		}
		for line := range strings.Lines(text) {
			if n := utf8.RuneCountInString(line) - 1; n > 80 {
				t.Errorf("%q: %d columns: %s", tt.source, n, line)
			}
		}
	}
}
