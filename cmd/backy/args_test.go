package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
	"pgregory.net/rapid"
)

func sorted(t testing.TB, typed ...string) (commandLine, error) {
	t.Helper()
	line, err := sortLine(new(program).tree(), typed)
	var usage *usageError
	if err != nil && !errors.As(err, &usage) {
		t.Fatalf("%q: error is no usage error: %v", typed, err)
	}
	return line, err
}

func TestSortLine(t *testing.T) {
	for _, tt := range []struct{ typed, want string }{
		{"ls", "backy ls --"},
		{"ls web1", "backy ls -- web1"},
		{"-v ls web1", "backy ls --verbose=true -- web1"},
		{"ls web1 -v", "backy ls --verbose=true -- web1"},
		{"restore a b -l 3", "backy restore --level=3 -- a b"},
		{"restore a -l 3 b", "backy restore --level=3 -- a b"},
		{"-l 3 restore a b", "backy restore --level=3 -- a b"},
		{"restore -l3 a b", "backy restore --level=3 -- a b"},
		{"restore -l=3 a b", "backy restore --level=3 -- a b"},
		{"restore --level=3 a b", "backy restore --level=3 -- a b"},
		{"restore --level 3 a b", "backy restore --level=3 -- a b"},
		{"restore a b --level=a=b", "backy restore --level=a=b -- a b"},
		{"restore -fvl 3 a b", "backy restore --force=true --verbose=true --level=3 -- a b"},
		{"restore -fvl3 a b", "backy restore --force=true --verbose=true --level=3 -- a b"},
		{"restore a - -f", "backy restore --force=true -- a -"},
		{"backup -r - a b", "backy backup --hints=- -- a b"},
		{"backup --rbd - a b", "backy backup --hints=- -- a b"},
		{"backup -r- a b", "backy backup --hints=- -- a b"},
		{"backup a b --size -5", "backy backup --size=-5 -- a b"},
		{"rm web1 -5", "backy rm -- web1 -5"},
		{"rm -- web1 -l", "backy rm -- web1 -l"},
		{"-- rm web1 -l", "backy rm -- web1 -l"},
		{"ls -- --json", "backy ls -- --json"},
		{"ls --json=false", "backy ls --json=false --"},
		{"ls -h", "backy ls --help"},
		{"-h", "backy help"},
		{"-h nonsense", "backy help"},
		{"ls --nonsense --help", "backy ls --help"},
		{"ls help", "backy ls -- help"},
		{"ls json", "backy ls -- json"},
		{"--version", "backy version --"},
	} {
		line, err := sorted(t, strings.Fields(tt.typed)...)
		if err != nil && !line.help {
			t.Errorf("backy %s: %v", tt.typed, err)
		}
		if got := strings.Join(line.canonical(), " "); got != tt.want {
			t.Errorf("backy %s:\n got %s\nwant %s", tt.typed, got, tt.want)
		}
	}
}

func TestSortLineRefuses(t *testing.T) {
	for _, tt := range []struct{ typed, want, hint string }{
		{"", "no command", "backy --help"},
		{"-v", "no command", "backy --help"},
		{"bakcup a b", `unknown command "bakcup"`, "backy backup a b"},
		{"xyzzy", `unknown command "xyzzy"`, ""},
		{"ls --jsno", "unknown flag --jsno", "backy ls --json"},
		{"restore --levl=3 a b", "unknown flag --levl=3", "backy restore --level=3 a b"},
		{"restore -level 3 a b", "unknown flag -level", "backy restore --level 3 a b"},
		{"restore -vx a b", "unknown flag -x in -vx", ""},
		{"restore -x a b", "unknown flag -x", ""},
		{"restore --l 3 a b", "unknown flag --l", ""},
		{"restore a b -l", "flag -l: no value", ""},
		{"restore -l --json a b", "flag -l: no value", ""},
		{"restore --level= a b", "flag --level: the value is empty", ""},
		{"restore --force=maybe a b", `flag --force: "maybe" is neither true nor false`, ""},
		{"ls -l 3", "ls has no flag --level: it belongs to restore, scrub", "backy ls --help"},
		{"rm it's -L3", "unknown flag -L", ""},
		{"--jsno ls it's", "unknown flag --jsno", `backy --json ls 'it'\''s'`},
	} {
		_, err := sorted(t, strings.Fields(tt.typed)...)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("backy %s: got error %v, want %s", tt.typed, err, tt.want)
			continue
		}
		if hint := hintOf(err); hint != tt.hint {
			t.Errorf("backy %s: got hint %q, want %q", tt.typed, hint, tt.hint)
		}
	}
	if _, err := sorted(t, "-b", "", "ls"); err == nil {
		t.Error("backy -b '' ls: no error; an unset variable must not choose another repository")
	}
}

