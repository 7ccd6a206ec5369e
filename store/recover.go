package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// Recovered is a level whose record was made anew.
type Recovered struct {
	Name   Name        `json:"name"`
	Number LevelNumber `json:"number"`
	Run    RunID       `json:"run"`
}

// Recover makes lost records of levels anew, from the copies that lie in the
// last map packs of their runs. It never brings back a level that was removed,
// nor one that did not commit: a run that is fenced loses its map packs, and
// one that is under way has a claim. Map packs that cannot be read are passed
// over and joined in the error.
func (r *Repository) Recover(ctx context.Context) (recovered []Recovered, err error) {
	if r.readOnly != nil {
		return nil, r.readOnly
	}
	open, err := r.claims(ctx)
	if err != nil {
		return nil, err
	}
	s, err := r.stock(ctx)
	if err != nil {
		return nil, err
	}
	var bad []error
	for name := range s.all() {
		if name.folder == dataPrefix {
			continue
		}
		records, err := r.levelRecords(ctx, name.id)
		if err != nil {
			if context.Cause(ctx) != nil {
				return recovered, context.Cause(ctx)
			}
			bad = append(bad, err)
		}
		for _, record := range records {
			l, err := r.recoverRecord(ctx, record, open)
			if err != nil {
				return recovered, err
			}
			if l != nil {
				recovered = append(recovered, Recovered{l.Name, l.Number, l.Run})
			}
		}
	}
	return recovered, errors.Join(bad...)
}

// recoverRecord puts a record back where nothing stands. It returns nil where
// something does, or where its run has not ended.
func (r *Repository) recoverRecord(ctx context.Context, record []byte, open []claim) (*Level, error) {
	var l Level
	if err := decodeObject(record, "level", &l); err != nil {
		return nil, nil // a frame with its CRC and a bad record was written so: not by backy
	}
	if slices.ContainsFunc(open, func(c claim) bool { return c.Name == l.Name && c.Number == l.Number }) {
		return nil, nil
	}
	decided, err := r.decided(ctx, l.Name, l.Number)
	if decided || err != nil {
		return nil, err
	}
	err = r.put(ctx, levelKey(l.Name, l.Number), record)
	if errors.Is(err, fs.ErrExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("recover %s level %s: %w", l.Name, l.Number, err)
	}
	return &l, nil
}

// levelRecords returns the level records in a map pack, from whichever copy
// has them.
func (r *Repository) levelRecords(ctx context.Context, id PackID) (records [][]byte, err error) {
	var keys []string
	for _, folder := range foldersOf(KindMap) {
		generations, listErr := r.listGenerations(ctx, folder, id)
		if listErr != nil {
			return nil, listErr
		}
		for _, g := range generations {
			keys = append(keys, packKey(folder, id, g))
		}
	}
	coder := newCoder(maxMetaRaw, CompressZstd)
	for _, key := range keys {
		_, entries, tableErr := r.readPackTable(ctx, key)
		if tableErr == nil && !slices.ContainsFunc(entries, func(e entry) bool { return e.Type == FrameLevel }) {
			continue
		}
		p, readErr := r.readReadable(ctx, key)
		if readErr != nil {
			return records, readErr
		}
		for _, frames := range scanFrames(p, maxMetaRaw) {
			for _, f := range frames {
				if f.entry.Type != FrameLevel {
					continue
				}
				record, decodeErr := coder.Decode(nil, Encoded{Raw: f.entry.Raw, Codec: f.entry.Codec, Stored: f.stored})
				if decodeErr != nil {
					err = errors.Join(err, fmt.Errorf("%s: level record: %w", key, decodeErr))
					continue
				}
				records = append(records, record)
			}
		}
	}
	return records, err
}

// discardMaps deletes the map packs of a run that is fenced: nothing refers to
// them, and a level record among them must never be taken for a level's.
func (r *Repository) discardMaps(ctx context.Context, run RunID) error {
	for _, folder := range foldersOf(KindMap) {
		keys, err := r.list(ctx, folder+run.String()+"/")
		if err != nil {
			return err
		}
		for _, key := range keys {
			if err := r.backend.Delete(ctx, key); err != nil {
				return err
			}
		}
	}
	return nil
}
