package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// evil are names that a terminal should not get as they are.
var evil = []string{
	"esc\x1b[31mred", "line\nbacky: all is well", "cr\rbacky: fine", "bidi\u202egpj.exe", "c1\u009b31m", "del\x7f", "tab\tbed", "iso\u2066late", "tag\U000e0041", "bell\a",
}

// mustBeSafe fails if a text has what a terminal should not get; line breaks are
// for the caller to count.
func mustBeSafe(t *testing.T, what, text string) {
	t.Helper()
	for _, r := range text {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("%s: has %q:\n%q", what, r, text)
			return
		}
	}
}

func TestShownTexts(t *testing.T) {
	for s, want := range map[string]string{
		"":                   "",
		"web1 – größer, 日本…": "web1 – größer, 日本…",
		"a\x1b[2Jb":          `a\x1b[2Jb`,
		"a\nb\tc\r\x00\x7f":  `a\nb\tc\r\x00\x7f`,
		"\u202eabc\u2066":    `\u202eabc\u2066`,
		"\x9b\xff":           `\x9b\xff`,
		"\U000e0001":         `\U000e0001`,
		"it's \"so\"\u0085":  `it's "so"\u0085`,
	} {
		if got := printable(s); got != want {
			t.Errorf("%q: got %q, want %q", s, got, want)
		}
	}
	for _, s := range evil {
		if p := printable(s); printable(p) != p {
			t.Errorf("%q: shown twice: %q", s, printable(p))
		}
	}
}

// An error shows a line for each of joined ones; names have no say in that.
func TestErrorText(t *testing.T) {
	one, two := errors.New("one\x1b"), errors.New("two\nbacky: all is well")
	path := &fs.PathError{Op: "open", Path: "a\nb", Err: fs.ErrNotExist}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{one, `one\x1b`},
		{errors.Join(one, two), `one\x1b` + "\n" + `two\nbacky: all is well`},
		{fmt.Errorf("name\n: %w", errors.Join(one, path)), `name\n: one\x1b` + "\n" + `open a\nb: file does not exist`},
		{fmt.Errorf("%w, %w \n", one, two), `one\x1b, two\nbacky: all is well \n`},
		{usagef("%s: %w", "x\n", errors.Join(errors.Join(one, one), two)), `x\n: one\x1b` + "\n" + `one\x1b` + "\n" + `two\nbacky: all is well`},
		{withHint(errors.Join(path, one), "hint"), `open a\nb: file does not exist` + "\n" + `one\x1b`},
		{&interruptedError{os.Interrupt}, "ended by SIGINT"},
	} {
		if got := errorText(tt.err); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.err, got, tt.want)
		}
	}
}

// Whatever is said of a name is one line, and JSON has the name itself.
func TestTalkIsSafe(t *testing.T) {
	for _, name := range evil {
		for _, asJSON := range []bool{false, true} {
			var b strings.Builder
			talk := &talk{w: &b, verbose: true, json: asJSON}
			err := fmt.Errorf("%s: %w", name, errors.Join(errors.New(name), errors.New("other")))
			talk.say("%s: %d", name, 1)
			talk.detail("%v %q", []string{name}, name)
			talk.with("image", name).warn("%s: %v", name, err)
			talk.with("image", name).fail(withHint(err, shellLine([]string{"ls", name})+"\nbacky help"))
			mustBeSafe(t, "talk", b.String())
			if n, want := strings.Count(b.String(), "\n"), map[bool]int{false: 7, true: 4}[asJSON]; n != want {
				t.Errorf("%q: %d lines, want %d:\n%s", name, n, want, b.String())
			}
			if !asJSON && strings.Count(b.String(), "\nhint: ") != 2 {
				t.Errorf("%q: not two hints:\n%s", name, b.String())
			}
			if w := talk.warned(); len(w) != 1 || !strings.HasPrefix(w[0], name+": ") {
				t.Errorf("warnings for JSON: %q", w)
			}
			if !asJSON {
				continue
			}
			for line := range strings.Lines(b.String()) {
				var l struct{ Msg, Image string }
				if err := json.Unmarshal([]byte(line), &l); err != nil || !strings.Contains(l.Msg, name) && !strings.Contains(l.Msg, fmt.Sprintf("%q", name)) || l.Image != "" && l.Image != name {
					t.Errorf("%s: %+v, %v", line, l, err)
				}
			}
		}
	}
}

