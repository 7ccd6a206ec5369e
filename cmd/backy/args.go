package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"github.com/xrash/smetrics"
)

// commandLine is what was typed, sorted: flags may stand anywhere, before and
// after the command and its arguments.
type commandLine struct {
	command string   // "" where there is none
	flags   []string // --name=value, by their first names, in the order typed
	args    []string
	help    bool
	json    bool
	log     string // --log-format, "" where it is not given
}

// canonical is the line as cli parses it without surprises: flags first, each
// with its value in one word, and nothing behind the "--" taken for a flag.
func (l commandLine) canonical() []string {
	switch {
	case l.help && l.command == "":
		return []string{"backy", "help"}
	case l.help:
		return []string{"backy", l.command, "--help"}
	}
	return slices.Concat([]string{"backy", l.command}, l.flags, []string{"--"}, l.args)
}

// flagInfo is what sorting a line needs to know of a flag.
type flagInfo struct {
	name       string // its first name
	takesValue bool
	commands   []string // that have it
}

// flagTable holds all flags of all commands under each of their names. Since a
// flag may be met before its command is known, no two commands give one name
// different meanings.
type flagTable map[string]*flagInfo

func newFlagTable(tree *cli.App) flagTable {
	help := &flagInfo{name: "help"}
	t := flagTable{"help": help, "h": help}
	for _, c := range tree.Commands {
		help.commands = append(help.commands, c.Name)
		for _, f := range c.Flags {
			df, ok := f.(cli.DocGenerationFlag)
			if !ok {
				continue
			}
			for _, name := range f.Names() {
				if t[name] == nil {
					t[name] = &flagInfo{name: f.Names()[0], takesValue: df.TakesValue()}
				}
				t[name].commands = append(t[name].commands, c.Name)
			}
		}
	}
	return t
}

// sortLine sorts what was typed after the program's name. Help and json are
// right even where there is an error, which is always a *usageError.
func sortLine(tree *cli.App, typed []string) (commandLine, error) {
	s := &sorter{tree: tree, table: newFlagTable(tree), typed: typed}
	for s.next < len(typed) {
		s.word()
	}
	if s.err == nil && !s.line.help {
		s.checkCommand()
	}
	return s.line, s.err
}

// sorter goes over the words once and keeps the first error.
type sorter struct {
	tree  *cli.App
	table flagTable
	typed []string
	next  int
	line  commandLine
	given []givenFlag
	err   error
}

type givenFlag struct {
	info *flagInfo
	word int // of typed
}

func (s *sorter) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

func (s *sorter) word() {
	w := s.typed[s.next]
	s.next++
	switch {
	case w == "--version" && s.line.command == "":
		s.line.command = "version"
	case w == "--":
		for _, a := range s.typed[s.next:] {
			s.argument(a)
		}
		s.next = len(s.typed)
	case strings.HasPrefix(w, "--"):
		s.long(w)
	case len(w) > 1 && w[0] == '-' && (w[1] < '0' || w[1] > '9'):
		s.short(w)
	default:
		s.argument(w)
	}
}

func (s *sorter) argument(a string) {
	if s.line.command != "" {
		s.line.args = append(s.line.args, a)
		return
	}
	s.line.command = a
	if s.tree.Command(a) == nil {
		names := commandNames(s.tree)
		s.fail(withHint(usagef("unknown command %q: the commands are %s", a, strings.Join(names, ", ")),
			s.retype(s.next-1, nearest(a, names))))
		s.line.command = ""
		s.line.args = append(s.line.args, a)
	}
}

// commandNames are those of the commands that help shows.
func commandNames(tree *cli.App) (names []string) {
	for _, c := range tree.VisibleCommands() {
		names = append(names, c.Name)
	}
	return names
}

// long takes --name, --name=value or --name value.
func (s *sorter) long(w string) {
	name, value, hasValue := strings.Cut(w[2:], "=")
	info := s.table[name]
	switch {
	case info == nil || len(name) == 1:
		s.unknown(w, name)
	case info.takesValue && !hasValue:
		s.valueNext(info, w)
	default:
		s.flag(info, value, hasValue)
	}
}

// short takes -x, bundled as -xyz, and with a value as -x value, -xvalue and
// -x=value, the last also at the end of a bundle.
func (s *sorter) short(w string) {
	if long, _, _ := strings.Cut(w[1:], "="); len(long) > 1 && s.table[long] != nil {
		s.fail(withHint(usagef("unknown flag %s: long flags have two dashes", w), s.retype(s.next-1, "-"+w)))
		s.next += s.separateValue(s.table[long], w)
		return
	}
	for rest := w[1:]; rest != ""; {
		name := rest[:1]
		rest = rest[1:]
		info := s.table[name]
		switch {
		case info == nil:
			s.unknown(w, name)
			return
		case info.takesValue && rest == "":
			s.valueNext(info, "-"+name)
		case info.takesValue:
			s.flag(info, strings.TrimPrefix(rest, "="), true)
			rest = ""
		case strings.HasPrefix(rest, "="):
			s.flag(info, rest[1:], true)
			rest = ""
		default:
			s.flag(info, "", false)
		}
	}
}

