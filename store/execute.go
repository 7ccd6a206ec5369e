package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"
)

// executors is how many packs of a verdict are worked on at a time.
const executors = 4

// execute does what a verdict says. Anyone may do it, any number of times, and
// late: a sentence is about generations that are never made again, unless an
// older copy of the repository is put back. The claim of this gc is missing
// there, so it is looked for before each deletion.
func (g *gc) execute(ctx context.Context, v *verdict, list []sentence) error {
	// What gives room goes before what takes some.
	slices.SortStableFunc(list, func(a, b sentence) int {
		return cmp.Compare(min(len(a.Keep), 1), min(len(b.Keep), 1))
	})
	deletions, _ := slices.BinarySearchFunc(list, 1, func(s sentence, keep int) int { return cmp.Compare(min(len(s.Keep), 1), keep) })
	if err := g.executeAll(ctx, list[:deletions]); err != nil {
		return err
	}
	if err := g.executeAll(ctx, list[deletions:]); err != nil {
		return err
	}
	return g.deleteRecords(ctx, v.Records)
}

// deleteRecords deletes those records that are removed: since a verdict was put that
// stands, levels/ may have been lost, and another level have got the number.
func (g *gc) deleteRecords(ctx context.Context, keys []string) error {
	for _, key := range keys {
		name, n, _, err := parseLevelKey(key)
		if err != nil {
			continue // not ours
		}
		removed, err := g.repo.isRemoved(ctx, name, n)
		if err != nil {
			return err
		}
		g.o.Progress.moved.Add(1)
		if !removed {
			continue
		}
		if err := g.repo.deleteAll(ctx, []string{key}, g.checkClaim); err != nil {
			return err
		}
	}
	return nil
}

func (g *gc) executeAll(ctx context.Context, list []sentence) error {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(executors)
	for _, s := range list {
		group.Go(func() error {
			freed, rewritten, err := g.carryOut(gctx, s)
			if err != nil {
				return fmt.Errorf("collect pack %s: %w", s.Pack, err)
			}
			g.count(freed, rewritten)
			return nil
		})
	}
	return group.Wait()
}

func (g *gc) checkClaim(ctx context.Context) error {
	return g.repo.checkClaim(ctx, gcKey("gc", g.run), g.run)
}

func (g *gc) count(freed int64, rewritten bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.o.Progress.Executed.Add(1)
	g.report.Freed += freed
	if rewritten {
		g.report.Rewritten++
	} else {
		g.report.Deleted++
	}
}

// carryOut does what a sentence says, in every folder of the pack's kind.
func (g *gc) carryOut(ctx context.Context, s sentence) (freed int64, rewritten bool, err error) {
	r := g.repo
	done := true
	for _, folder := range foldersOf(s.Kind) {
		gone, replaced, err := g.carryOutIn(ctx, folder, s)
		if err != nil {
			return freed, rewritten, err
		}
		freed += gone
		done = done && replaced
		if s.Keep == nil {
			if err := r.clearTableNotes(ctx, packName{folder, s.Pack}, g.checkClaim); err != nil {
				return freed, false, err
			}
		}
	}
	// Where an older generation had to stay, so do the notes on its frames.
	if !done {
		return freed, true, nil
	}
	// What is gone needs no mending.
	dead := func(index uint32) bool { return !hasBit(s.Keep, index) }
	return freed, s.Keep != nil, r.clearNotes(ctx, s.Kind, s.Pack, dead, g.checkClaim)
}

// carryOutIn does so in one folder. replaced is false if an older generation
// had to stay, since the newer one does not have all that is to be kept.
func (g *gc) carryOutIn(ctx context.Context, folder string, s sentence) (freed int64, replaced bool, err error) {
	r := g.repo
	sizes := map[uint32]int64{}
	err = r.backend.List(ctx, packPrefix(folder, s.Pack), func(key string, size int64) error {
		if _, id, generation, err := parsePackKey(key); err == nil && id == s.Pack {
			sizes[generation] = size
		}
		return nil
	})
	if err != nil || len(sizes) == 0 {
		return 0, s.Keep == nil, err
	}
	var newer *checkedPack
	if s.Keep != nil {
		written, err := r.rewrite(ctx, folder, s, sizes)
		if err != nil {
			return 0, false, err
		}
		freed -= written
		if newer, err = g.replacement(ctx, folder, s); newer == nil || err != nil {
			return freed, false, err
		}
	}
	for _, generation := range slices.Sorted(maps.Keys(sizes)) {
		if generation > s.Generation {
			break
		}
		key := packKey(folder, s.Pack, generation)
		if newer != nil {
			if ok, err := g.replaces(ctx, newer, key, s.Keep); !ok || err != nil {
				return freed, false, err
			}
		}
		if err := g.checkClaim(ctx); err != nil {
			return freed, false, err
		}
		if err := r.backend.Delete(ctx, key); err != nil {
			return freed, false, err
		}
		freed += sizes[generation]
	}
	return freed, true, nil
}

