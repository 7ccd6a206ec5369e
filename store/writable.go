package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// errOverwrites tells of a store on which nothing here is safe.
var errOverwrites = errors.New("the store lets an object be created twice: it cannot hold a repository")

// writable refuses a repository that must not be written to. Once a process it
// asks the store, too, whether it refuses to create an object twice: with the
// bytes of backy.json, which would do no harm if it did not.
//
// Every verb that writes begins with it.
func (r *Repository) writable(ctx context.Context) error {
	if r.readOnly != nil {
		return r.readOnly
	}
	r.probing.Lock()
	defer r.probing.Unlock()
	if r.probed {
		return nil
	}
	p, err := readAll(ctx, r.backend, configKey, maxJSON)
	if err != nil {
		return fmt.Errorf("ask the store whether it refuses to create an object twice: %w", err)
	}
	switch err := r.backend.Put(ctx, configKey, p); {
	case err == nil:
		return errOverwrites
	case !errors.Is(err, fs.ErrExist):
		return fmt.Errorf("ask the store whether it refuses to create an object twice: %w", err)
	}
	r.probed = true
	return nil
}
