package store

import (
	"context"
	"errors"
	"slices"
)

// Usage is what the levels of a repository take, in bytes of packs, copies of map
// packs included. Total is the sum of what each name takes alone, of Shared and
// of Unused.
type Usage struct {
	Total  int64       `json:"total"`
	Shared int64       `json:"shared"` // needed by levels of more than one name
	Unused int64       `json:"unused"` // needed by no level
	Names  []NameUsage `json:"names"`  // sorted
}

// NameUsage is what the levels of a name take.
type NameUsage struct {
	Name   Name         `json:"name"`
	Alone  int64        `json:"alone"`  // needed by no other name
	Shared int64        `json:"shared"` // of this, needed by more than one level
	Levels []LevelUsage `json:"levels"`
}

// LevelUsage is what a level takes.
type LevelUsage struct {
	Number LevelNumber `json:"number"`
	Alone  int64       `json:"alone"` // needed by no other level
}

// usageShard is how many data packs are looked at in one go: what is remembered
// of each is five bitmaps at worst, some 700 bytes.
const usageShard = 400_000

// Usage finds out what each level and each name takes alone: what a gc would give
// back if just that went. What it reads of maps it remembers on this machine, as
// a gc does, so each distinct node is read once. Where a part of a map or a
// record cannot be read, it does without and tells in the error, along with the
// usage.
func (r *Repository) Usage(ctx context.Context, p *GCProgress) (*Usage, error) {
	if p == nil {
		p = &GCProgress{}
	}
	s, err := r.stock(ctx)
	if err != nil {
		return nil, err
	}
	u := &usage{repo: r, stock: s, usage: &Usage{Names: []NameUsage{}}}
	u.walk = &nodeWalk{repo: r, progress: p, known: r.openKnown(s)}
	defer u.walk.known.end(false)
	u.walk.unreadable = func(ref Ref) { u.bad = append(u.bad, &ChunkError{KindMap, ref, errBadPack}) }
	u.shards = uint32((len(s.data) + usageShard - 1) / usageShard)
	u.shards = max(u.shards, 1)
	var levels []*Level
	err = r.eachLevel(ctx, func(l *Level) error {
		levels = append(levels, &Level{Name: l.Name, Number: l.Number, Size: l.Size, ChunkSize: l.ChunkSize, Fanout: l.Fanout, Root: l.Root})
		return nil
	}, func(bad ObjectError) { u.bad = append(u.bad, &bad) })
	if err != nil {
		return nil, err
	}
	slices.SortFunc(levels, func(a, b *Level) int {
		if a.Name != b.Name {
			return compareNames(a.Name, b.Name)
		}
		return int(int64(a.Number) - int64(b.Number))
	})
	p.Roots.Store(2 * int64(len(levels)) * int64(u.shards))
	for u.shard = range u.shards {
		if err := u.count(ctx, levels); err != nil {
			return nil, err
		}
	}
	u.sum()
	return u.usage, errors.Join(u.bad...)
}

func compareNames(a, b Name) int {
	if a < b {
		return -1
	}
	return 1
}

// usage is one run of Usage.
type usage struct {
	repo   *Repository
	stock  *stock
	walk   *nodeWalk
	shards uint32 // of the data packs, one looked at after the other
	shard  uint32
	usage  *Usage
	bad    []error

	seen, levels, names places // reached; from more than one level; from more than one name
}

// places are those of chunks and of nodes.
type places struct{ chunks, nodes *liveSet }

func newPlaces() places { return places{newLiveSet(), newLiveSet()} }

func (p places) of(height int) *liveSet {
	if height == 0 {
		return p.chunks
	}
	return p.nodes
}

// count looks at one shard: first how often everything is reached, then who is
// the only one to reach it.
func (u *usage) count(ctx context.Context, levels []*Level) error {
	u.seen, u.levels, u.names = newPlaces(), newPlaces(), newPlaces()
	mineName := newPlaces()
	for i, l := range levels {
		if i > 0 && levels[i-1].Name != l.Name {
			mineName = newPlaces()
		}
		mineLevel := newPlaces()
		err := u.tree(ctx, l, func(ref Ref, height int) bool { return u.reach(ref, height, mineLevel, mineName) })
		if err != nil {
			return err
		}
	}
	for i := 0; i < len(levels); {
		n := i + 1
		for n < len(levels) && levels[n].Name == levels[i].Name {
			n++
		}
		if err := u.name(ctx, levels[i:n]); err != nil {
			return err
		}
		i = n
	}
	return u.shared(ctx)
}