// valueNext takes the next word as a flag's value. A flag there means that the
// value was forgotten; "-" and negative numbers are values.
func (s *sorter) valueNext(info *flagInfo, w string) {
	if s.separateValue(info, w) == 0 {
		s.fail(usagef("flag %s: no value", w))
		return
	}
	s.next++
	s.flag(info, s.typed[s.next-1], true)
}

func (s *sorter) separateValue(info *flagInfo, w string) int {
	if !info.takesValue || strings.Contains(w, "=") || s.next == len(s.typed) {
		return 0
	}
	v := s.typed[s.next]
	if len(v) > 1 && v[0] == '-' && (v[1] < '0' || v[1] > '9') {
		return 0
	}
	return 1
}

func (s *sorter) flag(info *flagInfo, value string, hasValue bool) {
	s.given = append(s.given, givenFlag{info, s.next - 1})
	switch {
	case info.takesValue && value == "":
		s.fail(usagef("flag %s: the value is empty", dashed(info.name)))
		return
	case !info.takesValue && !hasValue:
		value = "true"
	case !info.takesValue:
		on, err := strconv.ParseBool(value)
		if err != nil {
			s.fail(usagef("flag %s: %q is neither true nor false", dashed(info.name), value))
			return
		}
		value = strconv.FormatBool(on)
	}
	switch info.name {
	case "help":
		s.line.help = value == "true"
	case "json":
		s.line.json = value == "true"
	case "log-format":
		s.line.log = value
	}
	s.line.flags = append(s.line.flags, "--"+info.name+"="+value)
}

func (s *sorter) unknown(w, name string) {
	var names []string
	for n, info := range s.table {
		if s.line.command == "" || slices.Contains(info.commands, s.line.command) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	err := usagef("unknown flag %s", concealed([]string{w})[0])
	if w[1:] != name && !strings.HasPrefix(w, "--") {
		err = usagef("unknown flag -%s in %s", name, w)
	}
	if len(name) < 2 {
		s.fail(err)
		return
	}
	_, value, hasValue := strings.Cut(w, "=")
	near := nearest(name, names)
	if near != "" {
		near = dashed(near)
		if hasValue {
			near += "=" + value
		}
	}
	s.fail(withHint(err, s.retype(s.next-1, near)))
}

// checkCommand refuses flags that the command does not have, and a line
// without a command.
func (s *sorter) checkCommand() {
	if s.line.command == "" {
		s.fail(withHint(usagef("no command"), "backy --help"))
		return
	}
	for _, g := range s.given {
		if !slices.Contains(g.info.commands, s.line.command) {
			s.fail(withHint(usagef("%s has no flag %s: it belongs to %s",
				s.line.command, dashed(g.info.name), strings.Join(g.info.commands, ", ")),
				"backy "+s.line.command+" --help"))
			return
		}
	}
}

// retype is the command line with one word replaced; "" where there is no
// replacement.
func (s *sorter) retype(word int, replacement string) string {
	if replacement == "" {
		return ""
	}
	line := slices.Clone(s.typed)
	line[word] = replacement
	return shellLine(line)
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// nearest is the known word that was probably meant, or "".
func nearest(word string, known []string) string {
	const (
		boostThreshold, prefix = 0.7, 4 // the usual choices for Jaro-Winkler
		similar                = 0.8
	)
	best, distance := "", similar
	for _, k := range known {
		if len(k) < 2 {
			continue
		}
		if d := smetrics.JaroWinkler(word, k, boostThreshold, prefix); d > distance {
			best, distance = k, d
		}
	}
	return best
}

// secretFlags take commands, which may hold passwords: neither a hint nor an error
// repeats them.
var secretFlags = []string{"freeze", "thaw", "from-command"}

// concealed is a command line without what may be secret, misspelt flags' too.
func concealed(args []string) []string {
	args = slices.Clone(args)
	for i := 0; i < len(args) && args[i] != "--"; i++ {
		name, value, hasValue := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		switch {
		case !strings.HasPrefix(args[i], "-"), !slices.Contains(secretFlags, name) && (name == "freeze-limit" || nearest(name, secretFlags) == ""):
		case hasValue:
			args[i] = strings.TrimSuffix(args[i], value) + "…"
		case i+1 < len(args):
			i++
			args[i] = "…"
		}
	}
	return args
}

// shellLine is a command line of backy that can be pasted into a shell, once what is
// concealed is put in again.
func shellLine(args []string) string {
	var b strings.Builder
	b.WriteString("backy")
	for _, a := range concealed(args) {
		fmt.Fprintf(&b, " %s", shellWord(a))
	}
	return b.String()
}

func shellWord(s string) string {
	if p := printable(s); p != s { // as bash, zsh and ksh have it
		return "$'" + strings.ReplaceAll(printable(strings.ReplaceAll(s, `\`, `\\`)), "'", `\'`) + "'"
	}
	safe := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("_@%+=:,./-", r)
	}
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !safe(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
