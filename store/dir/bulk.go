package dir

import (
	"context"
	"io/fs"

	"backy/store"
)

// OpenBulk opens an object to be read from front to back, past the page cache:
// what was in it is dropped before, so that what is read is what is kept, and
// what was read is dropped behind. See bulk_linux.go for what holds where.
func (d *Dir) OpenBulk(ctx context.Context, key string) (store.BulkObject, error) {
	if err := d.begin(ctx, "open", key); err != nil {
		return nil, err
	}
	f, err := d.fs.open(key)
	if err != nil {
		return nil, d.object("open", key, err)
	}
	o := &bulkObject{ctx: ctx, dir: d, key: key, openFile: f}
	dropCache(f, 0, 0)
	return o, nil
}

type bulkObject struct {
	openFile
	ctx context.Context
	dir *Dir
	key string
}

func (o *bulkObject) ReadAt(p []byte, off int64) (int, error) {
	if err := o.dir.alive(o.ctx, "read", o.key); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, o.dir.fail("read", o.key, fs.ErrInvalid)
	}
	n, err := o.openFile.ReadAt(p, off)
	if err != nil {
		// What failed is tried again: from the disk.
		dropCache(o.openFile, 0, 0)
	} else {
		dropCache(o.openFile, off, int64(n))
	}
	return n, o.dir.object("read", o.key, err)
}
