//go:build cgo

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"backy/rbd"
)

func (p *program) snapshots(ctx context.Context, f snapshotsFlags, pool, folder string) error {
	repo, err := p.openGiven(ctx, folder)
	if err != nil {
		return err
	}
	conn, _, images, err := p.inspectPool(ctx, &f.pickFlags, pool)
	if err != nil {
		return err
	}
	var list []rbd.OwnSnapshot
	var failed []error
	for _, i := range images {
		if i.err != nil {
			failed = append(failed, i.err)
			continue
		}
		list = append(list, i.own...)
	}
	if err := rbd.Judge(ctx, repo, list); err != nil {
		return err
	}
	p.report.Snapshots = []snapshotReport{}
	for _, s := range list {
		r, err := p.snapshot(ctx, conn, s, f)
		p.report.Snapshots = append(p.report.Snapshots, r)
		if err != nil {
			failed = append(failed, err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if err := p.print(snapshotTable(p.report.Snapshots, time.Now(), p.terminalWidth())); err != nil {
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// snapshot reports one snapshot, and removes it where that is asked for. What
// another repository's snapshot keeps is that one's matter.
func (p *program) snapshot(ctx context.Context, conn *rbd.Cluster, s rbd.OwnSnapshot, f snapshotsFlags) (snapshotReport, error) {
	r := snapshotReport{
		Snapshot: s.Spec.String(), ID: s.ID, Time: s.Time.UTC(), Kind: string(s.Kind), Repository: s.Repository,
		Name: s.Name, Level: s.Level, Size: s.Size,
	}
	space, known, err := conn.Space(ctx, s)
	if err == nil && known {
		r.Space = &space
	}
	if err != nil || !f.clean || s.Kind != rbd.Stray {
		return r, err
	}
	remove, outcome := conn.RemoveStray, "is not removed"
	if f.dryRun {
		remove, outcome = conn.CheckStray, "would not be removed"
	}
	if err := remove(ctx, s); err != nil {
		err = fmt.Errorf("%s %s: %w", s.Spec, outcome, err)
		r.Error = err.Error()
		return r, err
	}
	if f.dryRun {
		p.talk.say("%s: would be removed", s.Spec)
		return r, nil
	}
	r.Removed = true
	p.talk.say("%s: removed", s.Spec)
	return r, nil
}
