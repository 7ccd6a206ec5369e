package engine_test

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"backy/engine"
)

// slow is an image of which each read takes a while, and that takes a while to
// say how much there is to be read.
type slow struct {
	image
	read, think time.Duration
	answer      error
	asked       int
	unanswered  atomic.Bool // Expect is at work
}

func (s *slow) Begin(ctx context.Context, run engine.Run) (*engine.State, error) {
	state, err := s.image.Begin(ctx, run)
	state.Reader = &slowReader{state.Reader, s.read}
	state.Expect = func(ctx context.Context) (int64, error) {
		s.asked++
		s.unanswered.Store(true)
		defer s.unanswered.Store(false)
		select {
		case <-time.After(s.think):
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		return 7 * chunk, s.answer
	}
	return state, err
}

func (s *slow) End(ctx context.Context, o engine.Outcome) error {
	if s.unanswered.Load() {
		return errors.New("the source was ended while it was asked")
	}
	return s.image.End(ctx, o)
}

type slowReader struct {
	io.ReaderAt
	delay time.Duration
}

func (r *slowReader) ReadAt(p []byte, off int64) (int, error) {
	time.Sleep(r.delay)
	return r.ReaderAt.ReadAt(p, off)
}

// A run that takes long asks its source how much there is to do, and a run that
// does not, does not; what comes of it changes nothing but the progress.
func TestExpect(t *testing.T) {
	for _, test := range []struct {
		name  string
		src   *slow
		asked int
		total int64
	}{
		{"a run that is over at once", &slow{}, 0, 0},
		{"a long one", &slow{read: time.Minute, think: time.Second}, 1, 7 * chunk},
		{"one that is over before there is an answer", &slow{read: 10 * time.Second, think: time.Minute}, 1, 0},
		{"a source that cannot say", &slow{read: time.Minute, answer: errors.New("no idea")}, 1, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, _ := newRepository(t, chunk)
				test.src.data = make([]byte, 20*chunk)
				var progress engine.Progress
				if _, err := engine.Backup(context.Background(), r, "image", test.src, engine.BackupOptions{Progress: &progress}); err != nil {
					t.Fatal(err)
				}
				if total := progress.Total.Load(); total != test.total || test.src.asked != test.asked {
					t.Errorf("asked %d times and expects %d bytes, instead of %d and %d", test.src.asked, total, test.asked, test.total)
				}
			})
		})
	}
}
