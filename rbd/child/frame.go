package child

import (
	"bytes"
	"encoding"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
)

// A frame on the socket, little endian:
//
//	length uint32   of all that follows
//	kind   byte
//	id     uint64   of the call, chosen by the end that made it
//	verb   byte     its length, and then the verb; only in calls
//	body   the rest: the arguments, the result or the fault, as gob or as their
//	       own MarshalBinary makes them
type frame struct {
	kind kind
	id   uint64
	verb string
	body []byte
}

type kind byte

const (
	isCall   kind = iota // do it
	isResult             // it is done
	isFault              // it failed
	isCancel             // do not go on with it; it is answered all the same
	isAlive              // a call that is not answered yet has made progress
	kinds
)

const (
	headBytes = 1 + 8 + 1

	// maxFrame bounds a frame, in bytes: the names of a million images.
	maxFrame = 256 << 20
)

// appendFrame appends a frame to p.
func appendFrame(p []byte, f frame) ([]byte, error) {
	n := headBytes + len(f.verb) + len(f.body)
	if len(f.verb) > 255 || n > maxFrame {
		return p, fmt.Errorf("a frame %q of %d bytes: too long", f.verb, n)
	}
	p = binary.LittleEndian.AppendUint32(p, uint32(n))
	p = append(p, byte(f.kind))
	p = binary.LittleEndian.AppendUint64(p, f.id)
	p = append(p, byte(len(f.verb)))
	return append(append(p, f.verb...), f.body...), nil
}

// errFrame tells that the other end says what nobody understands.
var errFrame = errors.New("a bad frame")

// readFrame reads the next frame; io.EOF is the end between two.
func readFrame(r io.Reader) (f frame, err error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return f, err
	}
	n := binary.LittleEndian.Uint32(length[:])
	if n < headBytes || n > maxFrame {
		return f, fmt.Errorf("%w of %d bytes", errFrame, n)
	}
	// What the length claims is only taken as it comes.
	var rest bytes.Buffer
	if _, err := io.CopyN(&rest, r, int64(n)); err != nil {
		return f, fmt.Errorf("a frame that ends early: %w", err)
	}
	p := rest.Bytes()
	f.kind, f.id = kind(p[0]), binary.LittleEndian.Uint64(p[1:])
	verb := int(p[9])
	if p = p[headBytes:]; f.kind >= kinds || verb > len(p) {
		return f, fmt.Errorf("%w of kind %d", errFrame, f.kind)
	}
	f.verb, f.body = string(p[:verb]), p[verb:]
	return f, nil
}

// Nothing is what a verb without arguments or without a result takes or gives.
type Nothing struct{}

func pack(v any) ([]byte, error) {
	switch v := v.(type) {
	case Nothing:
		return nil, nil
	case encoding.BinaryMarshaler:
		return v.MarshalBinary()
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(v); err != nil {
		return nil, fmt.Errorf("packing %T: %w", v, err)
	}
	return b.Bytes(), nil
}

// unpack fills v, a pointer.
func unpack(p []byte, v any) error {
	switch v := v.(type) {
	case *Nothing:
		return nil
	case encoding.BinaryUnmarshaler:
		return v.UnmarshalBinary(p)
	}
	if err := gob.NewDecoder(bytes.NewReader(p)).Decode(v); err != nil {
		return fmt.Errorf("unpacking %T: %w", v, err)
	}
	return nil
}
