package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
)

// LostLevel is a level that was committed, or a number that was used, of which
// nothing stands below levels/ any more.
type LostLevel struct {
	Name   Name        `json:"name"`
	Number LevelNumber `json:"number"`
	Run    RunID       `json:"run,omitempty"` // 0 if no copy of the record is known

	// Taken tells that another run has the number now: of a newest level that was
	// lost, the next backup takes it.
	Taken bool `json:"taken,omitempty"`

	// Damaged tells that the record is there, and not what was written.
	Damaged bool `json:"damaged,omitempty"`
}

func (l LostLevel) String() string { return fmt.Sprintf("%s level %s", l.Name, l.Number) }

// LostError tells that traces of levels are lost: nothing may be collected until
// that is settled by Recover.
type LostError struct {
	Levels []LostLevel
	// Unreadable is why map packs that may hold a copy of a lost record cannot be
	// read; nil: there are none.
	Unreadable error

	runs []RunID // whose packs are unreadable
}

func (e *LostError) Error() string {
	if len(e.Levels) == 0 {
		return fmt.Sprintf("a level's record may be lost, whose copy cannot be read: %v", e.Unreadable)
	}
	s := fmt.Sprintf("%s: its record is missing below %s", e.Levels[0], levelsPrefix)
	if n := len(e.Levels) - 1; n > 0 {
		s += fmt.Sprintf(", and those of %d more", n)
	}
	return s
}

func (e *LostError) Unwrap() error { return e.Unreadable }

// lostRecord is a level whose record is lost, and the copy of that.
type lostRecord struct {
	LostLevel
	pack   PackID // of the copy
	record []byte
}

// recordCopies is what the copies of records tell that lie in the last map packs of
// their runs.
type recordCopies struct {
	lost       []lostRecord
	standing   []LostLevel     // whose records are in their places
	unreadable map[RunID]error // why the copies of runs cannot be read that nothing names
}

// lostRecords finds levels whose records are lost. over reports whether a run is
// known to have ended, or to go on; it saves reading its pack.
func (r *Repository) lostRecords(ctx context.Context, s *stock, over func(RunID) bool) (*recordCopies, error) {
	given, err := r.abandonedRuns(ctx)
	if err != nil {
		return nil, err
	}
	var ended map[RunID]bool
	all := &recordCopies{unreadable: map[RunID]error{}}
	for _, run := range slices.Sorted(maps.Keys(s.last)) {
		if over(run) || given[run] {
			continue
		}
		records, why, err := r.levelRecords(ctx, PackID{run, s.last[run]})
		if err != nil {
			return nil, err
		}
		var found []lostRecord
		for _, record := range records {
			l, stands, err := r.ifLost(ctx, record)
			switch {
			case err != nil:
				return nil, err
			case stands:
				all.standing = append(all.standing, *l)
			case l != nil:
				found = append(found, lostRecord{*l, PackID{run, s.last[run]}, record})
			}
		}
		// It may have been put back under another number, and removed.
		if why != nil || slices.ContainsFunc(found, func(l lostRecord) bool { return l.Taken }) {
			if ended == nil {
				if ended, err = r.endedRuns(ctx, nil); err != nil {
					return nil, err
				}
			}
			if ended[run] {
				continue
			}
		}
		if why != nil {
			all.unreadable[run] = why
		}
		all.lost = append(all.lost, found...)
	}
	return all, nil
}

// ifLost returns what level a record is of if its run's claim does not stand at
// its commit key, nor anything that says what became of the run. What other runs
// have there came after the record was lost. stands: it is in its place.
func (r *Repository) ifLost(ctx context.Context, record []byte) (lost *LostLevel, stands bool, err error) {
	var l Level
	if err := decodeObject(record, "level", &l); err != nil {
		return nil, false, nil // a frame with its CRC and a bad record was written so: not by backy
	}
	// A run that commits drops its claim afterwards: so it is looked for first.
	claimed, err := r.claimed(ctx, claimKey(l.Name, l.Number), l.Run)
	if claimed || err != nil {
		return nil, false, err
	}
	decided, err := r.decided(ctx, l.Name, l.Number)
	if err != nil {
		return nil, false, err
	}
	if decided {
		var others bool
		others, stands, err = r.takenByAnother(ctx, &l)
		if err != nil || !others && !stands {
			return nil, false, err
		}
	}
	return &LostLevel{Name: l.Name, Number: l.Number, Run: l.Run, Taken: decided && !stands}, stands, nil
}

