package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"backy/engine"
	"backy/hints"
	"backy/store"
	"backy/store/pending"
)

// SourceOptions are the choices of a source. The zero value works.
type SourceOptions struct {
	// Hints tell what may differ from the base: against it, what they leave
	// out is unchanged; without a base it reads as zeros. They may be
	// unsorted and overlap. They count where HasHints is set, since no
	// extents at all are a hint too.
	Hints    []hints.Extent
	HasHints bool

	// Pipe is for a path that turns out to be a FIFO.
	Pipe PipeOptions
}

// ErrHintsForPipe tells that hints were given for a source that can only be
// read from front to back.
var ErrHintsForPipe = errors.New("hints need a file or a block device, not a pipe")

// Source is a file, a block device or a FIFO, by its path.
type Source struct {
	path string
	o    SourceOptions

	in   *input
	warn engine.Warn
	pipe *Pipe // where the path is a FIFO
}

var _ engine.Source = (*Source)(nil)

// NewSource makes a source of what the path names. It is opened by Begin.
func NewSource(path string, o SourceOptions) *Source { return &Source{path: path, o: o} }

// Begin opens the source. The error is a *hints.BoundsError where hints lie
// outside of it, ErrHintsForPipe where they make no sense, and ErrSize.
func (s *Source) Begin(ctx context.Context, run engine.Run) (*engine.State, error) {
	info, err := os.Stat(s.path)
	if err != nil {
		return nil, fmt.Errorf("open the source: %w", err)
	}
	if k, err := kindOf(s.path, info); err == nil && k == kindPipe {
		return s.beginPipe(ctx, run)
	}
	in, err := openInput(s.path)
	if err != nil {
		return nil, fmt.Errorf("open the source: %w", err)
	}
	state, err := s.plan(in, run)
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	s.in, s.warn = in, run.Warn
	return state, nil
}

func (s *Source) beginPipe(ctx context.Context, run engine.Run) (*engine.State, error) {
	if s.o.HasHints {
		return nil, fmt.Errorf("%s: %w", s.path, ErrHintsForPipe)
	}
	pipe := newFIFO(s.path, s.o.Pipe)
	state, err := pipe.Begin(ctx, run)
	if err != nil {
		return nil, err
	}
	s.pipe = pipe
	state.Origin.Source = s.path
	return state, nil
}

// plan says what is to be read of the input.
func (s *Source) plan(in *input, run engine.Run) (*engine.State, error) {
	state := &engine.State{
		View:     in.view(),
		Outside:  engine.Hole, // where the view has extents
		Base:     newest(run),
		Expected: in.allocated(),
		Origin: store.Origin{
			Kind: string(in.kind), Source: s.path, Time: time.Now(), Diff: store.DiffNone,
		},
	}
	if in.tellsHoles() {
		state.Origin.Diff = store.DiffAllocated
	}
	if !s.o.HasHints {
		return state, nil
	}
	if err := hints.Check(s.o.Hints, in.size); err != nil {
		return nil, fmt.Errorf("the hints do not fit %s: %w", s.path, err)
	}
	extents := hints.Normalize(s.o.Hints)
	switch {
	case state.Base == nil:
		planFirst(state, in, extents)
	case state.Base.Number <= run.Distrust:
		run.Warn("the hints for %s are passed over: a deep scrub found the source to differ from level %s or one before it, so that everything is compared", s.path, state.Base.Number)
	default:
		if run.Unfinished {
			run.Warn("the last backup of %s did not finish: if the hints for %s begin at its snapshot and not at level %s, changes between the two are missed", run.Name, s.path, state.Base.Number)
		}
		planIncrement(state, in, extents)
	}
	return state, nil
}

func newest(run engine.Run) *store.Level {
	if len(run.Levels) == 0 {
		return nil
	}
	return &run.Levels[0]
}

