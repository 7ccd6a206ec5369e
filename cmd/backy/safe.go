package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"backy/engine"
)

// Names come from the cluster, from repositories and from file systems, and whoever
// made them may have put anything in: escape sequences, line breaks, characters
// that turn the direction of writing. What prints for people shows such characters
// as Go writes them, \x1b or \u202e; JSON has escapes of its own. Only talk, print
// and the bars write to a terminal, so only they need this.

// printable is a text of one line as it may be shown.
func printable(s string) string { return shown(s, "") }

// lines is a text of lines that are ours.
func lines(s string) string { return shown(s, "\n") }

// shown replaces what is no printable character, but for those in keep.
func shown(s, keep string) string {
	odd := func(r rune) bool { return !unicode.IsPrint(r) && !strings.ContainsRune(keep, r) }
	if utf8.ValidString(s) && !strings.ContainsFunc(s, odd) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case odd(r):
			quoted := fmt.Sprintf("%q", r) // '\n'
			b.WriteString(strings.Trim(quoted, "'"))
		default:
			b.WriteRune(r)
		}
		s = s[n:]
	}
	return b.String()
}

// errorText is an error as it may be shown, a line for each of joined ones.
func errorText(err error) string {
	list := engine.ErrorLines(err)
	for i, line := range list {
		list[i] = printable(line)
	}
	return strings.Join(list, "\n")
}

// shownArg formats what it holds as it may be shown, on one line.
type shownArg struct{ v any }

func (a shownArg) Format(s fmt.State, verb rune) {
	text := ""
	if err, ok := a.v.(error); ok && (verb == 'v' || verb == 's') {
		text = strings.ReplaceAll(errorText(err), "\n", "; ")
	} else {
		text = printable(fmt.Sprintf(fmt.FormatString(s, verb), a.v))
	}
	_, _ = io.WriteString(s, text)
}

// shownf is fmt.Sprintf with arguments as they may be shown. Line breaks are those
// of the format.
func shownf(format string, args ...any) string {
	safe := make([]any, len(args))
	for i, a := range args {
		safe[i] = shownArg{a}
	}
	return fmt.Sprintf(format, safe...)
}

// plainJSON writes JSON with escapes in place of characters that are not
// printable, which package json leaves as they are beyond ASCII.
type plainJSON struct{ w io.Writer }

func (p plainJSON) Write(text []byte) (int, error) {
	if _, err := io.WriteString(p.w, jsonText(string(text))); err != nil {
		return 0, err
	}
	return len(text), nil
}

func jsonText(s string) string {
	odd := func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }
	if !strings.ContainsFunc(s, odd) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if !odd(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}
