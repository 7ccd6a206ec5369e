package dir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"testing"

	"pgregory.net/rapid"
)

var errDead = errors.New("the process is dead")

// process is a Dir on a shared file system that dies after some steps.
func process(m *memFS, steps int) *Dir {
	return hooked(&Dir{root: "/", fs: m}, func(step) error {
		if steps--; steps < 0 {
			return errDead
		}
		return nil
	})
}

// outcome is what must be found under a key: one of these contents, "" being
// no object.
type outcome map[string]bool

// TestPowerCut lets some processes put and delete, one after the other, each
// dying somewhere, then cuts the power, and looks at what came back: what was
// answered must be as it was answered, what was not must be as if it had not
// been asked or had been answered.
func TestPowerCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMemFS()
		want := map[string]outcome{}
		keys := rapid.SampledFrom([]string{"k", "a/1", "a/2", "a/r/1", "a/r/2", "b/r/s/1"})
		for p := range rapid.IntRange(1, 4).Draw(t, "processes") {
			d := process(m, rapid.IntRange(0, 60).Draw(t, "steps"))
			for i := range rapid.IntRange(1, 6).Draw(t, "calls") {
				k := keys.Draw(t, "key")
				if want[k] == nil {
					want[k] = outcome{"": true}
				}
				content := fmt.Sprintf("by process %d call %d", p, i)
				switch rapid.SampledFrom([]string{"put", "put", "delete", "sync"}).Draw(t, "call") {
				case "put":
					answered(t, want, k, content, d.Put(t.Context(), k, []byte(content)))
				case "delete":
					answered(t, want, k, "", d.Delete(t.Context(), k))
				case "sync":
					if d.Sync(t.Context(), k) == nil {
						delete(want[k], "")
					}
				}
			}
		}
		after := &Dir{root: "/", fs: m.cut(func() bool { return rapid.Bool().Draw(t, "survives") })}
		for k, allowed := range want {
			if got := content(t, after, k); !allowed[got] {
				t.Fatalf("after the power cut %q is %q, want one of %v", k, got, allowed)
			}
		}
		listed := 0
		if err := after.List(t.Context(), "", func(k string, _ int64) error { listed++; return nil }); err != nil {
			t.Fatal(err)
		}
		for k := range want {
			if content(t, after, k) != "" {
				listed--
			}
			if err := after.Put(t.Context(), k, []byte("new")); err != nil && !errors.Is(err, fs.ErrExist) {
				t.Fatalf("Put after the power cut: %v", err)
			}
		}
		if listed != 0 {
			t.Fatalf("List and Get differ by %d objects", listed)
		}
	})
}

// answered updates what must be found under a key that was put or deleted.
func answered(t *rapid.T, want map[string]outcome, k, becomes string, err error) {
	switch {
	case err == nil:
		want[k] = outcome{becomes: true}
	case errors.Is(err, errDead):
		want[k][becomes] = true
	case errors.Is(err, fs.ErrExist):
		// Whoever meets an object knows that one is there, not that it is durable.
	default:
		t.Fatal(err)
	}
}

func content(t *rapid.T, d *Dir, k string) string {
	p := make([]byte, 100)
	n, err := d.Get(t.Context(), k, p, 0)
	if err != nil && err != io.EOF && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(p[:n])
}
