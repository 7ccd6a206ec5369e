package dir

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"strings"
	"time"

	"backy/store/internal/key"
)

// sweepAge is how long a temporary file is left alone by default.
const sweepAge = 24 * time.Hour

// Sweep removes the temporary files of processes that died, and says how many.
//
// A file is removed if nobody holds its lock and it did not change for age (0:
// a day). On one host, and among hosts whose file system shares its locks, the
// lock decides; the age is for those that do not see each other's locks.
// Should that be wrong about a process that was halted for so long, its Put
// begins again: no object is lost to a sweep.
func (d *Dir) Sweep(ctx context.Context, age time.Duration) (removed int, err error) {
	if age == 0 {
		age = sweepAge
	}
	before := time.Now().Add(-age)
	err = d.walk(ctx, ".", "", func(name string, i info) error {
		if !strings.HasPrefix(path.Base(name), key.TempPrefix) || !i.regular || i.changed.After(before) {
			return nil
		}
		swept, err := d.sweep(name)
		if swept {
			removed++
		}
		return d.fail("sweep", name, err)
	})
	if errors.Is(err, errNotThere) {
		err = d.fail("sweep", ".", fs.ErrNotExist)
	}
	return removed, err
}

// sweep removes a temporary file whose writer is dead.
func (d *Dir) sweep(name string) (bool, error) {
	f, err := d.fs.lock(name)
	if errors.Is(err, errBusy) || errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	err = d.fs.unlink(name)
	f.Close()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		d.prune(path.Dir(name))
	}
	return err == nil, err
}
