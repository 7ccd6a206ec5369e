package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"
)

// leaseTime is how long a reader of another host is believed to live without
// a word. Nobody waits for readers, and one that is wrong about it ends with
// an error; so a clock may decide.
const leaseTime = 24 * time.Hour

// defaultHoldBeat is how often a reader renews its hold and looks whether it,
// or else its level, is still there.
const defaultHoldBeat = time.Minute

// lease is a reader's hold: it keeps a level's chunks from being collected
// while it is read. Each renewal is a new object with a new time, so that a gc
// that knows of no renewals honours them all the same.
type lease struct {
	Run     RunID       `json:"run"` // of the reader
	Process process     `json:"process"`
	Started time.Time   `json:"started"` // or renewed
	Name    Name        `json:"name"`
	Number  LevelNumber `json:"number"`
	Root    Ref         `json:"root,omitzero"`
	Chunks  int64       `json:"chunks"`
	Fanout  int         `json:"fanout"`
	Beat    float64     `json:"beat_seconds,omitempty"` // how often it is renewed; 0: it never is
}

func (l *lease) Validate() error {
	if l.Run == 0 || l.Chunks < 0 || l.Chunks > 1<<50 || !validFanout(l.Fanout) {
		return fmt.Errorf("lease of run %s: %d chunks, fan-out %d", l.Run, l.Chunks, l.Fanout)
	}
	return nil
}

func leasePrefix() string { return workPrefix + "lease." }

func leaseKey(run RunID) string { return leasePrefix() + run.String() }

// renewalKey is the key of a hold's n-th renewal; 0 is the hold itself.
func renewalKey(run RunID, n int) string {
	if n == 0 {
		return leaseKey(run)
	}
	return leaseKey(run) + "." + strconv.Itoa(n)
}

// HoldOptions are the choices of a hold. The zero value works.
type HoldOptions struct {
	Beat  time.Duration // how often it is renewed and looked at; 0: a minute
	Moved func() int64  // how far the reader has come; a hold is renewed only where that changed. nil: it always did

	// Warn is told, once each, that no hold can be left and that it cannot be
	// renewed; may be nil.
	Warn func(format string, args ...any)
}

// ErrRemoved tells that a level was removed while it was read.
var ErrRemoved = errors.New("the level was removed while it was being read")

// Hold announces that a level is being read, and keeps saying so until release
// is called. While it stands, nothing of the level is collected even if that is
// removed. Where none can be left, as on a read-only mount, or where it was
// lost, the removal of the level ends the context that is returned, with
// ErrRemoved: what is read afterwards may be gone.
func (r *Repository) Hold(ctx context.Context, l *Level, o HoldOptions) (_ context.Context, release func()) {
	if o.Beat == 0 {
		o.Beat = defaultHoldBeat
	}
	if o.Warn == nil {
		o.Warn = func(string, ...any) {}
	}
	now := r.clock()
	h := &hold{repo: r, level: l, o: o, body: lease{
		Run: r.newRun(now), Process: r.self, Name: l.Name, Number: l.Number,
		Root: l.Root, Chunks: l.Chunks(), Fanout: l.Fanout, Beat: o.Beat.Seconds(),
	}}
	running.Store(h.body.Run, struct{}{})
	if err := h.put(ctx); err != nil && context.Cause(ctx) == nil {
		h.warned = true
		o.Warn("no note can be left in the repository that %s level %s is being read (%v): if it is removed meanwhile, this ends with an error", l.Name, l.Number, err)
	}
	held, stop := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.keep(held, stop)
	}()
	return held, func() {
		stop(context.Canceled)
		<-done
		running.Delete(h.body.Run)
		if h.stands {
			_ = r.backend.Delete(context.WithoutCancel(ctx), h.key())
		}
	}
}

// hold is a reader's hold, as its reader knows it.
type hold struct {
	repo  *Repository
	level *Level
	o     HoldOptions
	body  lease

	stands bool // its newest object is there, as far as is known
	n      int  // of that object
	tried  int  // the number that the next one gets: none is used twice
	warned bool // that it cannot be renewed
}

