package rbd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"backy/engine"
	"backy/engine/batch"
	"backy/store"
)

// looks is how many images are looked at a time, each by a child process.
const looks = 4

// ImagesOptions are the choices for a run over many images.
type ImagesOptions struct {
	Source     SourceOptions
	Repository store.RepositoryID // that the images are backed up to
	Lease      time.Duration      // how long a node that died keeps an image; 0: 1 minute

	Name func(Spec) (store.Name, error) // of an image in the repository
}

// Images are those of a run. It implements batch.Pool.
type Images struct {
	conn  *Cluster
	o     ImagesOptions
	specs map[string]Spec // by their labels
}

// Images makes a pool for a run over many images.
func (c *Cluster) Images(o ImagesOptions) *Images {
	if o.Lease == 0 {
		o.Lease = time.Minute
	}
	return &Images{conn: c, o: o, specs: map[string]Spec{}}
}

// Look describes images for a run: their names, sizes, and what their metadata
// says. What is wrong with one is in its Err; an image that has vanished since
// it was listed is one of those.
func (p *Images) Look(ctx context.Context, specs []Spec) ([]batch.Image, error) {
	images := make([]batch.Image, len(specs))
	for _, s := range specs {
		p.specs[s.Label()] = s
	}
	var g errgroup.Group
	g.SetLimit(looks)
	for n, s := range specs {
		g.Go(func() error {
			images[n] = p.look(ctx, s)
			return context.Cause(ctx)
		})
	}
	return images, g.Wait()
}

func (p *Images) look(ctx context.Context, s Spec) batch.Image {
	i := batch.Image{Label: s.Label()}
	name, nameErr := p.o.Name(s)
	i.Name = name
	info, err := p.conn.Look(ctx, s, engine.RulePrefix)
	if err != nil {
		i.Err = err
		return i
	}
	i.ID, i.Size, i.Rules = info.ID, info.Size, info.Rules()
	i.Err = nameErr
	return i
}

// halfRemoved tells where an image that cannot be opened is listed all the same.
func (c *Conn) halfRemoved(ctx context.Context, s Spec, err error) error {
	if !errors.Is(err, ErrNoImage) {
		return err
	}
	if there, listErr := c.HasImage(ctx, s); listErr != nil || !there {
		return err
	}
	return fmt.Errorf("%w, though it is listed there: its header object is lost, or it is half removed", err)
}

// Source implements batch.Pool.
func (p *Images) Source(i batch.Image) engine.Source {
	return p.conn.Source(p.specs[i.Label], p.o.Source)
}

// Prepare implements batch.Pool.
func (p *Images) Prepare(ctx context.Context, i batch.Image, maxAge time.Duration) error {
	return p.conn.Prepare(ctx, p.specs[i.Label], p.o.Repository, i.Name, maxAge, p.o.Source.Snapping)
}

// Prepared implements batch.Pool.
func (p *Images) Prepared(ctx context.Context, i batch.Image, maxAge time.Duration, runs map[store.RunID]bool) (bool, error) {
	_, own, err := p.conn.Inspect(ctx, p.specs[i.Label], engine.RulePrefix)
	return slices.ContainsFunc(own, func(o OwnSnapshot) bool {
		return strings.HasPrefix(o.Spec.Snap, ownPrefix(p.o.Repository, i.Name)) && !o.removing() && !o.making() && (o.Run == 0 || runs[o.Run]) &&
			time.Since(o.Time) < maxAge && !engine.Future(o.Time, time.Now())
	}), err
}

// Outlives implements batch.Pool.
func (p *Images) Outlives() time.Duration { return p.o.Lease }

// Claim implements batch.Pool.
func (p *Images) Claim(ctx context.Context, i batch.Image) (batch.Claim, error) {
	lease, err := p.conn.Lock(ctx, p.specs[i.Label], p.o.Repository, p.o.Lease)
	if errors.Is(err, ErrLocked) {
		return nil, fmt.Errorf("%w%w", err, silent{batch.ErrClaimed})
	}
	if err != nil {
		return nil, err
	}
	return lease, nil
}

// Identify implements batch.Pool.
func (p *Images) Identify(ctx context.Context, i batch.Image) (store.ImageID, error) {
	return p.conn.identify(ctx, p.specs[i.Label])
}

// Admit implements batch.Pool.
func (p *Images) Admit(ctx context.Context, i batch.Image, newest *store.Level) error {
	_, err := p.conn.admit(ctx, claimant{p.specs[i.Label], i.ID, i.Name, p.o.Source.Adopt}, newest)
	return err
}

// Exists implements batch.Pool.
func (p *Images) Exists(ctx context.Context, i batch.Image) (bool, error) {
	return p.conn.HasImage(ctx, p.specs[i.Label])
}
