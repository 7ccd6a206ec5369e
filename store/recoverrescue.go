package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// reach calls visit for every chunk and map node that a level needs, and bad
// for nodes that cannot be read.
func (v *recovery) reach(ctx context.Context, l *Level, visit func(kind Kind, ref Ref) error, bad func(ref Ref)) (err error) {
	m := l.Map()
	if m.Root.IsZero() {
		return nil
	}
	seen := newLiveSet()
	seen.add(m.Root)
	w := nodeWalk{repo: v.gc.repo, progress: v.gc.o.Progress, unreadable: bad}
	if err := visit(KindMap, m.Root); err != nil {
		return err
	}
	walkErr := w.below(ctx, []Ref{m.Root}, m.height(), m.Fanout, func(ref Ref, height int) bool {
		if err != nil {
			return false
		}
		if height == 0 {
			err = visit(KindData, ref)
			return false
		}
		if !seen.add(ref) {
			return false
		}
		err = visit(KindMap, ref)
		return err == nil
	})
	return errors.Join(err, walkErr)
}

// rescue gives the packs that lost levels need and that a verdict may name a new
// generation, with all that can be read of them. Verdicts are about the
// generations that were there when they were made.
func (v *recovery) rescue(ctx context.Context, lost []lostRecord) error {
	doomed := map[packName]bool{}
	unknown, err := v.gc.repo.eachCondemned(ctx, func(name packName) { doomed[name] = true })
	if err != nil || !unknown && len(doomed) == 0 {
		return err
	}
	done := map[packName]bool{}
	for i := range lost {
		var l Level
		if err := decodeObject(lost[i].record, "level", &l); err != nil {
			return err
		}
		err := v.reach(ctx, &l, func(kind Kind, ref Ref) error {
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