// replacement reads the newest generation, if it is later than the sentence's:
// whoever wrote it, what is kept must be in it. One that lacks anything is
// noted for the next backup to mend; the older ones stay.
func (g *gc) replacement(ctx context.Context, folder string, s sentence) (*checkedPack, error) {
	r := g.repo
	newest, c, err := r.checkNewest(ctx, s.Kind, folder, s.Pack)
	if err != nil || newest <= s.Generation {
		return nil, err
	}
	if c != nil && c.replaces(nil, s.Keep) {
		return c, err
	}
	if err := g.checkClaim(ctx); err != nil {
		return nil, err
	}
	o := PackObject{ID: s.Pack, Generation: newest, folder: uint8(slices.Index(packFolders[:], folder))}
	return nil, r.noteTable(ctx, &o, fmt.Errorf("%w: it lacks frames that are to be kept", errBadPack))
}

// replaces reports whether a newer generation has what is kept of an older one.
func (g *gc) replaces(ctx context.Context, newer *checkedPack, older string, keep []uint64) (bool, error) {
	// Without the older table, the newer one's checksums must do.
	_, entries, err := g.repo.readPackTable(ctx, older)
	if err != nil && context.Cause(ctx) != nil {
		return false, context.Cause(ctx)
	}
	return newer.replaces(entries, keep), nil
}

// dropNotes deletes the notes on packs that are gone and that no level reaches:
// whoever reads a level while it is removed and collected finds it damaged. A
// note on a place of a pack that is there stays, reached or not, lest somebody
// refers to that anew.
func (g *gc) dropNotes(ctx context.Context) error {
	d, err := g.repo.Damage(ctx)
	if err != nil {
		return err
	}
	kinds := map[packName]Kind{}
	for at := range d.places {
		kinds[packName{foldersOf(at.kind)[0], at.pack}] = at.kind
	}
	for _, name := range slices.SortedFunc(maps.Keys(kinds), comparePackNames) {
		if g.liveIn(name).count(name.id) > 0 {
			continue
		}
		left, err := g.repo.copies(ctx, kinds[name], name.folder, name.id)
		if err != nil {
			return err
		}
		if len(left) > 0 {
			continue
		}
		if err := g.repo.clearNotes(ctx, kinds[name], name.id, func(uint32) bool { return true }, g.checkClaim); err != nil {
			return err
		}
	}
	return nil
}

// rewrite puts a pack's next generation with the entries that are kept, unless
// there is one, or one of them cannot be read now.
func (r *Repository) rewrite(ctx context.Context, folder string, s sentence, sizes map[uint32]int64) (written int64, err error) {
	generations := slices.Sorted(maps.Keys(sizes))
	slices.Reverse(generations)
	if generations[0] > s.Generation {
		return 0, nil
	}
	keys, err := r.copies(ctx, s.Kind, folder, s.Pack) // what is bad here, a twin may have
	if err != nil {
		return 0, err
	}
	b, _, err := r.rebuild(ctx, s.Kind, s.Pack, keys, nil)
	if err != nil {
		return 0, err
	}
	kept := &packBuilder{id: s.Pack}
	for i := range b.entries {
		e := &b.entries[i]
		if !hasBit(s.Keep, uint32(i)) {
			kept.appendAbsent(e.Sum)
			continue
		}
		if e.Codec == Absent {
			return 0, r.noteLost(ctx, s.Kind, Ref{Sum: e.Sum, Pack: s.Pack, Index: uint32(i)})
		}
		from := e.Offset + frameHeaderSize
		kept.append(Encoded{Sum: e.Sum, Raw: e.Raw, Codec: e.Codec, Stored: b.frames[from : from+int64(e.Stored)], CRC: e.CRC}, e.Type)
	}
	parts := kept.seal(s.Kind, r, s.Generation+1)
	err = r.put(ctx, packKey(folder, s.Pack, s.Generation+1), parts...)
	if errors.Is(err, fs.ErrExist) {
		return 0, nil // a mend's, or another executor's
	}
	if err != nil {
		return 0, err
	}
	r.setGeneration(folder, s.Pack, s.Generation+1)
	return int64(len(parts[0]) + len(parts[1])), nil
}
