package hints

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// Parse reads what "rbd diff" prints: with --format json (also --pretty-format)
// or as its plain table, told apart by the first character. Both are written by
// src/tools/rbd/action/Diff.cc of Ceph:
//
//	[{"offset":0,"length":4194304,"exists":"true"}]
//
//	Offset   Length   Type
//	0        4194304  data
//	4194304  65536    zero
//
// exists may be a boolean too. The extents are given as they were printed, in
// any order and overlapping: see Normalize.
//
// A diff without extents is [] or the table's header alone. Empty input is
// refused: the plain table of no changes is empty, but so is what a failed rbd
// leaves behind, and the two cannot be told apart.
//
// The error is a *SyntaxError where the input is not what rbd diff prints, or
// else r's.
func Parse(r io.Reader) ([]Extent, error) {
	br := bufio.NewReaderSize(r, maxLine)
	for skipped := 0; ; skipped++ {
		c, err := br.ReadByte()
		switch {
		case errors.Is(err, io.EOF):
			return nil, &SyntaxError{Message: "the input is empty: rbd diff failed, or found no difference in its plain form, which then prints nothing; --format json tells the two apart"}
		case err != nil:
			return nil, fmt.Errorf("reading hints: %w", err)
		case c == ' ', c == '\t', c == '\r', c == '\n':
			continue
		}
		if err := br.UnreadByte(); err != nil {
			return nil, fmt.Errorf("reading hints: %w", err)
		}
		switch {
		case c == '[':
			return parseJSON(br, int64(skipped))
		case skipped == 0:
			return parseTable(br)
		}
		return nil, &SyntaxError{Offset: int64(skipped), Message: notDiff}
	}
}

const notDiff = "neither the JSON nor the plain table that rbd diff prints"

// SyntaxError tells where hints are not what rbd diff prints.
type SyntaxError struct {
	Line    int   // of a plain table, from 1; 0 for JSON
	Offset  int64 // bytes from the start of JSON
	Message string
}

func (e *SyntaxError) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("hints, line %d: %s", e.Line, e.Message)
	}
	return fmt.Sprintf("hints, byte %d: %s", e.Offset, e.Message)
}

// newExtent makes an extent of two numbers in decimal digits.
func newExtent(offset, length string, exists bool) (Extent, error) {
	o, err := parseNumber("offset", offset)
	if err != nil {
		return Extent{}, err
	}
	l, err := parseNumber("length", length)
	if err != nil {
		return Extent{}, err
	}
	e := Extent{Offset: o, Length: l, Exists: exists}
	if !e.within(math.MaxInt64) {
		return Extent{}, fmt.Errorf("extent %v: impossible", e)
	}
	return e, nil
}

func parseNumber(what, s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%s %.40q: not a number from 0 to %d", what, s, int64(math.MaxInt64))
	}
	return int64(n), nil
}

// maxLine is the buffer's size in bytes, and far more than two numbers and a
// word take.
const maxLine = 64 << 10

// parseTable reads the plain form. rbd ends each row with a newline, so that a
// last row without one is the remains of a longer table.
func parseTable(br *bufio.Reader) ([]Extent, error) {
	var extents []Extent
	for number := 1; ; number++ {
		fail := func(message string) ([]Extent, error) {
			return nil, &SyntaxError{Line: number, Message: message}
		}
		line, err := br.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF) && len(line) == 0 && number > 1:
			return extents, nil
		case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull):
			return nil, fmt.Errorf("reading hints: %w", err)
		}
		fields := strings.Fields(string(line))
		if number == 1 {
			if len(fields) != 3 || fields[0] != "Offset" || fields[1] != "Length" || fields[2] != "Type" {
				return fail(notDiff)
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return fail("cut off: the table ends within a line")
		case err != nil:
			return fail(fmt.Sprintf("longer than %d bytes", maxLine))
		case number == 1:
			continue
		case len(fields) != 3:
			return fail(fmt.Sprintf("%d columns instead of offset, length and type", len(fields)))
		case fields[2] != "data" && fields[2] != "zero":
			return fail(fmt.Sprintf("type %.40q: neither data nor zero", fields[2]))
		}
		e, err := newExtent(fields[0], fields[1], fields[2] == "data")
		if err != nil {
			return fail(err.Error())
		}
		extents = append(extents, e)
	}
}

