package rbd

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/ceph/go-ceph/rbd"

	"backy/store"
)

// OwnSnapshot is a snapshot of an image that some backy made. Which level it
// belongs to, the image's id and its own id say: images that were renamed or
// copied carry snapshots along.
type OwnSnapshot struct {
	Spec  Spec          // where it is now
	Image store.ImageID // likewise
	ID    uint64
	Time  time.Time
	Size  int64 // bytes of the image when it was made

	// Copy tells that the image is a mirror's copy: there it goes when that of the
	// primary image does.
	Copy bool

	// Derived is the backup name that the image would get now; "": unknown. It is
	// for Judge, set by the caller.
	Derived store.Name

	Repository string      // the first 8 digits of the repository's id
	Run        store.RunID // that made it; 0: it was made ahead, and waits, or is being made

	// What the repository says of it: see Judge.
	Kind  SnapshotKind
	Name  store.Name        // "": not known
	Level store.LevelNumber // that was read from it; 0: none

	name string // as it is now: of one that is being removed not that of Spec
	hash string // of the backup name
}

// SnapshotKind is what a snapshot of ours is good for.
type SnapshotKind string

// The kinds. Only strays may be removed.
const (
	OfLevel   SnapshotKind = "level"   // a level was read from it: the next diff's base
	Waiting   SnapshotKind = "waiting" // made ahead; the next backup reads it
	Undecided SnapshotKind = "in use"  // its run may be at work, or the image is a mirror's copy
	Stray     SnapshotKind = "stray"   // its run is over and no backup needs it, or its removal was cut short
	Foreign   SnapshotKind = "foreign" // another repository's
)

var ownPattern = regexp.MustCompile(`^backy-([0-9a-f]{8})-([0-9a-f]{8})-([0-9a-f]{16}|ready|making)$`)

// parseOwn tells what a snapshot's name says.
func parseOwn(snap snapshot) (o OwnSnapshot, ok bool) {
	full := snap.name
	if !snap.user {
		full = snap.trashed
	}
	m := ownPattern.FindStringSubmatch(full)
	if m == nil {
		return o, false
	}
	o = OwnSnapshot{ID: snap.id, Size: snap.size, Repository: m[1], name: snap.name, hash: m[2]}
	o.Spec.Snap = full
	switch m[3] {
	case "ready", "making":
	default:
		run, err := store.ParseRunID(m[3])
		if err != nil {
			return o, false
		}
		o.Run = run
	}
	return o, true
}

// removing tells that the snapshot's removal has begun: librbd has moved it to
// the trash.
func (o *OwnSnapshot) removing() bool { return o.name != o.Spec.Snap }

// making tells that something is being done around the snapshot, or was when that
// was cut short.
func (o *OwnSnapshot) making() bool { return strings.HasSuffix(o.Spec.Snap, makingName("")) }

// Inspect does what Look does, and lists the snapshots that backys made, in the
// order in which they were made.
func (c *Conn) Inspect(ctx context.Context, spec Spec, prefix string) (info Info, own []OwnSnapshot, err error) {
	im, err := c.open(ctx, spec.at(""), "", readOnly)
	if err != nil {
		return info, nil, c.halfRemoved(ctx, spec, err)
	}
	defer func() { err = errors.Join(err, im.close()) }()
	if info, err = im.info(ctx, prefix); err != nil {
		return info, nil, err
	}
	list, err := im.snapshots(ctx)
	if err != nil {
		return info, nil, err
	}
	var copied bool
	for _, snap := range list {
		o, ok := parseOwn(snap)
		if !ok {
			continue
		}
		if len(own) == 0 {
			if copied, err = im.isCopy(ctx); err != nil {
				return info, nil, err
			}
		}
		o.Spec, o.Image, o.Copy = spec.at(o.Spec.Snap), info.ID, copied
		if o.Time, err = im.snapshotTime(ctx, snap); err != nil {
			return info, nil, err
		}
		own = append(own, o)
	}
	return info, own, nil
}

