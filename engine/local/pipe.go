package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"backy/engine"
	"backy/store"

	"golang.org/x/sys/unix"
)

// PipeOptions are the choices of a source that is read from front to back. The
// zero value works.
type PipeOptions struct {
	// Size is what the input has to give, in bytes, neither more nor less. It
	// counts where HasSize is set; else the size is what arrives.
	Size    int64
	HasSize bool

	// Stderr takes what a command writes to its standard error; nil drops it.
	Stderr io.Writer
}

// Pipe is a source that is read once from front to back: a standard input, a
// FIFO, or the output of a command.
type Pipe struct {
	name string // for errors
	o    PipeOptions
	open func(ctx context.Context) (*feed, error)

	feed   *feed
	stream *stream
	warn   engine.Warn
}

var _ engine.Source = (*Pipe)(nil)

// feed is an input that is being read.
type feed struct {
	r io.Reader
	// ended is asked at the input's end: nil if it ended as it should.
	ended func() error
	// stop lets go of it, whether or not it has ended. It may be called once.
	stop func() error
}

// NewPipe makes a source of a reader, which stays the caller's. If it is an
// *os.File, a cancelled run does not wait for it.
func NewPipe(r io.Reader, o PipeOptions) *Pipe {
	return &Pipe{name: "the input", o: o, open: func(ctx context.Context) (*feed, error) {
		if f, ok := r.(*os.File); ok {
			r = &interruptible{ctx: ctx, f: f}
		}
		return &feed{r: r}, nil
	}}
}

// newFIFO makes a source of a FIFO. It waits for a writer while it reads, not
// while it opens, so that it can be interrupted.
func newFIFO(path string, o PipeOptions) *Pipe {
	return &Pipe{name: path, o: o, open: func(ctx context.Context) (*feed, error) {
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, fmt.Errorf("open the source: %w", err)
		}
		return &feed{r: &interruptible{ctx: ctx, f: f, fifo: true}, stop: f.Close}, nil
	}}
}

// NewCommand makes a source of what a command prints. It is run by sh, in a
// process group of its own and with no input. Its failure is the stream's: where
// it exits with a status other than 0, or by a signal, the stream ends with an
// error. What runs of it when the source ends is killed.
func NewCommand(command string, o PipeOptions) *Pipe {
	return &Pipe{name: "the command's output", o: o, open: func(ctx context.Context) (*feed, error) {
		return startCommand(ctx, command, o.Stderr)
	}}
}

// Begin starts to read. ctx ends the stream.
func (p *Pipe) Begin(ctx context.Context, run engine.Run) (*engine.State, error) {
	f, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	p.feed, p.warn = f, run.Warn
	p.stream = &stream{name: p.name, r: f.r, ended: f.ended, size: p.o.Size, bounded: p.o.HasSize}
	state := &engine.State{
		View:   engine.View{Size: -1},
		Stream: p.stream,
		Base:   newest(run),
		Origin: store.Origin{Kind: string(kindPipe), Time: time.Now(), Diff: store.DiffNone},
	}
	if p.o.HasSize {
		state.Expected = p.o.Size
	}
	return state, nil
}

// Recheck fails unless the stream was read to an end as it should be.
func (p *Pipe) Recheck(context.Context) error {
	if p.stream.err != io.EOF {
		return fmt.Errorf("%s was not read to its end, after %d bytes", p.name, p.stream.read)
	}
	if p.stream.read == 0 && !p.o.HasSize {
		p.warn("%s was empty, and so is the level: did what feeds it fail?", p.name)
	}
	return nil
}

// End lets go of the input, and kills a command that still runs.
func (p *Pipe) End(context.Context, engine.Outcome) error {
	if p.feed.stop == nil {
		return nil
	}
	return p.feed.stop()
}

// stream holds an input to its promises. Its errors last, and none but a good
// end matches io.EOF or io.ErrUnexpectedEOF, which io.ReadFull uses for ends too.
type stream struct {
	name    string
	r       io.Reader
	ended   func() error
	size    int64 // promised, where bounded
	bounded bool

	read int64
	err  error
}

func (s *stream) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	left := s.size - s.read
	if s.bounded && left == 0 {
		return 0, s.probe()
	}
	if s.bounded && int64(len(p)) > left {
		p = p[:left]
	}
	n, err := s.r.Read(p)
	s.read += int64(n)
	if err != nil {
		s.err = s.verdict(err)
		return n, s.err
	}
	return n, nil
}

// probe looks whether the input ends where it was said to.
func (s *stream) probe() error {
	var one [1]byte
	n, err := io.ReadFull(s.r, one[:])
	if n > 0 {
		s.err = fmt.Errorf("%s goes on beyond the %d bytes that it was said to have", s.name, s.size)
	} else {
		s.err = s.verdict(err)
	}
	return s.err
}

// verdict says what the reader's error means: io.EOF for a good end.
func (s *stream) verdict(err error) error {
	switch {
	case err == io.EOF:
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s broke off after %d bytes: %v", s.name, s.read, err)
	default:
		return fmt.Errorf("read %s at %d: %w", s.name, s.read, err)
	}
	if s.ended != nil {
		if err := s.ended(); err != nil {
			return err
		}
	}
	if s.bounded && s.read < s.size {
		return fmt.Errorf("%s ended after %d of %d bytes", s.name, s.read, s.size)
	}
	return io.EOF
}
