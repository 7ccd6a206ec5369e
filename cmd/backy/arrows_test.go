package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The arrows between the packages: what each part of the tree may import of
// the others, and who alone may import what binds the program to Ceph or to
// the command line.
func TestArrows(t *testing.T) {
	may := map[string][]string{
		"cmd":    {"engine", "hints", "rbd", "store"},
		"rbd":    {"engine", "hints", "rbd", "store"},
		"engine": {"engine", "hints", "store"},
		"store":  {"store"},
		"hints":  {},
	}
	only := map[string]string{
		"C":                        "rbd",
		"github.com/DataDog/zstd":  "store", // cgo, too: builds without it do without
		"github.com/ceph/go-ceph/": "rbd",
		"github.com/urfave/cli/":   "cmd",
		"github.com/vbauerster/":   "cmd",
	}
	for part, allowed := range may {
		files := 0
		err := filepath.WalkDir(filepath.Join("..", "..", part), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
				return err
			}
			files++
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			for _, spec := range f.Imports {
				name, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					return err
				}
				for prefix, owner := range only {
					if (name == prefix || strings.HasSuffix(prefix, "/") && strings.HasPrefix(name, prefix)) && owner != part {
						t.Errorf("%s imports %s, which is for %s alone", path, name, owner)
					}
				}
				ours, ok := strings.CutPrefix(name, "backy/")
				to, _, _ := strings.Cut(ours, "/")
				if ok && !slices.Contains(allowed, to) {
					t.Errorf("%s imports %s: %s may import %v", path, name, part, allowed)
				}
			}
			return nil
		})
		if err != nil || files == 0 {
			t.Errorf("%s: %d files, %v", part, files, err)
		}
	}
}
