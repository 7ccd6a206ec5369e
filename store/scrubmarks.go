package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"time"
)

// What scrubs have checked, by pack:
//
//	marks/checked.<run>.<i>           which packs were checked when, as the scrub run knew it
//
// A scrub puts what it knows anew and then deletes the objects that it knew it
// from, so there are only ever a few, and two scrubs beside each other lose
// nothing.

// checkedRow are packs of one run that lie side by side: from, to (numbers, both
// included), generation, and when they were checked by their checksums and by
// CRC, in seconds since 1970; 0: never.
type checkedRow [5]uint32

// checkedPart is a part of a scrub's mark.
type checkedPart struct {
	Folder string                 `json:"folder"`
	Rows   map[RunID][]checkedRow `json:"rows"`
}

const checkedRows = 30_000 // in a part: below the bound of JSON objects

func checkedPrefix() string { return marksPrefix + "checked." }

// Checks is when packs were last checked. It is for one goroutine.
type Checks struct {
	repo *Repository
	keys []string // that it was read from
	rows map[string]map[RunID][]checkedRow
}

// Checks reads the marks of earlier scrubs. One that is damaged is passed over:
// its packs count as unchecked.
func (r *Repository) Checks(ctx context.Context) (*Checks, error) {
	c := &Checks{repo: r, rows: map[string]map[RunID][]checkedRow{}}
	keys, err := r.list(ctx, checkedPrefix())
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		var p checkedPart
		err := r.getObject(ctx, key, "checked", &p)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another scrub has taken it over
		}
		if err != nil && !errors.Is(err, errBadObject) {
			return nil, err
		}
		c.keys = append(c.keys, key)
		for run, rows := range p.Rows {
			c.add(p.Folder, run, rows...)
		}
	}
	return c, nil
}

func (c *Checks) add(folder string, run RunID, rows ...checkedRow) {
	if c.rows[folder] == nil {
		c.rows[folder] = map[RunID][]checkedRow{}
	}
	c.rows[folder][run] = append(c.rows[folder][run], rows...)
}

// find returns when a pack was last checked, by both ways.
func (c *Checks) find(o *PackObject) (full, quick uint32) {
	for _, row := range c.rows[packFolders[o.folder]][o.ID.Run] {
		if row[0] <= o.ID.Seq && o.ID.Seq <= row[1] && row[2] == o.Generation {
			full, quick = max(full, row[3]), max(quick, row[4])
		}
	}
	return full, quick
}

// Apply sets Checked of packs: when they were last checked by their checksums
// or, for a quick scrub, in either way. What was checked later than now counts as
// unchecked, or a clock that was ahead once would keep a pack from its turn.
func (c *Checks) Apply(list []PackObject, quick bool) {
	latest := uint32(c.repo.clock().Add(5 * time.Minute).Unix()) // clocks differ a little
	for i := range list {
		full, crc := c.find(&list[i])
		if full > latest {
			full = 0
		}
		if crc > latest {
			crc = 0
		}
		list[i].Checked = full
		if quick {
			list[i].Checked = max(full, crc)
		}
	}
}

// Save remembers that packs were checked now and, of the others that there are,
// what was known before. done tells by their place in the list.
func (c *Checks) Save(ctx context.Context, list []PackObject, done []bool, quick bool, now time.Time) error {
	if c.repo.readOnly != nil {
		return nil
	}
	kept := map[string]map[RunID][]checkedRow{}
	for i := range list {
		o := &list[i]
		full, crc := c.find(o)
		if done[i] && quick {
			crc = uint32(now.Unix())
		} else if done[i] {
			full = uint32(now.Unix())
		}
		if full == 0 && crc == 0 {
			continue
		}
		folder := packFolders[o.folder]
		if kept[folder] == nil {
			kept[folder] = map[RunID][]checkedRow{}
		}
		rows := kept[folder][o.ID.Run]
		row := checkedRow{o.ID.Seq, o.ID.Seq, o.Generation, full, crc}
		if n := len(rows); n > 0 && [3]uint32(rows[n-1][2:]) == [3]uint32(row[2:]) && rows[n-1][1] < row[0] {
			// What is missing in between does not exist: nothing is claimed of it.
			rows[n-1][1] = row[1]
			continue
		}
		kept[folder][o.ID.Run] = append(rows, row)
	}
	run, part := c.repo.newRun(now), 0
	var put []string
	for folder, runs := range kept {
		p, n := checkedPart{folder, map[RunID][]checkedRow{}}, 0
		flush := func() error {
			if n == 0 {
				return nil
			}
			key := checkedPrefix() + run.String() + "." + strconv.Itoa(part)
			if err := c.repo.putObject(ctx, key, "checked", &p); err != nil {
				return fmt.Errorf("remember what was checked: %w", err)
			}
			put = append(put, key)
			part, n, p.Rows = part+1, 0, map[RunID][]checkedRow{}
			return nil
		}
		for r, rows := range runs {
			for rows := range slices.Chunk(rows, checkedRows) {
				if n > 0 && n+len(rows) > checkedRows {
					if err := flush(); err != nil {
						return err
					}
				}
				p.Rows[r] = append(p.Rows[r], rows...)
				n += len(rows) + 1
			}
		}
		if err := flush(); err != nil {
			return err
		}
	}
	for _, key := range c.keys {
		if err := c.repo.backend.Delete(ctx, key); err != nil {
			return err
		}
	}
	c.rows, c.keys = kept, put
	return nil
}
