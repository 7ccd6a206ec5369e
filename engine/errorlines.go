package engine

import (
	"fmt"
	"strings"
)

// ErrorLines is the text of an error by its lines: joined errors have one each. A
// line break in a name that an error repeats makes no line, and stays in its own.
func ErrorLines(err error) []string {
	text := err.Error()
	var inner []error
	switch e := err.(type) {
	case interface{ ErrorLines() []string }:
		return e.ErrorLines()
	case interface{ Unwrap() error }:
		if one := e.Unwrap(); one != nil {
			if i := strings.LastIndex(text, one.Error()); i >= 0 {
				list := ErrorLines(one)
				list[0] = text[:i] + list[0]
				list[len(list)-1] += text[i+len(one.Error()):]
				return list
			}
		}
		return []string{text}
	case interface{ Unwrap() []error }:
		inner = e.Unwrap()
	}
	return linesOf(text, inner)
}

// linesOf is the text of an error that wraps others, in the order in which they
// stand there.
func linesOf(text string, inner []error) []string {
	var texts, joined []string
	for _, one := range inner {
		texts = append(texts, one.Error())
		joined = append(joined, ErrorLines(one)...)
	}
	if len(inner) > 0 && text == strings.Join(texts, "\n") {
		return joined
	}
	list := []string{""}
	for n, one := range inner {
		i := strings.Index(text, texts[n])
		if i < 0 {
			continue
		}
		lines := ErrorLines(one)
		list[len(list)-1] += text[:i] + lines[0]
		list = append(list, lines[1:]...)
		text = text[i+len(texts[n]):]
	}
	list[len(list)-1] += text
	return list
}

// Sentence is fmt.Sprintf for a warning, which is one line: joined errors stand in
// it behind each other.
func Sentence(format string, args ...any) string {
	flat := make([]any, len(args))
	for i, a := range args {
		if err, ok := a.(error); ok {
			a = &flatError{err}
		}
		flat[i] = a
	}
	return fmt.Sprintf(format, flat...)
}

type flatError struct{ error }

func (e *flatError) Error() string { return strings.Join(ErrorLines(e.error), "; ") }
