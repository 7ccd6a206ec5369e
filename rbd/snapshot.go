package rbd

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ceph/go-ceph/rbd"
	"github.com/zeebo/blake3"

	"backy/store"
)

// snapshot is one of an image's snapshots. Its name may come back after it was
// removed, its id never does.
type snapshot struct {
	id   uint64
	name string
	size int64 // bytes of the image when it was made
	user bool  // made by name; groups, the trash and mirroring have others

	mirror bool // made by mirroring by snapshots

	// trashed is the name that it had before its removal began; "" where that has
	// not. librbd first moves what it removes to the trash, under another name:
	// there it stays where the removal is cut short, or while it has clones.
	trashed string
}

// snapshots lists all snapshots of the image in the order in which they were
// made. The answer is as old as the handle, unless it is open for writing.
func (im *image) snapshots(ctx context.Context) ([]snapshot, error) {
	return on(ctx, im, "list the snapshots", func(i *rbd.Image) ([]snapshot, error) {
		const tries = 5 // others may make and remove some meanwhile
		for try := 1; ; try++ {
			list, err := listSnapshots(i)
			if n := errnoOf(err); n != syscall.ENOENT && n != syscall.ERANGE || try == tries {
				return list, err
			}
		}
	})
}

func listSnapshots(i *rbd.Image) ([]snapshot, error) {
	infos, err := i.GetSnapshotNames()
	if err != nil {
		return nil, err
	}
	list := make([]snapshot, 0, len(infos))
	for _, s := range infos {
		kind, err := i.GetSnapNamespaceType(s.Id)
		if err != nil {
			return nil, err
		}
		snap := snapshot{id: s.Id, name: s.Name, size: int64(s.Size), user: kind == rbd.SnapNamespaceTypeUser, mirror: kind == ofMirroring}
		if kind == rbd.SnapNamespaceTypeTrash {
			if snap.trashed, err = i.GetSnapTrashNamespace(s.Id); err != nil {
				return nil, err
			}
		}
		list = append(list, snap)
	}
	slices.SortFunc(list, func(a, b snapshot) int { return cmp.Compare(a.id, b.id) })
	return list, nil
}

// named finds the user's snapshot of that name.
func named(list []snapshot, name string) (snapshot, bool) {
	for _, s := range list {
		if s.user && s.name == name {
			return s, true
		}
	}
	return snapshot{}, false
}

// noSnapshot tells why the spec's snapshot is not one that can be backed up.
func noSnapshot(list []snapshot, spec Spec) error {
	for _, other := range list {
		if other.name == spec.Snap {
			return fmt.Errorf("%s: %w of the user's: this one belongs to a group, the trash or mirroring", spec, ErrNoSnapshot)
		}
	}
	return fmt.Errorf("%s: %w (rbd snap ls)", spec, ErrNoSnapshot)
}

// snapshotTime is when a snapshot was made; zero if that is unknown. librbd aborts the process where
// there is none of that id (https://tracker.ceph.com/issues/47287), so the
// snapshot is one that this handle has listed.
func (im *image) snapshotTime(ctx context.Context, s snapshot) (time.Time, error) {
	return on(ctx, im, "ask for the time of snapshot "+s.name, func(i *rbd.Image) (time.Time, error) {
		t, err := i.GetSnapTimestamp(s.id)
		if t.Sec == 0 {
			return time.Time{}, err // the old format has none
		}
		return time.Unix(t.Sec, t.Nsec), err
	})
}

// ownPrefix is how the names of our snapshots for one backup name of one
// repository begin.
func ownPrefix(repository store.RepositoryID, name store.Name) string {
	sum := blake3.Sum256([]byte(name))
	return fmt.Sprintf("backy-%s-%s-", hex.EncodeToString(repository[:4]), hex.EncodeToString(sum[:4]))
}

// ownRun is the run that made a snapshot of ours, whether or not its removal has
// begun; ok is false for any other.
func ownRun(s snapshot, prefix string) (run store.RunID, ok bool) {
	name := s.trashed
	if s.user {
		name = s.name
	}
	tail, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return 0, false
	}
	run, err := store.ParseRunID(tail)
	return run, err == nil && name == prefix+run.String()
}

// create makes a snapshot and finds it. Where the image's exclusive lock is
// another client's, librbd asks that one to do it.
//
// It goes on for a moment after ctx has ended, since a snapshot that comes
// into being after we left would stay.
func (im *image) create(ctx context.Context, name string) (snapshot, error) {
	if err := im.refuseCopy(ctx, creating(im, name)); err != nil {
		if errors.Is(err, ErrNotPrimary) {
			err = fmt.Errorf("%w: back it up in the cluster that has the primary image, or name one of its snapshots with @SNAP", err)
		}
		return snapshot{}, err
	}
	ctx, cancel := lasting(ctx)
	defer cancel()
	_, err := call(ctx, &im.calls, "create a snapshot of "+im.spec.String(), func(func()) (*rbd.Snapshot, error) {
		return im.rbd.CreateSnapshot(name)
	}, func(late *rbd.Snapshot) { late.Remove() })
	if err != nil {
		return snapshot{}, im.createError(ctx, err, name)
	}
	list, err := im.snapshots(ctx)
	if err != nil {
		return snapshot{}, err
	}
	s, ok := named(list, name)
	if !ok {
		return snapshot{}, fmt.Errorf("%s: %w: it was removed as soon as it was made", im.spec.at(name), ErrSnapshotGone)
	}
	return s, nil
}

