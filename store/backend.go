package store

import (
	"context"
	"errors"
	"time"
)

// ErrIrregular tells that what stands at a key is no object: a pipe, a device,
// a link. Who put it there is not backy, and to try again does not help.
var ErrIrregular = errors.New("it is no regular file")

// Backend keeps immutable objects under keys: paths of segments with slashes
// between, without "." and "..", such as data/0123456789abcdef/00000000. No key
// is also a folder of another; an impossible key matches fs.ErrInvalid.
//
// All methods are safe for concurrent use, by many processes and hosts too.
type Backend interface {
	// Put creates an object from the parts, one after the other: atomically (a
	// reader sees all of it or nothing), durably (it outlives a power cut once
	// Put returned nil) and exclusively: where the key exists, it changes
	// nothing and the error matches fs.ErrExist. After any other error the
	// object may exist or not.
	Put(ctx context.Context, key string, parts ...[]byte) error

	// Get reads from off into p as io.ReaderAt does: fewer bytes than len(p) only
	// with an error, io.EOF at the object's end. A missing key matches
	// fs.ErrNotExist, one with something else in an object's place ErrIrregular,
	// at once: List lists it as empty.
	Get(ctx context.Context, key string, p []byte, off int64) (int, error)

	// List calls fn for every object whose key begins with the prefix, in no
	// certain order, with its size. An error of fn ends it. Objects that come
	// or go meanwhile may be listed or not.
	List(ctx context.Context, prefix string, fn func(key string, size int64) error) error

	// Delete removes an object, durably. A missing one is no error.
	Delete(ctx context.Context, key string) error
}

// Sweeper is a Backend on which a process that dies in a Put leaves something
// behind that is no object. Sweep removes what is older than age and of no
// living process; 0 is an age of the backend's choice.
type Sweeper interface {
	Sweep(ctx context.Context, age time.Duration) (removed int, err error)
}

// Syncer is a Backend on which an object can be seen before it is durable. Sync
// makes sure of one that another process put.
type Syncer interface {
	Sync(ctx context.Context, key string) error
}
