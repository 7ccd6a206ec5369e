//go:build !linux

package hugepage

// Make returns n zero bytes with room for c.
func Make(n, c int) []byte { return make([]byte, n, c) }
