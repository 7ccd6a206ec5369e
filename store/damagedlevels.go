package store

import (
	"context"
	"errors"
)

// LevelDamage is how much of a level is known to be bad.
type LevelDamage struct {
	Name   Name
	Number LevelNumber
	Chunks int64 // positions whose bytes cannot be had
}

// Spare is how many map nodes are known to have a bad copy, and how many packs
// have a bad table or lack a copy: the next backups mend them. Nodes without a good
// copy do not count, once DamagedLevels has found them.
func (d *Damage) Spare() int64 {
	n := int64(len(d.tables))
	for at := range d.places {
		if at.kind == KindMap && !d.lost[at] {
			n++
		}
	}
	return n
}

// DamagedLevels finds the levels that need what is known to be bad. Where
// nothing is, it costs nothing; else it reads each distinct map node once. It
// reads no data and writes nothing. Records that cannot be read are left out.
func (r *Repository) DamagedLevels(ctx context.Context, d *Damage) (list []LevelDamage, err error) {
	if !d.Any() {
		return nil, nil
	}
	w := &damageWalk{repo: r, damage: d, clean: newLiveSet()}
	err = r.eachLevel(ctx, func(l *Level) error {
		if l.Root.IsZero() {
			return nil
		}
		w.level = l
		bad, err := w.node(ctx, l.Root, l.Map().height(), 0)
		switch {
		case errors.Is(err, ErrRemoved):
			return nil
		case err != nil || bad == 0:
			return err
		}
		list = append(list, LevelDamage{l.Name, l.Number, bad})
		return nil
	}, func(ObjectError) {})
	return list, err
}

// damageWalk counts what is bad below nodes.
type damageWalk struct {
	repo   *Repository
	damage *Damage
	clean  *liveSet // nodes below which nothing is bad
	level  *Level
}

func (w *damageWalk) node(ctx context.Context, ref Ref, height int, first int64) (bad int64, err error) {
	if w.clean.has(ref.Pack, ref.Index) {
		return 0, nil
	}
	n, err := w.repo.node(ctx, ref, height, w.level.Fanout)
	var lost *ChunkError
	if errors.As(err, &lost) && context.Cause(ctx) == nil {
		w.damage.lost[place{KindMap, ref.Pack, ref.Index}] = true
		// A node goes with its level: one that was removed meanwhile is no damage.
		if err := w.repo.CheckRemoved(ctx, w.level); err != nil {
			return 0, err
		}
		return min(spanOf(height, w.level.Fanout), w.level.Chunks()-first), nil
	}
	if err != nil {
		return 0, err
	}
	span := spanOf(height-1, w.level.Fanout)
	for i, child := range n.refs {
		below := int64(0)
		switch {
		case child.IsZero():
		case height > 1:
			if below, err = w.node(ctx, child, height-1, first+int64(i)*span); err != nil {
				return 0, err
			}
		case w.damage.Has(KindData, child):
			below = 1
		}
		bad += below
	}
	if bad == 0 {
		w.clean.add(ref)
	}
	return bad, nil
}
