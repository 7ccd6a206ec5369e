package main

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func writtenDocs(t *testing.T) (dir string, files map[string]string) {
	t.Helper()
	t.Setenv("SOURCE_DATE_EPOCH", "1000000000")
	files, err := documents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if out, err := exec.Command("backy", "docs", dir).CombinedOutput(); err != nil {
		t.Fatalf("backy docs: %v\n%s", err, out)
	}
	return dir, files
}

// Each command has a page, backy's own names them all, and a page says what the
// help says.
func TestManPages(t *testing.T) {
	_, files := writtenDocs(t)
	plain := strings.NewReplacer(`\-`, "-", `\(dq`, `"`, `\(pc`, "·", `\e`, `\`)
	commands := []string{""}
	for _, c := range new(program).tree().VisibleCommands() {
		commands = append(commands, c.Name)
	}
	for _, command := range commands {
		page := plain.Replace(files[pageName(command)+".1"])
		if !strings.HasPrefix(page, ".TH "+strings.ToUpper(pageName(command))+" 1 2001-09-09 ") {
			t.Errorf("%s: it begins with %.60q", pageName(command), page)
		}
		if command != "" && !strings.Contains(plain.Replace(files["backy.1"]), ".BR "+pageName(command)+" (1)") {
			t.Errorf("backy.1 does not name the page of %s", command)
		}
		help, err := helpOf(t.Context(), command)
		if err != nil {
			t.Fatal(err)
		}
		said := strings.Fields(page)
		for line := range strings.Lines(help) {
			if !strings.HasPrefix(line, helpIndent) || strings.HasPrefix(line, helpIndent+"backy") {
				continue // a heading, or the name
			}
			for word := range strings.FieldsSeq(strings.ReplaceAll(line, "…", "...")) {
				if !slices.Contains(said, word) {
					t.Errorf("%s does not say %q of the help's %q", pageName(command), word, strings.TrimSpace(line))
				}
			}
		}
	}
}

// The page about Ceph says what the README says: the same commands, in the same order.
func TestCephPage(t *testing.T) {
	_, files := writtenDocs(t)
	page := strings.ReplaceAll(files["backy-ceph.7"], `\-`, "-")
	if !strings.HasPrefix(page, ".TH BACKY-CEPH 7 2001-09-09 ") {
		t.Errorf("it begins with %.60q", page)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(readme), "\n### Keys of type aes256k\n")
	section, _, _ = strings.Cut(section, "\n### ")
	commands := 0
	for line := range strings.Lines(section) {
		command, ok := strings.CutPrefix(line, "    ceph ")
		if !ok {
			continue
		}
		command, _, _ = strings.Cut(command, "#")
		_, rest, found := strings.Cut(page, "ceph "+strings.TrimSpace(command))
		if !found {
			t.Errorf("it does not have, or has it too early: ceph %s", command)
			continue
		}
		page, commands = rest, commands+1
	}
	if commands < 8 {
		t.Errorf("%d commands of the README, want all", commands)
	}
}

// Each shell knows every command and every flag; docs itself is for packagers.
func TestCompletionsAreWhole(t *testing.T) {
	_, files := writtenDocs(t)
	tree := new(program).tree()
	for _, shell := range []struct {
		file          string
		command, flag func(string) string
	}{
		{file: "backy.bash", command: func(c string) string { return c + ") words=" }, flag: func(f string) string { return dashed(f) }},
		{file: "_backy", command: func(c string) string { return "'" + c + ":" }, flag: func(f string) string { return dashed(f) }},
		{file: "backy.fish", command: func(c string) string { return " -a " + c + " " }, flag: func(f string) string {
			if len(f) == 1 {
				return " -s " + f
			}
			return " -l " + f
		}},
	} {
		text := files[shell.file]
		for _, c := range tree.VisibleCommands() {
			if !strings.Contains(text, shell.command(c.Name)) {
				t.Errorf("%s lacks the command %s", shell.file, c.Name)
			}
			for _, f := range c.Flags {
				for _, name := range f.Names() {
					if !strings.Contains(text, shell.flag(name)) {
						t.Errorf("%s lacks the flag %s of %s", shell.file, name, c.Name)
					}
				}
			}
		}
		if strings.Contains(text, "docs") {
			t.Errorf("%s tells of docs", shell.file)
		}
	}
}

func TestBashCompletes(t *testing.T) {
	dir, _ := writtenDocs(t)
	for _, tt := range []struct {
		words string // as bash splits them; the last is being typed
		want  string // all of its candidates
	}{
		{"backy res", "restore"},
		{"backy pro", "protect"},
		{"backy backup --sna", "--snapshots-first --snapshot-only"},
		{"backy -b backup ls --js", "--json"},
		{"backy --backupdir = backup ls --js", "--json"},
		{"backy backup --diff e", "exact"},
		{"backy backup --compression = z", "zstd"},
		{"backy backup --compression =", "zstd s2 none"},
		{"backy restore x", ""},
		{"backy backup --keyring r", ""},
		{"backy --quie", "--quiet"},
		{"backy ls --keep", ""},
	} {
		script := `. "$1"/backy.bash; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _backy; echo "${COMPREPLY[*]}"`
		args := append([]string{"-euc", script, "bash", dir}, strings.Fields(tt.words)...)
		out, err := exec.Command("bash", args...).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != tt.want {
			t.Errorf("%s: got %q (%v), want %q", tt.words, got, err, tt.want)
		}
	}
}

func TestManTextKeepsWhatItIsGiven(t *testing.T) {
	for _, tt := range []struct{ lines, want string }{
		{"one\ntwo\n\nthree", "one\ntwo\n.PP\nthree\n"},
		{"text:\n\n  code -x\n\nmore", "text:\n.PP\n.RS 4\n.nf\n  code \\-x\n.fi\n.RE\n.PP\nmore\n"},
		{".dot\n'quote", "\\&.dot\n\\&'quote\n"},
	} {
		if got := manText(strings.Split(tt.lines, "\n")); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.lines, got, tt.want)
		}
	}
}
