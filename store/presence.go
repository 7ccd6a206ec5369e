package store

import (
	"context"
	"errors"
	"io/fs"
	"sync"
)

// Presence knows by listings which packs are there, a run's at a time and each
// once. It vouches for their names alone: not for their bytes, nor that an entry
// of theirs has a frame. It is safe for concurrent use.
//
// A pack that came after its run was listed is missed: it is asked for packs that
// a level refers to that stood before.
type Presence struct {
	repo *Repository
	mu   sync.Mutex
	runs map[runFolder]map[uint32]packSize
}

type runFolder struct {
	folder string
	run    RunID
}

// packSize is that of a pack's newest generation. A pack that was looked for once
// more and is not there has a negative generation.
type packSize struct {
	generation int64
	bytes      int64
}

// Presence returns one that has listed nothing yet.
func (r *Repository) Presence() *Presence {
	return &Presence{repo: r, runs: map[runFolder]map[uint32]packSize{}}
}

// Has reports whether a pack is there, a map pack in either directory.
func (p *Presence) Has(ctx context.Context, kind Kind, id PackID) (bool, error) {
	for _, folder := range foldersOf(kind) {
		if ok, err := p.hasIn(ctx, folder, id); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func (p *Presence) hasIn(ctx context.Context, folder string, id PackID) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	packs, err := p.list(ctx, folder, id.Run)
	if err != nil {
		return false, err
	}
	found, ok := packs[id.Seq]
	if !ok {
		// While the run was listed, a newer generation may have taken the place of an
		// older one.
		generations, err := p.repo.listGenerations(ctx, folder, id)
		if err != nil {
			return false, err
		}
		found = packSize{generation: -1}
		if len(generations) > 0 {
			found.generation = int64(generations[0])
		}
		packs[id.Seq] = found
	}
	return found.generation >= 0, nil
}

// list returns a run's packs in a directory. The caller holds the lock.
func (p *Presence) list(ctx context.Context, folder string, run RunID) (map[uint32]packSize, error) {
	at := runFolder{folder, run}
	if packs, ok := p.runs[at]; ok {
		return packs, nil
	}
	packs := map[uint32]packSize{}
	err := p.repo.backend.List(ctx, folder+run.String()+"/", func(key string, size int64) error {
		_, id, generation, err := parsePackKey(key)
		if err != nil || id.Run != run {
			return nil // not ours
		}
		if old, ok := packs[id.Seq]; !ok || int64(generation) > old.generation {
			packs[id.Seq] = packSize{int64(generation), size}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	p.runs[at] = packs
	return packs, nil
}

// Short reports whether packs may be missing that a level needs, by what its
// record says of what its run stored: the root's pack is gone, or a map pack up to
// it, or a data pack, or their sizes add up to less. It says nothing of packs of
// other runs, and it may be wrong: a gc removes what a run stored in vain. copies
// are map packs of which one copy is missing.
func (p *Presence) Short(ctx context.Context, l *Level) (short bool, copies []packName, err error) {
	if !l.Root.IsZero() {
		there, err := p.Has(ctx, KindMap, l.Root.Pack)
		if err != nil {
			return false, nil, err
		}
		short = !there
	}
	if l.Root.Pack.Run == l.Run {
		for seq := range l.Root.Pack.Seq + 1 {
			lost, err := p.mapPack(ctx, PackID{l.Run, seq})
			if err != nil {
				return false, nil, err
			}
			short = short || len(lost) == len(foldersOf(KindMap))
			if len(lost) < len(foldersOf(KindMap)) {
				copies = append(copies, lost...)
			}
		}
	}
	less, err := p.shortOfData(ctx, l)
	return short || less, copies, err
}

// mapPack returns the copies of a map pack that are missing.
func (p *Presence) mapPack(ctx context.Context, id PackID) (missing []packName, err error) {
	for _, folder := range foldersOf(KindMap) {
		there, err := p.hasIn(ctx, folder, id)
		if err != nil {
			return nil, err
		}
		if !there {
			missing = append(missing, packName{folder, id})
		}
	}
	return missing, nil
}

// shortOfData compares what there is of a run's data packs with its level's record.
func (p *Presence) shortOfData(ctx context.Context, l *Level) (bool, error) {
	if l.Stats.Chunks == 0 {
		return false, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	packs, err := p.list(ctx, dataPrefix, l.Run)
	if err != nil {
		return false, err
	}
	count, highest, bytes := int64(0), uint32(0), int64(0)
	for seq, pack := range packs {
		if pack.generation >= 0 {
			count, highest, bytes = count+1, max(highest, seq), bytes+pack.bytes
		}
	}
	stored := l.Stats.Packed + l.Stats.Chunks*(entrySize+frameHeaderSize) + count*packHeaderSize
	return count == 0 || int64(highest)+1 != count || l.Stats.Packed > 0 && bytes < stored, nil
}

// NoteGone writes down every chunk that a level needs and whose pack is missing, as a
// scrub would, and adds it to Damage. It is not for while others use that.
func (w *Writer) NoteGone(ctx context.Context) error {
	walk := &damageWalk{repo: w.repo, damage: w.Damage, clean: newLiveSet(), present: w.Present, moved: w.Moved}
	walk.gone = func(ref Ref) error {
		w.Damage.add(KindData, ref)
		return w.repo.NoteDamage(ctx, walk.level, &ChunkError{Kind: KindData, Ref: ref, Cause: fs.ErrNotExist})
	}
	_, err := walk.levels(ctx)
	return err
}

// Short reports whether packs may be missing below a base, by the records of all
// levels up to it, whose chunks it may share. Map packs that lack a copy are
// written again when the map ends; copies tells how many.
func (w *Writer) Short(ctx context.Context, base *Level) (short bool, copies int, err error) {
	for i := range w.History.Levels {
		l := &w.History.Levels[i]
		if l.Number > base.Number {
			continue
		}
		less, lacking, err := w.Present.Short(ctx, l)
		if err != nil {
			return false, 0, err
		}
		short = short || less
		if len(lacking) > 0 {
			// A gc deletes the copies of a removed level one after the other.
			err := w.repo.CheckRemoved(ctx, l)
			if errors.Is(err, ErrRemoved) {
				continue
			}
			if err != nil {
				return false, 0, err
			}
		}
		for _, name := range lacking {
			w.Damage.addTable(name)
			copies++
		}
	}
	return short, copies, nil
}
