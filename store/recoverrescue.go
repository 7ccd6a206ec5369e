package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// rescue gives the packs that lost levels need and that a verdict may name a new
// generation, with all that can be read of them. Verdicts are about the
// generations that were there when they were made.
func (v *recovery) rescue(ctx context.Context, lost []lostRecord) error {
	doomed := map[packName]bool{}
	unknown, err := v.gc.repo.eachCondemned(ctx, func(name packName, _ RunID) { doomed[name] = true })
	if err != nil || !unknown && len(doomed) == 0 {
		return err
	}
	done := map[packName]bool{}
	for i := range lost {
		var l Level
		if err := decodeObject(lost[i].record, "level", &l); err != nil {
			return err
		}
		err := v.gc.needs().each(ctx, &l, func(kind Kind, ref Ref) error {
			name := packName{foldersOf(kind)[0], ref.Pack}
			if done[name] || !unknown && !doomed[name] {
				return nil
			}
			done[name] = true
			for _, folder := range foldersOf(kind) {
				if err := v.renew(ctx, kind, folder, ref.Pack); err != nil {
					return fmt.Errorf("save pack %s, which %s needs, from a gc's verdict: %w", ref.Pack, lost[i].LostLevel, err)
				}
			}
			return nil
		}, func(Ref) {})
		if err != nil {
			return err
		}
	}
	return nil
}

// renew puts a pack's next generation, with all that can be read of the others.
func (v *recovery) renew(ctx context.Context, kind Kind, folder string, id PackID) error {
	r := v.gc.repo
	for {
		generations, err := r.listGenerations(ctx, folder, id)
		if err != nil || len(generations) == 0 {
			return err
		}
		keys, err := r.copies(ctx, kind, folder, id)
		if err != nil {
			return err
		}
		b, _, err := r.rebuild(ctx, kind, id, keys, nil)
		if err != nil || !b.hasFrames() {
			return err
		}
		v.gc.o.Progress.moved.Add(1)
		next := generations[0] + 1
		err = r.put(ctx, packKey(folder, id, next), b.seal(kind, r, next)...)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			r.setGeneration(folder, id, next)
		}
		return err
	}
}
