package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
)

// stock is what packs a repository has. Map packs are listed once, whether one
// or both of their copies are there.
type stock struct {
	packs   map[packName]*stocked
	last    map[RunID]uint32 // the highest number of a run's map packs
	objects int64
}

// isLast reports whether a pack is the last map pack of its run.
func (s *stock) isLast(name packName) bool {
	return name.folder != dataPrefix && s.last[name.id.Run] == name.id.Seq
}

// stocked is a pack with all its copies and generations.
type stocked struct {
	generations []uint32 // distinct, in no order
	size        int64    // bytes, of all objects
}

// names lists the packs in the order in which they were written.
func (s *stock) names() []packName {
	return slices.SortedFunc(maps.Keys(s.packs), comparePackNames)
}

func comparePackNames(a, b packName) int {
	return cmp.Or(cmp.Compare(a.folder, b.folder), cmp.Compare(a.id.Run, b.id.Run), cmp.Compare(a.id.Seq, b.id.Seq))
}

func (p *stocked) newest() uint32 { return slices.Max(p.generations) }

// stock lists the packs. It is listed before anything is marked: packs that
// come later are not in it and so not condemned.
func (r *Repository) stock(ctx context.Context) (*stock, error) {
	s := &stock{packs: map[packName]*stocked{}, last: map[RunID]uint32{}}
	for _, folder := range []string{dataPrefix, mapsPrefix, twinsPrefix} {
		err := r.backend.List(ctx, folder, func(key string, size int64) error {
			folder, id, generation, err := parsePackKey(key)
			if err != nil {
				return nil // not ours
			}
			if folder == twinsPrefix {
				folder = mapsPrefix
			}
			if folder == mapsPrefix {
				s.last[id.Run] = max(s.last[id.Run], id.Seq)
			}
			p := s.packs[packName{folder, id}]
			if p == nil {
				p = &stocked{}
				s.packs[packName{folder, id}] = p
			}
			if !slices.Contains(p.generations, generation) {
				p.generations = append(p.generations, generation)
			}
			p.size += size
			s.objects++
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return s, nil
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
