package engine

import (
	"context"

	"backy/store"
)

// Remove makes levels of a name unreadable for good, all or none of those that
// exist now. Their space is given back by gc.
func Remove(ctx context.Context, repo *store.Repository, name store.Name, numbers []store.LevelNumber) error {
	return repo.Remove(ctx, name, numbers)
}
