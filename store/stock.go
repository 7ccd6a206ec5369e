package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"
)

// stock is what packs a repository has. Map packs are listed once, whether one
// or both of their copies are there. It takes 24 bytes a pack: 80 MB for 100 TiB.
type stock struct {
	data, maps []stocked        // sorted by run and number
	last       map[RunID]uint32 // the highest number of a run's map packs
	objects    int64
}

// stocked is a pack with all its copies and generations.
type stocked struct {
	run    RunID
	seq    uint32
	newest uint32 // generation
	size   int64  // bytes, of all objects
}

func (p *stocked) compare(o *stocked) int {
	return cmp.Or(cmp.Compare(p.run, o.run), cmp.Compare(p.seq, o.seq))
}

// isLast reports whether a pack is the last map pack of its run.
func (s *stock) isLast(name packName) bool {
	last, ok := s.last[name.id.Run]
	return ok && name.folder != dataPrefix && last == name.id.Seq
}

// find returns a pack; nil where there is none.
func (s *stock) find(name packName) *stocked {
	list := s.maps
	if name.folder == dataPrefix {
		list = s.data
	}
	wanted := stocked{run: name.id.Run, seq: name.id.Seq}
	i, ok := slices.BinarySearchFunc(list, wanted, func(a, b stocked) int { return a.compare(&b) })
	if !ok {
		return nil
	}
	return &list[i]
}

// all are the packs in the order in which they were written.
func (s *stock) all() iter.Seq2[packName, *stocked] {
	return func(yield func(packName, *stocked) bool) {
		for i := range s.data {
			if !yield(packName{dataPrefix, PackID{s.data[i].run, s.data[i].seq}}, &s.data[i]) {
				return
			}
		}
		for i := range s.maps {
			if !yield(packName{mapsPrefix, PackID{s.maps[i].run, s.maps[i].seq}}, &s.maps[i]) {
				return
			}
		}
	}
}

func comparePackNames(a, b packName) int {
	return cmp.Or(cmp.Compare(a.folder, b.folder), cmp.Compare(a.id.Run, b.id.Run), cmp.Compare(a.id.Seq, b.id.Seq))
}

// stock lists the packs. It is listed before anything is marked: packs that
// come later are not in it and so not condemned.
func (r *Repository) stock(ctx context.Context) (*stock, error) {
	return r.stockOf(ctx, packFolders[:])
}

// mapStock lists the map packs alone.
func (r *Repository) mapStock(ctx context.Context) (*stock, error) {
	return r.stockOf(ctx, foldersOf(KindMap))
}

// stockOf lists the packs in folders.
func (r *Repository) stockOf(ctx context.Context, folders []string) (*stock, error) {
	s := &stock{last: map[RunID]uint32{}}
	for _, folder := range folders {
		list := &s.data
		if folder != dataPrefix {
			list = &s.maps
		}
		err := r.backend.List(ctx, folder, func(key string, size int64) error {
			_, id, generation, err := parsePackKey(key)
			if err != nil {
				return nil // not ours
			}
			if folder != dataPrefix {
				s.last[id.Run] = max(s.last[id.Run], id.Seq)
			}
			*list = append(*list, stocked{run: id.Run, seq: id.Seq, newest: generation, size: size})
			s.objects++
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	s.data, s.maps = joinStock(s.data), joinStock(s.maps)
	return s, nil
}

// joinStock sorts what was listed, and makes one of a pack's objects.
func joinStock(list []stocked) []stocked {
	slices.SortFunc(list, func(a, b stocked) int { return a.compare(&b) })
	n := 0
	for i := range list {
		if n > 0 && list[n-1].compare(&list[i]) == 0 {
			list[n-1].newest = max(list[n-1].newest, list[i].newest)
			list[n-1].size += list[i].size
			continue
		}
		list[n] = list[i]
		n++
	}
	return list[:n]
}

// entriesOf returns how many entries of a pack have a frame. Of a map pack the
// twin will do.
func (r *Repository) entriesOf(ctx context.Context, name packName, generation uint32) (n int, err error) {
	folders := []string{name.folder}
	if name.folder == mapsPrefix {
		folders = foldersOf(KindMap)
	}
	for _, folder := range folders {
		var head [packHeaderSize]byte
		key := packKey(folder, name.id, generation)
		if _, err = r.backend.Get(ctx, key, head[:], 0); err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				err = fmt.Errorf("%w: %w", errBadPack, err)
			}
			continue
		}
		var h packHeader
		if h, err = decodePackHeader(head[:]); err == nil {
			return int(h.Entries - h.Absent), nil
		}
	}
	if context.Cause(ctx) != nil {
		return 0, context.Cause(ctx)
	}
	return 0, err
}

// claims lists the claims of backups that have not ended. One that cannot be
// read counts, with its name and number alone.
func (r *Repository) claims(ctx context.Context) ([]claim, error) {
	keys, err := r.list(ctx, workPrefix+"claim.")
	if err != nil {
		return nil, err
	}
	var list []claim
	for _, key := range keys {
		var c claim
		err := r.getObject(ctx, key, "claim", &c)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case errors.Is(err, errBadObject):
			if c, err = parseClaimKey(key); err != nil {
				continue
			}
		case err != nil:
			return nil, err
		}
		over, err := r.decided(ctx, c.Name, c.Number)
		if err != nil {
			return nil, err
		}
		if !over {
			list = append(list, c)
		}
	}
	return list, nil
}

// Claimed returns the runs of backups whose claims stand: those that go on, and
// those that were killed and that nobody has found out yet. A run without can
// never commit. all is false where a claim cannot be read, which may be any run's.
func (r *Repository) Claimed(ctx context.Context) (runs map[RunID]bool, all bool, err error) {
	list, err := r.claims(ctx)
	if err != nil {
		return nil, false, err
	}
	runs, all = map[RunID]bool{}, true
	for i := range list {
		runs[list[i].Run] = true
		all = all && list[i].Run != 0
	}
	return runs, all, nil
}

// parseClaimKey tells what a claim's key does.
func parseClaimKey(key string) (c claim, err error) {
	s := strings.TrimPrefix(key, workPrefix+"claim.")
	dot := strings.LastIndexByte(s, '.')
	if dot < 0 {
		return c, fmt.Errorf("key %q: not a claim's", key)
	}
	if c.Name, err = unescapeName(s[:dot]); err != nil {
		return c, err
	}
	c.Number, err = ParseLevelNumber(s[dot+1:])
	c.Beat = defaultBeat.Seconds()
	return c, err
}

// decided reports whether anything stands at a commit key.
func (r *Repository) decided(ctx context.Context, name Name, n LevelNumber) (bool, error) {
	keys, err := r.list(ctx, levelPrefix(name)+n.String()+".")
	return len(keys) > 0, err
}
