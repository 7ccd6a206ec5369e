package key

import (
	"errors"
	"io/fs"
	"path"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for key, want := range map[string]bool{
		"a": true, "a/b": true, "a..": true, ".a": true, "a/.b/c": true, "...": true, "x.tmp-": true, "é/%2F": true, "a b": true,
		"": false, ".": false, "..": false, "/": false, "/a": false, "a/": false, "a//b": false, "./a": false, "a/.": false,
		"a/../b": false, "..//": false, "a\x00": false, "a\xff": false, ".tmp-": false, "a/.tmp-1": false, ".tmp-1/a": false, ".nfs1": false,
	} {
		if err := Check(key); (err == nil) != want || err != nil && !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Check(%q): %v", key, err)
		}
	}
}

func FuzzCheck(f *testing.F) {
	for _, key := range []string{"a/b", "../a", "a//b", "a/.", ".tmp-1"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if Check(key) != nil {
			return
		}
		below := path.Join("/repository", key)
		if below != "/repository/"+key || !strings.HasPrefix(below, "/repository/") || strings.ContainsRune(key, 0) {
			t.Errorf("%q leads to %q", key, below)
		}
	})
}
