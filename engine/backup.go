package engine

import (
	"context"
	"errors"

	"backy/store"
)

// BackupOptions are the choices of a backup. The zero value works.
type BackupOptions struct {
	Labels   map[string]string
	Source   string    // recorded as Origin.Source where the source leaves it empty
	Readers  int       // units in work at a time; 0: 12
	Progress *Progress // may be nil
	Warn     Warn      // may be nil
}

// Backup makes the next level of a name from a source and returns its record.
//
// Errors: *store.BusyError while another run is at work on the name. After an
// error no level was made, unless the error says otherwise.
func Backup(ctx context.Context, repo *store.Repository, name store.Name, src Source, o BackupOptions) (store.Level, error) {
	return store.Level{}, errors.ErrUnsupported
}
