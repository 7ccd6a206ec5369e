package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// marker finds what the levels of a repository reach. It reads each distinct
// map node once.
type marker struct {
	chunks *liveSet
	nodes  *liveSet
	done   map[string]bool // level keys that have been marked
	runs   map[RunID]bool  // of the levels marked
	silent map[string]bool // holds of which nothing was heard for too long: see readerGone
	nodeWalk
}

func newMarker(r *Repository, p *GCProgress) *marker {
	return &marker{
		chunks: newLiveSet(), nodes: newLiveSet(), done: map[string]bool{}, runs: map[RunID]bool{}, silent: map[string]bool{},
		nodeWalk: nodeWalk{repo: r, progress: p},
	}
}

// roots is what a repository's levels/ folder tells at one moment.
type roots struct {
	levels  []string        // keys of commit records
	removed map[string]bool // keys of commit records that are removed
}

// listRoots lists removals before it lists levels, so that whatever is removed
// in between counts as not removed.
func (r *Repository) listRoots(ctx context.Context) (roots, error) {
	return r.findRoots(ctx, func() {})
}

// findRoots is listRoots. It reads those removals beside which a record stands, and
// calls moved for each; they are few, since gcs delete the records.
func (r *Repository) findRoots(ctx context.Context, moved func()) (roots, error) {
	found := roots{removed: map[string]bool{}}
	keys, err := r.list(ctx, levelsPrefix)
	if err != nil {
		return found, err
	}
	removals := map[string]bool{}
	for _, key := range keys {
		if base, ok := strings.CutSuffix(key, ".removed"); ok {
			removals[base+".json"] = true
		}
	}
	if found.levels, err = r.recordKeys(ctx); err != nil {
		return found, err
	}
	for _, key := range found.levels {
		name, n, _, err := parseLevelKey(key)
		if err != nil || !removals[key] {
			continue
		}
		moved()
		removed, err := r.isRemoved(ctx, name, n)
		if err != nil {
			return found, err
		}
		if removed {
			found.removed[key] = true
		}
	}
	return found, nil
}

// recordKeys lists the keys of commit records.
func (r *Repository) recordKeys(ctx context.Context) (records []string, err error) {
	keys, err := r.list(ctx, levelsPrefix)
	for _, key := range keys {
		if strings.HasSuffix(key, ".json") {
			records = append(records, key)
		}
	}
	return records, err
}

// removedRecords returns the keys of records that are removed, as many as
// stand in an object of so many bytes. The others count as not removed: they
// are left to the next gc.
func (f *roots) removedRecords(size int) []string {
	list := []string{}
	for _, key := range f.levels {
		if !f.removed[key] {
			continue
		}
		if size -= len(key) + len(`"",`); size < 0 {
			break
		}
		list = append(list, key)
	}
	return list
}

func set(keys []string) map[string]bool {
	s := make(map[string]bool, len(keys))
	for _, key := range keys {
		s[key] = true
	}
	return s
}

// mark marks what levels reach that are not in excluded. A record or a node
// that cannot be read is an error: without it, nothing may be condemned.
func (m *marker) mark(ctx context.Context, levels []string, excluded map[string]bool) error {
	m.progress.Roots.Store(max(m.progress.Roots.Load(), int64(len(levels)-len(excluded))))
	for _, key := range levels {
		if m.done[key] || excluded[key] {
			continue
		}
		name, n, _, err := parseLevelKey(key)
		if err != nil {
			continue // not ours
		}
		c, err := m.repo.readCommit(ctx, name, n)
		if errors.Is(err, fs.ErrNotExist) {
			removed, err := m.repo.isRemoved(ctx, name, n)
			if err != nil {
				return err
			}
			if !removed {
				return refuse(&LostError{Levels: []LostLevel{{Name: name, Number: n}}})
			}
			continue // its record was deleted by another gc
		}
		if err != nil {
			return fmt.Errorf("nothing is collected, since a level's record cannot be read: %w", err)
		}
		if c.level != nil {
			m.runs[c.level.Run] = true
			if err := m.tree(ctx, c.level.Map()); err != nil {
				err = errors.Join(err, m.repo.asNoted(m.repo.NoteMet(ctx, c.level, err)))
				return fmt.Errorf("nothing is collected, since the map of %s level %s cannot be read: %w", name, n, err)
			}
		}
		m.done[key] = true
		m.progress.Levels.Add(1)
	}
	_, err := m.repo.NoteCopies(ctx, nil)
	return m.repo.asNoted(err)
}

// tree marks all that hangs below a map's root.
func (m *marker) tree(ctx context.Context, t Map) error {
	if t.Root.IsZero() || !m.nodes.add(t.Root) {
		return nil
	}
	return m.below(ctx, []Ref{t.Root}, t.height(), t.Fanout, func(ref Ref, height int) bool {
		if height == 0 {
			return m.chunks.add(ref)
		}
		return m.nodes.add(ref)
	})
}
