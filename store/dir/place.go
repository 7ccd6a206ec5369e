package dir

import (
	"errors"
	"path"
	"strings"
)

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

// foldersOnly reports whether a path is at a place where a repository has a
// folder: what else stands there must not be taken for an empty one. Of what
// lies beside the folders of runs and names, only what is called like one counts.
func foldersOnly(name string) bool {
	top, segment, below := strings.Cut(name, "/")
	depth := depths[top]
	switch {
	case !below:
		return depth > 0
	case depth < 2 || strings.Contains(segment, "/"):
		return false
	case top == "levels":
		return segment[0] != '.' && !strings.ContainsFunc(segment, func(c rune) bool { return !alphanumeric(c) && !strings.ContainsRune(".-_%", c) })
	}
	return len(segment) == 16 && !strings.ContainsFunc(segment, func(c rune) bool { return !alphanumeric(c) })
}

// mayBeNote reports whether a file at a path may be somebody's note, such as
// levels/README, as far as its name tells. A listing passes over it: if it stands
// in the place of a name's folder, the records of that name are missing, which gc,
// recover and status find out by themselves.
func mayBeNote(name string) bool { return path.Dir(name) == "levels" }

func alphanumeric(c rune) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// errNoFolder tells of something else in a folder's place: what the folder held
// is out of reach, and is not to be taken for gone.
var errNoFolder = errors.New("it is not a directory: put the repository's own back here")

// noFolder is the error for what stands in the place of a repository's folder, on
// the way to a path or there; nil: nothing does.
func (d *Dir) noFolder(op, name string) error {
	if objectsOnly(name) {
		name = path.Dir(name)
	}
	for ; name != "."; name = path.Dir(name) {
		i, err := d.fs.stat(name)
		switch {
		case err == nil && i.folder:
			return nil
		case err != nil || !foldersOnly(name):
		case i.lost:
			return d.fail(op, name, errLost)
		default:
			return d.fail(op, name, errNoFolder)
		}
	}
	return nil
}
