package store

import (
	"context"
	"slices"
)

// packName is a pack in one folder.
type packName struct {
	folder string
	id     PackID
}

// generation returns the generation of a pack to be tried first.
func (r *Repository) generation(folder string, id PackID) uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.generations[packName{folder, id}]
}

// setGeneration remembers that a pack is not at generation 0 any more. The
// memory is dropped whole when it has grown large; a reader then finds the
// generations by listing.
func (r *Repository) setGeneration(folder string, id PackID, generation uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.generations) >= 1<<16 {
		clear(r.generations)
	}
	if generation == 0 {
		delete(r.generations, packName{folder, id})
		return
	}
	r.generations[packName{folder, id}] = generation
}

// listGenerations lists the generations of a pack that there are, newest
// first.
func (r *Repository) listGenerations(ctx context.Context, folder string, id PackID) ([]uint32, error) {
	var found []uint32
	err := r.backend.List(ctx, packPrefix(folder, id), func(key string, _ int64) error {
		_, other, generation, err := parsePackKey(key)
		if err == nil && other == id {
			found = append(found, generation)
		}
		return nil
	})
	slices.Sort(found)
	slices.Reverse(found)
	return found, err
}
