package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// leaseTime is how long a reader of another host is believed to live without
// a word. Nobody waits for readers, and one that is wrong about it ends with
// an error; so a clock may decide.
const leaseTime = 24 * time.Hour

// lease keeps a level's chunks from being collected while it is read.
type lease struct {
	Run     RunID       `json:"run"` // of the reader
	Process process     `json:"process"`
	Started time.Time   `json:"started"`
	Name    Name        `json:"name"`
	Number  LevelNumber `json:"number"`
	Root    Ref         `json:"root,omitzero"`
	Chunks  int64       `json:"chunks"`
	Fanout  int         `json:"fanout"`
}

func (l *lease) Validate() error {
	if l.Run == 0 || l.Chunks < 0 || l.Chunks > 1<<50 || !validFanout(l.Fanout) {
		return fmt.Errorf("lease of run %s: %d chunks, fan-out %d", l.Run, l.Chunks, l.Fanout)
	}
	return nil
}

func leaseKey(run RunID) string { return workPrefix + "lease." + run.String() }

// Lease announces that a level is being read; release ends that. On a
// repository that cannot be written to it does nothing, since nothing is
// collected there either.
func (r *Repository) Lease(ctx context.Context, l *Level) (release func()) {
	now := r.clock()
	e := lease{
		Run: r.newRun(now), Process: r.self, Started: now.UTC(), Name: l.Name, Number: l.Number,
		Root: l.Root, Chunks: l.Chunks(), Fanout: l.Fanout,
	}
	if r.readOnly != nil || r.putObject(ctx, leaseKey(e.Run), "lease", &e) != nil {
		return func() {}
	}
	running.Store(e.Run, struct{}{})
	return func() {
		running.Delete(e.Run)
		_ = r.backend.Delete(context.WithoutCancel(ctx), leaseKey(e.Run))
	}
}

// ErrRemoved tells that a level was removed while it was read.
var ErrRemoved = errors.New("the level was removed while it was being read")

// CheckRemoved fails with ErrRemoved once a level has been removed.
func (r *Repository) CheckRemoved(ctx context.Context, l *Level) error {
	keys, err := r.list(ctx, removedKey(l.Name, l.Number))
	if err == nil && len(keys) > 0 {
		err = fmt.Errorf("%s level %s: %w", l.Name, l.Number, ErrRemoved)
	}
	return err
}

// leases marks what readers hold, and deletes the leases of those that are
// gone.
func (m *marker) leases(ctx context.Context) error {
	keys, err := m.repo.list(ctx, workPrefix+"lease.")
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
		gone := err != nil || m.repo.clock().Sub(l.Started) > leaseTime
		if err == nil && l.Process.sameHost(m.repo.self) {
			gone = !l.Process.runs(l.Run, m.repo.self)
		}
		if gone {
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
