package rbd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"backy/engine"
	"backy/store"
)

// List names the images of a pool or namespace, sorted by namespace and name.
// A namespace that vanishes meanwhile, where all are asked for, is left out.
//
// Errors: ErrNoPool, ErrNoNamespace, ErrPermission, ErrTimeout.
func (c *Conn) List(ctx context.Context, p PoolSpec) ([]Spec, error) {
	namespaces := []string{p.Namespace}
	if p.All {
		others, err := inPool(ctx, c, p.in(""), "list the namespaces of pool "+p.Pool, rbd.NamespaceList)
		if err != nil {
			return nil, err
		}
		slices.Sort(others)
		namespaces = append([]string{""}, others...)
	}
	var specs []Spec
	for _, n := range namespaces {
		in := p.in(n)
		names, err := inPool(ctx, c, in, "list the images of "+in.pool(), rbd.GetImageNames)
		if p.All && n != "" && errors.Is(err, ErrNoNamespace) {
			continue
		}
		if err != nil {
			return nil, err
		}
		slices.Sort(names)
		for _, name := range names {
			in.Image = name
			specs = append(specs, in)
		}
	}
	return specs, nil
}

// HasNamespace reports whether the pool has that namespace.
func (c *Conn) HasNamespace(ctx context.Context, pool, namespace string) (bool, error) {
	what := fmt.Sprintf("look for the namespace %s in pool %s", namespace, pool)
	return inPool(ctx, c, Spec{Pool: pool}, what, func(io *rados.IOContext) (bool, error) {
		return rbd.NamespaceExists(io, namespace)
	})
}

// HasImage reports whether the pool lists such an image. One that is listed may
// be broken, so that opening it finds nothing.
func (c *Conn) HasImage(ctx context.Context, spec Spec) (bool, error) {
	specs, err := c.List(ctx, PoolSpec{Pool: spec.Pool, Namespace: spec.Namespace})
	if errors.Is(err, ErrNoNamespace) {
		return false, nil
	}
	return slices.Contains(specs, spec.at("")), err
}

// Info is what is known of an image without reading it.
type Info struct {
	ID       store.ImageID
	Size     int64             // bytes
	Created  time.Time         // zero in the old image format
	Metadata map[string]string // what `rbd image-meta` shows; keys of a prefix only

	// MetadataUnknown is why the metadata cannot be read, though the image can; ""
	// if it can.
	MetadataUnknown string
}

// Rules are what the image's metadata says of its backups.
func (i *Info) Rules() engine.Rules {
	if i.MetadataUnknown != "" {
		return engine.UnknownRules(i.MetadataUnknown)
	}
	return engine.ParseRules(i.Metadata)
}

// Look asks what an image is, and for those of its metadata whose keys begin
// with a prefix.
//
// Errors: ErrNoImage, ErrNoNamespace, ErrNoPool, ErrPermission, ErrTimeout.
func (c *Conn) Look(ctx context.Context, spec Spec, prefix string) (info Info, err error) {
	im, err := c.open(ctx, spec.at(""), "", readOnly)
	if err != nil {
		return Info{}, err
	}
	defer func() { err = errors.Join(err, im.close()) }()
	return im.info(ctx, prefix)
}
