//go:build cgo

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"backy/engine"
	"backy/hints"
	"backy/store"
	"backy/store/dir"
)

const (
	fanoutChunk  = 16 << 10 // next to nothing but zeros: the map is what is measured
	fanoutChunks = 1 << 18  // as many as an image of 16 GiB has by default
)

// patterned is an image of which each chunk tells its place and its version.
type patterned struct {
	versions []uint32
	changed  hints.Seq
}

func (p *patterned) Begin(_ context.Context, run engine.Run) (*engine.State, error) {
	s := &engine.State{
		View:   engine.View{Reader: p, Size: fanoutChunk * fanoutChunks, Extents: p.changed},
		Origin: store.Origin{Kind: "file", Diff: store.DiffNone},
	}
	if len(run.Levels) > 0 {
		s.Base, s.Outside = &run.Levels[0], engine.Unchanged
	}
	return s, nil
}

func (p *patterned) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	for at := int64(0); at < int64(len(b)); at += fanoutChunk {
		n := (off + at) / fanoutChunk
		binary.LittleEndian.PutUint32(b[at:], uint32(n))
		binary.LittleEndian.PutUint32(b[at+4:], p.versions[n])
	}
	return len(b), nil
}

func (p *patterned) Recheck(context.Context) error             { return nil }
func (p *patterned) End(context.Context, engine.Outcome) error { return nil }

// change makes new versions of chunks, which the next backup reads alone.
func (p *patterned) change(chunks []int64) {
	slices.Sort(chunks)
	var list []hints.Extent
	for _, n := range slices.Compact(chunks) {
		p.versions[n]++
		list = append(list, hints.Extent{Offset: n * fanoutChunk, Length: fanoutChunk, Exists: true})
	}
	p.changed = hints.Of(list)
}

// benchFanout measures maps of several fan-outs, in this process: a repository's
// is fixed, and no flag sets it.
func benchFanout(ctx context.Context, b *bench) error {
	c := curve{
		title: fmt.Sprintf("Fan-out of a map of %d chunks, all there", fanoutChunks), name: "fanout", x: "children a node", log: true,
		y: []string{"full, KiB of metadata", "100 scattered changes, bytes a change", "1000 neighbours changed, bytes a change", "reading the map, ms"},
	}
	for fanout := 8; fanout <= 256; fanout *= 2 {
		figures, err := b.measureFanout(ctx, fanout)
		if err != nil {
			return err
		}
		c.add(fmt.Sprint(fanout), float64(fanout), figures...)
	}
	b.report.curves = append(b.report.curves, c)
	return nil
}

func (b *bench) measureFanout(ctx context.Context, fanout int) (figures []float64, err error) {
	folder := filepath.Join(b.dir, "fanout")
	if err := errors.Join(os.RemoveAll(folder), os.Mkdir(folder, 0o755)); err != nil {
		return nil, err
	}
	backend, err := dir.Open(folder)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, backend.Close()) }()
	repo, err := store.Init(ctx, backend, store.Parameters{ChunkSize: fanoutChunk, Fanout: fanout})
	if err != nil {
		return nil, err
	}
	image := &patterned{versions: make([]uint32, fanoutChunks)}
	var level store.Level
	grown := func() (bytes float64, err error) {
		before := metadata(folder)
		level, err = engine.Backup(ctx, repo, "image", image, engine.BackupOptions{})
		return float64(metadata(folder) - before), err
	}
	full, err := grown()
	if err != nil {
		return nil, err
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	scattered, side := make([]int64, 100), make([]int64, 1000)
	for i := range scattered {
		scattered[i] = rnd.Int64N(fanoutChunks)
	}
	for i := range side {
		side[i] = fanoutChunks/3 + int64(i)
	}
	figures = append(figures, full/1024)
	for _, chunks := range [][]int64{scattered, side} {
		image.change(chunks)
		added, err := grown()
		if err != nil {
			return nil, err
		}
		figures = append(figures, added/float64(len(chunks)))
	}
	took, err := readMap(ctx, backend, level.Map())
	return append(figures, took.Seconds()*1000), errors.Join(err, repo.Close())
}

// readMap reads all of a map with nothing of it in memory.
func readMap(ctx context.Context, backend store.Backend, m store.Map) (time.Duration, error) {
	repo, err := store.Open(ctx, backend, "")
	if err != nil {
		return 0, err
	}
	started := time.Now()
	cursor := repo.Cursor(m)
	for pos := int64(0); pos < m.Chunks; {
		leaf, err := cursor.At(ctx, pos)
		if err != nil {
			return 0, err
		}
		pos = leaf.End()
	}
	return time.Since(started), repo.Close()
}
