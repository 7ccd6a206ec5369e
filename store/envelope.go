package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// maxJSON bounds the JSON objects of a repository, in bytes.
const maxJSON = 4 << 20

// errBadObject tells a JSON object that is not what was written.
var errBadObject = errors.New("bad object")

// envelope is how every JSON object is kept: its type, the BLAKE3-256 of the
// body's bytes, and the body.
type envelope struct {
	Type string          `json:"type"`
	Sum  Checksum        `json:"blake3"`
	Body json.RawMessage `json:"body"`
}

func encodeObject(typ string, body any) ([]byte, error) {
	p, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", typ, err)
	}
	if len(p) > maxJSON-1<<10 {
		return nil, fmt.Errorf("encode %s: %d bytes are more than a reader takes", typ, len(p))
	}
	// The body goes in byte for byte: its checksum is over just these bytes.
	return fmt.Appendf(nil, "{\"type\":%q,\"blake3\":%q,\"body\":%s}\n", typ, Sum(p), p), nil
}

// openObject takes an object out of its envelope, whose checksum it compares.
func openObject(p []byte) (e envelope, err error) {
	if err := json.Unmarshal(p, &e); err != nil {
		return e, fmt.Errorf("%w: %w", errBadObject, err)
	}
	if Sum(e.Body) != e.Sum {
		return e, fmt.Errorf("%w: fails its checksum", errBadObject)
	}
	return e, nil
}

func (e *envelope) decode(typ string, body any) error {
	if e.Type != typ {
		return fmt.Errorf("%w: it is a %q, not a %q", errBadObject, e.Type, typ)
	}
	if err := json.Unmarshal(e.Body, body); err != nil {
		return fmt.Errorf("%w: %w", errBadObject, err)
	}
	if v, ok := body.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			return fmt.Errorf("%w: %w", errBadObject, err)
		}
	}
	return nil
}

func decodeObject(p []byte, typ string, body any) error {
	e, err := openObject(p)
	if err != nil {
		return err
	}
	return e.decode(typ, body)
}

// readAll gets a whole object of at most max bytes.
func readAll(ctx context.Context, b Backend, key string, max int) ([]byte, error) {
	p := make([]byte, 8<<10)
	n := 0
	for {
		m, err := b.Get(ctx, key, p[n:], int64(n))
		n += m
		switch {
		case errors.Is(err, io.EOF):
			return p[:n], nil
		case errors.Is(err, ErrIrregular):
			return nil, fmt.Errorf("%w: %w", errBadObject, err)
		case err != nil:
			return nil, err
		case n < len(p):
			return nil, fmt.Errorf("read %s: %w", key, io.ErrUnexpectedEOF)
		case n > max:
			return nil, fmt.Errorf("%w: %s is longer than %d bytes", errBadObject, key, max)
		}
		p = append(p, make([]byte, min(len(p), max+1-n))...)
	}
}

// getObject reads a JSON object into body.
func (r *Repository) getObject(ctx context.Context, key, typ string, body any) error {
	p, err := readAll(ctx, r.backend, key, maxJSON)
	if err != nil {
		return err
	}
	if err := decodeObject(p, typ, body); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// putObject puts a JSON object.
func (r *Repository) putObject(ctx context.Context, key, typ string, body any) error {
	if v, ok := body.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			return err
		}
	}
	p, err := encodeObject(typ, body)
	if err != nil {
		return err
	}
	return r.put(ctx, key, p)
}

// errUnsettled tells that a put failed and that it cannot be found out whether
// it took effect.
var errUnsettled = errors.New("it is unknown whether the object was written")

// put puts an object whose bytes no other run would write. What fails is
// settled by reading back: where just these bytes are found, the put did take
// effect. Errors: fs.ErrExist where somebody else's object is there;
// errUnsettled.
func (r *Repository) put(ctx context.Context, key string, parts ...[]byte) error {
	err := r.backend.Put(ctx, key, parts...)
	if err == nil {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	same, readErr := r.holds(ctx, key, parts)
	switch {
	case same:
		return r.sync(ctx, key)
	case errors.Is(readErr, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist):
		return err
	case readErr != nil:
		return fmt.Errorf("%w: %w; reading it back: %w", errUnsettled, err, readErr)
	}
	return fmt.Errorf("%s: %w", key, fs.ErrExist)
}

// sync makes sure that an object put by another process is durable.
func (r *Repository) sync(ctx context.Context, key string) error {
	if s, ok := r.backend.(Syncer); ok {
		return s.Sync(ctx, key)
	}
	return nil
}

// holds reports whether an object has exactly these bytes.
func (r *Repository) holds(ctx context.Context, key string, parts [][]byte) (bool, error) {
	size := 1
	for _, part := range parts {
		size = max(size, len(part))
	}
	buf := make([]byte, min(size, 1<<20))
	var off int64
	for _, part := range parts {
		for len(part) > 0 {
			p := buf[:min(len(buf), len(part))]
			n, err := r.backend.Get(ctx, key, p, off)
			if err != nil && !errors.Is(err, io.EOF) {
				return false, err
			}
			if !bytes.Equal(p[:n], part[:n]) || n < len(p) {
				return false, nil
			}
			part, off = part[n:], off+int64(n)
		}
	}
	n, err := r.backend.Get(ctx, key, buf[:1], off)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return n == 0, nil
}
