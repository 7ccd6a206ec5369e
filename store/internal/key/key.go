// Package key says what the key of an object may look like, once for all
// backends.
package key

import (
	"fmt"
	"io/fs"
	"strings"
)

// reserved begins the names that no segment of a key may have, since folders
// hold such names for other reasons: temporary files of Put, and files that an
// NFS client keeps because they were deleted while open.
var reserved = [...]string{TempPrefix, ".nfs"}

// TempPrefix begins the names of temporary files.
const TempPrefix = ".tmp-"

// Check refuses, with an error that matches fs.ErrInvalid, a key that is not a
// path of UTF-8 segments with single slashes between, or that has a segment
// ".", ".." or a reserved one.
func Check(key string) error {
	if !fs.ValidPath(key) || key == "." || strings.ContainsRune(key, 0) {
		return fmt.Errorf("key %q: %w", key, fs.ErrInvalid)
	}
	for segment := range strings.SplitSeq(key, "/") {
		if Reserved(segment) {
			return fmt.Errorf("key %q: segment %q is reserved: %w", key, segment, fs.ErrInvalid)
		}
	}
	return nil
}

// Reserved tells a name that is in a folder but is no part of a key.
func Reserved(segment string) bool {
	for _, prefix := range reserved {
		if strings.HasPrefix(segment, prefix) {
			return true
		}
	}
	return false
}
