package rbd

import (
	"fmt"
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

// String is what ParseSpec reads, in its shortest form.
func (s Spec) String() string {
	name := Scheme + s.Pool + "/"
	if s.Namespace != "" {
		name += s.Namespace + "/"
	}
	name += s.Image
	if s.Snap != "" {
		name += "@" + s.Snap
	}
	return name
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