// planFirst trusts hints for a first level: what they leave out, or call a hole,
// has to read as zeros. A file is asked about it, of a device a sample is read.
func planFirst(state *engine.State, in *input, extents []hints.Extent) {
	data := only(extents, true)
	state.Origin.Diff = store.DiffHints
	state.Extents = hints.Of(data)
	state.Expected = total(data)
	if in.kind == kindFile {
		state.Doubt = hints.Subtract(in.data(0), hints.Of(data))
		return
	}
	state.Sample, state.SampleMin = 0.01, 256
}

// planIncrement trusts hints against the base, but for two things of which they
// may know nothing: what lies behind the base's end, and what they call a
// hole. There a file is asked, a device is read.
func planIncrement(state *engine.State, in *input, extents []hints.Extent) {
	holes := only(extents, false)
	if base := state.Base; base.Size < in.size {
		tail := hints.Extent{Offset: base.Size, Length: in.size - base.Size}
		holes = hints.Normalize(append(holes, tail))
	}
	named := hints.Normalize(append(only(extents, true), holes...))
	state.Origin.Diff = store.DiffHints
	state.Outside = engine.Unchanged
	state.Expected = total(only(named, true))
	if in.kind == kindFile {
		// The file's data, less what is no hole, is the data in holes.
		kept := hints.Complement(hints.Of(holes), in.size)
		state.Extents = hints.Union(hints.Of(named), hints.Subtract(in.data(0), kept))
		return
	}
	for i := range named {
		named[i].Exists = true
	}
	state.Extents = hints.Of(hints.Normalize(named))
	state.Expected = total(named)
}

// only picks the extents that are data, or those that are holes.
func only(extents []hints.Extent, exists bool) (picked []hints.Extent) {
	for _, e := range extents {
		if e.Exists == exists {
			picked = append(picked, e)
		}
	}
	return picked
}

func total(extents []hints.Extent) (sum int64) {
	for _, e := range extents {
		sum += e.Length
	}
	return sum
}

// Recheck fails where the path now leads elsewhere or the size has changed: what
// was read is then no image of anything. It warns of a file that was written
// to meanwhile.
func (s *Source) Recheck(ctx context.Context) error {
	if s.pipe != nil {
		return s.pipe.Recheck(ctx)
	}
	look := pending.Begin("look at", "", s.path)
	now, err := os.Stat(s.path)
	look.End()
	if err != nil {
		return fmt.Errorf("look at the source again: %w", err)
	}
	if !s.same(now) {
		return fmt.Errorf("%s was replaced by another %s during the backup: start again", s.path, s.in.kind)
	}
	// Another host's changes may only be seen by opening the file again, or in what
	// comes after its end.
	again, err := openInput(s.path)
	if err != nil && !errors.Is(err, ErrSize) {
		return fmt.Errorf("look at the source again: %w", err)
	}
	if err != nil {
		return fmt.Errorf("it was written to during the backup, start again: %w", err)
	}
	if err := again.Close(); err != nil {
		return err
	}
	if again.size != s.in.size {
		return fmt.Errorf("%s was %d bytes long and now is %d: it was resized during the backup, start again", s.path, s.in.size, again.size)
	}
	if s.in.kind == kindFile && !again.info.ModTime().Equal(s.in.info.ModTime()) {
		s.warn("%s was written to during the backup: the level holds some of it as it was before, some as it was after", s.path)
	}
	return nil
}

// same compares with what was opened. The node of a device may be made anew; the
// device that it names counts.
func (s *Source) same(now os.FileInfo) bool {
	was, okWas := s.in.info.Sys().(*syscall.Stat_t)
	is, okIs := now.Sys().(*syscall.Stat_t)
	if s.in.kind == kindDevice && okWas && okIs {
		return now.Mode().Type() == s.in.info.Mode().Type() && was.Rdev == is.Rdev
	}
	return os.SameFile(s.in.info, now)
}

// End closes the source.
func (s *Source) End(ctx context.Context, outcome engine.Outcome) error {
	if s.pipe != nil {
		return s.pipe.End(ctx, outcome)
	}
	return s.in.Close()
}
