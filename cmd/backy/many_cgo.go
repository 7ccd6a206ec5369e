//go:build cgo

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"backy/engine/batch"
	"backy/rbd"
	"backy/store"
)

// isMany tells whether SOURCE stands for the images of a pool or namespace. With
// two arguments rbd:POOL/X may be an image too; with one it cannot, since the
// name is missing.
func (p *program) isMany(ctx context.Context, arg string, two bool) (bool, error) {
	of, sure, ok := rbd.ParsePoolSpec(arg)
	if sure || !ok {
		return sure && ok, nil
	}
	conn, err := p.connect(ctx)
	if err != nil {
		return false, err
	}
	namespace, err := conn.HasNamespace(ctx, of.Pool, of.Namespace)
	switch {
	case two && (err != nil || !namespace):
		return false, nil // if something is wrong, it is with the image too
	case err != nil:
		return false, err
	case namespace && !two:
		return true, nil
	}
	image, err := conn.HasImage(ctx, rbd.Spec{Pool: of.Pool, Image: of.Namespace})
	switch {
	case err != nil:
		return false, err
	case image && namespace:
		return false, usagef("%s is both an image and a namespace: %s//%s is the image, %s/ the namespace",
			arg, rbdScheme+of.Pool, of.Namespace, arg)
	case !image && !namespace:
		return false, fmt.Errorf("%s: there is neither a namespace nor an image of this name", arg)
	}
	return namespace, nil // an image without a BACKUPNAME is wrong usage
}

// lookMany lists the images to be backed up and looks at each, then opens or
// makes the repository.
func (p *program) lookMany(ctx context.Context, f backupFlags, arg string, at place) (*store.Repository, batch.Pool, []batch.Image, error) {
	fail := func(err error) (*store.Repository, batch.Pool, []batch.Image, error) { return nil, nil, nil, err }
	of, _, _ := rbd.ParsePoolSpec(arg)
	chosen, err := f.many.chosen()
	if err != nil {
		return fail(err)
	}
	naming, err := f.many.naming()
	if err != nil {
		return fail(err)
	}
	source, err := p.sourceOptions(f)
	if err != nil {
		return fail(err)
	}
	conn, err := p.connect(ctx)
	if err != nil {
		return fail(err)
	}
	specs, err := conn.List(ctx, of)
	if err != nil {
		return fail(err)
	}
	placeOf := func(s rbd.Spec) imagePlace { return imagePlace{s.Pool, s.Namespace, s.Image} }
	all := len(specs)
	specs = slices.DeleteFunc(specs, func(s rbd.Spec) bool { return !chosen(placeOf(s)) })
	if len(specs) == 0 && all > 0 {
		return fail(fmt.Errorf("%s: --include and --exclude leave none of its %s", arg, count(int64(all), "image")))
	}
	if left := all - len(specs); left > 0 {
		p.talk.detail("--include and --exclude leave out %s", count(int64(left), "image"))
	}
	repo, err := p.openOrCreate(ctx, at)
	if err != nil {
		return fail(err)
	}
	pool := conn.Images(rbd.ImagesOptions{
		Source: source, Repository: repo.ID, Lease: time.Duration(f.many.lease),
		Name: func(s rbd.Spec) (store.Name, error) { return naming(placeOf(s)) },
	})
	images, err := pool.Look(ctx, specs)
	if err != nil {
		return fail(err)
	}
	return repo, pool, images, nil
}
