package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// BadRecordError tells of a record below levels/ that is not what was written.
type BadRecordError struct {
	Key string
	Err error
}

func (e *BadRecordError) Error() string { return e.Key + ": " + e.Err.Error() }

func (e *BadRecordError) Unwrap() error { return e.Err }

// damagedRecord is a level whose record is damaged.
type damagedRecord struct {
	LostLevel
	key string
	bad []byte // what can be read of it

	copies []lostRecord // those that may be its own
	others []lostRecord // those of levels that were lost before the number was taken again
}

// damagedRecords finds levels whose records are damaged, with the copies of them.
func (v *recovery) damagedRecords(ctx context.Context) (list []damagedRecord, err error) {
	r := v.gc.repo
	names, err := r.UsedNames(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		h, err := r.History(ctx, name)
		if err != nil {
			return nil, err
		}
		for _, b := range h.Bad {
			d := damagedRecord{LostLevel: LostLevel{Name: name, Number: b.Number, Damaged: true}, key: levelKey(name, b.Number)}
			_, err := r.readCommit(ctx, name, b.Number)
			if !errors.Is(err, errBadObject) {
				continue // it, or its removal, cannot be read now
			}
			if d.bad, err = readAll(ctx, r.backend, d.key, maxJSON); err != nil && !errors.Is(err, errBadObject) {
				return nil, err
			}
			list = append(list, d)
		}
	}
	if len(list) == 0 {
		return nil, nil
	}
	return list, v.findCopies(ctx, list)
}

// findCopies looks for copies of damaged records in the maps of runs that nothing
// names.
func (v *recovery) findCopies(ctx context.Context, list []damagedRecord) error {
	r := v.gc.repo
	s, err := r.mapStock(ctx)
	if err != nil {
		return err
	}
	ended, err := r.endedRuns(ctx, nil)
	if err != nil {
		return err
	}
	given, err := r.abandonedRuns(ctx)
	if err != nil {
		return err
	}
	for _, run := range slices.Sorted(maps.Keys(s.last)) {
		last := s.last[run]
		if ended[run] || given[run] {
			continue
		}
		records, _, err := r.levelRecords(ctx, PackID{run, last})
		if err != nil {
			return err
		}
		for _, record := range records {
			var l Level
			if decodeObject(record, "level", &l) != nil {
				continue
			}
			for i := range list {
				d, found := &list[i], lostRecord{LostLevel{Name: l.Name, Number: l.Number, Run: l.Run}, PackID{run, last}, record}
				switch {
				case d.Name != l.Name || d.Number != l.Number:
				case mayBe(d.bad, record):
					d.copies = append(d.copies, found)
				case !bytes.Contains(d.bad, []byte(run.String())): // else it is this run's tombstone
					found.Taken = true
					d.others = append(d.others, found)
				}
			}
		}
	}
	return nil
}

// mayBe reports whether damaged bytes may have been a record's. What looks like an
// object must have most bytes in common with it; anything else says nothing.
func mayBe(bad, record []byte) bool {
	same, different := 0, 0
	for i := range min(len(bad), len(record)) {
		switch bad[i] {
		case 0: // a hole
		case record[i]:
			same++
		default:
			different++
		}
	}
	return 8*different <= same || !bytes.HasPrefix(bad, []byte(`{"type":`))
}

// restore puts the good copy of a damaged record in its place. Where the bytes do not
// tell which it is, that of the last run: a number is taken again only when its
// record was lost. The others are lost records then.
func (v *recovery) restore(ctx context.Context, d *damagedRecord) (*Recovered, error) {
	r := v.gc.repo
	for i := len(d.copies) - 1; i >= 0; i-- {
		lost := &d.copies[i]
		if whole, err := v.hasMap(ctx, lost); err != nil {
			return nil, err
		} else if !whole {
			continue // no gc and no backup could go on with it
		}
		// Between the two the number is claimed.
		if err := v.claim(ctx, lost); err != nil {
			return nil, err
		}
		if err := r.deleteAll(ctx, []string{d.key}, v.gc.checkClaim); err != nil {
			return nil, fmt.Errorf("replace the damaged record %s: %w", d.key, err)
		}
		return v.putBack(ctx, lost)
	}
	return nil, nil
}

// hasMap reports whether all of a level's map can be read.
func (v *recovery) hasMap(ctx context.Context, lost *lostRecord) (bool, error) {
	var l Level
	if err := decodeObject(lost.record, "level", &l); err != nil {
		return false, err
	}
	missing, err := v.gc.needs().missing(ctx, &l)
	return !slices.ContainsFunc(missing, func(e *ChunkError) bool { return e.Kind == KindMap }), err
}

// giveUpRecord takes a level whose record is damaged away from every reader.
func (v *recovery) giveUpRecord(ctx context.Context, l LostLevel) error {
	m := removal{Name: l.Name, Number: l.Number, Time: v.gc.repo.clock().UTC()}
	return v.gc.repo.replaceRemoval(ctx, m, v.gc.run, v.gc.checkClaim)
}
