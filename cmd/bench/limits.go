//go:build cgo

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"backy/engine/local"
	"backy/hints"
	"backy/rbd"
	"backy/store"
)

const (
	limitReaders = 12
	unitBytes    = 4 << 20
)

// runLimit is what nothing that reads everything can be faster than: it reads,
// and throws away, or takes the checksums and throws those away.
func runLimit(ctx context.Context, limit string) error {
	how, what, _ := strings.Cut(limit, ":")
	sums := how == "sum"
	if !strings.HasPrefix(what, rbd.Scheme) {
		view, closer, err := local.OpenView(what)
		if err != nil {
			return err
		}
		f, err := os.Open(what) // the view's reader drops a large file from the page cache
		if err == nil {
			err = errors.Join(readAll(f, view.Extents, 2*runtime.NumCPU(), sums), f.Close())
		}
		return errors.Join(err, closer.Close())
	}
	spec, err := rbd.ParseSpec(what)
	if err != nil {
		return err
	}
	conn, err := rbd.Connect(ctx, rbd.Config{})
	if err != nil {
		return err
	}
	view, closer, err := conn.View(ctx, spec)
	if err != nil {
		return err
	}
	return errors.Join(readAll(view.Reader, view.Extents, limitReaders, sums), closer.Close(), conn.Close())
}

// readAll reads extents in units, several at a time.
func readAll(r io.ReaderAt, extents hints.Seq, readers int, sums bool) error {
	var g errgroup.Group
	g.SetLimit(readers)
	buffers := make(chan []byte, readers)
	for range readers {
		buffers <- make([]byte, unitBytes)
	}
	for e, err := range extents {
		if err != nil {
			return err
		}
		if !e.Exists {
			continue
		}
		for off := e.Offset; off < e.End(); {
			n := min(unitBytes-off%unitBytes, e.End()-off)
			at := off
			off += n
			buffer := <-buffers
			g.Go(func() error {
				defer func() { buffers <- buffer }()
				if _, err := r.ReadAt(buffer[:n], at); err != nil {
					return fmt.Errorf("read at %d: %w", at, err)
				}
				for from := int64(0); sums && from < n; from += 64 << 10 {
					store.Sum(buffer[from:min(from+64<<10, n)])
				}
				return nil
			})
		}
	}
	return g.Wait()
}