// parseJSON reads the JSON form, which begins at that offset of the input.
func parseJSON(r io.Reader, begin int64) ([]Extent, error) {
	p := &jsonParser{dec: json.NewDecoder(r), begin: begin}
	p.dec.UseNumber()
	if _, err := p.token(); err != nil { // the bracket that told JSON
		return nil, err
	}
	var extents []Extent
	for {
		t, err := p.token()
		switch {
		case err != nil:
			return nil, err
		case t == json.Delim('{'):
			e, err := p.extent()
			if err != nil {
				return nil, err
			}
			extents = append(extents, e)
		case t == json.Delim(']'):
			if err := p.end(); err != nil {
				return nil, err
			}
			return extents, nil
		default:
			return nil, p.fail(fmt.Sprintf("%v: not an extent", shorten(t)))
		}
	}
}

// jsonParser reads tokens and knows where the last one began.
type jsonParser struct {
	dec   *json.Decoder
	begin int64
	at    int64
}

func (p *jsonParser) fail(message string) error {
	return &SyntaxError{Offset: p.begin + p.at, Message: message}
}

func (p *jsonParser) token() (json.Token, error) {
	p.at = p.dec.InputOffset()
	t, err := p.dec.Token()
	if err == nil {
		p.at = max(p.at, p.dec.InputOffset()-width(t))
		return t, nil
	}
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, p.fail("cut off: the JSON list does not end")
	case errors.As(err, &syntax):
		return nil, p.fail(syntax.Error())
	}
	return nil, fmt.Errorf("reading hints: %w", err)
}

// extent reads the rest of {"offset":…,"length":…,"exists":…}.
func (p *jsonParser) extent() (Extent, error) {
	start := p.at
	var offset, length json.Number
	var exists bool
	seen := make(map[string]bool, 3)
	for {
		key, err := p.token()
		if err != nil {
			return Extent{}, err
		}
		if key == json.Delim('}') {
			break
		}
		name, _ := key.(string) // the decoder lets nothing else through
		if seen[name] {
			return Extent{}, p.fail(fmt.Sprintf("%q for the second time in one extent", name))
		}
		seen[name] = true
		switch name {
		case "offset":
			offset, err = p.number(name)
		case "length":
			length, err = p.number(name)
		case "exists":
			exists, err = p.bool(name)
		default:
			err = p.fail(fmt.Sprintf("%q: rbd diff prints offset, length and exists only", shorten(name)))
		}
		if err != nil {
			return Extent{}, err
		}
	}
	p.at = start
	for _, name := range []string{"offset", "length", "exists"} {
		if !seen[name] {
			return Extent{}, p.fail(fmt.Sprintf("an extent without %q", name))
		}
	}
	e, err := newExtent(string(offset), string(length), exists)
	if err != nil {
		return Extent{}, p.fail(err.Error())
	}
	return e, nil
}

func (p *jsonParser) number(name string) (json.Number, error) {
	t, err := p.token()
	if err != nil {
		return "", err
	}
	n, ok := t.(json.Number)
	if !ok {
		return "", p.fail(fmt.Sprintf("%s %v: not a number", name, shorten(t)))
	}
	if _, err := parseNumber(name, string(n)); err != nil {
		return "", p.fail(err.Error())
	}
	return n, nil
}

func (p *jsonParser) bool(name string) (bool, error) {
	t, err := p.token()
	if err != nil {
		return false, err
	}
	switch t {
	case true, "true":
		return true, nil
	case false, "false":
		return false, nil
	}
	return false, p.fail(fmt.Sprintf("%s %v: neither true nor false", name, shorten(t)))
}

// end refuses anything but white space behind the list.
func (p *jsonParser) end() error {
	p.at = p.dec.InputOffset()
	_, err := p.dec.Token()
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err == nil, errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &syntax):
		return p.fail("more behind the JSON list")
	}
	return fmt.Errorf("reading hints: %w", err)
}

// width is how many bytes a token takes, but for a string with escapes or bytes
// that are not UTF-8.
func width(t json.Token) int64 {
	switch t := t.(type) {
	case json.Delim:
		return 1
	case string:
		return int64(len(t)) + 2
	case nil:
		return int64(len("null"))
	}
	return int64(len(fmt.Sprint(t)))
}

func shorten(t any) string {
	s := fmt.Sprint(t)
	if len(s) > 40 {
		s = s[:40] + "…"
	}
	return s
}
