package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"
)

// Survey is what the levels of a repository reach, found by reading each
// distinct map node once, and what of it is suspected to be bad. Suspicions come
// from many goroutines at a time; Confirm tells which of them hold.
//
// A suspicion alone is no damage: while a survey is made, levels are removed,
// packs are written anew and deleted.
type Survey struct {
	repo   *Repository
	marker *marker

	// Records are those of levels that cannot be read.
	Records []ObjectError

	// Levels are those that were read.
	Levels []SurveyedLevel

	// Rescued is how many chunks are bad where they should be, and were found
	// elsewhere: in an older generation of their pack.
	Rescued int64

	mu       sync.Mutex
	places   map[place]bool
	packs    map[packName]bool // of which nothing is there
	copies   []packName        // of map packs, that are not there
	verdicts map[place]bool    // what Confirm has found out
}

// SurveyedLevel is a level that a survey has read.
type SurveyedLevel struct {
	Name      Name
	Number    LevelNumber
	Run       RunID
	Committed time.Time
}

// ObjectError tells of an object that is not what was written.
type ObjectError struct {
	Key string
	Err error
}

func (e *ObjectError) Error() string { return e.Key + ": " + e.Err.Error() }

func (e *ObjectError) Unwrap() error { return e.Err }

// Survey reads the maps of all levels. Nodes and records that cannot be read
// are suspected, and it goes on without them.
func (r *Repository) Survey(ctx context.Context, p *GCProgress) (*Survey, error) {
	if p == nil {
		p = &GCProgress{}
	}
	s := &Survey{
		repo: r, marker: newMarker(r, p),
		places: map[place]bool{}, packs: map[packName]bool{}, verdicts: map[place]bool{},
	}
	s.marker.unreadable = func(ref Ref) { s.suspect(KindMap, ref.Pack, ref.Index) }
	err := r.eachLevel(ctx, func(l *Level) error {
		s.Levels = append(s.Levels, SurveyedLevel{l.Name, l.Number, l.Run, l.Committed})
		p.Levels.Add(1)
		s.marker.runs[l.Run] = true
		return s.marker.tree(ctx, l.Map())
	}, func(bad ObjectError) { s.Records = append(s.Records, bad) })
	return s, err
}

// eachLevel calls fn for every level that is not removed, name by name, and bad
// for records that cannot be read.
func (r *Repository) eachLevel(ctx context.Context, fn func(*Level) error, bad func(ObjectError)) error {
	found, err := r.listRoots(ctx)
	if err != nil {
		return err
	}
	for _, key := range found.levels {
		name, n, _, err := parseLevelKey(key)
		if err != nil || found.removed[key] {
			continue
		}
		c, err := r.readCommit(ctx, name, n)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // removed meanwhile
		case context.Cause(ctx) != nil:
			return context.Cause(ctx)
		case err != nil:
			bad(ObjectError{Key: key, Err: err})
			continue
		case c.level == nil:
			continue
		}
		if err := fn(c.level); err != nil {
			return err
		}
	}
	return nil
}

func (s *Survey) suspect(kind Kind, id PackID, index uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.places[place{kind, id, index}] = true
}

// Suspected reports whether there is anything to confirm.
func (s *Survey) Suspected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.places)+len(s.packs) > 0
}

func (s *Survey) suspected(kind Kind, ref Ref) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.places[place{kind, ref.Pack, ref.Index}] || len(s.packs) > 0 && s.packs[packName{foldersOf(kind)[0], ref.Pack}]
}

// live is what the levels reach in packs of a kind.
func (s *Survey) live(kind Kind) *liveSet {
	if kind == KindMap {
		return s.marker.nodes
	}
	return s.marker.chunks
}

// Lost is a stretch of a level's positions whose chunks cannot be had.
type Lost struct{ First, Count int64 }

// Confirm walks the maps of the levels that are there now, tries again what is
// suspected, and calls fn for each level of which something is bad. All that is
// bad has been noted for the next backup to mend.
func (s *Survey) Confirm(ctx context.Context, fn func(l *Level, lost []Lost) error) error {
	w := &confirmation{survey: s, clean: newLiveSet()}
	return s.repo.eachLevel(ctx, func(l *Level) error {
		if l.Root.IsZero() {
			return nil
		}
		w.level, w.lost = l, nil
		if _, err := w.node(ctx, l.Root, l.Map().height(), 0); err != nil {
			if errors.Is(err, ErrRemoved) {
				return nil
			}
			return fmt.Errorf("%s level %s: %w", l.Name, l.Number, err)
		}
		if len(w.lost) == 0 {
			return nil
		}
		if err := s.repo.CheckRemoved(ctx, l); err != nil {
			return skipRemoved(err)
		}
		return fn(l, w.lost)
	}, func(ObjectError) {})
}

