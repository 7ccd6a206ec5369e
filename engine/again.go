package engine

import (
	"context"
	"errors"
	"fmt"

	"backy/store"
)

// ErrChanged tells that the source changed while it was being read.
var ErrChanged = errors.New("the source changed while it was being read")

// again reads all of the source a second time, opened afresh, and compares it
// with what the map names. Error: ErrChanged.
func (b *backup) again(ctx context.Context, root store.Ref) error {
	if err := b.w.FlushMap(); err != nil {
		return err
	}
	reader, err := b.state.Again(ctx)
	if err != nil {
		return err
	}
	second := &State{View: View{Reader: reader, Size: b.size}}
	govern(ctx, second, b.o.Rate, b.o.Budget)
	b.o.Progress.Total.Add(b.size)
	m := store.Map{Root: root, Chunks: b.chunks(), Fanout: b.repo.Fanout()}
	return pipeline(ctx, workers(b.o.Readers),
		func(ctx context.Context, emit func(*unit) error) error {
			look, perUnit := refsOf(b.repo, m), int64(unitBytes)/b.repo.ChunkSize
			for pos := int64(0); pos < m.Chunks; pos += perUnit {
				u := &unit{first: pos, count: min(perUnit, m.Chunks-pos)}
				var err error
				if u.base, err = look(ctx, u.first, u.count); err != nil {
					return err
				}
				if err := emit(u); err != nil {
					return err
				}
			}
			return nil
		},
		func(_ context.Context, u *unit) error { return b.compare(second, u) },
		func(_ context.Context, u *unit) error {
			b.o.Progress.Done.Add(u.length)
			return nil
		})
}

// compare reads a unit and holds it against the references in u.base.
func (b *backup) compare(s *State, u *unit) error {
	off := u.first * b.repo.ChunkSize
	u.length = min(u.count*b.repo.ChunkSize, b.size-off)
	data := getBuffer(int(u.length))
	if err := readFull(s.Reader, data, off); err != nil {
		return fmt.Errorf("read %d bytes at %d again: %w", u.length, off, err)
	}
	defer putBuffer(data)
	b.w.Moved()
	b.o.Progress.Read.Add(u.length)
	b.sampled.Add(u.length)
	for i, ref := range u.base {
		at := int64(i) * b.repo.ChunkSize
		p := data[at:min(at+b.repo.ChunkSize, u.length)]
		if isZero(p) != ref.IsZero() || !ref.IsZero() && store.Sum(p) != ref.Sum {
			return fmt.Errorf("%w, at byte %d: there is no level", ErrChanged, off+at)
		}
	}
	return nil
}
