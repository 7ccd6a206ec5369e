package rbd

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"backy/store"
)

// While an image is in a live migration (rbd migration, from prepare to commit or
// abort), as seen on 16.2, 18.2 and 20.2:
//
//   - Diffs are wrong: between two snapshots that came along from the source they
//     are empty, and for an image that is imported librbd may end the process.
//   - A snapshot can change: of an image that is imported from a snapshot of
//     another, execute, and a guest's write for its object, copy what that other
//     image has become since.
//   - To remove a snapshot makes the guest's next write abort, and so execute and
//     commit. To make or rename one is harmless.
//   - Of snapshots made meanwhile the object maps stay wrong for ever: a fast
//     diff up to one misses changes. One up to a later snapshot is right, and the
//     exact diff is, once the migration is committed.
//
// So there nothing is diffed, and all is read twice; see engine.State.Again. No
// snapshot is removed, no diff begins at a level from then, and no fast diff ends
// at a snapshot of which it is not known that it was made at another time.

// ErrMigrating tells that a live migration forbids something.
var ErrMigrating = errors.New("the image is in a live migration (rbd status)")

// migrating reports whether the image is in a live migration, as its source or as
// its destination. The answer is as old as the handle.
func (im *image) migrating(ctx context.Context) (bool, error) {
	bits, err := on(ctx, im, "ask for the features", (*rbd.Image).GetFeatures)
	return bits&rbd.FeatureMigrating != 0, err
}

// unsettled reports whether the image, or one that it is a clone of, is in a live
// migration.
func (im *image) unsettled(ctx context.Context) (bool, error) {
	if yes, err := im.migrating(ctx); yes || err != nil {
		return yes, err
	}
	parent, err := on(ctx, im, "ask for the parent", func(i *rbd.Image) (*rbd.ParentInfo, error) {
		p, err := i.GetParent()
		if errors.Is(err, rbd.ErrNotFound) {
			return nil, nil
		}
		return p, err
	})
	if parent == nil || err != nil {
		return false, err
	}
	of := parent.Image
	above, err := im.conn.open(ctx, Spec{Pool: of.PoolName, Namespace: of.PoolNamespace, Image: of.ImageName}, of.ImageID, readOnly)
	if err != nil {
		return false, fmt.Errorf("the parent of %s: %w", im.spec.at(""), err)
	}
	yes, err := above.unsettled(ctx)
	return yes, errors.Join(err, above.close())
}

// refuseMigrating fails if an image is in a live migration.
func (im *image) refuseMigrating(ctx context.Context, what string) error {
	yes, err := im.migrating(ctx)
	if err == nil && yes {
		err = fmt.Errorf("%s: %w: commit or abort it first", what, ErrMigrating)
	}
	return err
}

// comesFrom reports whether an image is in a live migration from the one that a
// level is of.
func (c *Conn) comesFrom(ctx context.Context, spec Spec, o *store.RBDOrigin) bool {
	what := fmt.Sprintf("ask for the migration of %s", spec.at(""))
	s, err := inPool(ctx, c, spec, what, func(io *rados.IOContext) (*rbd.MigrationImageStatus, error) {
		return rbd.MigrationStatus(io, spec.Image)
	})
	return err == nil && o.ID() == store.ImageID{Cluster: c.fsid, PoolID: int64(s.SourcePoolID), Image: s.SourceImageID}
}

// checkDiff refuses a diff that was insisted on.
func (s *Source) checkDiff() error {
	if s.unsettled && (s.options.Diff == DiffFast || s.options.Diff == DiffExact) {
		return fmt.Errorf("%s: %w: diffs are wrong there: use --diff auto, which then compares everything", s.spec, ErrMigrating)
	}
	return nil
}

// proven tells that the snapshot that is backed up was not made during a live
// migration: by this run, or after an earlier one that saw the image settled.
func (s *Source) proven() bool {
	if s.made {
		return true
	}
	for i := range s.run.Levels {
		o := s.run.Levels[i].Origin.RBD
		if o != nil && o.ID() == s.id && o.LastSnapshot != 0 && o.LastSnapshot < s.to.id {
			return true
		}
	}
	return false
}

// again opens the snapshot afresh, for a second pass: see engine.State.
func (s *Source) again(ctx context.Context) (io.ReaderAt, error) {
	if err := s.closeSnapshot(); err != nil {
		return nil, err
	}
	at, err := s.openSnapshot(ctx)
	if err != nil {
		return nil, err
	}
	return s.reader(ctx, at)
}

// unremoved is the warning for snapshots that are due.
func (s *Source) unremoved(list []snapshot) {
	if s.said {
		return
	}
	s.said = true
	s.run.Warn("%s is in a live migration: %d of backy's snapshots stay on it until the first backup after its commit or abort", s.spec.at(""), len(list))
}

// lastSnapshot is the id of the newest, 0 without any.
func lastSnapshot(list []snapshot) (id uint64) {
	for _, s := range list {
		id = max(id, s.id)
	}
	return id
}

// settledAs records in a level whether the image was settled.
func (s *Source) settledAs(o *store.RBDOrigin) {
	o.Migrating = s.unsettled
	if !s.unsettled {
		o.LastSnapshot = lastSnapshot(s.list)
	}
}
