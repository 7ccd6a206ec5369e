package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// Help comes on stdout, fits a terminal, and lists the exit codes.
func TestHelp(t *testing.T) {
	lines := [][]string{{"help"}, {"--help"}, {"-h"}}
	for _, c := range new(program).tree().Commands {
		lines = append(lines, []string{"help", c.Name}, []string{c.Name, "--help"}, []string{"-h", "--json", c.Name, "x"})
	}
	for _, typed := range lines {
		var out bytes.Buffer
		p := &program{stdout: &out, typed: typed}
		if err := p.do(t.Context()); err != nil {
			t.Errorf("%q: %v", typed, err)
		}
		for line := range strings.Lines(out.String()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
				t.Errorf("%q: %d columns: %s", typed, n, line)
			}
		}
		codes := exits
		if slices.Contains(typed, "status") {
			codes = nil
			for _, c := range statusCodes {
				codes = append(codes, exit{code: c.code, meaning: c.meaning})
			}
		}
		for _, e := range codes {
			if want := fmt.Sprintf("\n   %-3d  %s\n", e.code, e.meaning); !strings.Contains(out.String(), want) {
				t.Errorf("%q does not list exit code %d", typed, e.code)
			}
		}
	}
}
