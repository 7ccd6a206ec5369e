package rbd

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestParseSpec(t *testing.T) {
	for in, want := range map[string]Spec{
		"rbd:pool/image":                {Pool: "pool", Image: "image"},
		"rbd:pool/image@snap":           {Pool: "pool", Image: "image", Snap: "snap"},
		"rbd:pool/tenant/image":         {Pool: "pool", Namespace: "tenant", Image: "image"},
		"rbd:pool/tenant/image@snap":    {Pool: "pool", Namespace: "tenant", Image: "image", Snap: "snap"},
		"rbd:a b/ü:x/.i%2F@2026-11-23 ": {Pool: "a b", Namespace: "ü:x", Image: ".i%2F", Snap: "2026-11-23 "},
	} {
		got, err := ParseSpec(in)
		if err != nil || got != want {
			t.Errorf("ParseSpec(%q) = %+v, %v, want %+v", in, got, err, want)
		}
		if got.String() != in {
			t.Errorf("%+v prints %q, want %q", got, got, in)
		}
	}
	if got, err := ParseSpec("rbd:pool//image@snap"); err != nil || got != (Spec{Pool: "pool", Image: "image", Snap: "snap"}) {
		t.Errorf("the default namespace, named: %+v, %v", got, err)
	}
	for in, why := range map[string]string{
		"":                     "does not begin with rbd:",
		"pool/image":           "does not begin with rbd:",
		"RBD:pool/image":       "does not begin with rbd:",
		"rbd:":                 "names no image",
		"rbd:image":            "names no image",
		"rbd:image@snap":       "names no image",
		"rbd:/image":           "empty pool name",
		"rbd:pool/":            "empty image name",
		"rbd:pool/@snap":       "empty image name",
		"rbd:pool//":           "empty image name",
		"rbd:pool/n/":          "empty image name",
		"rbd:/n/image":         "empty pool name",
		"rbd:pool/n/i/x":       "too many slashes",
		"rbd:pool/image@":      "no snapshot name",
		"rbd:pool/image@a@b":   "more than one @",
		"rbd:pool/image@a/b":   "a slash in the snapshot name",
		"rbd:po@ol/image":      "a slash in the snapshot name",
		"rbd:pool/im\x00age":   "control characters",
		"rbd:pool/image\n":     "control characters",
		"rbd:pool/im\xffage":   "not UTF-8",
		"rbd:pool/image@s\xc3": "not UTF-8",
	} {
		_, err := ParseSpec(in)
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("ParseSpec(%q): %v, want %q in it", in, err, why)
		}
	}
}

func TestParsePoolSpec(t *testing.T) {
	for in, want := range map[string]PoolSpec{
		"rbd:pool":         {Pool: "pool"},
		"rbd:pool/":        {Pool: "pool"},
		"rbd:pool/*":       {Pool: "pool", All: true},
		"rbd:pool/tenant/": {Pool: "pool", Namespace: "tenant"},
	} {
		got, sure, ok := ParsePoolSpec(in)
		if got != want || !sure || !ok {
			t.Errorf("ParsePoolSpec(%q) = %+v, %v, %v, want %+v", in, got, sure, ok, want)
		}
		if again, sure, ok := ParsePoolSpec(got.String()); again != got || !sure || !ok {
			t.Errorf("%+v prints %q, which reads as %+v", got, got, again)
		}
	}
	if got, sure, ok := ParsePoolSpec("rbd:pool/x"); got != (PoolSpec{Pool: "pool", Namespace: "x"}) || sure || !ok {
		t.Errorf("a name that may be an image's or a namespace's: %+v, %v, %v", got, sure, ok)
	}
	for _, in := range []string{
		"", "pool", "rbd:", "rbd:/", "rbd:/x", "rbd:/*", "rbd:pool@snap", "rbd:pool/x@snap", "rbd:pool/x/@snap",
		"rbd:pool//", "rbd:pool//image", "rbd:pool/x/image", "rbd:pool/x/y/", "rbd:pool/*/", "rbd:po\x00ol", "rbd:pool/\xff/",
	} {
		if got, sure, ok := ParsePoolSpec(in); ok {
			t.Errorf("ParsePoolSpec(%q) = %+v, %v", in, got, sure)
		}
	}
}

func FuzzParseSpec(f *testing.F) {
	for _, s := range []string{"rbd:pool/image", "rbd:pool/tenant/image@snap", "rbd:a/b@c@d", "rbd://"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		spec, err := ParseSpec(s)
		if err != nil {
			return
		}
		if again, err := ParseSpec(spec.String()); err != nil || again != spec {
			t.Errorf("ParseSpec(%q) prints %q, which reads as %+v, %v", s, spec, again, err)
		}
	})
}

// Every spec prints as one line of text, and no two images have one label, whatever
// bytes their names have.
func TestLabels(t *testing.T) {
	parts := []string{"a", "b", "a/b", "a@b", "a\nb", `"a\nb"`, `"a/b"`, `"a`, `b"`, "\xff", "\xfe", "\ufffd", ".", `a"b`}
	labels := map[string]Spec{}
	for _, pool := range parts {
		for _, namespace := range append(parts, "") {
			for _, image := range parts {
				s := Spec{Pool: pool, Namespace: namespace, Image: image}
				label := s.Label()
				if other, ok := labels[label]; ok {
					t.Fatalf("%#v and %#v are both %s", s, other, label)
				}
				labels[label] = s
				for _, text := range []string{label, s.String()} {
					if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
						t.Errorf("%#v prints as %q", s, text)
					}
				}
			}
		}
	}
}
