//go:build cgo

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"backy/engine"
	"backy/engine/health"
	"backy/rbd"
	"backy/store"
)

// inspections is how many images are looked at a time, each by a child process.
const inspections = 4

// inspected is what a cluster says of an image.
type inspected struct {
	spec  rbd.Spec
	name  store.Name
	info  rbd.Info
	own   []rbd.OwnSnapshot
	rules engine.Rules
	gone  bool
	err   error
}

// inspectPool looks at the images of a pool that are meant.
func (p *program) inspectPool(ctx context.Context, pick *pickFlags, arg string) (*rbd.Cluster, rbd.PoolSpec, []inspected, error) {
	fail := func(err error) (*rbd.Cluster, rbd.PoolSpec, []inspected, error) { return nil, rbd.PoolSpec{}, nil, err }
	of, sure, ok := rbd.ParsePoolSpec(arg)
	if !ok {
		return fail(usagef("%s: want rbd:POOL[/NAMESPACE] or rbd:POOL/*", arg))
	}
	chosen, err := pick.chosen()
	if err != nil {
		return fail(err)
	}
	naming, err := pick.naming()
	if err != nil {
		return fail(err)
	}
	conn, err := p.connect(ctx)
	if err != nil {
		return fail(err)
	}
	specs, err := p.listMeant(ctx, conn, of, sure)
	if err != nil {
		return fail(err)
	}
	specs = slices.DeleteFunc(specs, func(s rbd.Spec) bool { return !chosen(imagePlace{s.Pool, s.Namespace, s.Image}) })
	list := make([]inspected, len(specs))
	var g errgroup.Group
	g.SetLimit(inspections)
	for n, s := range specs {
		g.Go(func() error {
			i := &list[n]
			i.spec = s
			if i.name, i.err = naming(imagePlace{s.Pool, s.Namespace, s.Image}); i.err != nil {
				return nil
			}
			i.info, i.own, i.err = conn.Inspect(ctx, s, engine.RulePrefix)
			if errors.Is(i.err, rbd.ErrNoImage) || errors.Is(i.err, rbd.ErrNoNamespace) {
				there, err := conn.HasImage(ctx, s)
				i.gone = err == nil && !there // else it is half removed: that is worth knowing
			}
			for n := range i.own {
				i.own[n].Derived = i.name
			}
			i.rules = i.info.Rules()
			for _, text := range i.rules.Warnings() {
				p.talk.warn("%s: %s", s, text)
			}
			return context.Cause(ctx)
		})
	}
	if err := g.Wait(); err != nil {
		return fail(err)
	}
	return conn, of, slices.DeleteFunc(list, func(i inspected) bool { return i.gone }), nil
}

// listMeant lists the images of a pool or a namespace; rbd:POOL/X may also be
// the image X.
func (p *program) listMeant(ctx context.Context, conn *rbd.Cluster, of rbd.PoolSpec, sure bool) ([]rbd.Spec, error) {
	if sure {
		return conn.List(ctx, of)
	}
	specs, err := conn.List(ctx, of)
	if !errors.Is(err, rbd.ErrNoNamespace) {
		return specs, err
	}
	image := rbd.Spec{Pool: of.Pool, Image: of.Namespace}
	there, hasErr := conn.HasImage(ctx, image)
	if hasErr != nil || !there {
		return nil, errors.Join(err, hasErr)
	}
	return []rbd.Spec{image}, nil
}

// poolStatus compares the images of a pool with a repository.
func (p *program) poolStatus(ctx context.Context, repo *store.Repository, f statusFlags, arg string) (r health.Report, left strays, err error) {
	conn, of, list, err := p.inspectPool(ctx, &f.pickFlags, arg)
	if err != nil {
		return r, left, err
	}
	var images []health.Image
	var snapshots []rbd.OwnSnapshot
	var names []store.Name
	for _, i := range list {
		images = append(images, health.Image{
			Label: i.spec.Label(), Name: i.name, Rules: i.rules, ID: i.info.ID, Created: i.info.Created, Err: i.err,
		})
		snapshots, names = append(snapshots, i.own...), append(names, i.name)
	}
	if err := rbd.Judge(ctx, repo, snapshots); err != nil {
		return r, left, err
	}
	for _, s := range snapshots {
		// One that waits, or whose run was killed, the next backup deals with: where
		// that is overdue there is none.
		overdue := (s.Kind == rbd.Waiting || s.Kind == rbd.Undecided) && f.maxAge > 0 && (time.Since(s.Time) > f.maxAge || engine.Future(s.Time, time.Now()))
		if s.Kind != rbd.Stray && !overdue {
			continue
		}
		left.count++
		p.talk.detail("stray snapshot: %s", s.Spec)
		space, _, err := conn.Space(ctx, s)
		if err != nil && !errors.Is(err, rbd.ErrNoImage) {
			return r, left, err
		}
		left.space += space
	}
	if r, err = health.Look(ctx, repo, images, f.options()); err != nil {
		return r, left, err
	}
	gone, err := p.withoutImage(ctx, repo, conn.FSID(), of, &f.pickFlags, names)
	r.Items = append(r.Items, gone...)
	return r, left, err
}

// withoutImage lists the names whose newest levels are of images of the pool
// that are no more.
func (p *program) withoutImage(ctx context.Context, repo *store.Repository, cluster string, of rbd.PoolSpec, pick *pickFlags, known []store.Name) (gone []health.Item, err error) {
	chosen, err := pick.chosen()
	if err != nil {
		return nil, err
	}
	names, err := repo.Names(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if slices.Contains(known, n) {
			continue
		}
		h, err := repo.History(ctx, n)
		if err != nil {
			return nil, err
		}
		if len(h.Levels) == 0 {
			continue
		}
		l := h.Levels[len(h.Levels)-1]
		o := l.Origin.RBD
		if o == nil || o.Cluster != cluster || o.Pool != of.Pool || !of.All && o.Namespace != of.Namespace ||
			!chosen(imagePlace{o.Pool, o.Namespace, o.Image}) {
			continue
		}
		// The image may be there, and its backups have another name.
		spec := rbd.Spec{Pool: o.Pool, Namespace: o.Namespace, Image: o.Image}
		if there, err := p.connection.HasImage(ctx, spec); err != nil {
			return nil, fmt.Errorf("%s: %w", n, err)
		} else if there {
			continue
		}
		item := health.Item{
			Image: spec.String(), Name: n, State: health.Gone, Levels: len(h.Levels), Level: l.Number, Time: l.Time, Size: l.Size, Newest: &l,
		}
		if dating := engine.Date(h.Levels, time.Now()); dating.TellsAge(l.Number) {
			item.Dated = &l
		}
		gone = append(gone, item)
	}
	return gone, nil
}