// takenByAnother reports whether all that stands at a level's number is another
// run's, or whether the level stands there. What cannot be read may be its own, and so
// may a tombstone that names no run.
func (r *Repository) takenByAnother(ctx context.Context, l *Level) (others, stands bool, err error) {
	m, err := r.readRemoval(ctx, l.Name, l.Number)
	unreadable := errors.Is(err, errBadObject)
	if err != nil && !unreadable && !errors.Is(err, fs.ErrNotExist) {
		return false, false, err
	}
	if m != nil && m.hides(l) {
		return false, false, nil
	}
	c, err := r.readCommit(ctx, l.Name, l.Number)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return !unreadable, false, nil
	case errors.Is(err, errBadObject):
		return m != nil, false, nil // whatever it was, it is the level that was removed
	case err != nil:
		return false, false, err
	}
	stands = c.level != nil && c.level.Run == l.Run
	return !unreadable && c.run() != 0 && c.run() != l.Run, stands, nil
}

// levelRecords returns the level records in a map pack, from whichever copy
// has them, or why none of the copies can be read.
func (r *Repository) levelRecords(ctx context.Context, id PackID) (records [][]byte, unreadable, err error) {
	keys, err := r.copies(ctx, KindMap, mapsPrefix, id)
	if err != nil {
		return nil, nil, err
	}
	var bad []error
	for _, key := range keys {
		found, err := r.recordsIn(ctx, key)
		if context.Cause(ctx) != nil {
			return nil, nil, context.Cause(ctx)
		}
		if err == nil {
			return found, nil, nil
		}
		bad = append(bad, fmt.Errorf("%s: %w", key, err))
	}
	coder := newCoder(maxMetaRaw, CompressZstd)
	for _, key := range keys {
		p, err := r.readReadable(ctx, key)
		if err != nil {
			return nil, nil, err
		}
		for _, frames := range scanFrames(p, maxMetaRaw) {
			for _, f := range frames {
				if f.entry.Type != FrameLevel {
					continue
				}
				record, err := coder.Decode(nil, Encoded{Raw: f.entry.Raw, Codec: f.entry.Codec, Stored: f.stored})
				if err == nil && !slices.ContainsFunc(records, func(r []byte) bool { return bytes.Equal(r, record) }) {
					records = append(records, record)
				}
			}
		}
	}
	if len(records) == 0 {
		unreadable = errors.Join(bad...)
	}
	return records, unreadable, nil
}

// recordsIn returns the level records of one object by its table. Any that
// cannot be read is an error.
func (r *Repository) recordsIn(ctx context.Context, key string) (records [][]byte, err error) {
	_, entries, err := r.readPackTable(ctx, key)
	if err != nil {
		return nil, err
	}
	f := r.fetchers.Get().(*fetcher)
	defer r.fetchers.Put(f)
	for i := range entries {
		e := &entries[i]
		if e.Codec == Absent || e.Type != FrameLevel {
			continue
		}
		p := make([]byte, frameHeaderSize+e.Stored)
		if n, err := r.backend.Get(ctx, key, p, e.Offset); n < len(p) {
			return nil, err
		}
		stored, err := checkFrame(p, uint32(i), e, maxMetaRaw)
		if err != nil {
			return nil, err
		}
		raw, err := f.decode(stored, wanted{ref: Ref{Sum: e.Sum}, e: *e})
		if err != nil {
			return nil, err
		}
		records = append(records, slices.Clone(raw))
	}
	return records, nil
}

// endedRuns are the runs that levels, tombstones and removals name.
func (r *Repository) endedRuns(ctx context.Context, known map[Name]*History) (map[RunID]bool, error) {
	names, err := r.UsedNames(ctx)
	if err != nil {
		return nil, err
	}
	ended := map[RunID]bool{}
	for _, name := range names {
		h := known[name]
		if h == nil {
			read, err := r.History(ctx, name)
			if err != nil {
				return nil, err
			}
			h = &read
		}
		maps.Copy(ended, h.over)
	}
	return ended, nil
}

