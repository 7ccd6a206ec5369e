package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"
)

// DefaultChunkSize is used where none is asked for, in bytes.
const DefaultChunkSize = 64 << 10

// formatVersion is that of backy.json. A reader refuses any other.
const formatVersion = 1

// defaultFanout makes a leaf of the default chunk size cover 4 MiB, RBD's
// usual object.
const defaultFanout = 64

// Parameters are fixed when a repository is made.
type Parameters struct {
	ChunkSize int64 // bytes, a power of two from 16 KiB to 4 MiB; 0: 64 KiB
	Fanout    int   // children of a map node, a power of two from 2 to 256; 0: 64
}

// Validate refuses what no repository can have.
func (p Parameters) Validate() error {
	if p.ChunkSize != 0 && !validChunkSize(p.ChunkSize) {
		return fmt.Errorf("chunk size %d: not a power of two from 16 KiB to 4 MiB", p.ChunkSize)
	}
	if p.Fanout != 0 && !validFanout(p.Fanout) {
		return fmt.Errorf("fan-out %d: not a power of two from 2 to 256", p.Fanout)
	}
	return nil
}

// config is the body of backy.json.
type config struct {
	Format    int          `json:"format"`
	ID        RepositoryID `json:"id"`
	ChunkSize int64        `json:"chunk_size"`
	Fanout    int          `json:"fanout"`
	Checksum  string       `json:"checksum"`
	Created   time.Time    `json:"created"`

	// Names of what a reader or a writer must know beyond the format version.
	ReadFeatures  []string `json:"read_features"`
	WriteFeatures []string `json:"write_features"`
}

// Repository is an open repository. It is safe for concurrent use.
type Repository struct {
	ID        RepositoryID
	ChunkSize int64 // bytes

	fanout   int
	backend  Backend
	cache    string // folder; "": none
	index    *index
	nodes    nodeCache
	fetchers *sync.Pool
	readOnly error // why writing is refused; nil: it is not
	self     process
	newRun   func(time.Time) RunID
	clock    func() time.Time // the host's, which may be wrong

	// Packs are closed at this many bytes; tests make them small.
	packSizes map[Kind]int

	salvaging chan struct{} // has room for one

	onWait func(Wait) // may be nil

	probing sync.Mutex
	probed  bool // the store refuses to create an object twice

	mu          sync.Mutex
	generations map[packName]uint32
	suspects    map[Ref]bool // see suspect
}

// ErrNotRepository tells that there is no backy.json.
var ErrNotRepository = errors.New("not a repository")

// ErrRepositoryExists tells that there is one already.
var ErrRepositoryExists = errors.New("there is a repository already")

// FormatError tells that a repository needs a newer backy.
type FormatError struct{ Needs string }

func (e *FormatError) Error() string {
	return "the repository needs a newer backy, which knows " + e.Needs
}

// Init makes an empty repository and opens it. Where there is one, it fails
// with ErrRepositoryExists.
func Init(ctx context.Context, b Backend, p Parameters) (*Repository, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	c := config{
		Format: formatVersion, ID: NewRepositoryID(), ChunkSize: p.ChunkSize, Fanout: p.Fanout,
		Checksum: "blake3-256", Created: time.Now().UTC().Truncate(time.Second),
		ReadFeatures: []string{}, WriteFeatures: []string{},
	}
	if c.ChunkSize == 0 {
		c.ChunkSize = DefaultChunkSize
	}
	if c.Fanout == 0 {
		c.Fanout = defaultFanout
	}
	if err := probe(ctx, b); err != nil {
		return nil, err
	}
	r := &Repository{backend: b}
	err := r.putObject(ctx, configKey, "repository", &c)
	if errors.Is(err, fs.ErrExist) {
		return nil, ErrRepositoryExists
	}
	if err != nil {
		return nil, err
	}
	r.putReserve(ctx)
	return Open(ctx, b, "")
}

// probe refuses a backend that lets a second put of one key through: nothing
// here is safe on such a store.
func probe(ctx context.Context, b Backend) error {
	key := workPrefix + "probe." + NewRunID(time.Now()).String()
	if err := b.Put(ctx, key, []byte("first")); err != nil {
		return err
	}
	err := b.Put(ctx, key, []byte("second"))
	if deleteErr := b.Delete(ctx, key); deleteErr != nil {
		return deleteErr
	}
	if err == nil {
		return errOverwrites
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// Open opens a repository. Errors: ErrNotRepository, *FormatError for one of a
// newer format.
//
// cache is a folder for what can be had again at any time; "" keeps it in
// memory.
func Open(ctx context.Context, b Backend, cache string) (*Repository, error) {
	r := &Repository{backend: b, self: thisProcess(), newRun: NewRunID, clock: time.Now, salvaging: make(chan struct{}, 1), generations: map[packName]uint32{}, packSizes: map[Kind]int{KindData: dataPackSize, KindMap: mapPackSize}}
	var c config
	err := r.getObject(ctx, configKey, "repository", &c)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotRepository
	}
	if err != nil {
		return nil, err
	}
	switch {
	case c.Format != formatVersion:
		return nil, &FormatError{Needs: fmt.Sprintf("format %d (this one knows %d)", c.Format, formatVersion)}
	case len(c.ReadFeatures) > 0:
		return nil, &FormatError{Needs: fmt.Sprintf("%q", c.ReadFeatures)}
	case c.Checksum != "blake3-256":
		return nil, &FormatError{Needs: "checksum " + c.Checksum}
	case !validChunkSize(c.ChunkSize) || !validFanout(c.Fanout):
		return nil, fmt.Errorf("%s: %w: chunk size %d, fan-out %d", configKey, errBadObject, c.ChunkSize, c.Fanout)
	case len(c.WriteFeatures) > 0:
		r.readOnly = &FormatError{Needs: fmt.Sprintf("%q, to write to it", c.WriteFeatures)}
	}
	r.ID, r.ChunkSize, r.fanout = c.ID, c.ChunkSize, c.Fanout
	r.cache = cache
	r.index = openIndex(cache, c.ID)
	r.fetchers = newFetcherPool(r)
	return r, nil
}

// Close lets go of the cache. The repository must not be used afterwards.
func (r *Repository) Close() error { return r.index.close() }

// Fanout is the number of children of a map node.
func (r *Repository) Fanout() int { return r.fanout }

func (r *Repository) packSize(kind Kind) int { return r.packSizes[kind] }

// list collects the keys below a prefix, sorted.
func (r *Repository) list(ctx context.Context, prefix string) ([]string, error) {
	var keys []string
	err := r.backend.List(ctx, prefix, func(key string, _ int64) error {
		keys = append(keys, key)
		return nil
	})
	slices.Sort(keys)
	return keys, err
}