// What is found wrong does not hide that a JSON document is expected.
func TestSortLineFindsJSON(t *testing.T) {
	for typed, want := range map[string]bool{
		"ls --json":                true,
		"--json ls":                true,
		"bakcup --json":            true,
		"ls --nonsense --json":     true,
		"ls -- --json":             false,
		"ls --json --json=false":   false,
		"restore a b --json -l":    true,
		"restore -l a --json -xyz": true,
	} {
		if line, _ := sorted(t, strings.Fields(typed)...); line.json != want {
			t.Errorf("backy %s: json %v, want %v", typed, line.json, want)
		}
	}
}

// Flags may stand anywhere: wherever they are put among the arguments, the
// line means the same.
func TestSortLineOrderDoesNotMatter(t *testing.T) {
	flags := [][]string{
		{"-v"},
		{"--json"},
		{"-f"},
		{"-l", "3"},
		{"-l3"},
		{"--level=-"},
		{"--ceph-conf", "-"},
		{"-b", "/mnt/back ups"},
		{"-fl", "latest"},
		{"--id=a=b"},
		{"-q=false"},
	}
	rapid.Check(t, func(t *rapid.T) {
		arguments := rapid.SliceOfN(rapid.SampledFrom([]string{"restore", "-", "-5", "vms/web1", "", "=", "json", "a b"}), 0, 4).Draw(t, "arguments")
		given := rapid.SliceOfN(rapid.SampledFrom(flags), 0, 5).Draw(t, "flags")
		var first []string
		for _, f := range given {
			first = append(first, f...)
		}
		rest := append([]string{"restore"}, arguments...)
		mixed, i := []string{}, 0
		for _, f := range given {
			for ; i < len(rest) && rapid.Bool().Draw(t, "argument first"); i++ {
				mixed = append(mixed, rest[i])
			}
			mixed = append(mixed, f...)
		}
		mixed = append(mixed, rest[i:]...)

		want, wantErr := sortLine(new(program).tree(), slices.Concat(first, rest))
		got, gotErr := sortLine(new(program).tree(), mixed)
		if wantErr != nil || gotErr != nil {
			t.Fatalf("errors %v, %v", wantErr, gotErr)
		}
		if !slices.Equal(got.canonical(), want.canonical()) {
			t.Fatalf("%q:\n got %q\nwant %q", mixed, got.canonical(), want.canonical())
		}
		if !slices.Equal(got.args, arguments) && len(arguments) > 0 {
			t.Fatalf("%q: arguments %q, want %q", mixed, got.args, arguments)
		}
	})
}

// A flag may stand before its command, so a name means the same in all of them.
func TestFlagsMeanTheSameInAllCommands(t *testing.T) {
	type meaning struct {
		first      string
		takesValue bool
	}
	seen := map[string]meaning{}
	for _, c := range new(program).tree().Commands {
		for _, f := range c.Flags {
			m := meaning{f.Names()[0], f.(cli.DocGenerationFlag).TakesValue()}
			for _, n := range f.Names() {
				if before, ok := seen[n]; ok && before != m {
					t.Errorf("flag %s of %s: %v, elsewhere %v", n, c.Name, m, before)
				}
				seen[n] = m
			}
		}
	}
}
