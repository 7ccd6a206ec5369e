package rbd

import (
	"context"
	"errors"
	"fmt"

	"backy/engine"
	"backy/store"
)

// survey finds the image by its name. From then on it is known by its id.
func (s *Source) survey(ctx context.Context) error {
	head, err := s.conn.open(ctx, s.spec.at(""), "", readOnly)
	if err != nil {
		return s.conn.halfRemoved(ctx, s.spec, err)
	}
	s.id, s.handle, err = head.whose(ctx)
	if err == nil {
		s.layout, err = head.layout(ctx)
	}
	if err == nil {
		s.list, err = head.snapshots(ctx)
	}
	if err == nil {
		s.unsettled, err = head.unsettled(ctx)
	}
	if err == nil {
		s.metadata, s.metadataErr = head.metadata(ctx, "")
		err = context.Cause(ctx)
	}
	return errors.Join(err, head.close())
}

// fix makes or finds the snapshot to be backed up and opens it.
func (s *Source) fix(ctx context.Context) error {
	strays := s.strays()
	if s.own {
		if err := s.makeSnapshot(ctx, strays); err != nil {
			return err
		}
	} else {
		s.sweep(ctx, strays)
		if ownPattern.MatchString(s.spec.Snap) {
			s.run.Warn("%s is a snapshot of backy's own: a later backup of the image removes it, and then the next one of this name compares by checksum", s.spec)
		}
		var ok bool
		if s.to, ok = named(s.list, s.spec.Snap); !ok {
			return noSnapshot(s.list, s.spec)
		}
	}
	at, err := s.openSnapshot(ctx)
	if err != nil {
		return err
	}
	list, err := at.snapshots(ctx)
	if err != nil {
		return err
	}
	s.list = list
	if !s.own {
		if err := at.refusePart(ctx, s.handle, s.to, list); err != nil {
			return err
		}
	}
	// A migration may have begun since, or ended.
	now, err := at.unsettled(ctx)
	s.unsettled = s.unsettled || now
	return errors.Join(err, s.checkDiff())
}

// openSnapshot opens what is backed up, as s.at.
func (s *Source) openSnapshot(ctx context.Context) (*image, error) {
	at, err := s.conn.open(ctx, s.spec.at(s.to.name), s.handle, readOnly)
	if err != nil {
		return nil, err
	}
	s.at = at
	// The name may have gone to another snapshot since it was listed.
	if at.at.id != s.to.id {
		return nil, fmt.Errorf("%s: %w: it was removed or replaced just now", at.spec, ErrSnapshotGone)
	}
	return at, nil
}

// makeSnapshot removes the strays and makes this run's snapshot, or takes the one
// that waits for it.
func (s *Source) makeSnapshot(ctx context.Context, strays []snapshot) (err error) {
	head, err := s.conn.open(ctx, s.spec.at(""), s.handle, readWrite)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, head.close()) }()
	s.removeAll(ctx, head, strays)
	s.tried = true
	if adopted, err := s.adopt(ctx, head); err != nil || adopted {
		return err
	}
	return s.options.Snapping.do(ctx, s.spec, func(ctx context.Context) error {
		s.to, err = head.create(ctx, s.ownName())
		s.made = err == nil
		return err
	})
}

// origin is what the level records of where it came from.
func (s *Source) origin(ctx context.Context) (store.Origin, error) {
	made, err := s.at.snapshotTime(ctx, s.to)
	if err != nil {
		return store.Origin{}, err
	}
	o := &store.RBDOrigin{
		Cluster: s.id.Cluster, Pool: s.spec.Pool, PoolID: s.id.PoolID, Namespace: s.spec.Namespace,
		Image: s.spec.Image, ImageID: s.id.Image,
		Snapshot: s.to.name, SnapshotID: s.to.id, Own: s.own,
		Layout: s.layout, Metadata: s.recordMetadata(),
	}
	s.settledAs(o)
	s.recordRules(o)
	return store.Origin{Kind: "rbd", Source: s.spec.String(), Time: made, RBD: o}, nil
}

// recordRules notes what the image's metadata say of its backups.
func (s *Source) recordRules(o *store.RBDOrigin) {
	o.Rules = engine.RecordRules(s.metadata)
	if s.metadataErr != nil {
		o.RulesUnknown = s.metadataErr.Error()
	}
}
