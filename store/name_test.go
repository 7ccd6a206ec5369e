package store

import (
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	for _, good := range []string{"a", "vms/web1", "a.b", "ä/ö", "a b", "a%2Fb", "..a", "a..", ".hidden", strings.Repeat("x", 200)} {
		n, err := ParseName(good)
		if err != nil {
			t.Errorf("%q is refused: %v", good, err)
			continue
		}
		back, err := unescapeName(n.escape())
		if err != nil || back != n || strings.ContainsAny(n.escape(), "/ ") || n.escape()[0] == '.' {
			t.Errorf("%q becomes %q and %q: %v", good, n.escape(), back, err)
		}
	}
	for _, bad := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a\x00", "a\nb", "\xff", strings.Repeat("x", 201), strings.Repeat("ä", 34)} {
		if _, err := ParseName(bad); err == nil {
			t.Errorf("%q is taken for a name", bad)
		}
	}
}

func FuzzUnescapeName(f *testing.F) {
	f.Add("vms%2Fweb1")
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := unescapeName(s); err == nil && n.escape() != s {
			t.Fatalf("%q reads as %q, which is written %q", s, n, n.escape())
		}
	})
}

func TestPackKeys(t *testing.T) {
	id := PackID{Run: 0x0123456789abcdef, Seq: 0x1f}
	for _, generation := range []uint32{0, 1, 12} {
		for _, folder := range []string{dataPrefix, mapsPrefix, twinsPrefix} {
			f, i, g, err := parsePackKey(packKey(folder, id, generation))
			if err != nil || f != folder || i != id || g != generation {
				t.Errorf("%s is read as %s %s %d: %v", packKey(folder, id, generation), f, i, g, err)
			}
		}
	}
	for _, bad := range []string{"", "data", "data/", "data/x", "levels/0123456789abcdef/0000001f", "data/0123456789abcdef/0000001f.0", "data/0123456789abcdef/0000001f.01", "data/0123456789abcdef/1f", "data/0123456789ABCDEF/0000001F"} {
		if _, _, _, err := parsePackKey(bad); err == nil {
			t.Errorf("%q is taken for a pack", bad)
		}
	}
}
