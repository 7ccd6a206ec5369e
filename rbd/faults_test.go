package rbd

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"backy/engine"
	"backy/store"
)

// An error is the same on both sides: its words, and what it matches.
func TestFaults(t *testing.T) {
	for _, err := range []error{
		errors.New("plain"),
		fmt.Errorf("rbd:a/b: %w in pool a", ErrNoImage),
		fmt.Errorf("ask: %w", errInvalidMap),
		fmt.Errorf("ask: %w", syscall.EBUSY),
		errors.Join(fmt.Errorf("one: %w", ErrTimeout), fmt.Errorf("two: %w", ErrInUse)),
		context.Canceled,
	} {
		got := faults{}.Open(faults{}.Seal(err))
		if got.Error() != err.Error() {
			t.Errorf("%q became %q", err, got)
		}
		for _, is := range append(slices.Clone(crossing), syscall.EBUSY, syscall.EPERM, fs.ErrNotExist, fs.ErrPermission) {
			if errors.Is(got, is) != errors.Is(err, is) {
				t.Errorf("%q: matches %q: %v, before %v", err, is, errors.Is(got, is), errors.Is(err, is))
			}
		}
	}
	refused := &ConnectError{what: "connect", Reason: "no key", Hints: []string{"a", "b"}, err: ErrPermission}
	var got *ConnectError
	if err := (faults{}).Open(faults{}.Seal(refused)); !errors.As(err, &got) || got.Error() != refused.Error() || !slices.Equal(got.Hints, refused.Hints) || !errors.Is(err, ErrPermission) {
		t.Errorf("%+v became %+v", refused, got)
	}
	if err := (faults{}).Open([]byte("nonsense")); err == nil {
		t.Error("nonsense is no error")
	}
}

// The cause of a context's end is known on this side alone.
func TestCaused(t *testing.T) {
	errBecause := errors.New("because")
	ctx, cancel := context.WithCancelCause(t.Context())
	far := faults{}.Open(faults{}.Seal(fmt.Errorf("read: %w", context.Canceled)))
	if got := caused(ctx, far); errors.Is(got, errBecause) {
		t.Errorf("before the end: %v", got)
	}
	cancel(errBecause)
	if got := caused(ctx, context.Canceled); got != errBecause {
		t.Errorf("bare: %v", got)
	}
	if got := caused(ctx, far); !errors.Is(got, errBecause) || got.Error() != "read: context canceled" {
		t.Errorf("wrapped: %v", got)
	}
	if got := caused(ctx, ErrNoImage); got != ErrNoImage {
		t.Errorf("another error: %v", got)
	}
}

// Whoever adds an error that callers may branch on adds it to those that cross.
func TestAllErrorsCross(t *testing.T) {
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	declared, listed := map[string]bool{}, map[string]bool{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			for _, name := range spec.Names {
				if strings.HasPrefix(strings.ToLower(name.Name), "err") && len(spec.Values) > 0 {
					declared[name.Name] = true
				}
				if name.Name == "crossing" {
					for _, e := range spec.Values[0].(*ast.CompositeLit).Elts {
						if id, ok := e.(*ast.Ident); ok {
							listed[id.Name] = true
						}
					}
				}
			}
			return true
		})
	}
	if len(declared) == 0 || !maps.Equal(declared, listed) {
		t.Errorf("declared: %v\nin crossing: %v", slices.Sorted(maps.Keys(declared)), slices.Sorted(maps.Keys(listed)))
	}
}

// Whoever adds a field to what goes across has it go across, and then adds it here.
func TestAllFieldsCross(t *testing.T) {
	for _, c := range []struct {
		v      any
		fields string
	}{
		{Config{}, "Conf Cluster ID Name Keyring QoS Timeout"},
		{Spec{}, "Pool Namespace Image Snap"},
		{PoolSpec{}, "Pool Namespace All"},
		{Info{}, "ID Size Created Metadata MetadataUnknown"},
		{OwnSnapshot{}, "Spec Image ID Time Size Copy Derived Repository Run Kind Name Level name hash"},
		{SourceOptions{}, "Diff Snapping Adopt"},
		{TargetOptions{}, "Force Metadata Warn"},
		{claimant{}, "spec id name adopt"},
		{engine.Run{}, "Repository Name ID Repo Levels Distrust Over Unfinished Warn"},
		{engine.View{}, "Reader Size Extents"},
		{engine.State{}, "View Stream Origin Base Outside Doubt Sample SampleMin Again Expected Expect"},
		{store.ImageID{}, "Cluster PoolID Image"},
		{ConnectError{}, "Reason Hints what err"},
	} {
		var fields []string
		for _, f := range reflect.VisibleFields(reflect.TypeOf(c.v)) {
			if len(f.Index) == 1 {
				fields = append(fields, f.Name)
			}
		}
		if got := strings.Join(fields, " "); got != c.fields {
			t.Errorf("%T has the fields %s, not %s", c.v, got, c.fields)
		}
	}
}

// What comes back from the child process says the same, line by line, and is the
// same to those who branch on it.
func TestErrorsCross(t *testing.T) {
	err := fmt.Errorf("a\nb: %w", errors.Join(fmt.Errorf("x\n: %w", ErrNoImage), syscall.EBUSY))
	for range 2 { // and what has crossed once may cross again
		far := faults{}.Open(faults{}.Seal(err))
		if got, want := engine.ErrorLines(far), engine.ErrorLines(err); !slices.Equal(got, want) || len(got) != 2 || far.Error() != err.Error() {
			t.Errorf("got %q, want %q", got, want)
		}
		if !errors.Is(far, ErrNoImage) || !errors.Is(far, syscall.EBUSY) || errors.Is(far, ErrNoPool) {
			t.Errorf("it is another: %v", far)
		}
		err = fmt.Errorf("again: %w", far)
	}
}
