package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

func TestErrorLines(t *testing.T) {
	one, two := errors.New("one"), errors.New("two\nnot a line")
	path := &fs.PathError{Op: "open", Path: "a\nb", Err: fs.ErrNotExist}
	for _, tt := range []struct {
		err  error
		want []string
	}{
		{one, []string{"one"}},
		{two, []string{"two\nnot a line"}},
		{errors.Join(one, two), []string{"one", "two\nnot a line"}},
		{errors.Join(one), []string{"one"}},
		{fmt.Errorf("a\nb: %w.", errors.Join(one, path)), []string{"a\nb: one", "open a\nb: file does not exist."}},
		{fmt.Errorf("%w, %w!", errors.Join(one, two), one), []string{"one", "two\nnot a line, one!"}},
		{errors.Join(errors.Join(one, one), fmt.Errorf("x: %w", errors.Join(two, one))), []string{"one", "one", "x: two\nnot a line", "one"}},
		{&DamagedError{Name: "n"}, ErrorLines(errors.New((&DamagedError{Name: "n"}).Error()))},
	} {
		if got := ErrorLines(tt.err); !slices.Equal(got, tt.want) {
			t.Errorf("%q: got %q, want %q", tt.err, got, tt.want)
		}
		if got := strings.Join(ErrorLines(tt.err), "\n"); got != tt.err.Error() {
			t.Errorf("%q: lines %q", tt.err, got)
		}
	}
	if got, want := Sentence("%s: %v (%d)", "x", errors.Join(one, two), 1), "x: one; two\nnot a line (1)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
