package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"backy/engine"
)

// twice is an image that is read a second time, as then.
type twice struct {
	*image
	then []byte
}

func (s *twice) Begin(ctx context.Context, run engine.Run) (*engine.State, error) {
	state, err := s.image.Begin(ctx, run)
	if err == nil {
		state.Again = func(context.Context) (io.ReaderAt, error) { return &image{data: s.then}, nil }
	}
	return state, err
}

// A source that is read twice makes a level only if both passes agree, in data,
// in holes and in the last chunk.
func TestAgain(t *testing.T) {
	const size = 300*chunk + 100
	data := make([]byte, size)
	fill(rand.New(rand.NewPCG(1, 1)), data)
	clear(data[50*chunk : 120*chunk])
	r, _ := newRepository(t, chunk)
	checkLevel(t, r, mustBackup(t, r, "disk", &twice{&image{data: data}, data}), data)
	checkLevel(t, r, mustBackup(t, r, "empty", &twice{&image{}, nil}), nil)
	for _, at := range []int64{0, 49*chunk + 1, 50 * chunk, 119*chunk + 7, 256 * chunk, size - 1} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			then := bytes.Clone(data)
			then[at]++
			src := &twice{&image{data: data}, then}
			_, err := engine.Backup(t.Context(), r, "disk", src, engine.BackupOptions{})
			if !errors.Is(err, engine.ErrChanged) {
				t.Errorf("%v, want ErrChanged", err)
			}
			if src.outcome != engine.Failed || src.ended != 1 {
				t.Errorf("ended %d times, outcome %d", src.ended, src.outcome)
			}
		})
	}
	levels, err := r.Levels(t.Context(), "disk")
	if err != nil || len(levels) != 1 {
		t.Errorf("%d levels, %v", len(levels), err)
	}
	checkLevel(t, r, mustBackup(t, r, "disk", &twice{&image{data: data}, data}), data)
}