// info is what Look tells.
func (im *image) info(ctx context.Context, prefix string) (info Info, err error) {
	if info.ID, _, err = im.whose(ctx); err != nil {
		return info, err
	}
	if info.Size, err = im.size(ctx); err != nil {
		return info, err
	}
	info.Created, err = on(ctx, im, "ask for the time of creation", func(i *rbd.Image) (time.Time, error) {
		t, err := i.GetCreateTimestamp()
		if t.Sec == 0 {
			return time.Time{}, err // the old format has none
		}
		return time.Unix(t.Sec, t.Nsec), err
	})
	if err != nil {
		return info, err
	}
	if info.Metadata, err = im.metadata(ctx, prefix); err != nil {
		info.MetadataUnknown = err.Error()
	}
	return info, context.Cause(ctx)
}

// metadata lists those of the image's metadata whose keys begin with a prefix.
func (im *image) metadata(ctx context.Context, prefix string) (map[string]string, error) {
	metadata, err := on(ctx, im, "list the metadata", (*rbd.Image).ListMetadata)
	if errors.Is(err, syscall.ERANGE) {
		err = fmt.Errorf("%w: a value is empty or has a NUL in it, or they have more than 256 KiB", err)
	}
	for key := range metadata {
		if !strings.HasPrefix(key, prefix) {
			delete(metadata, key)
		}
	}
	return metadata, err
}

// Space is how many bytes of objects have changed since a snapshot, up to the
// next one or the image's present state: so much it keeps of the past, at most.
// Part of it may be kept by older snapshots, too, or be of objects that there
// were not yet. ok is false where fast diff cannot tell at once.
func (c *Conn) Space(ctx context.Context, o OwnSnapshot) (bytes int64, ok bool, err error) {
	if o.removing() {
		return 0, false, nil
	}
	at, err := c.open(ctx, o.Spec.at(""), "", readOnly)
	if err != nil {
		return 0, false, err
	}
	defer func() { err = errors.Join(err, at.close()) }()
	layout, err := at.layout(ctx)
	if err != nil || !hasFastDiff(layout) {
		return 0, false, err
	}
	if unsettled, err := at.unsettled(ctx); err != nil || unsettled {
		return 0, false, err
	}
	list, err := at.snapshots(ctx)
	if err != nil {
		return 0, false, err
	}
	if now, there := named(list, o.name); !there || now.id != o.ID {
		return 0, false, nil
	}
	until, err := at.size(ctx)
	for _, snap := range list {
		if err == nil && snap.user && snap.id > o.ID {
			until = snap.size
			err = at.show(ctx, snap)
			break
		}
	}
	if err != nil {
		return 0, false, err
	}
	set, err := at.fast(ctx, o.name, until, period(layout))
	if err != nil {
		return 0, false, err
	}
	changed := min(set.count()*period(layout), until)
	return changed + max(0, o.Size-until), true, nil
}

// show makes a snapshot what is read.
func (im *image) show(ctx context.Context, s snapshot) error {
	_, err := on(ctx, im, "open the snapshot "+s.name, func(i *rbd.Image) (struct{}, error) {
		return struct{}{}, i.SetSnapByID(s.id)
	})
	im.at = s
	return err
}

// RemoveStray removes a snapshot that Judge found to be a stray, and no other.
// One that is gone is no error.
func (c *Conn) RemoveStray(ctx context.Context, o OwnSnapshot) (err error) {
	return c.stray(ctx, o, (*image).remove)
}

// CheckStray refuses what RemoveStray would refuse, and removes nothing.
func (c *Conn) CheckStray(ctx context.Context, o OwnSnapshot) (err error) {
	return c.stray(ctx, o, func(head *image, ctx context.Context, s snapshot) error {
		there, err := head.removable(ctx, s)
		if !there || err != nil || s.trashed != "" {
			return err
		}
		return head.refuseProtected(ctx, s)
	})
}

// stray does something about a stray on its image, if that is still the one.
func (c *Conn) stray(ctx context.Context, o OwnSnapshot, do func(*image, context.Context, snapshot) error) (err error) {
	if o.Kind != Stray {
		return fmt.Errorf("%s: it is no stray, and not removed", o.Spec)
	}
	head, err := c.open(ctx, o.Spec.at(""), "", readWrite)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, head.close()) }()
	if id, _, err := head.whose(ctx); err != nil {
		return err
	} else if id != o.Image {
		return nil // it went with the image that had the name
	}
	snap := snapshot{id: o.ID, name: o.name}
	if o.removing() {
		snap.trashed = o.Spec.Snap
	}
	return do(head, ctx, snap)
}
