package mem_test

import (
	"errors"
	"io/fs"
	"maps"
	"testing"

	"backy/store"
	"backy/store/backendtest"
	"backy/store/mem"
)

func TestBackend(t *testing.T) {
	backendtest.Run(t, func(*testing.T) store.Backend { return mem.New() })
}

func TestAt(t *testing.T) {
	m := mem.New()
	c := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(m.Put(c, "a", []byte("1")))
	must(m.Put(c, "b"))
	must(m.Delete(c, "none"))
	if err := m.Put(c, "a", []byte("2")); !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	must(m.Delete(c, "a"))
	must(m.Put(c, "a", []byte("3")))

	want := []map[string]string{
		{},
		{"a": "1"},
		{"a": "1", "b": ""},
		{"b": ""},
		{"a": "3", "b": ""},
	}
	if n := len(m.Log()); n != len(want)-1 {
		t.Fatalf("%d changes, want %d: %v", n, len(want)-1, m.Log())
	}
	for n, state := range want {
		past := m.At(n)
		if got := objects(t, past); !maps.Equal(got, state) {
			t.Errorf("after %d changes: %v, want %v", n, got, state)
		}
		size := 0
		for _, data := range state {
			size += len(data)
		}
		if got := past.Size(); got != int64(size) {
			t.Errorf("after %d changes: %d bytes, want %d", n, got, size)
		}
		if got := past.Log(); len(got) != n {
			t.Errorf("after %d changes: log of %d", n, len(got))
		}
		must(past.Put(c, "c", []byte("past")))
	}
	if got := objects(t, m); !maps.Equal(got, want[len(want)-1]) {
		t.Errorf("the present was changed: %v", got)
	}
	if got := objects(t, m.At(len(m.Log()))); !maps.Equal(got, want[len(want)-1]) {
		t.Errorf("a past was changed: %v", got)
	}
}

func objects(t *testing.T, m *mem.Mem) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := m.List(t.Context(), "", func(key string, size int64) error {
		p := make([]byte, size)
		_, err := m.Get(t.Context(), key, p, 0)
		got[key] = string(p)
		if size == 0 {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}
