package dir

import "strings"

// depths is how many folders are above the objects of a repository's folders.
var depths = map[string]int{"data": 2, "maps": 2, "maps2": 2, "levels": 2, "work": 1, "damaged": 1, "marks": 1}

// objectsOnly reports whether a key is at a place where a repository has objects
// and no folders: what else stands there, a folder too, is there by mistake and
// must not be taken for nothing.
func objectsOnly(key string) bool {
	if !strings.Contains(key, "/") && strings.HasSuffix(key, ".json") {
		return true // the repository's own
	}
	depth, ok := depths[key[:max(strings.IndexByte(key, '/'), 0)]]
	return ok && strings.Count(key, "/") == depth
}
