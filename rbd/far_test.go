package rbd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"backy/engine"
	"backy/rbd/child"
)

// What is read many pieces at a time is what one read of each gives.
func TestReadMany(t *testing.T) {
	l := newLab(t)
	spec := l.create("image", 3*object+1000)
	l.write(spec, 0, object)
	l.write(spec, 2*object+5, 1000)
	c, err := Open(t.Context(), Config{Conf: l.cluster.Conf(), ID: l.cluster.Backup(t)}, ClusterOptions{})
	l.must(err)
	defer func() { l.must(c.Close()) }()
	want := l.content(spec)
	l.rbd("snap", "create", "--no-progress", path(spec)+"@s")
	view, closer, err := c.View(t.Context(), spec.at("s"))
	l.must(err)
	defer func() { l.must(closer.Close()) }()
	many := view.Reader.(engine.ManyReader)
	for atOnce := range 4 {
		var pieces []engine.Piece
		for range 40 {
			off := rand.Int64N(view.Size)
			pieces = append(pieces, engine.Piece{Data: make([]byte, rand.Int64N(min(view.Size-off, 64<<10)+1)), Offset: off})
		}
		l.must(many.ReadMany(pieces, atOnce))
		for _, p := range pieces {
			if !bytes.Equal(p.Data, want[p.Offset:][:len(p.Data)]) {
				t.Errorf("%d bytes at %d differ", len(p.Data), p.Offset)
			}
		}
	}
	l.must(many.ReadMany(nil, 1))
	two := []engine.Piece{{Data: make([]byte, 10), Offset: 0}, {Data: make([]byte, 10), Offset: view.Size - 9}}
	if err := many.ReadMany(two, 8); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a piece that reaches across the end: %v", err)
	}
	two[0].Data = make([]byte, child.SlotBytes)
	if err := many.ReadMany(two, 8); err == nil {
		t.Error("more than a slot: no error")
	}
}

// failing answers three reads, once all have begun, each in its own way.
type failing struct {
	errs  map[int64]error
	begun *sync.WaitGroup
}

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	f.begun.Done()
	f.begun.Wait()
	return len(p), f.errs[off]
}

// If one of many reads was left behind, that is what is said of all: the memory is
// still being written to.
func TestManyReadsLeftBehind(t *testing.T) {
	medium := errors.New("medium error")
	left := fmt.Errorf("read: %w", ErrTimeout)
	for _, c := range []struct {
		what string
		errs map[int64]error
		want error
	}{
		{"none", nil, nil},
		{"one fails", map[int64]error{2: medium}, medium},
		{"the last is left behind", map[int64]error{2: left}, ErrTimeout},
		{"one is left behind between others", map[int64]error{0: medium, 1: left, 2: medium}, ErrTimeout},
	} {
		at := &session{}
		f := failing{c.errs, &sync.WaitGroup{}}
		f.begun.Add(3)
		at.read(f)
		list := []piece{{Off: 0, Length: 1}, {Off: 1, Length: 1}, {Off: 2, Length: 1}}
		if err := at.fillMany(make([]byte, 3), list, len(list)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}
