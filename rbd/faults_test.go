package rbd

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"

	"backy/engine"
)

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
