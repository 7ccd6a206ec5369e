package engine

import (
	"context"
	"io"
)

// Piece is a range of an image, and where its bytes go.
type Piece struct {
	Data   []byte
	Offset int64
}

// ManyReader is a View's Reader for which a call is dear, so that small reads are
// better done many at a time.
type ManyReader interface {
	io.ReaderAt

	// ReadMany fills the data of all pieces, so many of them at once at most, or
	// fails. The pieces lie inside the view and have at most 4 MiB together.
	// After a failure what ReadAt's buffer is, that of each piece is.
	ReadMany(pieces []Piece, atOnce int) error
}

// batching is how many chunks are best read in one call, how many of them at once,
// and how many calls at a time, so that as many reads as there are readers go on.
func batching(r io.ReaderAt, chunkSize int64, readers int) (chunks, atOnce, calls int) {
	if _, ok := r.(ManyReader); !ok {
		return 1, 1, readers
	}
	chunks = max(1, int(unitBytes/chunkSize))
	atOnce = min(chunks, readers)
	return chunks, atOnce, readers / atOnce
}

// readMany fills pieces, in one call where there are several.
func readMany(r io.ReaderAt, pieces []Piece, atOnce int) error {
	if len(pieces) > 1 {
		return r.(ManyReader).ReadMany(pieces, atOnce)
	}
	return readFull(r, pieces[0].Data, pieces[0].Offset)
}

// governedMany is a governedReader of a ManyReader.
type governedMany struct {
	*governedReader
	many ManyReader
}

func governed(g *governedReader) io.ReaderAt {
	if many, ok := g.reader.(ManyReader); ok {
		return governedMany{g, many}
	}
	return g
}

// ReadMany implements ManyReader. It waits for one place of the budget, and takes
// more where they are free.
func (g governedMany) ReadMany(pieces []Piece, atOnce int) error {
	var bytes int64
	for _, p := range pieces {
		bytes += int64(len(p.Data))
	}
	if err := g.wait(bytes); err != nil {
		return err
	}
	if g.budget == nil {
		return g.many.ReadMany(pieces, atOnce)
	}
	places, err := takeSome(g.ctx, g.budget.readers, min(atOnce, len(pieces)))
	if err != nil {
		return err
	}
	defer func() {
		for range places {
			<-g.budget.readers
		}
	}()
	return g.many.ReadMany(pieces, places)
}

// takeSome waits for one slot, and takes as many more as are free, up to most.
func takeSome(ctx context.Context, slots chan struct{}, most int) (n int, err error) {
	if err := take(ctx, slots); err != nil {
		return 0, err
	}
	for n = 1; n < most; n++ {
		select {
		case slots <- struct{}{}:
		default:
			return n, nil
		}
	}
	return n, nil
}
