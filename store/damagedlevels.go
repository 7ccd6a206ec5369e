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

// DamagedLevels finds the levels that need what is known to be bad, or packs that
// are missing. It lists the packs of the levels' runs. If nothing is known to be
// bad, and no level's record says that its run stored more, that is all; else it
// reads each distinct map node once. It reads no data and writes nothing. Records
// that cannot be read are left out.
func (r *Repository) DamagedLevels(ctx context.Context, d *Damage) (list []LevelDamage, err error) {
	w := &damageWalk{repo: r, damage: d, clean: newLiveSet(), present: r.Presence()}
	short, err := w.short(ctx)
	if err != nil || !short && !d.Any() {
		return nil, err
	}
	return w.levels(ctx)
}

// levels walks the maps of all levels and returns those of which something is bad.
func (w *damageWalk) levels(ctx context.Context) (list []LevelDamage, err error) {
	err = w.repo.eachLevel(ctx, func(l *Level) error {
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

	present *Presence
	gone    func(Ref) error // told of chunks whose packs are missing; may be nil
	moved   func()          // told that it goes on; may be nil
}

// short reports whether packs of any level may be missing. Copies of map packs
// that are count as bad tables.
func (w *damageWalk) short(ctx context.Context) (short bool, err error) {
	err = w.repo.eachLevel(ctx, func(l *Level) error {
		less, copies, err := w.present.Short(ctx, l)
		short = short || less
		if err != nil || len(copies) == 0 {
			return err
		}
		// A gc deletes the copies of a removed level one after the other.
		if err := w.repo.CheckRemoved(ctx, l); err != nil {
			return skipRemoved(err)
		}
		for _, name := range copies {
			w.damage.addTable(name)
		}
		return nil
	}, func(ObjectError) {})
	return short, err
}

// chunk counts a chunk that is known to be bad, or whose pack is missing.
func (w *damageWalk) chunk(ctx context.Context, ref Ref) (bad int64, err error) {
	if w.damage.Has(KindData, ref) {
		return 1, nil
	}
	there, err := w.present.Has(ctx, KindData, ref.Pack)
	if err != nil || there {
		return 0, err
	}
	if err := w.repo.CheckRemoved(ctx, w.level); err != nil || w.gone == nil {
		return 1, err
	}
	return 1, w.gone(ref)
}

func (w *damageWalk) node(ctx context.Context, ref Ref, height int, first int64) (bad int64, err error) {
	if w.clean.has(ref.Pack, ref.Index) {
		return 0, nil
	}
	if w.moved != nil {
		w.moved()
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
		default:
			if below, err = w.chunk(ctx, child); err != nil {
				return 0, err
			}
		}
		bad += below
	}
	if bad == 0 {
		w.clean.add(ref)
	}
	return bad, nil
}
