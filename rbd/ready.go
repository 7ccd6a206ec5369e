package rbd

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"backy/engine"
	"backy/store"
)

// A snapshot can be made ahead of the backup that reads it, so that those of
// many images lie close together. It waits under a name of its own, of which
// there is one per image, repository and backup name. It belongs to no run yet:
// the next backup of the name makes it its own by renaming it, and from then on
// it is like one that this backup made. Until then nothing removes it but the
// next order to make one.
//
// If something is to be done around it, such as freezing, it gets that name only
// when all of that was done. Until then it has another, under which no backup reads
// it: whoever made it may have been killed, and it may have been made after the thaw.

// readyFor is how long a snapshot waits. What is older would be a surprise to
// whoever backs up the image now, so a new one is made in its place.
const readyFor = 24 * time.Hour

func readyName(prefix string) string { return prefix + "ready" }

func makingName(prefix string) string { return prefix + "making" }

// Snapping takes a snapshot by calling take, and does what is to be done around
// it. It returns take's error, if it called it.
type Snapping func(ctx context.Context, spec Spec, take func(context.Context) error) error

func (f Snapping) do(ctx context.Context, spec Spec, take func(context.Context) error) error {
	if f == nil {
		return take(ctx)
	}
	return f(ctx, spec.at(""), take)
}

// Prepare makes the snapshot that the next backup of the image to this
// repository and name will read, in place of one that it would make. One that
// waits already and is younger than maxAge stays.
//
// Errors: as those of Source.Begin.
func (c *Conn) Prepare(ctx context.Context, spec Spec, repository store.RepositoryID, name store.Name, maxAge time.Duration, around Snapping) (err error) {
	head, err := c.open(ctx, spec.at(""), "", readWrite)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, head.close()) }()
	prefix := ownPrefix(repository, name)
	waiting, ok, err := head.ready(ctx, prefix, maxAge)
	if err != nil || ok {
		return err
	}
	if waiting.id != 0 {
		if err := head.remove(ctx, waiting); err != nil {
			return err
		}
	}
	if around == nil {
		_, err := head.create(ctx, readyName(prefix))
		return err
	}
	return head.prepareWithin(ctx, spec, prefix, around)
}

// prepareWithin makes the snapshot that waits, with something done around it.
func (im *image) prepareWithin(ctx context.Context, spec Spec, prefix string, around Snapping) error {
	list, err := im.snapshots(ctx)
	if err != nil {
		return err
	}
	if left, ok := named(list, makingName(prefix)); ok {
		if err := im.remove(ctx, left); err != nil {
			return err
		}
	}
	var made snapshot
	err = around.do(ctx, spec, func(ctx context.Context) (err error) {
		made, err = im.create(ctx, makingName(prefix))
		return err
	})
	late, cancel := lasting(ctx)
	defer cancel()
	if err == nil {
		what := fmt.Sprintf("rename the snapshot %s", im.spec.at(made.name))
		err = do(late, &im.calls, what, func() error { return im.rbd.GetSnapshot(made.name).Rename(readyName(prefix)) })
		err = im.conn.named(err, "%s", what)
	}
	if err != nil && made.id != 0 {
		err = errors.Join(err, im.remove(late, made))
	}
	return err
}

// ready finds the snapshot that waits, and whether it is younger than maxAge.
func (im *image) ready(ctx context.Context, prefix string, maxAge time.Duration) (s snapshot, ok bool, err error) {
	list, err := im.snapshots(ctx)
	if err != nil {
		return s, false, err
	}
	if s, ok = named(list, readyName(prefix)); !ok {
		return s, false, nil
	}
	made, err := im.snapshotTime(ctx, s)
	return s, err == nil && time.Since(made) < maxAge && !engine.Future(made, time.Now()), err
}

// adopt makes the snapshot that waits this run's own, if there is one.
func (s *Source) adopt(ctx context.Context, head *image) (adopted bool, err error) {
	if err := s.removeUnready(ctx, head); err != nil {
		return false, err
	}
	waiting, ok, err := head.ready(ctx, s.prefix(), readyFor)
	if err != nil || waiting.id == 0 {
		return false, err
	}
	if !ok {
		s.run.Warn("%s has waited for longer than %s, or is later than now: a new snapshot is made in its place", s.spec.at(waiting.name), readyFor)
		s.removeAll(ctx, head, []snapshot{waiting})
		return false, nil
	}
	if err := s.rename(ctx, waiting, s.ownName()); errors.Is(err, syscall.ENOENT) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	list, err := head.snapshots(ctx)
	if err != nil {
		return false, err
	}
	// Its name may have gone to another one just before it was renamed.
	s.to, ok = named(list, s.ownName())
	return ok, nil
}

// removeUnready removes what was left of an order to make one long ago.
func (s *Source) removeUnready(ctx context.Context, head *image) error {
	list, err := head.snapshots(ctx)
	left, ok := named(list, makingName(s.prefix()))
	if err != nil || !ok {
		return err
	}
	made, err := head.snapshotTime(ctx, left)
	if err == nil && time.Since(made) > readyFor {
		s.removeAll(ctx, head, []snapshot{left})
	}
	return err
}

// rename gives a snapshot of the image another name. go-ceph does so only on an
// image that was opened by its name.
func (s *Source) rename(ctx context.Context, from snapshot, to string) (err error) {
	im, err := s.conn.open(ctx, s.spec.at(""), "", readWrite)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, im.close()) }()
	if id, _, err := im.whose(ctx); err != nil {
		return err
	} else if id != s.id {
		return fmt.Errorf("%s: %w: the name is another image's now", s.spec.at(""), ErrNoImage)
	}
	what := fmt.Sprintf("rename the snapshot %s", s.spec.at(from.name))
	late, cancel := lasting(ctx)
	defer cancel()
	err = do(late, &im.calls, what, func() error { return im.rbd.GetSnapshot(from.name).Rename(to) })
	return s.conn.named(err, "%s", what)
}