func TestPrintedJSONIsSafe(t *testing.T) {
	for _, name := range evil {
		var b strings.Builder
		if err := writeJSON(&b, report{Error: name, Warnings: []string{name}}); err != nil {
			t.Fatal(err)
		}
		mustBeSafe(t, "JSON", b.String())
		var r report
		if err := json.Unmarshal([]byte(b.String()), &r); err != nil || r.Error != name || r.Warnings[0] != name {
			t.Errorf("%q: %q, %v", name, r.Error, err)
		}
	}
}

func TestTablesAreSafe(t *testing.T) {
	for _, name := range evil {
		text := table([]column{{"N", true}, {"NAME", false}}, [][]string{{"1", name}, {name, "2"}}, 0)
		mustBeSafe(t, "table", text)
		if strings.Count(text, "\n") != 3 {
			t.Errorf("%q: not three lines: %q", name, text)
		}
	}
}

// A hint can be pasted, whatever names are in it.
func TestShellWord(t *testing.T) {
	for _, name := range append(evil, "it's\x1b", `back\slash`, `back\slash`+"\n", "$HOME `id`", "'") {
		mustBeSafe(t, "word", shellWord(name))
		out, err := exec.Command("bash", "-c", "printf %s "+shellWord(name)).Output()
		if err != nil || string(out) != name {
			t.Errorf("%q: %s gives %q, %v", name, shellWord(name), out, err)
		}
	}
}

// No hint and no error of usage repeats a command.
func TestSecretsAreConcealed(t *testing.T) {
	for _, typed := range [][]string{
		{"backup", "--freeze", "s3cret", "--thaw=s3cret", "rbd:vms/web1"},
		{"backup", "--freze", "s3cret", "--tahw=s3cret", "rbd:vms/web1", "x"},
		{"backup", "--freze=s3cret", "rbd:vms/web1", "x"},
		{"backup", "-freeze", "s3cret", "--thaw", "s3cret", "rbd:vms/web1", "x"},
		{"backup", "--from-comand", "s3cret", "-", "x"},
		{"--from-command", "s3cret", "bakcup", "-", "x"},
		{"backup", "--jsno", "--from-command=s3cret", "-", "x"},
		{"ls", "--freeze", "s3cret"},
		{"backup", "--from-command", "s3cret", "--size", "x", "-", "y"},
	} {
		_, err := sortLine(new(program).tree(), typed)
		text := shellLine(typed)
		if err != nil {
			text += "\n" + err.Error() + "\n" + hintOf(err)
		}
		if strings.Contains(text, "s3cret") {
			t.Errorf("%q: %s", typed, text)
		}
	}
	if got, want := shellLine([]string{"backup", "--freeze-limit", "3s", "--thaw", "x", "--", "--freeze", "y"}), "backy backup --freeze-limit 3s --thaw '…' -- --freeze y"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// What reaches a terminal goes through talk, print or a bar's title. Files that
// have another use for the streams are named here.
func TestOnlyThePrintingLayerPrints(t *testing.T) {
	uses := map[string]string{
		"main.go":     "hands them over",
		"program.go":  "is that layer",
		"tree.go":     "cli prints its help",
		"progress.go": "the bar",
		"manyview.go": "the bars",
		"restore.go":  "a level's bytes",
		"ls.go":       "a terminal's width",
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	streams := regexp.MustCompile(`\b(os\.Std(out|err)|p\.std(out|err)|fmt\.Print)`)
	for _, name := range files {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if found := streams.Find(source); found != nil && uses[name] == "" && !strings.HasSuffix(name, "_test.go") {
			t.Errorf("%s uses %s: what it prints may hold anything", name, found)
		}
	}
}
