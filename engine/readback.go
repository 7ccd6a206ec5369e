package engine

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"

	"backy/store"
)

// What a Readback keeps: so many stretches of so many bytes at most.
const (
	readbackSample = 256
	readbackBytes  = 64 << 10
)

// ErrOverwritten tells that a target does not have what was written to it:
// another program writes to it at the same time, or it loses what it is given.
var ErrOverwritten = errors.New("the target does not have what was written to it: another program writes to it, or it does not keep what it is given; stop that and restore again")

// Readback draws a sample of what is written to a target, to be compared with
// what is there when all of it is written. Each call of Wrote and Zeroed is as
// likely to be in it. The zero value is ready; it is safe for concurrent use.
type Readback struct {
	mu     sync.Mutex
	seen   int
	sample []stretch
}

// stretch is a part of what was written. A zero sum stands for zeros.
type stretch struct {
	off    int64
	length int
	sum    store.Checksum
}

// Wrote is told of bytes that were written at an offset.
func (r *Readback) Wrote(p []byte, off int64) {
	if at, ok := r.draw(off, int64(len(p))); ok {
		from, length := within(int64(len(p)))
		r.keep(at, stretch{off: off + from, length: length, sum: store.Sum(p[from : from+int64(length)])})
	}
}

// Zeroed is told of a range that was made to read as zeros.
func (r *Readback) Zeroed(off, length int64) {
	if at, ok := r.draw(off, length); ok {
		from, n := within(length)
		r.keep(at, stretch{off: off + from, length: n})
	}
}

// within draws a stretch of a range.
func within(length int64) (from int64, n int) {
	n = int(min(length, readbackBytes))
	return rand.Int64N((length-int64(n))/readbackBytes+1) * readbackBytes, n
}

// draw decides whether what comes next is in the sample, and in whose place. What
// it overwrites is not any longer.
func (r *Readback) draw(off, length int64) (at int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if length <= 0 {
		return 0, false
	}
	r.sample = slices.DeleteFunc(r.sample, func(s stretch) bool { return s.off < off+length && off < s.off+int64(s.length) })
	at = r.seen
	if r.seen >= readbackSample {
		at = rand.IntN(r.seen + 1)
	}
	r.seen++
	return at, at < readbackSample
}

func (r *Readback) keep(at int, s stretch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at < len(r.sample) {
		r.sample[at] = s
	} else {
		r.sample = append(r.sample, s)
	}
}

// Check reads the sample from where it should be. Errors: ErrOverwritten.
func (r *Readback) Check(from io.ReaderAt) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortFunc(r.sample, func(a, b stretch) int { return cmp.Compare(a.off, b.off) })
	for _, s := range r.sample {
		p := make([]byte, s.length)
		if err := readFull(from, p, s.off); err != nil {
			return fmt.Errorf("read back %d bytes at %d: %w", s.length, s.off, err)
		}
		same := store.Sum(p) == s.sum
		if s.sum == (store.Checksum{}) {
			same = isZero(p)
		}
		if !same {
			return fmt.Errorf("%d bytes at %d: %w", s.length, s.off, ErrOverwritten)
		}
	}
	return nil
}
