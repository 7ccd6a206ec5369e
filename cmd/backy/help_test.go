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
		about := ""
		if slices.Contains(typed, "status") {
			about = "status"
		}
		for _, e := range exitsOf(about) {
			if want := fmt.Sprintf("\n   %-3d  %s\n", e.code, e.meaning); !strings.Contains(out.String(), want) {
				t.Errorf("%q does not list exit code %d", typed, e.code)
			}
		}
	}
}

// Every command shows examples, each a line that can be typed.
func TestExamples(t *testing.T) {
	tree := new(program).tree()
	names := []string{""}
	for _, c := range tree.Commands {
		names = append(names, c.Name)
	}
	for name := range examples {
		if !slices.Contains(names, name) {
			t.Errorf("examples of %q, which is no command", name)
		}
	}
	for _, name := range names {
		help, err := helpOf(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if len(examples[name]) == 0 {
			t.Errorf("%q has no example", name)
		}
		for _, example := range examples[name] {
			if !strings.Contains(help, "\nEXAMPLES:\n") || !strings.Contains(help, "\n   "+example+"\n") {
				t.Errorf("the help of %q does not show %q", name, example)
			}
			typed, _, _ := strings.Cut(example, " | ")
			words := strings.Fields(strings.ReplaceAll(typed, "'", ""))
			line, err := sortLine(tree, words[1:])
			if words[0] != "backy" || err != nil || name != "" && line.command != name {
				t.Errorf("%s: command %q, %v", example, line.command, err)
			}
		}
	}
}
