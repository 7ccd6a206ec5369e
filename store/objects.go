package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// objectTypes are those of all JSON objects.
var objectTypes = []string{
	"repository", "level", "tombstone", "removed", "claim", "beat", "lease", "gc", "condemned", "waiting",
	"verdict", "verdict part", "damaged", "differs", "protected", "checked", "scrubbed", "scrubbed all",
}

// HeadBytes is how much of an object IsObject wants to see.
const HeadBytes = 64

// IsObject reports whether a file's first bytes are those of an object of a
// repository, of whichever one.
func IsObject(head []byte) bool {
	if bytes.HasPrefix(head, packMagic[:]) {
		return true
	}
	return slices.ContainsFunc(append([]string{"reserve"}, objectTypes...), func(typ string) bool {
		return bytes.HasPrefix(head, fmt.Appendf(nil, `{"type":%q,"blake3":"`, typ))
	})
}

// CheckObjects reads every object that is no pack and compares its checksum.
// It calls bad for each that is not what was written, and returns how many it
// checked. Objects that go meanwhile do not count, nor do files that are not
// backy's, nor the reserve, which means nothing.
func (r *Repository) CheckObjects(ctx context.Context, bad func(ObjectError)) (n int64, err error) {
	keys := []string{configKey}
	for _, prefix := range []string{levelsPrefix, workPrefix, damagedPrefix, marksPrefix} {
		more, err := r.list(ctx, prefix)
		if err != nil {
			return n, err
		}
		keys = append(keys, more...)
	}
	for _, key := range keys {
		if strings.HasPrefix(key, levelsPrefix) {
			if _, _, _, err := parseLevelKey(key); err != nil {
				continue
			}
		}
		if strings.HasPrefix(key, workPrefix+"probe.") {
			continue // of an init that was killed: two words
		}
		err := r.checkObject(ctx, key)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			err = r.checkObject(ctx, key)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case context.Cause(ctx) != nil:
			return n, context.Cause(ctx)
		case err != nil:
			bad(ObjectError{Key: key, Err: err})
		}
		n++
	}
	return n, nil
}

// checkObject compares the checksum of an object's body, whatever its type.
func (r *Repository) checkObject(ctx context.Context, key string) error {
	p, err := readAll(ctx, r.backend, key, maxJSON)
	if err != nil {
		return err
	}
	var e envelope
	if err := json.NewDecoder(bytes.NewReader(p)).Decode(&e); err != nil {
		return fmt.Errorf("%w: %w", errBadObject, err)
	}
	if !slices.Contains(objectTypes, e.Type) {
		return fmt.Errorf("%w: type %q", errBadObject, e.Type)
	}
	var body json.RawMessage
	return decodeObject(p, e.Type, &body)
}