// reach notes that a level reaches a place, and reports whether that is news for
// what hangs below.
func (u *usage) reach(ref Ref, height int, mineLevel, mineName places) bool {
	if height == 0 && ref.Pack.Seq%u.shards != u.shard || !mineLevel.of(height).add(ref) {
		return false
	}
	if u.seen.of(height).add(ref) {
		mineName.of(height).add(ref)
		return true
	}
	news := u.levels.of(height).add(ref)
	if mineName.of(height).add(ref) {
		news = u.names.of(height).add(ref) || news
	}
	return news
}

// tree calls visit for the root and, where it answers true, for what hangs below.
func (u *usage) tree(ctx context.Context, l *Level, visit func(ref Ref, height int) bool) error {
	u.walk.progress.Levels.Add(1)
	m := l.Map()
	if m.Root.IsZero() || !visit(m.Root, m.height()) {
		return nil
	}
	return u.walk.below(ctx, []Ref{m.Root}, m.height(), m.Fanout, visit)
}

// name adds what the levels of a name take alone.
func (u *usage) name(ctx context.Context, levels []*Level) error {
	i := slices.IndexFunc(u.usage.Names, func(n NameUsage) bool { return n.Name == levels[0].Name })
	if i < 0 {
		n := NameUsage{Name: levels[0].Name}
		for _, l := range levels {
			n.Levels = append(n.Levels, LevelUsage{Number: l.Number})
		}
		i, u.usage.Names = len(u.usage.Names), append(u.usage.Names, n)
	}
	n := &u.usage.Names[i]
	ofName := newPlaces()
	for j, l := range levels {
		ofLevel := newPlaces()
		err := u.tree(ctx, l, func(ref Ref, height int) bool {
			if height == 0 && ref.Pack.Seq%u.shards != u.shard || u.names.of(height).has(ref.Pack, ref.Index) || !ofName.of(height).add(ref) {
				return false
			}
			if !u.levels.of(height).has(ref.Pack, ref.Index) {
				ofLevel.of(height).add(ref)
			}
			return true
		})
		if err != nil {
			return err
		}
		bytes, err := u.bytes(ctx, ofLevel)
		if err != nil {
			return err
		}
		n.Levels[j].Alone += bytes
	}
	bytes, err := u.bytes(ctx, ofName)
	n.Alone += bytes
	return err
}

// shared adds what several names need.
func (u *usage) shared(ctx context.Context) error {
	bytes, err := u.bytes(ctx, u.names)
	u.usage.Shared += bytes
	return err
}

// bytes is what places take. Nodes count with the first shard.
func (u *usage) bytes(ctx context.Context, p places) (n int64, err error) {
	err = p.chunks.packs(func(id PackID) error { return u.pack(ctx, dataPrefix, id, p.chunks, u.seen.chunks, &n) })
	if err == nil && u.shard == 0 {
		err = p.nodes.packs(func(id PackID) error { return u.pack(ctx, mapsPrefix, id, p.nodes, u.seen.nodes, &n) })
	}
	return n, err
}

// pack adds what places take in one pack: all of it, if nothing else is needed
// there, or else their frames and entries. Where the table cannot be read, each
// entry takes the same.
func (u *usage) pack(ctx context.Context, folder string, id PackID, of, seen *liveSet, sum *int64) error {
	p := u.stock.find(packName{folder, id})
	if p == nil {
		return nil // written since, or lost
	}
	count, needed := of.count(id), seen.count(id)
	if count == needed {
		*sum += p.size
		return nil
	}
	h, entries, err := u.repo.readPackTable(ctx, packKey(folder, id, p.newest))
	if err != nil {
		if context.Cause(ctx) != nil {
			return context.Cause(ctx)
		}
		*sum += p.size * int64(count) / int64(needed)
		return nil
	}
	bitmap := of.of(id)
	var bytes int64
	for i := range entries {
		if hasBit(bitmap, uint32(i)) && entries[i].Codec != Absent {
			bytes += int64(entries[i].Stored) + frameHeaderSize + entrySize
		}
	}
	// Copies and older generations, as far as there are any.
	*sum += bytes * max(1, p.size/h.Length)
	return nil
}

// sum fills in what follows from the rest.
func (u *usage) sum() {
	for _, list := range [][]stocked{u.stock.data, u.stock.maps} {
		for i := range list {
			u.usage.Total += list[i].size
		}
	}
	u.usage.Unused = u.usage.Total - u.usage.Shared
	for i := range u.usage.Names {
		n := &u.usage.Names[i]
		u.usage.Unused -= n.Alone
		n.Shared = n.Alone
		for _, l := range n.Levels {
			n.Shared -= l.Alone
		}
	}
	u.usage.Unused = max(u.usage.Unused, 0)
}
