package rbd

import (
	"context"
	"fmt"

	"backy/engine"
	"backy/hints"
	"backy/store"
)

// Diff is how a source finds out what changed.
type Diff string

// The ways to find out what changed.
const (
	DiffAuto  Diff = "auto"  // fast where it can be trusted, else exact
	DiffFast  Diff = "fast"  // refused where it cannot be trusted
	DiffExact Diff = "exact" // every object is asked for
	DiffNone  Diff = "none"  // everything is read and compared by checksum
)

// ParseDiff reads one of the words; "" is DiffAuto.
func ParseDiff(s string) (Diff, error) {
	switch d := Diff(s); d {
	case "":
		return DiffAuto, nil
	case DiffAuto, DiffFast, DiffExact, DiffNone:
		return d, nil
	}
	return "", fmt.Errorf("diff %q: want auto, fast, exact or none", s)
}

// SourceOptions are the choices of a source. The zero value works.
type SourceOptions struct {
	Diff     Diff     // "": DiffAuto
	Snapping Snapping // around the making of the snapshot; may be nil

	// Adopt takes a backup name that is another image's: see ErrOthersName.
	Adopt bool
}

// Source backs up an image: by a snapshot of its own, or by the one that its
// spec names. It implements engine.Source.
type Source struct {
	conn    *Conn
	spec    Spec
	options SourceOptions

	run    engine.Run
	id     store.ImageID
	handle string     // the id to open it by; "" where that goes by name only
	own    bool       // backy makes the snapshot
	tried  bool       // it has begun to
	made   bool       // and has: not one that had waited
	at     *image     // opened at the snapshot
	to     snapshot   // what is backed up
	from   snapshot   // what is diffed from; no id where nothing is
	list   []snapshot // all of the image's, when the backed up one was there
	layout store.RBDLayout

	unsettled bool // in a live migration, or a clone of one that is
	checked   bool // that to was not made during one
	said      bool // that for this no snapshot is removed

	judge func(context.Context, []OwnSnapshot) error // what the repository knows: see Judge; may be nil

	metadata    map[string]string // of the image
	metadataErr error             // why it cannot be read
}

// Source makes a source of an image. Nothing is asked of the cluster yet.
func (c *Conn) Source(spec Spec, o SourceOptions) *Source {
	if o.Diff == "" {
		o.Diff = DiffAuto
	}
	return &Source{conn: c, spec: spec, options: o, own: spec.Snap == ""}
}

// Begin makes the snapshot, where the spec names none, and says what differs
// from the newest level whose snapshot is still there. ctx ends the reads, too.
//
// Errors: ErrNoPool, ErrNoNamespace, ErrNoImage, ErrNoSnapshot; ErrOthersName;
// ErrNotPrimary, ErrPermission; ErrFastDiff where DiffFast was asked for and cannot be
// trusted; ErrMigrating where a diff was asked for; ErrTimeout.
func (s *Source) Begin(ctx context.Context, run engine.Run) (*engine.State, error) {
	s.run = run
	if run.Repo != nil {
		s.judge = func(ctx context.Context, list []OwnSnapshot) error { return Judge(ctx, run.Repo, list) }
	}
	state, err := s.begin(ctx)
	if err != nil {
		late, cancel := lasting(ctx)
		defer cancel()
		s.undo(late)
		return nil, err
	}
	return state, nil
}

