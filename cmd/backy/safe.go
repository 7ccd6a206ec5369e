package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
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

// errorText is an error as it may be shown: a line for each of joined ones. Line
// breaks in what they name do not pass for that.
func errorText(err error) string {
	text := err.Error()
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			if i := strings.LastIndex(text, inner.Error()); i >= 0 {
				return printable(text[:i]) + errorText(inner) + printable(text[i+len(inner.Error()):])
			}
		}
	case interface{ Unwrap() []error }:
		return errorsText(text, e.Unwrap())
	}
	return printable(text)
}

// errorsText is the text of an error that wraps others, in the order in which they
// stand there.
func errorsText(text string, wrapped []error) string {
	between := printable
	if texts := errorTexts(wrapped); text == strings.Join(texts, "\n") {
		between = lines
	}
	var b strings.Builder
	for _, inner := range wrapped {
		i := strings.Index(text, inner.Error())
		if i < 0 {
			continue
		}
		b.WriteString(between(text[:i]) + errorText(inner))
		text = text[i+len(inner.Error()):]
	}
	return b.String() + between(text)
}

func errorTexts(list []error) (texts []string) {
	for _, err := range list {
		texts = append(texts, err.Error())
	}
	return texts
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
