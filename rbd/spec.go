package rbd

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Scheme is what a user's name of an image begins with.
const Scheme = "rbd:"

// Spec names an image, or with Snap one of its snapshots.
type Spec struct {
	Pool      string
	Namespace string // "" is the pool's default namespace
	Image     string
	Snap      string // "" is the image as it is now
}

// ParseSpec reads rbd:POOL[/NAMESPACE]/IMAGE[@SNAP]. There are no escapes, as
// with Ceph's own tools: a name that has a slash or an @ cannot be given.
// rbd:POOL//IMAGE is in the default namespace, and can be nothing but an image.
func ParseSpec(s string) (Spec, error) {
	bad := func(format string, args ...any) (Spec, error) {
		return Spec{}, fmt.Errorf("%q: %s: want %sPOOL[/NAMESPACE]/IMAGE[@SNAP]", s, fmt.Sprintf(format, args...), Scheme)
	}
	path, ok := strings.CutPrefix(s, Scheme)
	switch {
	case !ok:
		return bad("does not begin with %s", Scheme)
	case !utf8.ValidString(s):
		return bad("not UTF-8")
	case strings.ContainsFunc(s, unicode.IsControl):
		return bad("has control characters")
	}
	path, snap, hasSnap := strings.Cut(path, "@")
	switch {
	case hasSnap && snap == "":
		return bad("no snapshot name after the @")
	case strings.Contains(snap, "@"):
		return bad("more than one @")
	case strings.Contains(snap, "/"):
		return bad("a slash in the snapshot name")
	}
	parts := strings.Split(path, "/")
	what := []string{"pool", "image"}
	switch len(parts) {
	case 1:
		return bad("names no image")
	case 2:
	case 3:
		what = []string{"pool", "namespace", "image"}
	default:
		return bad("too many slashes")
	}
	for i, p := range parts {
		if p == "" && what[i] != "namespace" {
			return bad("empty %s name", what[i])
		}
	}
	spec := Spec{Pool: parts[0], Image: parts[len(parts)-1], Snap: snap}
	if len(parts) == 3 {
		spec.Namespace = parts[1]
	}
	return spec, nil
}

// String is what ParseSpec reads, in its shortest form. Names that it cannot read
// are quoted, so that they can be printed: RBD takes nearly any bytes.
func (s Spec) String() string {
	plain := s.text(func(part string) string { return part })
	if parsed, err := ParseSpec(plain); err == nil && parsed == s {
		return plain
	}
	return s.Label()
}

// Label is String, but for names that begin with a quote, which are quoted: no two
// images have the same.
func (s Spec) Label() string {
	return s.text(func(part string) string {
		if strings.HasPrefix(part, `"`) || strings.ContainsAny(part, "/@") || !utf8.ValidString(part) || strings.ContainsFunc(part, unicode.IsControl) {
			return strconv.Quote(part)
		}
		return part
	})
}

func (s Spec) text(part func(string) string) string {
	name := Scheme + part(s.Pool) + "/"
	if s.Namespace != "" {
		name += part(s.Namespace) + "/"
	}
	name += part(s.Image)
	if s.Snap != "" {
		name += "@" + part(s.Snap)
	}
	return name
}

// recorded is the spec as a level's record gives it back: JSON has no bytes that
// are not UTF-8.
func (s Spec) recorded() Spec {
	utf8Of := func(s string) string { return string([]rune(s)) }
	return Spec{utf8Of(s.Pool), utf8Of(s.Namespace), utf8Of(s.Image), utf8Of(s.Snap)}
}

// pool is the pool with its namespace, for messages.
func (s Spec) pool() string {
	if s.Namespace == "" {
		return s.Pool
	}
	return s.Pool + "/" + s.Namespace
}

// at is the spec of one of the image's snapshots; "" is the image itself.
func (s Spec) at(snap string) Spec {
	s.Snap = snap
	return s
}
