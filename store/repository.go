package store

import (
	"context"
	"errors"
)

// Parameters are fixed when a repository is made.
type Parameters struct {
	ChunkSize int64 // bytes, a power of two from 16 KiB to 4 MiB; 0: 64 KiB
}

// Repository is an open repository. It is safe for concurrent use.
type Repository struct {
	ID        RepositoryID
	ChunkSize int64
}

// Init makes an empty repository. It fails where there is one.
func Init(ctx context.Context, b Backend, p Parameters) (*Repository, error) {
	return nil, errors.ErrUnsupported
}

// Open opens a repository. Errors: ErrNotRepository, *FormatError for one of a
// newer format.
//
// cache is a folder for what can be had again at any time; "" keeps it in
// memory.
func Open(ctx context.Context, b Backend, cache string) (*Repository, error) {
	return nil, errors.ErrUnsupported
}

// ErrNotRepository tells that there is no backy.json.
var ErrNotRepository = errors.New("not a repository")

// FormatError tells that a repository needs a newer backy.
type FormatError struct{ Needs string }

func (e *FormatError) Error() string {
	return "the repository needs a newer backy: " + e.Needs
}

// BusyError tells that another run is at work on a name.
type BusyError struct {
	Name Name
	Who  string // host, process and since when, for people
}

func (e *BusyError) Error() string {
	return string(e.Name) + ": another run is at work on this name: " + e.Who
}

// Names lists the backup names that have at least one level, sorted.
func (r *Repository) Names(ctx context.Context) ([]Name, error) {
	return nil, errors.ErrUnsupported
}

// Levels lists the levels of a name, oldest first. A record that cannot be
// read is an error, since whoever goes on without it may be wrong.
func (r *Repository) Levels(ctx context.Context, name Name) ([]Level, error) {
	return nil, errors.ErrUnsupported
}
