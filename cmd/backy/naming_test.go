package main

import (
	"math/rand/v2"
	"strings"
	"testing"

	"backy/store"
)

// What the names of images become. Derived names stand in repositories: they must
// never change.
func TestNaming(t *testing.T) {
	long := strings.Repeat("0", 200)
	for _, tt := range []struct {
		template string
		place    imagePlace
		want     store.Name // "": an error
	}{
		{"", imagePlace{"vms", "", "web1"}, "vms/web1"},
		{"", imagePlace{"vms", "tenant", "web1"}, "vms/tenant/web1"},
		{"", imagePlace{"vms", "", " ä%2F~0123"}, "vms/ ä%2F~0123"},
		{"", imagePlace{"vms", "", "vm-" + long}, store.Name("vms/vm-" + long[:172] + "~ba4229f11b63a0e6")},
		{"", imagePlace{"vms", "", strings.Repeat("ü", 40)}, store.Name("vms/" + strings.Repeat("ü", 29) + "~fa87af0d10b8b09d")},
		{"", imagePlace{"vms", "", "."}, "vms/_~2025f92e175beca2"},
		{"", imagePlace{"vms", "", ".."}, "vms/__~909196cabbf880b4"},
		{"", imagePlace{"vms", "", "tenant/web1"}, "vms/tenant_web1~139b31cf3ab927bd"},
		{"", imagePlace{"vms", "", "tenant_web1"}, "vms/tenant_web1"},
		{"", imagePlace{"vms", "ten@nt", "web1"}, "vms/ten_nt/web1~b5232306d7f4762a"},
		{"", imagePlace{"vms", "", "web1@monday"}, "vms/web1_monday~d167ebdea13ac4fd"},
		{"", imagePlace{"vms", "", "a\nb\x1b[1m"}, "vms/a_b_[1m~ec533f1ad61455a9"},
		{"", imagePlace{"vms", "", "caf\xe9"}, "vms/caf_~bcb25471f8b7e5d9"},
		{"", imagePlace{"vms", "", "/"}, "vms/_~607d093134b752b9"},
		{"", imagePlace{"vms", "", "web1~0123456789abcdef"}, "vms/web1~0123456789abcdef~30e01e277a44b08c"},
		{"{{.Image}}", imagePlace{"vms", "", ".."}, "__~909196cabbf880b4"},
		{"{{.Pool}}-{{slice .Image 0 1}}", imagePlace{"vms", "", "ü"}, "vms-_~064e44a5563c75d8"},
		{"{{.Namespace}}/{{.Image}}", imagePlace{"vms", "", "web1"}, ""},
		{"{{.Namespace}}/{{.Image}}", imagePlace{"vms", "", "a/b"}, ""},
		{"{{slice .Image 0 5}}", imagePlace{"vms", "", "web1"}, ""},
	} {
		naming, err := (&pickFlags{names: tt.template}).naming()
		if err != nil {
			t.Fatal(err)
		}
		got, err := naming(tt.place)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s of %q: %q, %v, want %q", tt.template, tt.place, got, err, tt.want)
		}
	}
}

// No two images have one name, whatever their names are made of, and each name is
// one that a repository keeps.
func TestNamingProperty(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pieces := []string{"a", "b", "/", "@", ".", "..", "_", "~", "~0123456789abcdef", "\n", "\xff", "ü", strings.Repeat("x", 60), strings.Repeat("/", 70), "%2F", `"`}
	part := func(least int) string {
		var b strings.Builder
		for range least + random.IntN(4) {
			b.WriteString(pieces[random.IntN(len(pieces))])
		}
		return b.String()
	}
	naming, err := new(pickFlags).naming()
	if err != nil {
		t.Fatal(err)
	}
	names := map[store.Name]imagePlace{}
	derived := 0
	for range 50_000 {
		i := imagePlace{part(1), part(0), part(1)}
		name, err := naming(i)
		if err != nil {
			t.Fatalf("%q: %v", i, err)
		}
		if other, ok := names[name]; ok && other != i {
			t.Fatalf("%q and %q are both %q", i, other, name)
		}
		names[name] = i
		if _, err := store.ParseName(string(name)); err != nil {
			t.Fatalf("%q: %v", i, err)
		}
		if derivedName.MatchString(string(name)) {
			derived++
			// An image cannot take a derived name by being called like it.
			if again, err := naming(imagePlace{"p", "", string(name)}); err != nil || again == name {
				t.Fatalf("%q, called after %q: %q, %v", name, i, again, err)
			}
		}
	}
	if derived == 0 || derived == len(names) {
		t.Errorf("%d of %d names are derived", derived, len(names))
	}
}