// knownRuns are the runs that ended, and those that have claims. One that commits
// while this looks may be in neither: its record stands then.
func (r *Repository) knownRuns(ctx context.Context, known map[Name]*History) (map[RunID]bool, error) {
	runs, err := r.endedRuns(ctx, known)
	if err != nil {
		return nil, err
	}
	busy, err := r.claims(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range busy {
		runs[c.Run] = true
	}
	return runs, nil
}

// maxMissing bounds how many numbers of a name are told as missing: one that is
// far off the others is not backy's.
const maxMissing = 1000

// missingNumbers finds numbers that were used, since later ones are there, and
// have no trace. Those of running recoveries count as missing, too.
func (r *Repository) missingNumbers(ctx context.Context) (missing []LostLevel, err error) {
	keys, err := r.list(ctx, levelsPrefix)
	if err != nil {
		return nil, err
	}
	used := map[Name]map[LevelNumber]bool{}
	for _, key := range keys {
		name, n, _, err := parseLevelKey(key)
		if err != nil {
			continue
		}
		if used[name] == nil {
			used[name] = map[LevelNumber]bool{}
		}
		used[name][n] = true
	}
	check := func(l LostLevel) error {
		// It may have come while the others were listed.
		there, err := r.decided(ctx, l.Name, l.Number)
		if err == nil && !there {
			missing = append(missing, l)
		}
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(used)) {
		last := LevelNumber(0)
		for n := range used[name] {
			last = max(last, n)
		}
		for n, found := LevelNumber(1), len(missing); n < last && len(missing)-found < maxMissing; n++ {
			if used[name][n] {
				continue
			}
			if err := check(LostLevel{Name: name, Number: n}); err != nil {
				return nil, err
			}
		}
	}
	claimed, err := r.recoverClaims(ctx, "")
	for _, l := range claimed {
		if err := check(l); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(missing, compareLost)
	return slices.Compact(missing), err
}

func compareLost(a, b LostLevel) int {
	if c := strings.Compare(string(a.Name), string(b.Name)); c != 0 {
		return c
	}
	return int(int64(a.Number) - int64(b.Number))
}

// checkNumbers refuses a repository in which a number that was used is without
// any trace: a level's record may have been lost, and its chunks must not go.
func (r *Repository) checkNumbers(ctx context.Context) error {
	missing, err := r.missingNumbers(ctx)
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("nothing is collected: %w", &LostError{Levels: missing})
	}
	return err
}

// LostLevels finds levels whose records are lost, and numbers without a trace.
// known are the histories that were read already; the others are read. What may
// be lost but cannot be told is in the *LostError's Unreadable. A nil *LostError
// means that nothing is lost.
func (r *Repository) LostLevels(ctx context.Context, known map[Name]*History) (*LostError, error) {
	s, err := r.mapStock(ctx)
	if err != nil {
		return nil, err
	}
	runs, err := r.knownRuns(ctx, known)
	if err != nil {
		return nil, err
	}
	found, err := r.lostRecords(ctx, s, func(run RunID) bool { return runs[run] })
	if err != nil {
		return nil, err
	}
	missing, err := r.missingNumbers(ctx)
	if err != nil {
		return nil, err
	}
	return lostError(found.lost, missing, found.unreadable), nil
}

// lostError joins what is lost; nil: nothing is.
func lostError(records []lostRecord, missing []LostLevel, unreadable map[RunID]error) *LostError {
	e := &LostError{}
	for _, run := range slices.Sorted(maps.Keys(unreadable)) {
		e.runs = append(e.runs, run)
		e.Unreadable = errors.Join(e.Unreadable, unreadable[run])
	}
	for _, l := range records {
		e.Levels = append(e.Levels, l.LostLevel)
	}
	for _, m := range missing {
		if !slices.ContainsFunc(e.Levels, func(l LostLevel) bool { return l.Name == m.Name && l.Number == m.Number }) {
			e.Levels = append(e.Levels, m)
		}
	}
	if len(e.Levels) == 0 && len(e.runs) == 0 {
		return nil
	}
	slices.SortFunc(e.Levels, compareLost)
	return e
}

// join puts two into one; nil is nothing lost.
func (e *LostError) join(o *LostError) *LostError {
	if e == nil || o == nil {
		return cmp.Or(e, o)
	}
	levels := slices.Concat(e.Levels, o.Levels)
	slices.SortFunc(levels, compareLost)
	return &LostError{
		Levels:     slices.CompactFunc(levels, func(a, b LostLevel) bool { return compareLost(a, b) == 0 }),
		Unreadable: errors.Join(e.Unreadable, o.Unreadable),
		runs:       slices.Concat(e.runs, o.runs),
	}
}

// refuseLost refuses to collect while a level's record is lost.
func (r *Repository) refuseLost(ctx context.Context) error {
	lost, err := r.LostLevels(ctx, nil)
	if err == nil && lost != nil {
		err = fmt.Errorf("nothing is collected: %w", lost)
	}
	return err
}

// An abandoned run is one whose map packs are nobody's: of a run that has lost
// its claim, or that cannot be read and that nothing names, and was given up.
const abandonedPrefix = marksPrefix + "abandoned."

func (r *Repository) abandonedRuns(ctx context.Context) (map[RunID]bool, error) {
	keys, err := r.list(ctx, abandonedPrefix)
	if err != nil {
		return nil, err
	}
	given := map[RunID]bool{}
	for _, key := range keys {
		if run, err := ParseRunID(strings.TrimPrefix(key, abandonedPrefix)); err == nil {
			given[run] = true
		}
	}
	return given, nil
}

// abandon gives a run up.
func (r *Repository) abandon(ctx context.Context, run, by RunID) error {
	t := gcTombstone{Run: run, By: by, Time: r.clock().UTC()}
	err := r.putObject(ctx, abandonedPrefix+run.String(), "tombstone", &t)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}