func (h *hold) key() string { return renewalKey(h.body.Run, h.n) }

// put puts the next object of the hold, and takes the one before away.
func (h *hold) put(ctx context.Context) error {
	if h.repo.readOnly != nil {
		return h.repo.readOnly
	}
	next := h.tried
	h.tried++
	h.body.Started = h.repo.clock().UTC()
	if err := h.repo.putObject(ctx, renewalKey(h.body.Run, next), "lease", &h.body); err != nil {
		return err
	}
	if h.stands {
		// What stays is deleted by a gc, as soon as this process is gone.
		_ = h.repo.backend.Delete(ctx, h.key())
	}
	h.stands, h.n = true, next
	return nil
}

// keep looks after the hold until ctx ends, and ends it itself where the level
// has been removed and nothing holds it.
func (h *hold) keep(ctx context.Context, stop context.CancelCauseFunc) {
	tick := time.NewTicker(h.o.Beat)
	defer tick.Stop()
	moved := h.o.moved()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if ctx.Err() != nil {
			return
		}
		if err := h.look(ctx); err != nil {
			stop(err)
			return
		}
		if now := h.o.moved(); h.stands && (now != moved || h.o.Moved == nil) {
			moved = now
			h.renew(ctx)
		}
	}
}

func (o HoldOptions) moved() int64 {
	if o.Moved == nil {
		return 0
	}
	return o.Moved()
}

// renew puts the hold again. Where that fails, what stands still counts.
func (h *hold) renew(ctx context.Context) {
	if err := h.put(ctx); err != nil && context.Cause(ctx) == nil && !h.warned {
		h.warned = true
		h.o.Warn("the note in the repository that %s level %s is being read cannot be renewed: %v", h.level.Name, h.level.Number, err)
	}
}

// look makes sure of the hold, or else of the level: it fails with ErrRemoved
// where the level is removed and nothing held it. What cannot be found out is
// asked again the next time.
func (h *hold) look(ctx context.Context) error {
	if h.stands {
		there, err := h.repo.stands(ctx, h.key())
		if err != nil || there {
			return nil // while it stands, no gc has gone on without it
		}
		h.stands = false
	}
	h.renew(ctx)
	// After that: a removal that comes later meets the hold.
	if err := h.repo.CheckRemoved(ctx, h.level); errors.Is(err, ErrRemoved) {
		return err
	}
	return nil
}

// leases marks what readers hold, and deletes the holds of those that are gone.
//
// A hold that is renewed counts for a gc that finds it, whatever the clocks say:
// if by them its reader has been silent for too long, and no renewal came while
// this gc was looking, it is deleted for the next one. A reader that lives finds
// out and puts it again.
func (m *marker) leases(ctx context.Context, tidy bool) error {
	keys, err := m.repo.list(ctx, leasePrefix())
	if err != nil {
		return err
	}
	for _, key := range keys {
		var l lease
		err := m.repo.getObject(ctx, key, "lease", &l)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil && !errors.Is(err, errBadObject) {
			return err
		}
		if err != nil || m.readerGone(key, &l) {
			if !tidy {
				continue
			}
			if err := m.repo.backend.Delete(ctx, key); err != nil {
				return err
			}
			continue
		}
		var bad *ChunkError
		if err := m.tree(ctx, Map{Root: l.Root, Chunks: l.Chunks, Fanout: l.Fanout}); err != nil && !errors.As(err, &bad) {
			return err
		}
	}
	return nil
}

// readerGone reports whether the reader that left a hold is taken for gone.
func (m *marker) readerGone(key string, l *lease) bool {
	if l.Process.sameHost(m.repo.self) {
		return !l.Process.runs(l.Run, m.repo.self)
	}
	if m.repo.clock().Sub(l.Started) <= leaseTime {
		return false
	}
	seen := m.silent[key]
	m.silent[key] = true
	return l.Beat == 0 || seen
}