func skipRemoved(err error) error {
	if errors.Is(err, ErrRemoved) {
		return nil
	}
	return err
}

// confirmation is a walk that finds the levels of what is bad.
type confirmation struct {
	survey *Survey
	clean  *liveSet // nodes below which nothing is bad
	level  *Level
	lost   []Lost
}

func (w *confirmation) lose(first, count int64) {
	count = min(count, w.level.Chunks()-first)
	if n := len(w.lost); n > 0 && w.lost[n-1].First+w.lost[n-1].Count == first {
		w.lost[n-1].Count += count
		return
	}
	w.lost = append(w.lost, Lost{first, count})
}

// node walks below a node and reports whether all is well there.
func (w *confirmation) node(ctx context.Context, ref Ref, height int, first int64) (clean bool, err error) {
	if w.clean.has(ref.Pack, ref.Index) {
		return true, nil
	}
	repo := w.survey.repo
	n, err := repo.node(ctx, ref, height, w.level.Fanout)
	var bad *ChunkError
	if errors.As(err, &bad) && context.Cause(ctx) == nil {
		if err := w.note(ctx, bad); err != nil {
			return false, err
		}
		w.lose(first, spanOf(height, w.level.Fanout))
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if height > 1 {
		if err := w.ahead(ctx, n); err != nil {
			return false, err
		}
	}
	clean = true
	span := spanOf(height-1, w.level.Fanout)
	for i := range n.refs {
		if n.refs[i].IsZero() {
			continue
		}
		at, ok := first+int64(i)*span, true
		if height > 1 {
			ok, err = w.node(ctx, n.refs[i], height-1, at)
		} else if ok, err = w.chunk(ctx, n.refs[i]); !ok && err == nil {
			w.lose(at, 1)
		}
		if err != nil {
			return false, err
		}
		clean = clean && ok
	}
	if clean {
		w.clean.add(ref)
	}
	return clean, nil
}

// ahead reads the children of a node at once.
func (w *confirmation) ahead(ctx context.Context, n *node) error {
	wanted := slices.DeleteFunc(slices.Clone(n.refs), func(ref Ref) bool {
		return ref.IsZero() || w.clean.has(ref.Pack, ref.Index) || w.survey.repo.nodes.get(ref.Sum, n.height-1, w.level.Fanout) != nil
	})
	return w.survey.repo.fetchNodes(ctx, wanted, n.height-1, w.level.Fanout, func(int, *node, error) {})
}

// chunk tries again a chunk that is suspected.
func (w *confirmation) chunk(ctx context.Context, ref Ref) (ok bool, err error) {
	s := w.survey
	if !s.suspected(KindData, ref) {
		return true, nil
	}
	at := place{KindData, ref.Pack, ref.Index}
	if bad, known := s.verdicts[at]; known {
		return !bad, nil
	}
	var bad *ChunkError
	err = s.repo.Fetch(ctx, KindData, []Ref{ref}, func(_ int, _ []byte, err error) error {
		errors.As(err, &bad)
		return nil
	})
	if err != nil {
		return false, err
	}
	if bad != nil {
		if err := w.note(ctx, bad); err != nil {
			return false, err
		}
	}
	s.verdicts[at] = bad != nil
	if bad != nil || !s.places[at] || s.repo.readOnly != nil {
		return bad == nil, nil
	}
	s.Rescued++
	o := PackObject{ID: ref.Pack, Generation: s.repo.generation(dataPrefix, ref.Pack)}
	return true, s.repo.noteTable(ctx, &o, errBadPack)
}

// note writes down what is bad, unless it is gone because the level is.
func (w *confirmation) note(ctx context.Context, bad *ChunkError) error {
	if err := w.survey.repo.CheckRemoved(ctx, w.level); err != nil {
		return err
	}
	if w.survey.repo.readOnly != nil {
		return nil
	}
	return w.survey.repo.NoteDamage(ctx, w.level, bad)
}