func (s *Source) begin(ctx context.Context) (*engine.State, error) {
	if err := s.survey(ctx); err != nil {
		return nil, err
	}
	if err := s.checkDiff(); err != nil {
		return nil, err
	}
	note, err := s.conn.admit(ctx, claimant{s.spec, s.id, s.run.Name, s.options.Adopt}, s.newest())
	if err != nil {
		return nil, err
	}
	if note != "" {
		s.run.Warn("%s", note)
	}
	if err := s.fix(ctx); err != nil {
		return nil, err
	}
	origin, err := s.origin(ctx)
	if err != nil {
		return nil, err
	}
	reader, err := s.reader(ctx, s.at)
	if err != nil {
		return nil, err
	}
	state := &engine.State{
		View:   engine.View{Reader: reader, Size: s.to.size},
		Origin: origin,
	}
	s.checked = s.proven()
	level, from := choose(s.id, s.list, s.to, s.run.Levels, s.run.Distrust)
	switch {
	case s.unsettled:
		s.run.Warn("%s is in a live migration, or a clone of an image that is: what changed is not known; everything is read, twice, and compared", s.spec.at(""))
		state.Again = s.again
		fallthrough
	case s.options.Diff == DiffNone:
		state.Base, state.Origin.Diff, state.Expected = s.newest(), store.DiffNone, s.to.size
	case level != nil:
		s.from, state.Base, state.Outside = from, level, engine.Unchanged
		err = s.diffFrom(ctx, state)
	default:
		state.Base, state.Outside = s.newest(), engine.Hole
		err = s.allocated(ctx, state)
	}
	return state, err
}

// reader reads the snapshot, within the image's QoS.
func (s *Source) reader(ctx context.Context, at *image) (*reader, error) {
	qos, err := at.throttle(ctx, false, s.metadata, func(format string, args ...any) {
		s.run.Warn("%s is %s", s.spec.at(""), fmt.Sprintf(format, args...))
	})
	return &reader{ctx, at, s.to.size, qos}, err
}

// newest is the level to compare with by checksum.
func (s *Source) newest() *store.Level {
	if len(s.run.Levels) == 0 {
		return nil
	}
	return &s.run.Levels[0]
}

// diffFrom sets the extents that changed since the base's snapshot.
func (s *Source) diffFrom(ctx context.Context, state *engine.State) error {
	state.Origin.Diff = store.DiffExact
	if s.from.id == s.to.id {
		state.Extents = hints.Of(nil)
		return nil
	}
	fast, err := s.stream(ctx, state)
	if fast {
		state.Origin.Diff = store.DiffFast
	}
	return err
}

// allocated sets the extents that the image has at all.
func (s *Source) allocated(ctx context.Context, state *engine.State) error {
	state.Origin.Diff = store.DiffAllocated
	_, err := s.stream(ctx, state)
	return err
}

func (s *Source) stream(ctx context.Context, state *engine.State) (fast bool, err error) {
	span := newSpan(s.handle, s.layout, s.list, s.from, s.to)
	span.doubtful = !s.checked
	set, fast, err := s.at.candidates(ctx, span, s.options.Diff, s.run.Warn)
	if err != nil {
		return false, err
	}
	state.Extents = s.at.changes(ctx, s.from.name, set, s.Recheck)
	state.Expect = func(enough context.Context) (int64, error) {
		return s.at.estimate(ctx, enough, s.from.name, set)
	}
	return fast, nil
}

// Recheck looks up afresh the image, the snapshot that was read and the one that
// was diffed from. Error: ErrSnapshotGone.
func (s *Source) Recheck(ctx context.Context) error {
	want := []snapshot{s.to}
	if s.from.id != 0 {
		want = append(want, s.from)
	}
	s.checked = s.proven()
	return s.conn.verify(ctx, s.spec, s.id.Image, s.handle, s.unsettled, want...)
}

// End closes the snapshot. After a commit it removes the snapshots of ours that
// are over, after a failure the one it made. A snapshot that cannot be removed
// is a warning: the next run tries again.
func (s *Source) End(ctx context.Context, outcome engine.Outcome) error {
	err := s.closeSnapshot()
	switch outcome {
	case engine.Failed:
		s.undo(ctx)
	case engine.Committed:
		s.tidy(ctx)
	}
	return err
}

func (s *Source) closeSnapshot() error {
	if s.at == nil {
		return nil
	}
	err := s.at.close()
	s.at = nil
	return err
}