func creating(im *image, name string) string {
	return fmt.Sprintf("create the snapshot %s", im.spec.at(name))
}

func (im *image) createError(ctx context.Context, err error, name string) error {
	what := creating(im, name)
	switch errnoOf(err) {
	case 0:
		return err
	case syscall.EROFS:
		if yes, migratingErr := im.migrating(ctx); migratingErr == nil && yes {
			return fmt.Errorf("%s: %w, and this is its source: back up the destination", what, ErrMigrating)
		}
		return fmt.Errorf("%s: the image is read-only, or the client that has its lock does not answer (rbd status, rbd lock ls): %w", what, syscall.EROFS)
	case syscall.EPERM, syscall.EACCES:
		return fmt.Errorf("%s: %w for %s: it needs the osd capability 'profile rbd', or back up a snapshot that others make with @SNAP",
			what, ErrPermission, im.conn.user)
	case syscall.EDQUOT:
		return fmt.Errorf("%s: the image may have no more snapshots (rbd snap limit), or the pool's quota is used up: %w", what, syscall.EDQUOT)
	}
	return im.conn.failed(err, "%s", what)
}

// remove removes a snapshot if it is still the one with that id and name, or goes
// on with its removal. One that is gone is no error, nor one that is in the trash
// for as long as it has clones: librbd removes it with the last of them. Error:
// ErrMigrating. The image is open for writing, so that what it says is not old.
func (im *image) remove(ctx context.Context, s snapshot) error {
	what := removing(im, s)
	there, err := im.removable(ctx, s)
	if !there || err != nil {
		return err
	}
	err = do(ctx, &im.calls, what, func() error { return im.rbd.RemoveSnapByID(s.id) })
	switch errnoOf(err) {
	case 0:
		return err
	case syscall.ENOENT:
		return nil
	case syscall.EBUSY:
		if s.trashed != "" {
			return nil
		}
		return inUse(what)
	}
	return im.conn.failed(err, "%s", what)
}

func removing(im *image, s snapshot) string {
	return "remove the snapshot " + im.spec.at(s.name).String()
}

// removable reports whether a snapshot is still the one with that id and name.
// Errors: ErrMigrating, ErrNotPrimary.
func (im *image) removable(ctx context.Context, s snapshot) (there bool, err error) {
	list, err := im.snapshots(ctx)
	if err != nil {
		return false, err
	}
	if !slices.ContainsFunc(list, func(now snapshot) bool { return now.id == s.id && now.name == s.name }) {
		return false, nil
	}
	if err := im.refuseMigrating(ctx, removing(im, s)); err != nil {
		return true, err
	}
	return true, im.refuseCopy(ctx, removing(im, s))
}

// refuseProtected fails for a snapshot that somebody has protected.
func (im *image) refuseProtected(ctx context.Context, s snapshot) error {
	yes, err := on(ctx, im, "ask whether the snapshot "+s.name+" is protected", func(i *rbd.Image) (bool, error) {
		return i.GetSnapshot(s.name).IsProtected()
	})
	if err == nil && yes {
		err = inUse(removing(im, s))
	}
	return err
}

func inUse(what string) error {
	return fmt.Errorf("%s: it is protected or has clones (rbd children, rbd snap unprotect): %w", what, syscall.EBUSY)
}

// verify looks up an image afresh and checks that the snapshots are still what
// they were. A handle that was open before does not tell: of a snapshot that was
// removed it reads zeros, and diffs nothing, without an error.
//
// unsettled tells that the image was in a live migration when reading began. It
// must be so still: once the migration is committed, handles from before read
// zeros of what they had from the source.
func (c *Conn) verify(ctx context.Context, spec Spec, id, handle string, unsettled bool, want ...snapshot) error {
	gone := fmt.Errorf("%s was removed while it was being read: %w", spec.at(""), ErrSnapshotGone)
	im, err := c.open(ctx, spec.at(""), handle, readOnly)
	if errors.Is(err, ErrNoImage) {
		return gone
	}
	if err != nil {
		return err
	}
	now, _, err := im.identity(ctx)
	var list []snapshot
	if err == nil {
		list, err = im.snapshots(ctx)
	}
	still := unsettled
	if err == nil && unsettled {
		still, err = im.unsettled(ctx)
	}
	if err = errors.Join(err, im.close()); err != nil {
		return err
	}
	if still != unsettled {
		return fmt.Errorf("%s: its live migration ended while it was being read: %w: run it again", spec.at(""), ErrSnapshotGone)
	}
	if now != id {
		return gone
	}
	for _, s := range want {
		if now, ok := named(list, s.name); !ok || now.id != s.id {
			return fmt.Errorf("%s was removed while it was being read: %w: run the backup again", spec.at(s.name), ErrSnapshotGone)
		}
	}
	return nil
}
