package rbd

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// Keys as ceph-authtool makes them, of users that are nowhere.
const (
	aesKey     = "AQCQ1XVpAAAAABAAUJQmcTmBAhZEDvBTkdBmGw=="
	aes256kKey = "AgCOqQZrb6ifBCAA8MpmQw1nnPBMbuITj+TPWq42ta4QXkU+fxmVlgP19W4="
)

func TestKeyType(t *testing.T) {
	for key, want := range map[string]int{
		aesKey:            keyAES,
		aes256kKey:        keyAES256K,
		"":                keyBroken,
		"no key":          keyBroken,
		aesKey[:36]:       keyBroken,
		aes256kKey[:56]:   keyBroken,
		aesKey[4:]:        keyBroken,
		aesKey + aesKey:   keyBroken,
		"Ag" + aesKey[2:]: keyBroken, // of another type's length
	} {
		if got := keyType(key); got != want {
			t.Errorf("key %q: type %d, want %d", key, got, want)
		}
	}
}

func TestFindKeys(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ring := write("ring", "# two\n[client.a]\n\tkey = "+aesKey+"\n\tcaps mon = \"allow *\"\n\n[client.b]\nkey=\""+aes256kKey+"\"\n")
	other := write("other", "[client.c]\n\tkey = broken\n")
	file := write("file", aes256kKey+"\n")
	missing := filepath.Join(dir, "missing")
	two := []userKey{{"client.a", keyAES}, {"client.b", keyAES256K}}
	for _, c := range []struct {
		options map[string]string
		want    keys
	}{
		{nil, keys{}},
		{map[string]string{"keyring": ring}, keys{place: ring, found: true, list: two}},
		{map[string]string{"keyring": missing + "," + ring + "," + other}, keys{place: ring, found: true, list: two}},
		{map[string]string{"keyring": other + ", " + ring}, keys{place: other, found: true, list: []userKey{{"client.c", keyBroken}}}},
		{map[string]string{"keyring": missing}, keys{place: missing}},
		{map[string]string{"keyring": ring, "keyfile": file}, keys{place: file, found: true, list: []userKey{{"client.a", keyAES256K}}}},
		{map[string]string{"keyring": ring, "key": aesKey}, keys{place: "the configuration (key)", found: true, list: []userKey{{"client.a", keyAES}}}},
	} {
		got := findKeys("client.a", func(name string) string { return c.options[name] })
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v: %+v, want %+v", c.options, got, c.want)
		}
	}
	for ceph, want := range map[int]*userKey{16: &two[1], 18: &two[1], 20: nil} {
		if got := (keys{list: two}).worst(ceph); !reflect.DeepEqual(got, want) {
			t.Errorf("what librados %d cannot read: %v, want %v", ceph, got, want)
		}
	}
}
