package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// inheritance is what a gc takes over from earlier ones whose verdicts stand and
// cannot be read. Somebody may have read such a verdict when it was good, sleep,
// and delete what it named on waking. So no new reference may come to what was
// condemned for it until a later verdict has named all of that again; and
// nothing is in that later verdict that is not condemned under its own run.
type inheritance struct {
	runs  []RunID
	packs map[packName]bool
	all   bool // it cannot be read what was condemned: it may be anything

	// unsettled is why something of it could be neither named again nor spared:
	// then what those runs condemned stays.
	unsettled error
}

func (i *inheritance) has(name packName) bool { return i.all || i.packs[name] }

// inherit takes over from a gc whose verdict cannot be read.
func (g *gc) inherit(ctx context.Context, run RunID) error {
	if g.tight {
		return nil // there is no room to name it all again; the next round does
	}
	i := &g.inherited
	list, err := g.repo.condemnedBy(ctx, run)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errBadObject) {
		i.all = true
	} else if err != nil {
		return fmt.Errorf("read what gc %s condemned, whose verdict cannot be read: %w", run, err)
	}
	i.runs = append(i.runs, run)
	if i.packs == nil {
		i.packs = map[packName]bool{}
	}
	for _, name := range list {
		i.packs[name] = true
	}
	return nil
}

// dropInherited drops what has been named again and carried out.
func (g *gc) dropInherited(ctx context.Context) error {
	if g.inherited.unsettled != nil {
		return g.inherited.unsettled
	}
	for _, run := range g.inherited.runs {
		if err := g.repo.dropGC(ctx, run, true, g.checkClaim); err != nil {
			return err
		}
		// What could not be read may have been a tombstone.
		if err := g.repo.fenceGC(ctx, run, g.run); err != nil {
			return err
		}
	}
	return nil
}
