package rbd

import (
	"fmt"
	"strings"
)

// PoolSpec names images of a pool all at once.
type PoolSpec struct {
	Pool      string
	Namespace string // "" is the pool's default namespace
	All       bool   // of all namespaces
}

// ParsePoolSpec reads rbd:POOL, rbd:POOL/NAMESPACE/ and rbd:POOL/*. Without the
// slash at its end rbd:POOL/NAMESPACE can be an image's name too: then sure is
// false, and only the cluster tells. ok is false for anything that can only
// be the name of one image, or of none.
func ParsePoolSpec(s string) (spec PoolSpec, sure, ok bool) {
	path, ok := strings.CutPrefix(s, Scheme)
	if !ok || strings.Contains(s, "@") {
		return PoolSpec{}, false, false
	}
	pool, namespace, slash := strings.Cut(path, "/")
	spec = PoolSpec{Pool: pool}
	switch {
	case !slash || namespace == "":
	case namespace == "*":
		spec.All = true
	default:
		var closed bool
		spec.Namespace, closed = strings.CutSuffix(namespace, "/")
		if !closed {
			_, err := ParseSpec(s)
			return spec, false, err == nil && !strings.Contains(namespace, "/")
		}
	}
	if namespace != "" && spec.Namespace == "" != spec.All || spec.Namespace == "*" {
		return spec, false, false
	}
	_, err := ParseSpec(Scheme + spec.Pool + "/" + spec.Namespace + "/image")
	return spec, true, err == nil
}

// String is what ParsePoolSpec reads and is sure of.
func (s PoolSpec) String() string {
	switch {
	case s.All:
		return Scheme + s.Pool + "/*"
	case s.Namespace != "":
		return fmt.Sprintf("%s%s/%s/", Scheme, s.Pool, s.Namespace)
	}
	return Scheme + s.Pool
}

// in is the pool and a namespace, for calls that want a Spec.
func (s PoolSpec) in(namespace string) Spec { return Spec{Pool: s.Pool, Namespace: namespace} }
