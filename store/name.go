package store

import (
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Name is a backup name: one image's series of levels, such as vms/web1. It may
// have slashes, is never absolute and has no part that is empty, "." or "..".
type Name string

// maxNameKey leaves room for what keys add to a name within the 255 bytes that
// file systems take.
const maxNameKey = 200

// ErrNameTooLong tells that a backup name is right but for its length.
var ErrNameTooLong = fmt.Errorf("longer than %d bytes when escaped", maxNameKey)

// ParseName checks a name given by a user.
func ParseName(s string) (Name, error) {
	n := Name(s)
	if err := n.Validate(); err != nil {
		return "", err
	}
	return n, nil
}

// Validate refuses a name that could leave the repository or cannot be kept.
func (n Name) Validate() error {
	s := string(n)
	switch {
	case s == "":
		return fmt.Errorf("backup name: empty")
	case !utf8.ValidString(s):
		return fmt.Errorf("backup name %q: not UTF-8", s)
	case strings.ContainsFunc(s, unicode.IsControl):
		return fmt.Errorf("backup name %q: has control characters", s)
	}
	for part := range strings.SplitSeq(s, "/") {
		switch part {
		case "":
			return fmt.Errorf("backup name %q: begins or ends with a slash, or has two in a row", s)
		case ".", "..":
			return fmt.Errorf("backup name %q: has a part %q", s, part)
		}
	}
	if len(n.escape()) > maxNameKey {
		return fmt.Errorf("backup name %q: %w", s, ErrNameTooLong)
	}
	return nil
}

// escape makes the name one segment of a key: letters, digits, '-' and '_'
// stand for themselves, a dot too unless it comes first, other bytes as %XX.
func (n Name) escape() string {
	var b strings.Builder
	for i := 0; i < len(n); i++ {
		c := n[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_',
			c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// unescapeName is the inverse of Name.escape; it refuses what escape would not
// have written.
func unescapeName(segment string) (Name, error) {
	s, err := url.PathUnescape(segment)
	if err != nil {
		return "", fmt.Errorf("key segment %q: %w", segment, err)
	}
	n, err := ParseName(s)
	if err != nil {
		return "", err
	}
	if n.escape() != segment {
		return "", fmt.Errorf("key segment %q: not a name as backy writes it", segment)
	}
	return n, nil
}
